//! SQLite over the Litefleet VFS beside SQLite over its own VFS, in one process and with one SQLite: the same SQL must give
//! the same answers, errors included.
//!
//! - [`logic`]: scripts of random SQL in the format of [sqllogictest](https://www.sqlite.org/sqllogictest/), whose expected
//!   results SQLite's own VFS gives in the same run. `cargo run -p litefleet-differential -- --seeds 100` runs many.
//! - [`corpora`]: the corpora of SQLite's fuzzers, SQL and images of databases that may be corrupt, on both.

pub mod corpora;
pub mod logic;
mod place;
mod session;

pub use place::{Opener, Place, Sort};
pub use session::{Answer, Failure, Session};
