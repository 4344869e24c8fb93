//! One database: what is true of it, and under which conditions it changes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::store::model::{
    CheckpointRequest, CollectRequest, Collected, CommitRequest, DiscardRequest, Discarded, EpochEnd, LogRow, PageRow,
    ReadRow, RowKind, StageRequest, Tail,
};
use crate::store::{Pieces, SharedLocks};
use crate::types::{CommitId, DatabaseId, DatabaseName, Epoch, PageNo, PageSet, SessionId, Txid, UnixMillis};

#[derive(Clone, Debug)]
struct Staging {
    pages: PageSet,
    /// The sequence of the last request that was applied.
    last: u64,
    discarding: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) name: DatabaseName,
    pub(super) epoch: Epoch,
    pub(super) holder: Option<SessionId>,
    pub(super) txid: Txid,
    pub(super) commit_id: CommitId,
    pub(super) size: u64,
    pub(super) checkpoint: Txid,
    pub(super) horizon: Txid,
    pub(super) generation: u64,
    staging: Option<Staging>,
    /// Completed checkpoints from the horizon on, and when.
    pub(super) checkpoints: BTreeMap<Txid, UnixMillis>,
    pieces: Pieces,
    /// All records after it are there.
    pub(super) log_start: Txid,
    pub(super) log: BTreeMap<Txid, Bytes>,
    pub(super) rows: BTreeMap<(PageNo, Txid), (RowKind, Bytes)>,
    pub(super) warm: PageSet,
    pub(super) locks: SharedLocks,
    /// How each epoch ended, and when it did.
    pub(super) ends: BTreeMap<Epoch, (EpochEnd, Duration)>,
    /// Tells those who watch of each commit.
    pub(super) committed: watch::Sender<Txid>,
}

impl Database {
    pub(super) fn new(name: DatabaseName) -> Self {
        Self {
            name,
            epoch: Epoch(0),
            holder: None,
            txid: Txid(0),
            commit_id: CommitId::default(),
            size: 0,
            checkpoint: Txid(0),
            horizon: Txid(0),
            generation: 0,
            staging: None,
            checkpoints: BTreeMap::new(),
            pieces: Pieces::default(),
            log_start: Txid(0),
            log: BTreeMap::new(),
            rows: BTreeMap::new(),
            warm: PageSet::new(),
            locks: SharedLocks::default(),
            ends: BTreeMap::new(),
            committed: watch::Sender::new(Txid(0)),
        }
    }

    pub(super) fn fence(&self, epoch: Epoch) -> Result<()> {
        if self.epoch != epoch {
            return Err(Error::fenced(format!("epoch {epoch} is over, the current one is {}", self.epoch)));
        }
        if self.holder.is_none() {
            return Err(Error::fenced(format!("the lease of epoch {epoch} was released")));
        }
        Ok(())
    }

    fn expect(&self, txid: Txid) -> Result<()> {
        if self.txid == txid {
            Ok(())
        } else {
            Err(Error::conflict(format!("expected txid {txid}, the head is at {}", self.txid)))
        }
    }

    pub(super) fn check_commit(&self, request: &CommitRequest) -> Result<Verdict> {
        let repeated = self.epoch == request.epoch
            && Some(self.txid) == request.expected.get().checked_add(1).map(Txid)
            && self.commit_id == request.commit_id;
        if repeated {
            return Ok(Verdict::Done);
        }
        self.fence(request.epoch)?;
        self.expect(request.expected)?;
        request.check_follows(self.commit_id)?;
        match (&self.staging, request.staged) {
            (None, None) => Ok(Verdict::Apply),
            (Some(entry), Some(staged)) if !entry.discarding && staged.generation == self.generation => {
                staged.check_last(entry.last).map(|()| Verdict::Apply)
            }
            (Some(_), _) => Err(Error::conflict("a staging entry of another transaction exists")),
            (None, Some(_)) => Err(Error::conflict("the staged rows were discarded")),
        }
    }

    pub(super) fn apply(&mut self, request: CommitRequest) {
        let txid = request.expected.next();
        self.log.insert(txid, request.record);
        self.txid = txid;
        self.commit_id = request.commit_id;
        self.size = request.size;
        if self.staging.take().is_some() {
            self.generation += 1;
        }
        if request.release {
            self.holder = None;
        }
        self.committed.send_replace(txid);
    }

    pub(super) fn tail_after(&self, after: Txid, bytes: usize) -> Tail {
        if after < self.log_start || after > self.txid {
            return Tail::Reload;
        }
        let mut total = 0;
        let mut rows = Vec::new();
        for (txid, record) in self.log.range((Bound::Excluded(after), Bound::Unbounded)) {
            total += record.len();
            if total > bytes {
                return Tail::Truncated;
            }
            rows.push(LogRow { txid: *txid, record: record.clone() });
        }
        Tail::Complete(rows)
    }

    fn newest(&self, page: PageNo, at: Txid) -> Option<PageRow> {
        let (key, value) = self.rows.range((page, Txid(0))..=(page, at)).next_back()?;
        Some(row(*key, value))
    }

    /// The newest row at or below `at`, and its base.
    pub(super) fn read(&self, id: DatabaseId, page: PageNo, at: Txid, out: &mut Vec<ReadRow>) -> bool {
        let Some(newest) = self.newest(page, at) else {
            return false;
        };
        let base = match newest.kind {
            RowKind::Delta { base } => self.rows.get(&(page, base)).map(|value| row((page, base), value)),
            RowKind::Image | RowKind::Zero => None,
        };
        out.push(ReadRow { database: id, row: newest });
        out.extend(base.map(|row| ReadRow { database: id, row }));
        true
    }

    pub(super) fn is_staged(&self) -> bool {
        self.staging.is_some()
    }

    pub(super) fn stage(&mut self, request: StageRequest) -> Result<()> {
        self.fence(request.epoch)?;
        self.expect(request.expected)?;
        if self.generation != request.generation || self.staging.as_ref().is_some_and(|s| s.discarding) {
            return Err(Error::conflict(format!(
                "staging generation {} was discarded, the current one is {}",
                request.generation, self.generation
            )));
        }
        let txid = request.expected.next();
        let last = self.staging.as_ref().map_or(0, |staging| staging.last);
        if !request.is_due(last)? {
            return Ok(());
        }
        let staging = self.staging.get_or_insert_with(|| Staging { pages: PageSet::new(), last: 0, discarding: false });
        staging.last = request.sequence;
        for row in request.rows {
            staging.pages.insert(row.page);
            self.rows.insert((row.page, txid), (row.kind, row.bytes));
        }
        Ok(())
    }

    pub(super) fn discard(&mut self, request: DiscardRequest) -> Result<Discarded> {
        self.fence(request.epoch)?;
        self.expect(request.expected)?;
        let txid = request.expected.next();
        let goes_on = request.generation.checked_add(1) == Some(self.generation)
            && self.staging.as_ref().is_none_or(|staging| staging.discarding);
        if request.generation == self.generation {
            self.generation += 1;
        } else if !goes_on {
            return Err(Error::conflict(format!(
                "staging generation {} is not the current one, {}",
                request.generation, self.generation
            )));
        }
        let Some(staging) = &mut self.staging else {
            return Ok(Discarded { generation: self.generation, done: true });
        };
        staging.discarding = true;
        let mut left = PageSet::new();
        for (n, page) in staging.pages.pages().enumerate() {
            if n < request.limit {
                self.rows.remove(&(page, txid));
            } else {
                left.insert(page);
            }
        }
        let done = left.is_empty();
        staging.pages = left;
        if done {
            self.staging = None;
        }
        Ok(Discarded { generation: self.generation, done })
    }

    pub(super) fn checkpoint(&mut self, request: CheckpointRequest) -> Result<()> {
        self.fence(request.epoch)?;
        request.check_place(self.checkpoint, self.txid)?;
        self.pieces = self.pieces.with(&request, self.checkpoint)?;
        for row in request.rows {
            self.rows.insert((row.page, row.txid), (row.kind, row.bytes));
        }
        if request.last {
            self.checkpoint = request.txid;
            self.checkpoints.entry(request.txid).or_insert(request.time);
            self.put_warm(request.warm);
        }
        Ok(())
    }

    /// The pages that the next open should get along with it, unless there are none.
    pub(super) fn put_warm(&mut self, warm: Vec<PageNo>) {
        if !warm.is_empty() {
            self.warm = warm.into_iter().collect();
        }
    }

    pub(super) fn collect(&mut self, request: &CollectRequest, pages: &PageSet) -> Result<Collected> {
        self.fence(request.epoch)?;
        let allowed = self
            .checkpoints
            .range(..=request.at_most)
            .rev()
            .find(|(_, time)| **time <= request.completed_before)
            .map(|(txid, _)| *txid);
        if let Some(horizon) = allowed.filter(|txid| *txid > self.horizon) {
            self.horizon = horizon;
            self.checkpoints = self.checkpoints.split_off(&horizon);
        }
        let rows = pages.pages().map(|page| self.collect_page(page)).sum();
        let through = request.log_through.min(self.horizon);
        let mut records = 0;
        if through > self.log_start {
            let kept = self.log.split_off(&through.next());
            records = std::mem::replace(&mut self.log, kept).len() as u64;
            self.log_start = through;
        }
        Ok(Collected { horizon: self.horizon, log_start: self.log_start, rows, records })
    }

    fn collect_page(&mut self, page: PageNo) -> u64 {
        let Some(newest) = self.newest(page, self.horizon) else {
            return 0;
        };
        let kept_base = match newest.kind {
            RowKind::Delta { base } => Some(base),
            RowKind::Image | RowKind::Zero => None,
        };
        // A row above the horizon may be based on any row that is not above the horizon.
        let bases: Vec<Txid> = self
            .rows
            .range((Bound::Excluded((page, self.horizon)), Bound::Included((page, Txid::MAX))))
            .filter_map(|(_, (kind, _))| match kind {
                RowKind::Delta { base } => Some(*base),
                RowKind::Image | RowKind::Zero => None,
            })
            .collect();
        let mut dead: Vec<(PageNo, Txid)> =
            self.rows.range((page, Txid(0))..(page, newest.txid)).map(|(key, _)| *key).collect();
        let older = dead.len();
        dead.retain(|(_, txid)| kept_base != Some(*txid) && !bases.contains(txid));
        // A zero row must stay while an older row does: without it that one would be read in its place.
        if newest.kind == RowKind::Zero && dead.len() == older {
            dead.push((page, newest.txid));
        }
        for key in &dead {
            self.rows.remove(key);
        }
        dead.len() as u64
    }
}

pub(super) fn row((page, txid): (PageNo, Txid), (kind, bytes): &(RowKind, Bytes)) -> PageRow {
    PageRow { page, txid, kind: *kind, bytes: bytes.clone() }
}

/// What a commit's check says to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Apply,
    Done,
}
