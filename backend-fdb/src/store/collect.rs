//! Collection. The horizon rises first, in the transaction that deletes the first rows; what does not fit into that
//! follows in transactions of their own, each of which reads the horizon again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use litefleet::store::{CollectRequest, Collected};
use litefleet::{DatabaseId, PageNo, PageRange, PageSet, Result, Txid, UnixMillis};

use super::dead::{Looked, read_runs};
use super::read::{Singles, missing};
use super::{DELETION_BYTES, FdbStore};
use crate::error::Outcome;
use crate::keys::Kind;
use crate::transact::{Priority, Step, Tx, only};
use crate::values::{ProgressValue, Value};

/// How many pages one transaction begins with.
const PAGES: usize = 128;
/// How many neighbouring pages one range read is asked for: with one row each, about as much as one reply holds.
const RUN_PAGES: usize = 18;
/// How many completed checkpoints are looked at first: the newest ones. Then as many at once as a reply holds.
const CHECKPOINTS: usize = 100;

impl FdbStore {
    pub(super) async fn collect_garbage(&self, request: &CollectRequest) -> Result<Collected> {
        let mut left: BTreeSet<PageNo> = self.limits.check_collect(request)?.pages().collect();
        let mut request = request.clone();
        let (mut rows, mut records) = (0, 0);
        loop {
            let chunk: PageSet = left.iter().copied().take(PAGES).collect();
            for page in chunk.pages() {
                left.remove(&page);
            }
            let chunk = chunk.chunks(RUN_PAGES).concat();
            let chunk = chunk.as_slice();
            // What a try that may have been committed has found is not there to be found again.
            let found = Mutex::new((0, 0));
            let (found, asked) = (&found, &request);
            let body = |tx, _| self.try_collect(tx, asked, chunk, found);
            let done = self.cluster.run("collect", Priority::Background, body).await?;
            if let Some(committed) = done.committed {
                self.knowledge.committed(committed);
                self.knowledge.changed(request.database, committed.0);
            }
            let (collected, again) = done.value;
            left.extend(again);
            // What is allowed was found out by the first transaction.
            request.at_most = collected.horizon;
            rows += collected.rows;
            records += collected.records;
            if left.is_empty() {
                return Ok(Collected { rows, records, ..collected });
            }
        }
    }

    async fn try_collect(
        &self,
        tx: Tx,
        request: &CollectRequest,
        pages: &[PageRange],
        found: &Mutex<(u64, u64)>,
    ) -> Outcome<Step<(Collected, BTreeSet<PageNo>)>> {
        let begun = self.cluster.now();
        let id = request.database;
        let progress_key = self.keys.of(id, Kind::Progress);
        tx.conflict_with_writers(&only(self.keys.of(id, Kind::Lease)))?;
        tx.conflict_with_writers(&only(progress_key.clone()))?;
        let singles = self.keys.singles(id);
        let (values, runs) = futures_util::try_join!(tx.peek_all(&singles), read_runs(self, &tx, id, pages))?;
        let singles = Singles::of(&self.keys, id, &values);
        if singles.is_empty() {
            return Err(missing(id).into());
        }
        singles.core()?.fence(request.epoch)?;
        let before = singles.progress()?;
        let horizon = self.allowed(&tx, request, &before).await?;
        let log_start = before.log_start.max(request.log_through.min(horizon));
        let progress = ProgressValue { horizon, log_start, ..before };
        if progress != before {
            tx.put(&progress_key, &progress)?;
            tx.clear_range(&(self.keys.checkpoint(id, Txid(0)), self.keys.checkpoint(id, horizon)));
            tx.clear_range(&self.keys.log_range(id, before.log_start, log_start));
        }
        // A checkpoint that may write a row based on one of these must look again.
        tx.conflict_with_readers(&progress_key)?;
        let looked = self.dead_rows(&tx, id, runs, horizon, begun).await?;
        let (rows, left) = self.delete_dead(&tx, id, looked);
        let mut most = found.lock().unwrap_or_else(PoisonError::into_inner);
        *most = (most.0.max(rows), most.1.max(log_start.get() - before.log_start.get()));
        Ok(Step::Commit((Collected { horizon, log_start, rows: most.0, records: most.1 }, left)))
    }

    /// Deletes as many dead rows as fit into the transaction. Returns how many, and the pages that are not done.
    fn delete_dead(&self, tx: &Tx, id: DatabaseId, looked: Looked) -> (u64, BTreeSet<PageNo>) {
        let Looked { dead, mut left } = looked;
        let (mut rows, mut bytes) = (0, 0);
        for dead in dead {
            let range = self.range_of(id, &dead);
            bytes += Tx::size_of_clearing(&range);
            if bytes > DELETION_BYTES {
                left.insert(dead.page);
                continue;
            }
            tx.clear_range(&range);
            rows += dead.rows;
        }
        (rows, left)
    }

    /// The horizon that is asked for and allowed: the largest completed checkpoint within the bounds, if it is above.
    async fn allowed(&self, tx: &Tx, request: &CollectRequest, progress: &ProgressValue) -> Outcome<Txid> {
        let id = request.database;
        let most = request.at_most.min(progress.checkpoint);
        if most <= progress.horizon {
            return Ok(progress.horizon);
        }
        let mut range = self.keys.checkpoints(id, progress.horizon.next(), most);
        let mut limit = CHECKPOINTS;
        loop {
            let piece = tx.peek_back(&range, limit).await?;
            for pair in piece.pairs() {
                if UnixMillis::decode(pair.key(), pair.value())? <= request.completed_before {
                    return Ok(self.keys.checkpoint_in(id, pair.key())?);
                }
            }
            match piece.pairs().last() {
                Some(last) if piece.more || piece.pairs().len() == limit => range.1 = last.key().to_vec(),
                _ => return Ok(progress.horizon),
            }
            limit = 0;
        }
    }
}
