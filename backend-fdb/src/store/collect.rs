//! Collection. The horizon rises first, in the transaction that deletes the first rows; the pages that do not fit into
//! that follow in transactions of their own, each of which reads the horizon again.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use litefleet::store::{CollectRequest, Collected, RowKind};
use litefleet::{DatabaseId, Error, PageNo, PageRange, Result, Txid, UnixMillis};

use super::FdbStore;
use super::read::{Singles, missing};
use crate::error::Outcome;
use crate::keys::{Key, Kind, after_key};
use crate::transact::{Priority, Step, Tx, only};
use crate::values::{ProgressValue, Value, decode_row};

/// How many pages one transaction looks after: with a few rows each, about a second's reading at the worst.
const PAGES: usize = 128;
/// The most rows that one transaction deletes. What is left is garbage for the next collection.
const DELETED_ROWS: usize = 4_000;
/// How many completed checkpoints are looked at in one step.
const CHECKPOINTS: usize = 100;

/// What the rows of a page are, oldest first.
type Kinds = Vec<(Txid, RowKind)>;

impl FdbStore {
    pub(super) async fn collect_garbage(&self, request: &CollectRequest) -> Result<Collected> {
        let pages = self.limits.check_collect(request)?;
        let mut chunks = pages.chunks(PAGES);
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let mut sum: Option<Collected> = None;
        for chunk in &chunks {
            // What a try that may have been committed has found is not there to be found again.
            let found = std::sync::Mutex::new((0, 0));
            let found = &found;
            let body = |tx, _| self.try_collect(tx, request, chunk, found);
            let done = self.cluster.run("collect", Priority::Background, body).await?;
            if let Some(committed) = done.committed {
                self.knowledge.committed(committed);
                self.knowledge.telling(request.database, committed.0);
            }
            let (rows, records) = sum.map_or((0, 0), |sum| (sum.rows, sum.records));
            sum = Some(Collected { rows: rows + done.value.rows, records: records + done.value.records, ..done.value });
        }
        sum.ok_or_else(|| Error::internal("a collection without a piece"))
    }

    async fn try_collect(
        &self,
        tx: Tx,
        request: &CollectRequest,
        pages: &[PageRange],
        found: &std::sync::Mutex<(u64, u64)>,
    ) -> Outcome<Step<Collected>> {
        let id = request.database;
        let progress_key = self.keys.of(id, Kind::Progress);
        tx.conflict_with_writers(&only(self.keys.of(id, Kind::Lease)))?;
        tx.conflict_with_writers(&only(progress_key.clone()))?;
        let singles = self.keys.singles(id);
        let rows = try_join_all(pages.iter().map(|range| self.kinds(&tx, id, *range)));
        let (piece, rows) = futures_util::try_join!(tx.peek_range(&singles, 0), rows)?;
        let singles = Singles::of(&self.keys, id, piece.pairs());
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
        let dead = rows
            .iter()
            .flatten()
            .flat_map(|(page, kinds)| dead(kinds, horizon).into_iter().map(|txid| self.keys.row(id, *page, txid)));
        let dead: Vec<Key> = dead.take(DELETED_ROWS).collect();
        for key in &dead {
            tx.clear(key);
        }
        let now = (dead.len() as u64, log_start.get() - before.log_start.get());
        let mut most = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *most = (most.0.max(now.0), most.1.max(now.1));
        Ok(Step::Commit(Collected { horizon, log_start, rows: most.0, records: most.1 }))
    }

    /// The horizon that is asked for and allowed: the largest completed checkpoint within the bounds, if it is above.
    async fn allowed(&self, tx: &Tx, request: &CollectRequest, progress: &ProgressValue) -> Outcome<Txid> {
        let id = request.database;
        let most = request.at_most.min(progress.checkpoint);
        if most <= progress.horizon {
            return Ok(progress.horizon);
        }
        let mut range = self.keys.checkpoints(id, progress.horizon.next(), most);
        loop {
            let piece = tx.peek_back(&range, CHECKPOINTS).await?;
            for pair in piece.pairs() {
                if UnixMillis::decode(pair.key(), pair.value())? <= request.completed_before {
                    return Ok(self.keys.checkpoint_in(id, pair.key())?);
                }
            }
            match piece.pairs().last() {
                Some(last) if piece.more || piece.pairs().len() == CHECKPOINTS => range.1 = last.key().to_vec(),
                _ => return Ok(progress.horizon),
            }
        }
    }

    /// What the rows of neighbouring pages are. Their bytes come along: FoundationDB cannot leave them out.
    async fn kinds(&self, tx: &Tx, database: DatabaseId, pages: PageRange) -> Outcome<BTreeMap<PageNo, Kinds>> {
        let mut range = self.keys.rows(database, pages.first, pages.last);
        let mut kinds: BTreeMap<PageNo, Kinds> = BTreeMap::new();
        loop {
            let piece = tx.peek_range(&range, 0).await?;
            for pair in piece.pairs() {
                let (page, txid) = self.keys.row_in(database, pair.key())?;
                kinds.entry(page).or_default().push((txid, decode_row(pair.value())?.0));
            }
            match piece.pairs().last() {
                Some(last) if piece.more => range.0 = after_key(last.key().to_vec()),
                _ => return Ok(kinds),
            }
        }
    }
}

/// The rows of a page that nobody can read any more.
fn dead(kinds: &Kinds, horizon: Txid) -> Vec<Txid> {
    let Some((newest, kind)) = kinds.iter().rfind(|(txid, _)| *txid <= horizon) else { return Vec::new() };
    let base = |kind: &RowKind| match kind {
        RowKind::Delta { base } => Some(*base),
        RowKind::Image | RowKind::Zero => None,
    };
    let needed = kinds.iter().filter(|(txid, _)| *txid > horizon).filter_map(|(_, kind)| base(kind));
    let needed: BTreeSet<Txid> = needed.chain(base(kind)).collect();
    let older: Vec<Txid> = kinds.iter().map(|(txid, _)| *txid).filter(|txid| txid < newest).collect();
    let mut dead: Vec<Txid> = older.iter().copied().filter(|txid| !needed.contains(txid)).collect();
    // A zero row must stay while an older row does: without it that one would be read in its place.
    if *kind == RowKind::Zero && dead.len() == older.len() {
        dead.push(*newest);
    }
    dead
}
