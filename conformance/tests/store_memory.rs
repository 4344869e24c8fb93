//! The memory store, alone and behind every layer, with its usual limits and with tiny ones.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use litefleet::clock::ManualClock;
use litefleet::store::{MemoryStore, PageStore, StoreLimits};
use litefleet_conformance::{Harness, Layered, Wrapping, store_tests};

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
struct Memory {
    clock: Arc<ManualClock>,
    limits: Option<StoreLimits>,
    /// Whether reopening hands out the same store again. That proves nothing about durability, but it proves the cases
    /// about it, and that they keep no handle to a store that is closed.
    kept: bool,
}

impl Memory {
    fn kept() -> Self {
        Self { kept: true, ..Self::default() }
    }

    fn tiny() -> Self {
        Self { limits: Some(TINY), ..Self::default() }
    }
}

#[async_trait]
impl Harness for Memory {
    async fn store(&self) -> Arc<dyn PageStore> {
        let clock = Arc::clone(&self.clock);
        match self.limits {
            Some(limits) => Arc::new(MemoryStore::with_limits(clock, limits)),
            None => Arc::new(MemoryStore::new(clock)),
        }
    }

    async fn reopen(&self, store: Arc<dyn PageStore>) -> Option<Arc<dyn PageStore>> {
        assert_eq!(Arc::strong_count(&store), 1, "another handle is still open");
        self.kept.then_some(store)
    }

    fn advance(&self, by: Duration) -> bool {
        self.clock.advance(by);
        true
    }
}

/// The memory store by the machine's own clock: the way a store is tested whose clock cannot be moved.
#[derive(Debug)]
struct RealTime;

#[async_trait]
impl Harness for RealTime {
    async fn store(&self) -> Arc<dyn PageStore> {
        Arc::new(MemoryStore::default())
    }

    async fn reopen(&self, _: Arc<dyn PageStore>) -> Option<Arc<dyn PageStore>> {
        None
    }

    fn advance(&self, _: Duration) -> bool {
        false
    }
}

fn layered(wrapping: Wrapping) -> Layered<Memory> {
    Layered::new(Memory::default(), wrapping)
}

store_tests!(memory, Memory::default(), without reopen);
store_tests!(memory_tiny, Memory::tiny(), without reopen);
store_tests!(memory_real_time, RealTime, without reopen, clock);
store_tests!(memory_metrics, layered(Wrapping::Metrics), without reopen);
store_tests!(memory_latency, layered(Wrapping::Latency), without reopen);
store_tests!(memory_faults, layered(Wrapping::Faults), without reopen);
store_tests!(memory_stacked, Layered::new(Memory::kept(), Wrapping::Stacked));
store_tests!(memory_stacked_tiny, Layered::new(Memory::tiny(), Wrapping::Stacked), without reopen);
