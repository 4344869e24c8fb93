//! Staging the rows of large transactions, and discarding them.
//!
//! Each request leaves a list of its pages, under the generation and its sequence. The lists of one generation are the
//! staging entry's; a commit that makes the rows visible removes them all at once.

use std::sync::{Mutex, PoisonError};

use litefleet::store::{DiscardRequest, Discarded, StageRequest};
use litefleet::{DatabaseId, Error, PageSet, Result};

use super::change::{Change, Commit, Ended, Verdict};
use super::read::missing;
use super::{DELETION_BYTES, FdbStore};
use crate::error::Outcome;
use crate::knowledge::{Core, Touch};
use crate::transact::{Pair, Priority, Step, Tx};
use crate::values::{Entry, StagingValue, Value, encode_row};

/// The most rows that one transaction deletes.
const DELETED_ROWS: usize = 2_000;

struct Staging<'r>(&'r StageRequest);

impl Change for Staging<'_> {
    fn database(&self) -> DatabaseId {
        self.0.database
    }

    fn judge(&self, core: &Core) -> Result<Verdict> {
        let request = self.0;
        core.fence(request.epoch)?;
        core.expect(request.expected)?;
        let last = match core.staging.entry {
            Entry::None => 0,
            Entry::Open { last } => last,
            Entry::Discarding => u64::MAX,
        };
        if request.generation != core.staging.generation || core.staging.entry == Entry::Discarding {
            return Err(Error::conflict(format!(
                "staging generation {} was discarded, the current one is {}",
                request.generation, core.staging.generation
            )));
        }
        Ok(if request.is_due(last)? { Verdict::Apply } else { Verdict::Done })
    }

    fn apply(&self, store: &FdbStore, tx: &Tx, core: &Core) -> Outcome<Core> {
        let request = self.0;
        let id = request.database;
        let mut pages = PageSet::new();
        for row in &request.rows {
            pages.insert(row.page);
            tx.put_row(&store.keys.row(id, row.page, row.txid), &encode_row(row.kind, &row.bytes))?;
        }
        tx.put_quietly(&store.keys.staged(id, request.generation, request.sequence), &pages)?;
        let staging = StagingValue { entry: Entry::Open { last: request.sequence }, ..core.staging };
        store.put_staging(tx, id, &staging)?;
        Ok(Core { staging, ..core.clone() })
    }

    fn commit(&self) -> Option<Commit> {
        None
    }
}

impl FdbStore {
    pub(super) async fn stage_rows(&self, request: &StageRequest) -> Result<()> {
        self.limits.check_stage(request)?;
        Self::check_row_bytes("stage", &request.rows)?;
        self.change_one("stage", Staging(request)).await
    }

    /// Makes one change that does no harm when it is made twice.
    pub(super) async fn change_one<C: Change>(&self, what: &'static str, change: C) -> Result<()> {
        match self.change(what, &[change], false).await {
            Ok(outcomes) => outcomes.into_iter().collect(),
            Err(Ended::Undone(fault) | Ended::Unknown(fault)) => Err(fault.into()),
        }
    }

    pub(super) async fn discard(&self, request: &DiscardRequest) -> Result<Discarded> {
        let touch = self.knowledge.begin(request.database);
        let touch = &touch;
        let last = Mutex::default();
        let last = &last;
        let body = |tx, unknown| self.try_discard(tx, request, touch, last, unknown);
        let done = self.cluster.run("discard", Priority::Normal, body).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
            self.knowledge.changed(request.database, committed.0);
        }
        Ok(done.value)
    }

    async fn try_discard(
        &self,
        tx: Tx,
        request: &DiscardRequest,
        touch: &Touch,
        last: &Mutex<Option<(Option<Pair>, Discarded)>>,
        unknown: bool,
    ) -> Outcome<Step<Discarded>> {
        let id = request.database;
        // In the worst case each row is the only one of its list.
        let fit = DELETION_BYTES / (2 * Tx::size_of_clearing_one(self.keys.key_bytes()));
        let limit = request.limit.clamp(1, fit.clamp(1, DELETED_ROWS));
        let lists = self.keys.all_staged(id);
        let (core, lists, fence) =
            futures_util::try_join!(self.core(&tx, id), tx.peek_first(&lists, limit), self.fence_of_touch(&tx, touch))?;
        let core = core.ok_or_else(|| missing(id))?;
        core.fence(request.epoch)?;
        core.expect(request.expected)?;
        let current = core.staging.generation;
        let raised =
            Some(current) == request.generation.checked_add(1) && !matches!(core.staging.entry, Entry::Open { .. });
        if request.generation != current && !raised {
            return Err(Error::conflict(format!(
                "staging generation {} is not the current one, {current}",
                request.generation
            ))
            .into());
        }
        let generation = if raised { current } else { current + 1 };
        let first = lists.first().cloned();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, discarded)) = last.as_ref().filter(|(found, _)| unknown && raised && *found != first) {
            // The try whose reply was lost has deleted as many rows as this call may.
            return Ok(Step::Return(*discarded));
        }
        let mut room = limit;
        let mut done = lists.len() < limit;
        for pair in &lists {
            let pages = PageSet::decode(pair.key(), pair.value())?;
            let mut left = PageSet::new();
            for page in pages.pages() {
                if room == 0 {
                    left.insert(page);
                    continue;
                }
                room -= 1;
                tx.clear(&self.keys.row(id, page, request.expected.next()));
            }
            if left.is_empty() {
                tx.clear(pair.key());
                continue;
            }
            done = false;
            if left != pages {
                tx.put_quietly(pair.key(), &left)?;
            }
            break;
        }
        let entry = if done { Entry::None } else { Entry::Discarding };
        let staging = StagingValue { generation, entry };
        if staging != core.staging {
            self.put_staging(&tx, id, &staging)?;
        }
        // Also when the state is the same as before.
        self.leave(&tx, id, &core)?;
        self.announce(&tx, &core, fence)?;
        let discarded = Discarded { generation, done };
        *last = Some((first, discarded));
        Ok(Step::Commit(discarded))
    }
}
