//! The embedded store: databases in one directory on one machine, without a server.
//!
//! [`EmbeddedStore`] implements [`PageStore`](litefleet::store::PageStore) on `fjall`, a log-structured merge tree
//! behind one journal (`docs/decisions/0002`). A commit is durable when it returns: one write of the journal and one
//! `fdatasync` for the whole batch.
//!
//! ```
//! use litefleet::DatabaseName;
//! use litefleet::store::{OpenRequest, PageStore};
//! use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
//!
//! # fn main() -> litefleet::Result<()> {
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! let store = EmbeddedStore::open(EmbeddedConfig::new(directory.path().join("store")))?;
//! let opened = tokio::runtime::Runtime::new().expect("a runtime").block_on(store.open(OpenRequest {
//!     name: DatabaseName::new("customers/acme")?,
//!     create: true,
//!     lease: None,
//!     known: None,
//!     tail_bytes: 1 << 20,
//! }))?;
//! assert!(opened.created);
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - **One process.** The directory is locked while a store is open; a second open fails at once and names the process
//!   that has it. Sessions therefore end with the process: whoever opens the directory next may take every lease.
//! - **Calls block.** Reads and writes run inside the call, fsync included, and no await point lies in between: poll
//!   them on threads that may wait.
//! - **What is durable.** A commit, a rename and a deletion when they return. Grants of leases, new empty databases,
//!   staged rows, checkpoints and collections become durable with the next of those, in order: after a power failure
//!   a prefix of everything that was done is there, which ends at or after the last acknowledged commit.
//! - **A full disk** gives [`Full`](litefleet::ErrorKind::Full) before anything is written, as long as nothing but this
//!   store eats into [`EmbeddedConfig::reserve_bytes`]; reading goes on, and writing too once there is room.
//!
//! The files are described in `docs/format-embedded.md`.

mod config;
mod directory;
mod engine;
mod error;
mod journal;
mod keys;
mod recovery;
mod release;
mod seal;
mod sessions;
mod store;
mod values;
mod versions;
mod view;

pub use config::EmbeddedConfig;
pub use store::EmbeddedStore;
