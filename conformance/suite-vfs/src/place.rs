//! The store that the environment names, and the fleet over it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use litefleet::store::{MemoryStore, PageStore};
use litefleet::{Error, Fleet, FleetSettings, Result};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};

/// `memory`, or `embedded:` and a folder.
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
        return Ok(Arc::new(EmbeddedStore::open(config)?));
    }
    match text {
        "memory" => Ok(Arc::new(MemoryStore::default())),
        _ => Err(Error::invalid(format!("{STORE}={text}: expected memory or embedded:FOLDER"))),
    }
}

fn open() -> Result<Fleet> {
    let mut settings = FleetSettings { worker_threads: 1, ..FleetSettings::default() };
    for pair in variable(SETTINGS).split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        settings.database.set(name, value)?;
    }
    Fleet::builder(open_store(&variable(STORE))?).settings(settings).build()
}

/// Opens the store where it is not open, and registers the VFS, anew after `sqlite3_shutdown`.
pub(crate) fn start() -> Result<()> {
    let mut slot = slot();
    if slot.is_none() {
        *slot = Some(open()?);
    }
    slot.as_ref().map_or(Ok(()), |fleet| fleet.register(VFS, false))
}

/// Closes the store.
pub(crate) fn stop() -> Result<()> {
    let Some(fleet) = slot().take() else { return Ok(()) };
    fleet.unregister(VFS)?;
    fleet.shutdown()
}

/// The fleet, opened when it was not.
pub(crate) fn fleet() -> Result<Fleet> {
    if slot().is_none() {
        start()?;
    }
    slot().clone().ok_or_else(|| Error::internal("there is no fleet after the start"))
}
