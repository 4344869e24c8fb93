//! What a back end must supply to be tested, and how a case is run.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use litefleet::store::PageStore;

/// How long a case may take: a store that locks up fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(300);

/// Supplies stores to the cases.
///
/// The cases are written for any [`StoreLimits`](litefleet::store::StoreLimits) with `record_bytes` of 32,
/// `atomic_bytes` of 64, `atomic_databases` of 2, and 1 for everything else, or more.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A fresh store without any database or session. Called more than once by some cases.
    async fn store(&self) -> Arc<dyn PageStore>;

    /// Closes a store that [`store`](Self::store) or this method gave, as if its process had ended, and opens what it
    /// kept. The case holds no other handle to it. `None` when nothing outlives the store: then the tests are made
    /// `without reopen`.
    async fn reopen(&self, store: Arc<dyn PageStore>) -> Option<Arc<dyn PageStore>>;

    /// Moves the clock by which the stores judge sessions. False when it cannot be moved: then cases about expiry use
    /// short real lifetimes and wait, and the tests are made `without clock`, which leaves out the cases that would
    /// have to wait for hours.
    fn advance(&self, by: Duration) -> bool;
}

/// Lets time pass, by the store's clock.
pub(crate) async fn pass(harness: &dyn Harness, by: Duration) {
    if !harness.advance(by) {
        tokio::time::sleep(by).await;
    }
}

/// The lifetime of a session that a case wants to see expire.
pub(crate) fn short_lifetime(harness: &dyn Harness) -> Duration {
    if harness.advance(Duration::ZERO) { Duration::from_secs(10) } else { Duration::from_secs(2) }
}

/// Runs a case on a runtime of its own, for a bounded time.
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    runtime.block_on(async {
        assert!(
            tokio::time::timeout(PATIENCE, case).await.is_ok(),
            "the case is not done after {PATIENCE:?}: something waits for ever"
        );
    });
    runtime.shutdown_background();
}

/// Whether the harness can do what the macro call says, and cannot do what it says it lacks: a case is never ignored
/// that could run.
#[doc(hidden)]
pub async fn __check_harness(harness: impl Harness, reopen: bool, clock: bool) {
    assert_eq!(
        harness.advance(Duration::ZERO),
        clock,
        "the tests are made {} clock, and the harness says otherwise",
        if clock { "with a" } else { "without" }
    );
    let store = harness.store().await;
    assert_eq!(
        harness.reopen(store).await.is_some(),
        reopen,
        "the tests are made {} reopen, and the harness says otherwise",
        if reopen { "with" } else { "without" }
    );
}
