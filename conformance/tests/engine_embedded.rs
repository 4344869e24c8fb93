//! The engine cases over the embedded store.

#![allow(clippy::unwrap_used, reason = "a test that cannot open its store has failed")]

use std::sync::Arc;

use litefleet::FleetSettings;
use litefleet::store::{PageStore, StoreLimits};
use litefleet_conformance::engine_cases::EngineHarness;
use litefleet_conformance::engine_tests;
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use tempfile::TempDir;

/// The smallest that the engine works with, so that the hard paths run.
const TINY: StoreLimits = StoreLimits {
    read_pages: 3,
    record_bytes: 96 << 10,
    atomic_databases: 4,
    atomic_bytes: 256 << 10,
    write_rows: 3,
    collect_pages: 4,
    log_bytes: 4096,
};

#[derive(Debug)]
struct Embedded {
    folder: TempDir,
    tiny: bool,
}

impl Embedded {
    fn new(tiny: bool) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), tiny }
    }
}

impl EngineHarness for Embedded {
    fn store(&self) -> Arc<dyn PageStore> {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let config = EmbeddedConfig::new(folder);
        let config = if self.tiny { config.limits(TINY).memtable_bytes(64 << 10) } else { config };
        Arc::new(EmbeddedStore::open(config).unwrap())
    }

    fn settings(&self) -> FleetSettings {
        let mut settings = FleetSettings::default();
        if self.tiny {
            settings.cache_bytes = 128 << 10;
            settings.database.transaction_bytes = 64 << 10;
            settings.database.checkpoint_records = 5;
            settings.database.checkpoint_pages = 8;
            settings.database.retention = std::time::Duration::ZERO;
        }
        settings
    }
}

engine_tests!(embedded, Embedded::new(false));
engine_tests!(embedded_tiny, Embedded::new(true));
