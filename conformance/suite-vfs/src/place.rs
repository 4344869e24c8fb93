//! The store that the environment names, and the fleet over it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefleet::store::{MemoryStore, PageStore};
use litefleet::{Error, ErrorKind, Fleet, FleetSettings, Result};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use litefleet_postgres::{PostgresConfig, PostgresStore};

/// `memory`, `embedded:` and a folder, or the URL of a Postgres server.
const STORE: &str = "LITEFLEET_SUITE_STORE";
/// Settings of all databases, as in a URI: `locking=sqlite&lease=transaction`.
const SETTINGS: &str = "LITEFLEET_SUITE_SETTINGS";
const VFS: &str = "litefleet";

static FLEET: Mutex<Option<Fleet>> = Mutex::new(None);

fn slot() -> MutexGuard<'static, Option<Fleet>> {
    FLEET.lock().unwrap_or_else(PoisonError::into_inner)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn open_store(text: &str) -> Result<Arc<dyn PageStore>> {
    if let Some(folder) = text.strip_prefix("embedded:") {
        // The test programs are many and small: no store of theirs needs the usual memory.
        let config = EmbeddedConfig::new(folder).cache_bytes(4 << 20).memtable_bytes(4 << 20).reserve_bytes(0);
        return match EmbeddedStore::open(config) {
            Ok(store) => Ok(Arc::new(store)),
            // An embedded store has one process. The others see an empty store of their own, so that a test that needs
            // several goes on, and fails only where they should see each other.
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Arc::new(MemoryStore::default())),
            Err(error) => Err(error),
        };
    }
    if text.starts_with("postgres://") {
        let config = PostgresConfig::from_url(text)?.pool_size(2);
        return Ok(Arc::new(PostgresStore::connect_blocking(config)?));
    }
    match text {
        "memory" => Ok(Arc::new(MemoryStore::default())),
        _ => Err(Error::invalid(format!("{STORE}={text}: expected memory, embedded:FOLDER or postgres://…"))),
    }
}

fn open() -> Result<Fleet> {
    let mut settings = FleetSettings { worker_threads: 1, ..FleetSettings::default() };
    let store = variable(STORE);
    if store.starts_with("postgres:") {
        // A process that was killed must not keep others waiting for long.
        settings.session_lifetime = Duration::from_secs(4);
        settings.session_margin = Duration::from_secs(1);
    }
    for pair in variable(SETTINGS).split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        settings.database.set(name, value)?;
    }
    Fleet::builder(open_store(&store)?).settings(settings).build()
}

/// Opens the store where it is not open, and registers the VFS where it is new, or `again`: after `sqlite3_shutdown`.
/// Whether it was registered.
pub(crate) fn start(again: bool) -> Result<bool> {
    let mut slot = slot();
    let new = slot.is_none();
    if new {
        *slot = Some(open()?);
    }
    if let Some(fleet) = slot.as_ref().filter(|_| new || again) {
        fleet.register(VFS, false)?;
    }
    Ok(new || again)
}

/// Closes the store.
pub(crate) fn stop() -> Result<()> {
    let Some(fleet) = slot().take() else { return Ok(()) };
    fleet.unregister(VFS)?;
    fleet.shutdown()
}

/// The process ends, with databases open or not: its leases are free at once, as its locks of files would be.
pub(crate) fn leave() -> Result<()> {
    let Some(fleet) = slot().take() else { return Ok(()) };
    // What this thread had of its own is gone already.
    let left = std::thread::spawn(move || fleet.shutdown());
    left.join().unwrap_or_else(|_| Err(Error::internal("the thread that gives leases back panicked")))
}

/// The fleet. `Unavailable` where its store is not open.
pub(crate) fn fleet() -> Result<Fleet> {
    slot().clone().ok_or_else(|| Error::unavailable("the store is not open"))
}
