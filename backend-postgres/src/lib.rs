//! The store on PostgreSQL 14 to 18.
//!
//! [`PostgresStore`] implements [`PageStore`](litefleet::store::PageStore) on tables of its own in a schema of its own
//! (`docs/decisions/0009`). What happens inside the server is written as functions of that schema, so that a call is one
//! short statement, one round trip and one transaction: a commit checks its fence, moves the head and writes the record;
//! an open takes the lease and brings head, log and warm pages.
//!
//! ```no_run
//! use litefleet_postgres::{PostgresConfig, PostgresStore};
//!
//! # async fn example() -> litefleet::Result<()> {
//! let config = PostgresConfig::from_url("postgres://app@db1,db2/app?target_session_attrs=read-write&sslmode=verify-full")?;
//! let store = PostgresStore::connect(config).await?;
//! # drop(store);
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - **Time** is the server's alone: whether a session has expired is judged by its `clock_timestamp()`.
//! - **What is durable.** What the server promises for a committed transaction: with `synchronous_commit=on` it survives
//!   the server, with a synchronous standby also the loss of it. `docs/operations.md` has a table.
//! - **Locks** (`lock_shared`, `lock_exclusive`) are not logged: a crash of the server, or a failover, ends all of them. Then a
//!   reader and a writer may be beside each other, the reader with its snapshot.
//! - **A lost answer** of a commit is [`CommitUnknown`](litefleet::ErrorKind::CommitUnknown), and is resolved by its
//!   id. Everything else can be called again, and is, once, where the connection was only stale.
//! - **Cancelling.** A call that was sent runs to its end on the server, whether somebody waits or not. No cancel request
//!   is ever sent: it could make a commit visible that a synchronous standby does not have yet. Until the server has answered,
//!   its connection is one of `pool_size`.
//! - **Threads.** Sockets and timers belong to a runtime of the store's own, and callers may wait wherever they like: whoever
//!   waits for an answer moves its bytes.

mod config;
mod connect;
mod error;
mod link;
mod pool;
mod schema;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod socket;
mod statements;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod unanswered;
mod wire;

pub use config::{PostgresConfig, Prepared, Verify};
pub use store::PostgresStore;
