//! Where databases of ours are: a store that can be closed and opened again, and the fleet over it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use litefleet::clock::SystemClock;
use litefleet::store::{MemoryStore, PageStore, StoreLimits};
use litefleet::{Fleet, FleetSettings, Result};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};

/// Opens the store, also again after it was closed.
pub type Opener = Box<dyn FnMut() -> Result<Arc<dyn PageStore>> + Send>;

/// Small limits, so that many calls are cut in pieces; not the smallest, with which scripts would take minutes.
const SMALL: StoreLimits = StoreLimits {
    read_pages: 16,
    record_bytes: 96 << 10,
    atomic_databases: 4,
    atomic_bytes: 256 << 10,
    write_rows: 24,
    collect_pages: 64,
    log_bytes: 64 << 10,
};

/// The kinds of stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sort {
    /// In memory.
    Memory,
    /// In this folder.
    Embedded(PathBuf),
    /// At this URL, in a schema that the URL names.
    #[cfg(feature = "servers")]
    Postgres(String),
}

impl Sort {
    /// How it is opened. With `small` limits where the store has a choice.
    pub fn opener(self, small: bool) -> Opener {
        match self {
            Self::Memory => {
                let clock = Arc::new(SystemClock::default());
                let store = if small { MemoryStore::with_limits(clock, SMALL) } else { MemoryStore::new(clock) };
                let store: Arc<dyn PageStore> = Arc::new(store);
                Box::new(move || Ok(Arc::clone(&store)))
            }
            Self::Embedded(folder) => Box::new(move || {
                let config = EmbeddedConfig::new(&folder).cache_bytes(4 << 20).reserve_bytes(0);
                let config = if small { config.limits(SMALL).memtable_bytes(64 << 10) } else { config };
                Ok(Arc::new(EmbeddedStore::open(config)?))
            }),
            #[cfg(feature = "servers")]
            Self::Postgres(url) => Box::new(move || {
                let config = litefleet_postgres::PostgresConfig::from_url(&url)?;
                Ok(Arc::new(litefleet_postgres::PostgresStore::connect_blocking(config)?))
            }),
        }
    }
}

/// A fleet over a store, as a VFS of its own name.
pub struct Place {
    opener: Opener,
    settings: FleetSettings,
    vfs: String,
    fleet: Option<Fleet>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("vfs", &self.vfs).finish_non_exhaustive()
    }
}

impl Place {
    /// Opens the store, and registers the fleet over it.
    pub fn open(opener: Opener, settings: FleetSettings) -> Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let vfs = format!("differential-{}", LAST.fetch_add(1, Ordering::Relaxed));
        let mut place = Self { opener, settings, vfs, fleet: None };
        place.start()?;
        Ok(place)
    }

    /// Settings with which the hard paths run: a cache of a few pages, checkpoints and collections all the time, and
    /// transactions that are staged early.
    pub fn small() -> FleetSettings {
        let mut settings = FleetSettings { cache_bytes: 192 << 10, ..FleetSettings::default() };
        settings.database.transaction_bytes = 64 << 10;
        settings.database.checkpoint_records = 12;
        settings.database.checkpoint_pages = 48;
        settings.database.checkpoint_idle = Duration::from_millis(50);
        settings.database.retention = Duration::ZERO;
        settings
    }

    fn start(&mut self) -> Result<()> {
        let fleet = Fleet::builder((self.opener)()?).settings(self.settings.clone()).build()?;
        fleet.register(&self.vfs, false)?;
        self.fleet = Some(fleet);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(fleet) = self.fleet.take() else { return Ok(()) };
        fleet.unregister(&self.vfs)?;
        fleet.shutdown()
    }

    /// Closes the store and opens it again. No database may be open.
    pub fn reopen(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// The fleet, while the store is open.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// The URI of a database.
    pub fn uri(&self, name: &str) -> String {
        format!("file:{name}?vfs={}", self.vfs)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Registered, it would keep the store; a test that has failed has said why.
        let _stopped = self.stop();
    }
}
