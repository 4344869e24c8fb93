//! Random SQL in the format of sqllogictest. A script is made statement by statement on SQLite's own VFS, whose answers are
//! the expected ones; then the runner of the `sqllogictest` crate takes it through ours.
//!
//! What SQLite itself is asked to be depends on the locking under test: with `locking=sqlite` its rollback journal, with
//! `locking=snapshot` its write-ahead log, in which readers and the writer do not block each other either. So connections
//! can interleave their transactions, and `SQLITE_BUSY` and `SQLITE_BUSY_SNAPSHOT` must come at the same statements.

mod expressions;
mod generator;
mod queries;
mod run;
mod script;
mod statements;

pub use run::{Case, Problem, Tally, run};
pub use script::{Part, Script};
