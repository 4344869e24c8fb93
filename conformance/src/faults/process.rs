//! A process, as far as the store can tell.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use litefleet::clock::Clock;
use litefleet::store::PageStore;
use litefleet::{DatabaseName, DatabaseSettings, Fleet, FleetSettings};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::runtime::{Builder, Runtime};

/// VFS names are never used again.
static PROCESSES: AtomicU64 = AtomicU64::new(0);

/// A fleet, registered under a VFS name of its own until this is dropped.
#[derive(Debug)]
pub struct Process {
    fleet: Fleet,
    vfs: String,
}

impl Process {
    /// Bounds so small that staging, checkpoints and collection run all the time, and waits that are short.
    pub fn small() -> FleetSettings {
        FleetSettings {
            database: DatabaseSettings {
                store_timeout: Duration::from_millis(12),
                checkpoint_records: 4,
                retention: Duration::ZERO,
                transaction_bytes: 64 << 10,
                ..DatabaseSettings::default()
            },
            ..FleetSettings::default()
        }
    }

    /// On the machine's clock.
    pub fn new(store: Arc<dyn PageStore>, settings: FleetSettings) -> Self {
        Self::register(Fleet::builder(store).settings(settings).build().expect("a fleet starts"))
    }

    /// On a clock of the test's.
    pub fn with_clock(store: Arc<dyn PageStore>, settings: FleetSettings, clock: Arc<dyn Clock>) -> Self {
        Self::register(Fleet::builder(store).settings(settings).clock(clock).build().expect("a fleet starts"))
    }

    /// On the threads that all such processes share: cheap, for processes whose store is never slow.
    pub fn light(store: Arc<dyn PageStore>, settings: FleetSettings) -> Self {
        let builder = Fleet::builder(store).settings(settings).runtime(shared().handle().clone());
        Self::register(builder.build().expect("a fleet starts"))
    }

    fn register(fleet: Fleet) -> Self {
        let vfs = format!("process-{}", PROCESSES.fetch_add(1, Ordering::Relaxed));
        fleet.register(&vfs, false).expect("the name is new");
        Self { fleet, vfs }
    }

    /// Its fleet.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The URI of a database of it, with parameters such as `&lease=transaction`.
    pub fn uri(&self, name: &str, parameters: &str) -> String {
        format!("file:{name}?vfs={}{parameters}", self.vfs)
    }

    /// A connection that writes, and creates the database. Does not wait for locks.
    pub fn open(&self, name: &str, parameters: &str) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        self.connect(name, parameters, flags)
    }

    /// A connection that follows.
    pub fn follow(&self, name: &str) -> Connection {
        self.connect(name, "&mode=ro", OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(&self, name: &str, parameters: &str, flags: OpenFlags) -> Connection {
        let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.uri(name, parameters), flags).expect("a database opens");
        connection.busy_timeout(Duration::ZERO).expect("no handler can be set");
        connection
    }

    /// Problems that a verification of the database finds.
    pub fn problems(&self, name: &str) -> Vec<String> {
        let name = DatabaseName::new(name).expect("a valid name");
        match self.fleet.verify(&name, &mut |_| ControlFlow::Continue(())) {
            Ok(report) => report.problems,
            Err(error) => vec![error.to_string()],
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Registered, it would keep the store.
        self.fleet.unregister(&self.vfs).expect("it is registered");
    }
}

fn shared() -> &'static Runtime {
    static SHARED: OnceLock<Runtime> = OnceLock::new();
    SHARED.get_or_init(|| Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime starts"))
}

/// Waits for a future, on any thread.
pub fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, receiver) = std::sync::mpsc::channel();
    shared().spawn(async move {
        let _gone = sender.send(future.await);
    });
    receiver.recv().expect("the task does not panic")
}

/// Lets real time pass.
pub fn pause(time: Duration) {
    block_on(async move { tokio::time::sleep(time).await });
}

/// SQLite's code for an error, if it is one of SQLite's.
pub fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => Some(error.code),
        _ => None,
    }
}
