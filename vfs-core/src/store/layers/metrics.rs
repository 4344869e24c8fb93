//! Counts every call to the store: round trips, bytes, errors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::intercept::{Call, Deferred, Interceptor, Operation, Verdict};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};

/// What was counted of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Round trips.
    pub calls: u64,
    /// Those that returned an error.
    pub errors: u64,
    /// Bytes of records and rows sent.
    pub sent: u64,
    /// Bytes of records and rows received.
    pub received: u64,
}

#[derive(Debug, Default)]
struct Cell {
    calls: AtomicU64,
    errors: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// Counters of all operations since the start.
#[derive(Debug)]
pub struct StoreCounters(Vec<Cell>);

impl Default for StoreCounters {
    fn default() -> Self {
        Self(Operation::ALL.iter().map(|_| Cell::default()).collect())
    }
}

impl StoreCounters {
    /// What was counted of one operation so far.
    pub fn get(&self, operation: Operation) -> OperationCounts {
        self.0.get(operation as usize).map_or_else(OperationCounts::default, |cell| OperationCounts {
            calls: cell.calls.load(Ordering::Relaxed),
            errors: cell.errors.load(Ordering::Relaxed),
            sent: cell.sent.load(Ordering::Relaxed),
            received: cell.received.load(Ordering::Relaxed),
        })
    }

    /// Every operation that was called at least once.
    pub fn all(&self) -> BTreeMap<&'static str, OperationCounts> {
        let counted = Operation::ALL.iter().map(|operation| (operation.as_str(), self.get(*operation)));
        counted.filter(|(_, counts)| counts.calls > 0).collect()
    }

    /// Round trips of all operations.
    pub fn round_trips(&self) -> u64 {
        Operation::ALL.iter().map(|operation| self.get(*operation).calls).sum()
    }
}

/// Counts into [`StoreCounters`] and into the `metrics` recorder, when the program has one.
#[derive(Debug)]
pub struct Metered {
    clock: Arc<dyn Clock>,
    counters: StoreCounters,
}

impl Default for Metered {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

impl Metered {
    /// With the clock that calls are timed by.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, counters: StoreCounters::default() }
    }

    /// The counters.
    pub fn counters(&self) -> &StoreCounters {
        &self.counters
    }
}

impl Interceptor for Metered {
    fn before(&self, _: Call) -> Verdict {
        Verdict::Since(self.clock.monotonic())
    }

    fn after(&self, call: Call, reply: Result<u64, &Error>) {
        let operation = call.operation.as_str();
        metrics::counter!("litefleet_store_round_trips_total", "operation" => operation).increment(1);
        // A watch lasts until there is something to see.
        if let Some(start) = call.since.filter(|_| call.operation != Operation::Watch) {
            let taken = self.clock.monotonic().saturating_sub(start);
            metrics::histogram!("litefleet_store_seconds", "operation" => operation).record(taken.as_secs_f64());
        }
        metrics::counter!("litefleet_store_sent_bytes_total", "operation" => operation).increment(call.sent);
        if let Some(cell) = self.counters.0.get(call.operation as usize) {
            cell.calls.fetch_add(1, Ordering::Relaxed);
            cell.sent.fetch_add(call.sent, Ordering::Relaxed);
            match reply {
                Ok(bytes) => {
                    metrics::counter!("litefleet_store_received_bytes_total", "operation" => operation)
                        .increment(bytes);
                    cell.received.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) => {
                    count_error(call, error);
                    cell.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn refused(&self, call: Call, error: &Error) {
        count_error(call, error);
    }

    fn defer(&self, _: Deferred) {}
}

fn count_error(call: Call, error: &Error) {
    let (operation, kind) = (call.operation.as_str(), error.kind().as_str());
    metrics::counter!("litefleet_store_errors_total", "operation" => operation, "kind" => kind).increment(1);
}
