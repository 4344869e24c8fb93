//! The engine: databases in this process. It knows the store and nothing of SQLite's interface; of SQLite's file format
//! it knows the header of page 1 and, for prefetching, b-tree pages.
//!
//! A [`Database`] is shared by all connections of the process to one name. Readers pin a snapshot; one writer at a time
//! gathers pages in a [`TransactionBuffer`]; a commit turns the buffer into one record. What a page is at a snapshot comes
//! from the cache, else from a row of the store and the patches of the log tail.

mod background;
mod batch;
mod buffer;
mod cache;
mod checkpoint;
mod collect;
mod commit;
mod core;
mod counter;
mod database;
mod exclusive;
mod fencing;
mod fleet;
mod header;
mod lease;
mod load;
mod log;
mod manage;
#[cfg(test)]
mod meanwhile;
mod outcome;
mod prefetch;
mod read;
mod registry;
mod rows;
mod session;
mod several;
mod sharing;
mod stage;
mod structure;
mod tail;
mod transaction;
mod turn;
mod unreturned;
mod verify;
mod watch;

pub use buffer::TransactionBuffer;
pub use cache::CacheCounters;
pub use collect::CollectReport;
pub use commit::Prepared;
pub use database::{Database, Role, Snapshot, Status};
pub use fleet::{Fleet, FleetBuilder};
pub use manage::Info;
pub use several::commit_atomically;
pub use verify::{Progress, VerifyReport};
pub use watch::{Commit, Watch};
