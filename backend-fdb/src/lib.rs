//! The FoundationDB store: databases on a cluster, without a single leader, for fleets that outgrow one server.
//!
//! [`FdbStore`] implements [`PageStore`](litefleet::store::PageStore) on FoundationDB 7.1 to 7.4, through its client
//! library `libfdb_c`, which must be installed where this crate is linked and run.
//!
//! ```no_run
//! use litefleet::DatabaseName;
//! use litefleet::store::{OpenRequest, PageStore};
//! use litefleet_fdb::{FdbConfig, FdbStore};
//!
//! # async fn example() -> litefleet::Result<()> {
//! let config = FdbConfig::new("/etc/foundationdb/fdb.cluster").prefix("fleet/");
//! let store = FdbStore::open(config).await?;
//! let opened = store
//!     .open(OpenRequest {
//!         name: DatabaseName::new("customers/acme")?,
//!         create: true,
//!         lease: None,
//!         known: None,
//!         tail_bytes: 1 << 20,
//!     })
//!     .await?;
//! # let _ = opened;
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - **A small commit is one exchange** with the cluster while this process has committed anything, or renewed its
//!   session, in the last four seconds: no read version, no read. Else it is the three of any transaction. Commits of many databases that arrive
//!   together share a transaction.
//! - **Expiry of sessions.** FoundationDB has no clock. A session has expired when its own process has not renewed it for
//!   its lifetime, or when another process that wants a lease of it has itself seen its record unchanged for so long: so
//!   the lease of a process that died is free one lifetime after somebody first asked for it, not before. `Holder::expires_in`
//!   is `None`.
//! - **The network thread** is started by the first open of a process, and stopped when the process ends. Its settings
//!   ([`NetworkConfig`]) hold for the whole process.
//! - **Polling.** The calls need a Tokio runtime with time enabled.
//!
//! The keys are described in `docs/format-fdb.md`, the reasons in `docs/decisions/0011-foundationdb-layout.md`.

mod chunk;
mod config;
mod error;
mod keys;
mod knowledge;
mod network;
mod sessions;
mod store;
mod tls;
mod transact;
mod tx;
mod values;

pub use config::{FdbConfig, NetworkConfig};
pub use store::FdbStore;
pub use transact::Written;
