//! The store that the environment names, and the fleet over it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use litefleet::store::{MemoryStore, PageStore};
use litefleet::{Error, ErrorKind, Fleet, FleetSettings, Result};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use litefleet_postgres::{PostgresConfig, PostgresStore};

/// `memory`, `embedded:` and a folder, or the URL of a Postgres server with a schema of the test's own, or of a FoundationDB
/// cluster with a prefix of the test's own.
const STORE: &str = "LITEFLEET_SUITE_STORE";
/// Settings of all databases, as in a URI: `locking=sqlite&lease=transaction`.
const SETTINGS: &str = "LITEFLEET_SUITE_SETTINGS";
/// A folder where a process says what its test must not pass with: that it has a store of its own, that another had the store
/// when it wanted to see it, that it panicked, that something failed which the test does not see.
const MARKS: &str = "LITEFLEET_SUITE_MARKS";
const VFS: &str = "litefleet";
/// Connections of one process: a test that starts many processes must not use up the server's.
const POOL: usize = 4;
/// Test programs kill themselves in the middle of a transaction, and look at once what is left: their leases end soon.
const SHARED_SESSION: Duration = Duration::from_secs(3);
const SHARED_MARGIN: Duration = Duration::from_millis(600);

/// How long a store that was closed may take to be gone: threads that end hold it for a moment.
const CLOSING: Duration = Duration::from_secs(10);
/// And how long its lock, from then on.
const UNLOCKING: Duration = Duration::from_secs(1);
/// How long another process may have the store before that is an answer: it may be about to give it up.
const TURN: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(1);

const OWN: &str = "own";
pub(crate) const UNSEEN: &str = "unseen";
const PANICKED: &str = "panicked";
pub(crate) const FAILED: &str = "failed";

static FLEET: Mutex<Option<Fleet>> = Mutex::new(None);
/// What this process has opened last.
static OPENED: Mutex<Option<Weak<dyn PageStore>>> = Mutex::new(None);

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slot() -> MutexGuard<'static, Option<Fleet>> {
    lock(&FLEET)
}

/// Asks again and again, until there is an answer or the time is over.
#[expect(clippy::disallowed_methods, reason = "it waits for threads of this process and for nothing that is simulated")]
fn until<T>(most: Duration, mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = answer();
        if found.is_some() || start.elapsed() > most {
            return found;
        }
        std::thread::sleep(LOOK);
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// `None` where another process of the test has it, which can be had by one at a time.
fn open_embedded(folder: &str) -> Result<Option<Arc<dyn PageStore>>> {
    // The test programs are many and small: no store of theirs needs the usual memory.
    let config = EmbeddedConfig::new(folder).cache_bytes(4 << 20).memtable_bytes(4 << 20).reserve_bytes(0);
    // This process itself may have it still.
    let is_ours = lock(&OPENED).as_ref().is_some_and(|store| store.strong_count() > 0);
    let is_taken = |error: &Error| error.kind() == ErrorKind::Unavailable;
    let opened = until(if is_ours { UNLOCKING } else { TURN }, || match EmbeddedStore::open(config.clone()) {
        Err(error) if is_taken(&error) => None,
        opened => Some(opened),
    });
    match opened.unwrap_or_else(|| EmbeddedStore::open(config)) {
        Ok(store) => Ok(Some(Arc::new(store))),
        Err(error) if is_taken(&error) && marks().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_store(text: &str) -> Result<Option<Arc<dyn PageStore>>> {
    if let Some(folder) = text.strip_prefix("embedded:") {
        return open_embedded(folder);
    }
    let store: Arc<dyn PageStore> = match text {
        "memory" => {
            if !is_first()? {
                mark(OWN)?;
            }
            Arc::new(MemoryStore::default())
        }
        url if url.starts_with("postgres:") => {
            let config = PostgresConfig::from_url(url)?.pool_size(POOL);
            Arc::new(PostgresStore::connect_blocking(config)?)
        }
        #[cfg(feature = "fdb")]
        url if url.starts_with("fdb:") => {
            let config = litefleet_fdb::FdbConfig::from_url(url)?;
            Arc::new(litefleet_fdb::FdbStore::open_blocking(config)?)
        }
        _ => {
            let words = format!("{STORE}={text}: expected memory, embedded:FOLDER, postgres://… or fdb:…");
            return Err(Error::invalid(words));
        }
    };
    Ok(Some(store))
}

fn marks() -> Option<PathBuf> {
    std::env::var_os(MARKS).map(PathBuf::from)
}

/// Whether no other process of the test has opened a store. Where nobody wants to know, it is the first.
fn is_first() -> Result<bool> {
    let Some(folder) = marks() else { return Ok(true) };
    match File::create_new(folder.join("first")) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::internal(format!("{}: {error}", folder.display()))),
    }
}

/// Says of this process what its test must not pass with.
pub(crate) fn mark(what: &str) -> Result<()> {
    let Some(folder) = marks() else { return Ok(()) };
    let mark = folder.join(format!("{what}-{}", std::process::id()));
    File::create(&mark).map(drop).map_err(|error| Error::internal(format!("{}: {error}", mark.display())))
}

/// The same, where there is nobody to return an error to.
pub(crate) fn mark_or_say(what: &str) {
    if let Err(error) = mark(what) {
        eprintln!("litefleet suite: {what}: {error}");
    }
}

/// From now on each panic of this process is marked. A test may start a process whose output it throws away.
pub(crate) fn mark_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let say = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            say(panic);
            mark_or_say(PANICKED);
        }));
    });
}

/// Whether several processes can have the store open.
fn is_shared(text: &str) -> bool {
    text.starts_with("postgres:") || text.starts_with("fdb:")
}

fn open() -> Result<Option<Fleet>> {
    let store = variable(STORE);
    let mut settings = FleetSettings { worker_threads: 1, ..FleetSettings::default() };
    if is_shared(&store) {
        settings.session_lifetime = SHARED_SESSION;
        settings.session_margin = SHARED_MARGIN;
    }
    for pair in variable(SETTINGS).split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        settings.database.set(name, value)?;
    }
    let Some(store) = open_store(&store)? else { return Ok(None) };
    *lock(&OPENED) = Some(Arc::downgrade(&store));
    Fleet::builder(store).settings(settings).build().map(Some)
}

/// Opens the store where it is not open, and registers the VFS where it is new, or `again`: after `sqlite3_shutdown`.
/// Whether it was registered; `None` where another process has the store.
pub(crate) fn start(again: bool) -> Result<Option<bool>> {
    let mut slot = slot();
    let new = slot.is_none();
    if new {
        let Some(fleet) = open()? else { return Ok(None) };
        *slot = Some(fleet);
    }
    if let Some(fleet) = slot.as_ref().filter(|_| new || again) {
        fleet.register(VFS, false)?;
    }
    Ok(Some(new || again))
}

/// Closes the store.
pub(crate) fn stop() -> Result<()> {
    let Some(fleet) = slot().take() else { return Ok(()) };
    fleet.unregister(VFS)?;
    fleet.shutdown()?;
    drop(fleet);
    let is_gone = || lock(&OPENED).as_ref().is_none_or(|store| store.strong_count() == 0).then_some(());
    until(CLOSING, is_gone).ok_or_else(|| Error::internal("the store is still held by this process"))
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
