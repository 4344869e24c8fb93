//! Ids of databases, reserved in blocks: creating one does not wait for others who create one too.

use std::time::Duration;

use litefleet::DatabaseId;

use super::FdbStore;
use crate::error::Outcome;
use crate::transact::{Cluster, Priority, Step, Tx};

/// How many are reserved at once. Those that a process does not use are never used.
const BLOCK: u64 = 64;

impl FdbStore {
    /// An id that was never given out, for a call that is tried until then: also while it waits for another that reserves
    /// some.
    pub(super) async fn next_id(&self, deadline: Duration) -> Outcome<DatabaseId> {
        let left = deadline.saturating_sub(self.cluster.now());
        let block = tokio::time::timeout(left, self.ids.lock()).await;
        let mut block = block.map_err(|_| litefleet::Error::unavailable("ids for new databases cannot be reserved"))?;
        if let Some(id) = block.next() {
            return Ok(DatabaseId(id));
        }
        let attempts = self.cluster.attempts_until("reserve ids", Priority::Normal, deadline);
        let end = Cluster::run_with(attempts, |tx, _| self.try_reserve(tx)).await?.value;
        *block = end - BLOCK + 1..end + 1;
        block.next().map(DatabaseId).ok_or_else(|| litefleet::Error::internal("a block without an id").into())
    }

    async fn try_reserve(&self, tx: Tx) -> Outcome<Step<u64>> {
        let key = self.keys.counter();
        let end = tx.get::<u64>(&key).await?.unwrap_or(0) + BLOCK;
        tx.put(&key, &end)?;
        Ok(Step::Commit(end))
    }
}
