//! The embedded store: with its usual limits, with tiny ones, and with memory tables so small that the cases run over
//! files, flushes and compactions too.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use litefleet::clock::ManualClock;
use litefleet::store::{PageStore, StoreLimits};
use litefleet_conformance::{Harness, Layered, Wrapping, store_tests};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use tempfile::TempDir;

/// The smallest limits that the cases are written for, or nearly: each a little odd, so that nothing divides evenly.
const TINY: StoreLimits = StoreLimits {
    read_pages: 3,
    record_bytes: 37,
    atomic_databases: 3,
    atomic_bytes: 101,
    write_rows: 2,
    collect_pages: 2,
    log_bytes: 50,
};

#[derive(Debug, Default)]
struct Embedded {
    clock: Arc<ManualClock>,
    limits: Option<StoreLimits>,
    memtable_bytes: Option<u64>,
    /// The directories of the stores, by the stores' addresses; removed with the harness.
    directories: Mutex<HashMap<usize, TempDir>>,
}

impl Embedded {
    fn tiny() -> Self {
        Self { limits: Some(TINY), ..Self::default() }
    }

    fn on_files() -> Self {
        Self { memtable_bytes: Some(1 << 16), ..Self::default() }
    }

    fn open(&self, path: &Path) -> EmbeddedStore {
        let mut config = EmbeddedConfig::new(path).clock(self.clock.clone());
        if let Some(limits) = self.limits {
            config = config.limits(limits);
        }
        if let Some(bytes) = self.memtable_bytes {
            config = config.memtable_bytes(bytes);
        }
        EmbeddedStore::open(config).expect("the store opens")
    }

    fn give(&self, directory: TempDir) -> Arc<dyn PageStore> {
        let store: Arc<dyn PageStore> = Arc::new(self.open(directory.path()));
        self.directories.lock().expect("no test panics with it").insert(address(&store), directory);
        store
    }
}

fn address(store: &Arc<dyn PageStore>) -> usize {
    Arc::as_ptr(store).cast::<()>().addr()
}

#[async_trait]
impl Harness for Embedded {
    async fn store(&self) -> Arc<dyn PageStore> {
        self.give(tempfile::tempdir().expect("a temporary directory"))
    }

    async fn reopen(&self, store: Arc<dyn PageStore>) -> Option<Arc<dyn PageStore>> {
        assert_eq!(Arc::strong_count(&store), 1, "another handle is still open");
        let directory = self.directories.lock().expect("no test panics with it").remove(&address(&store));
        drop(store);
        Some(self.give(directory.expect("a store of this harness")))
    }

    fn advance(&self, by: Duration) -> bool {
        self.clock.advance(by);
        true
    }
}

store_tests!(embedded, Embedded::default());
store_tests!(embedded_tiny, Embedded::tiny());
store_tests!(embedded_on_files, Embedded::on_files());
store_tests!(embedded_stacked, Layered::new(Embedded::default(), Wrapping::Stacked));
