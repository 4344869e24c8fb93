//! Ids of databases, reserved in blocks: creating one does not wait for others who create one too.

use litefleet::DatabaseId;

use super::FdbStore;
use crate::error::Outcome;
use crate::transact::{Priority, Step, Tx};

/// How many are reserved at once. Those that a process does not use are never used.
const BLOCK: u64 = 64;

impl FdbStore {
    /// An id that was never given out.
    pub(super) async fn next_id(&self) -> Outcome<DatabaseId> {
        let mut block = self.ids.lock().await;
        if let Some(id) = block.next() {
            return Ok(DatabaseId(id));
        }
        let end = self.cluster.run("reserve ids", Priority::Normal, |tx, _| self.try_reserve(tx)).await?.value;
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
