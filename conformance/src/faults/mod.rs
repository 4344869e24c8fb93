//! What becomes of databases when the store fails under them: SQLite on the VFS over a store whose calls are spoiled.
//!
//! A [`Process`] is a fleet under a VFS name of its own, so that one test program looks to the store like several. A
//! [`Workload`] writes transactions through SQLite and keeps a [`Ledger`] of what was acknowledged. [`Watch`] stands
//! between the fleet and the store: it looks through a follower's eyes after every call, and sets a fault off at a chosen
//! one. [`examine`] then compares what is there with the ledger.

mod damage;
mod examine;
mod process;
mod sweep;
mod watch;
mod workload;

pub use damage::replace_rows;
pub use examine::{Seen, examine, look};
pub use process::{Process, block_on, code, pause};
pub use sweep::{Case, Spoil, cases, measure, run_case, run_case_over};
pub use watch::Watch;
pub use workload::{Ledger, Workload};
