//! The cluster, and fleets on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use litefleet::clock::{Clock, SystemClock};
use litefleet::{Fleet, FleetSettings};
use litefleet_fdb::{FdbConfig, FdbStore, Written};
use litefleet_fdb_stand_in_control::{StandIn, real_cluster};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// Time since it was started.
pub(crate) struct Timer(SystemClock);

impl Timer {
    pub(crate) fn start() -> Self {
        Self(SystemClock::default())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.monotonic()
    }
}

/// A cluster, and the prefix of this run.
pub(crate) struct Rig {
    pub(crate) cluster_file: PathBuf,
    pub(crate) prefix: Vec<u8>,
    /// By how much everything is smaller: on the stand-in it is only tried out, and requests counted.
    pub(crate) scale: u32,
    /// The stand-in lives as long as its file does.
    _directory: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let prefix = format!("litefleet-bench/{}/", std::process::id()).into_bytes();
        if let Some(cluster_file) = real_cluster() {
            return Self { cluster_file, prefix, scale: 1, _directory: directory };
        }
        let stand_in = StandIn::create(directory.path(), "bench").expect("a cluster file");
        let cluster_file = stand_in.cluster_file().into();
        Self { cluster_file, prefix, scale: 20, _directory: directory }
    }

    /// A fleet as in a process of its own: nothing in its caches.
    pub(crate) fn fleet(&self) -> Process {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let config = FdbConfig::new(&self.cluster_file).prefix(self.prefix.clone());
        let store = FdbStore::open_blocking(config).expect("the store opens");
        let store = Arc::new(store);
        let as_store = Arc::clone(&store);
        let fleet = Fleet::builder(as_store).settings(FleetSettings::default()).build().expect("a fleet");
        let vfs = format!("bench{}", COUNT.fetch_add(1, Ordering::Relaxed));
        fleet.register(&vfs, false).expect("registered");
        Process { fleet, store, vfs }
    }
}

/// A process with the store open.
pub(crate) struct Process {
    fleet: Fleet,
    store: Arc<FdbStore>,
    vfs: String,
}

impl Process {
    /// What it has written.
    pub(crate) fn written(&self) -> Written {
        self.store.written()
    }

    /// What the store does by itself.
    pub(crate) fn block_on<T>(&self, work: impl AsyncFnOnce(&FdbStore) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work(&self.store))
    }

    pub(crate) fn open(&self, name: &str) -> Connection {
        let uri = format!("file:{name}?vfs={}&busy=30000", self.vfs);
        Connection::open_with_flags(uri, OpenFlags::default()).expect("it opens")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.fleet.shutdown() {
            println!("the fleet did not shut down: {error}");
        }
    }
}

/// A table with this many rows of this many bytes that do not compress.
pub(crate) fn fill(connection: &Connection, rows: u32, bytes: u32) {
    connection
        .execute_batch(
            "CREATE TABLE t(k INTEGER PRIMARY KEY, n INTEGER NOT NULL, n2 INTEGER NOT NULL, v BLOB NOT NULL);
             CREATE INDEX i ON t(n2);",
        )
        .expect("made");
    let batch = 10_000;
    for first in (1..=rows).step_by(batch) {
        let last = rows.min(first + u32::try_from(batch).expect("small") - 1);
        let insert = "INSERT INTO t WITH RECURSIVE c(k) AS (VALUES(?1) UNION ALL SELECT k + 1 FROM c WHERE k < ?2)
                      SELECT k, 0, k, randomblob(?3) FROM c";
        connection.execute(insert, (first, last, bytes)).expect("filled");
    }
}
