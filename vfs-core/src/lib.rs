//! One SQLite database for every agent, tenant, user or document: millions of them, in one store.
//!
//! SQLite runs inside your process. A VFS keeps each database in a [`PageStore`](store::PageStore): in memory (here), in
//! a directory (`litefleet-embedded`), or in another back end. A database costs nothing while nobody uses it, opens in one
//! round trip, commits in one round trip, and is written by one process at a time, which the store enforces on every
//! write.
//!
//! ```
//! use std::sync::Arc;
//!
//! use litefleet::{Fleet, store::MemoryStore};
//! use rusqlite::{Connection, OpenFlags};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build()?;
//! fleet.register("litefleet", false)?;
//!
//! let db = Connection::open_with_flags("file:tenant-42?vfs=litefleet", OpenFlags::default())?;
//! db.execute_batch("CREATE TABLE note(text); INSERT INTO note VALUES ('hello')")?;
//! let text: String = db.query_row("SELECT text FROM note", [], |row| row.get(0))?;
//! assert_eq!(text, "hello");
//!
//! drop(db);
//! fleet.shutdown()?;
//! # Ok(())
//! # }
//! ```
//!
//! Any SQLite connection of the process can open `file:NAME?vfs=litefleet`, from whatever library, as long as it uses the
//! same SQLite library as this crate (`libsqlite3-sys`). Parameters of the URI are the settings of
//! [`DatabaseSettings`]; `mode=ro` opens a follower, which takes no lease.

mod bridge;
pub mod clock;
pub mod codec;
mod config;
pub mod engine;
mod error;
mod ffi;
pub mod store;
mod types;
pub mod vfs;

pub use config::{DatabaseSettings, FleetSettings, LeaseMode, Locking};
pub use engine::{CollectReport, Commit, Fleet, FleetBuilder, Info, Progress, Role, VerifyReport, Watch};
pub use error::{Context, Error, ErrorKind, Result};
pub use types::{
    CommitId, CommitLink, DatabaseId, DatabaseName, Epoch, MAX_NAME_BYTES, PAGE_SIZE, PageNo, PageRange, PageSet,
    SessionId, Txid, UnixMillis, pages_for_size,
};
