//! The two sides behind one face: databases by name, and connections to them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use litefleet::clock::SystemClock;
use litefleet::store::{MemoryStore, PageStore};
use litefleet::{Fleet, FleetSettings};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rusqlite::Connection;

use crate::child::{Side, Task};
use crate::sample::Sample;

/// The name that the VFS is registered under.
pub(crate) const VFS: &str = "litefleet";

/// Where Litefleet keeps its databases.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Store {
    Memory,
    Embedded,
}

/// How stock SQLite is set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stock {
    /// As it comes: a rollback journal, `synchronous=FULL`.
    Default,
    /// `journal_mode=WAL`, `synchronous=FULL`: durable, and the faster of its durable modes.
    Wal,
}

/// One side, open.
#[derive(Debug)]
pub(crate) enum Engine {
    Litefleet(Fleet),
    Stock { directory: PathBuf, mode: Stock },
}

impl Engine {
    /// Opens a task's side in its folder.
    pub(crate) fn open(task: &Task, store: Store, mode: Stock, settings: FleetSettings) -> Result<Self> {
        let directory = task.directory.clone();
        fs::create_dir_all(&directory)?;
        match task.side {
            Side::Stock => Ok(Self::Stock { directory, mode }),
            Side::Litefleet => {
                let store: Arc<dyn PageStore> = match store {
                    Store::Memory => Arc::new(MemoryStore::new(Arc::new(SystemClock::default()))),
                    Store::Embedded => Arc::new(EmbeddedStore::open(EmbeddedConfig::new(directory.join("store")))?),
                };
                let fleet = Fleet::builder(store).settings(settings).build()?;
                fleet.register(VFS, false)?;
                Ok(Self::Litefleet(fleet))
            }
        }
    }

    /// A connection to the database of this name, which is made where there is none.
    pub(crate) fn connect(&self, name: &str) -> Result<Connection> {
        match self {
            Self::Litefleet(_) => Ok(Connection::open(format!("file:{name}?vfs={VFS}"))?),
            Self::Stock { directory, mode } => {
                let connection = Connection::open(directory.join(format!("{name}.db")))?;
                connection.pragma_update(None, "synchronous", "FULL")?;
                if matches!(mode, Stock::Wal) {
                    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
                }
                Ok(connection)
            }
        }
    }

    /// What the store was asked for so far; zeros on the stock side.
    pub(crate) fn traffic(&self) -> Traffic {
        let Self::Litefleet(fleet) = self else { return Traffic::default() };
        let mut traffic = Traffic { round_trips: fleet.counters().round_trips(), ..Traffic::default() };
        for counts in fleet.counters().all().into_values() {
            traffic.sent += counts.sent;
            traffic.received += counts.received;
        }
        traffic
    }

    /// Ends the session, if there is one.
    pub(crate) fn close(self) -> Result<()> {
        if let Self::Litefleet(fleet) = self {
            fleet.shutdown()?;
            fleet.unregister(VFS)?;
        }
        Ok(())
    }
}

/// Round trips and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) round_trips: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Traffic {
    /// What was added since an earlier count.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            round_trips: self.round_trips - before.round_trips,
            sent: self.sent - before.sent,
            received: self.received - before.received,
        }
    }

    /// Puts it into a sample, per operation.
    pub(crate) fn note(self, operations: f64, sample: &mut Sample) {
        for (name, count) in [("round_trips", self.round_trips), ("sent", self.sent), ("received", self.received)] {
            sample.insert(format!("{name}_each"), count as f64 / operations);
        }
    }
}
