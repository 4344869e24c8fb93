//! Ids of databases, reserved in blocks: creating one does not wait for others who create one too.

use std::time::Duration;

use futures_util::future::try_join;
use litefleet::{DatabaseId, Error};

use super::FdbStore;
use crate::error::Outcome;
use crate::keys::after_key;
use crate::transact::{Cluster, Priority, Step, Tx, only};

/// How many are reserved at once. Those that a process does not use are never used.
const BLOCK: u64 = 64;

impl FdbStore {
    /// An id that was never given out, for a call that is tried until then: also while it waits for another that reserves
    /// some.
    pub(super) async fn next_id(&self, deadline: Duration) -> Outcome<DatabaseId> {
        let left = deadline.saturating_sub(self.cluster.now());
        let block = tokio::time::timeout(left, self.ids.lock()).await;
        let mut block = block.map_err(|_| Error::unavailable("ids for new databases cannot be reserved"))?;
        if let Some(id) = block.next() {
            return Ok(DatabaseId(id));
        }
        let attempts = self.cluster.attempts_until("reserve ids", Priority::Normal, deadline);
        let end = Cluster::run_with(attempts, |tx, _| self.try_reserve(tx)).await?.value;
        *block = end - BLOCK + 1..end + 1;
        block.next().map(DatabaseId).ok_or_else(|| Error::internal("a block without an id").into())
    }

    /// The id that [`next_id`](Self::next_id) would give now, where one is reserved.
    pub(super) fn likely_id(&self) -> Option<DatabaseId> {
        let block = self.ids.try_lock().ok()?;
        (!block.is_empty()).then_some(DatabaseId(block.start))
    }

    /// Whether there is nothing under an id, nor a mark that there was. Without a conflict.
    pub(super) async fn is_unused(&self, tx: &Tx, id: DatabaseId) -> Outcome<bool> {
        let (database, deleted) = (self.keys.all_of(id), self.keys.deleted(id));
        let (database, deleted) = try_join(tx.peek_range(&database, 1), tx.peek_bytes(&deleted)).await?;
        Ok(database.pairs().is_empty() && deleted.is_none())
    }

    /// Conflicts with whoever else uses an id.
    pub(super) fn rely_on_being_unused(&self, tx: &Tx, id: DatabaseId) -> Outcome<()> {
        tx.conflict_with_writers(&self.keys.all_of(id))?;
        tx.conflict_with_writers(&only(self.keys.deleted(id)))
    }

    /// Gives up the ids that are reserved: the store was restored to how it was before, and others have them too.
    pub(super) fn give_up_ids(&self, used: DatabaseId) {
        tracing::warn!(id = %used, "an id that this process has reserved is used: was the store restored under it?");
        // Whoever has the lock is reserving others.
        if let Ok(mut block) = self.ids.try_lock() {
            *block = 0..0;
        }
    }

    async fn try_reserve(&self, tx: Tx) -> Outcome<Step<u64>> {
        let key = self.keys.counter();
        let end = tx.get::<u64>(&key).await?.unwrap_or(0) + BLOCK;
        // Each id is looked at when it is used. All of a block is looked at here, since a counter that was lost gives one
        // after the other that is used.
        let (first, last) = (DatabaseId(end - BLOCK + 1), DatabaseId(end));
        let databases = (self.keys.bulk(DatabaseId(end - BLOCK)).1, self.keys.bulk(last).1);
        let deleted = (self.keys.deleted(first), after_key(self.keys.deleted(last)));
        let (databases, deleted) = try_join(tx.peek_range(&databases, 1), tx.peek_range(&deleted, 1)).await?;
        if !databases.pairs().is_empty() || !deleted.pairs().is_empty() {
            return Err(Error::corrupt(format!(
                "the counter of database ids is at {}, and there are databases with larger ids: restore the whole store",
                end - BLOCK
            ))
            .into());
        }
        tx.put(&key, &end)?;
        Ok(Step::Commit(end))
    }
}
