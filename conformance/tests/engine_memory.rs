//! The engine cases over the memory store.

use std::sync::Arc;

use litefleet::clock::SystemClock;
use litefleet::store::{MemoryStore, PageStore, StoreLimits};
use litefleet::{FleetSettings, LeaseMode};
use litefleet_conformance::engine_cases::EngineHarness;
use litefleet_conformance::engine_tests;

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
struct Memory {
    tiny: bool,
    lease: LeaseMode,
}

impl EngineHarness for Memory {
    fn store(&self) -> Arc<dyn PageStore> {
        if self.tiny {
            Arc::new(MemoryStore::with_limits(Arc::new(SystemClock::default()), TINY))
        } else {
            Arc::new(MemoryStore::default())
        }
    }

    fn settings(&self) -> FleetSettings {
        let mut settings = FleetSettings::default();
        settings.database.lease = self.lease;
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

engine_tests!(memory, Memory { tiny: false, lease: LeaseMode::Exclusive });
engine_tests!(memory_tiny, Memory { tiny: true, lease: LeaseMode::Exclusive });
engine_tests!(memory_shared, Memory { tiny: false, lease: LeaseMode::Transaction });
