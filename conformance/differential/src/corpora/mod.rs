//! The corpora of SQLite's fuzzers (`fuzzdata*.db` of its source tree): SQL, and images of databases that may be corrupt.
//!
//! SQLite's `fuzzcheck` runs them in memory and looks for crashes. Here each one runs on a database of ours and on a file,
//! with the same limits, and everything must be the same: each answer, each error, what a new connection then finds, and
//! the bytes of the file. A database that has nothing to do with it stays as it is.

mod input;
mod limits;
mod run;

pub use input::{Input, inputs};
pub use run::{Difference, Tally, run};
