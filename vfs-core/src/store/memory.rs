//! The store in memory: the reference for the contract, and what simulations run on. Nothing survives the process.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::model::{
    CheckpointRequest, CollectRequest, Collected, CommitRequest, DiscardRequest, Discarded, EpochEnd, Head, HeadReply,
    HeadRequest, Holder, Lineage, ListEntry, LogRow, OpenRequest, Opened, PageRow, Purged, ReadRow, RowKind,
    SessionRequest, StageRequest, StoreLimits, Tail,
};
use super::{CommitMode, PageStore};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::types::{
    CommitId, DatabaseId, DatabaseName, Epoch, PageNo, PageRange, PageSet, SessionId, Txid, UnixMillis,
};

/// How long the end of an epoch is kept.
const EPOCH_END_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    limits: StoreLimits,
    state: Mutex<State>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()))
    }
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    names: BTreeMap<DatabaseName, DatabaseId>,
    databases: HashMap<DatabaseId, Database>,
    condemned: Vec<Database>,
    sessions: HashMap<SessionId, Session>,
}

#[derive(Debug)]
struct Session {
    label: String,
    lifetime: Duration,
    /// `None` once it was ended.
    expires: Option<Duration>,
}

#[derive(Debug)]
struct Staging {
    pages: PageSet,
    /// The sequence of the last request that was applied.
    last: u64,
    discarding: bool,
}

#[derive(Debug)]
struct Database {
    name: DatabaseName,
    epoch: Epoch,
    holder: Option<SessionId>,
    txid: Txid,
    commit_id: CommitId,
    size: u64,
    checkpoint: Txid,
    horizon: Txid,
    generation: u64,
    staging: Option<Staging>,
    /// Completed checkpoints from the horizon on, and when.
    checkpoints: BTreeMap<Txid, UnixMillis>,
    /// All records after it are there.
    log_start: Txid,
    log: BTreeMap<Txid, Bytes>,
    rows: BTreeMap<(PageNo, Txid), (RowKind, Bytes)>,
    warm: PageSet,
    /// How each epoch ended, and when it did.
    ends: BTreeMap<Epoch, (EpochEnd, Duration)>,
    /// Tells those who watch of each commit.
    committed: watch::Sender<Txid>,
}

impl Database {
    fn new(name: DatabaseName) -> Self {
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
            log_start: Txid(0),
            log: BTreeMap::new(),
            rows: BTreeMap::new(),
            warm: PageSet::new(),
            ends: BTreeMap::new(),
            committed: watch::Sender::new(Txid(0)),
        }
    }

    fn fence(&self, epoch: Epoch) -> Result<()> {
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

    fn check_commit(&self, request: &CommitRequest) -> Result<Verdict> {
        let repeated = self.epoch == request.epoch
            && Some(self.txid) == request.expected.get().checked_add(1).map(Txid)
            && self.commit_id == request.commit_id;
        if repeated {
            return Ok(Verdict::Done);
        }
        self.fence(request.epoch)?;
        self.expect(request.expected)?;
        match (&self.staging, request.staged) {
            (None, None) => Ok(Verdict::Apply),
            (Some(entry), Some(generation)) if !entry.discarding && generation == self.generation => Ok(Verdict::Apply),
            (Some(_), _) => Err(Error::conflict("a staging entry of another transaction exists")),
            (None, Some(_)) => Err(Error::conflict("the staged rows were discarded")),
        }
    }

    fn apply(&mut self, request: CommitRequest) {
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

    fn tail_after(&self, after: Txid, bytes: usize) -> Tail {
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
    fn read(&self, id: DatabaseId, page: PageNo, at: Txid, out: &mut Vec<ReadRow>) -> bool {
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

fn row((page, txid): (PageNo, Txid), (kind, bytes): &(RowKind, Bytes)) -> PageRow {
    PageRow { page, txid, kind: *kind, bytes: bytes.clone() }
}

/// What a commit's check says to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Apply,
    Done,
}

impl State {
    fn database(&self, id: DatabaseId) -> Result<&Database> {
        self.databases.get(&id).ok_or_else(|| missing(id))
    }

    fn database_mut(&mut self, id: DatabaseId) -> Result<&mut Database> {
        self.databases.get_mut(&id).ok_or_else(|| missing(id))
    }

    fn live(&self, session: SessionId, now: Duration) -> bool {
        self.sessions.get(&session).is_some_and(|s| s.expires.is_some_and(|at| at > now))
    }

    fn head(&self, database: &Database, now: Duration) -> Head {
        let holder = database.holder.map(|session| {
            let known = self.sessions.get(&session);
            Holder {
                session,
                label: known.map_or_else(String::new, |s| s.label.clone()),
                expires_in: Some(known.and_then(|s| s.expires).map_or(Duration::ZERO, |at| at.saturating_sub(now))),
            }
        });
        Head {
            epoch: database.epoch,
            holder,
            txid: database.txid,
            commit_id: database.commit_id,
            size: database.size,
            checkpoint: database.checkpoint,
            horizon: database.horizon,
            generation: database.generation,
            staged: database.staging.is_some(),
        }
    }

    fn grant(&mut self, id: DatabaseId, session: SessionId, force: bool, now: Duration) -> Result<()> {
        if !self.live(session, now) {
            return Err(Error::fenced(format!("session {session} has expired or was never started")));
        }
        let database = self.database(id)?;
        let other = database.holder.filter(|holder| *holder != session && self.live(*holder, now));
        if let Some(holder) = other
            && !force
        {
            let held = self.sessions.get(&holder);
            let label = held.map_or("unknown", |s| s.label.as_str());
            let left = held.and_then(|s| s.expires).unwrap_or_default().saturating_sub(now);
            return Err(Error::lease_held(format!(
                "{} is held by {label} for at least {:.1} s more unless it is released",
                database.name,
                left.as_secs_f64()
            )));
        }
        if let Some(deposed) = other.and_then(|holder| self.sessions.get_mut(&holder)) {
            deposed.expires = None;
        }
        let database = self.database_mut(id)?;
        let end = EpochEnd { epoch: database.epoch, txid: database.txid, commit_id: database.commit_id };
        database.ends.insert(end.epoch, (end, now));
        database.epoch = database.epoch.next();
        database.holder = Some(session);
        Ok(())
    }
}

fn missing(id: DatabaseId) -> Error {
    Error::not_found(format!("there is no database with id {id}"))
}

impl MemoryStore {
    /// An empty store that takes its time from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let limits = StoreLimits {
            read_pages: 1024,
            record_bytes: 8 << 20,
            atomic_databases: 128,
            atomic_bytes: 32 << 20,
            write_rows: 1024,
            collect_pages: 4096,
            log_bytes: 4 << 20,
        };
        Self::with_limits(clock, limits)
    }

    /// As [`new`](Self::new), with other limits: tests shrink them so that the hard paths run.
    pub fn with_limits(clock: Arc<dyn Clock>, limits: StoreLimits) -> Self {
        Self { clock, limits, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is made after all its checks, so a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_rows(&self, what: &str, rows: &[PageRow], txid: Txid) -> Result<()> {
        if rows.len() > self.limits.write_rows {
            return Err(Error::invalid(format!(
                "{what} of {} rows, the limit is {}",
                rows.len(),
                self.limits.write_rows
            )));
        }
        let mut pages = PageSet::new();
        match rows.iter().find(|row| row.txid != txid || row.page.get() == 0 || !pages.insert(row.page)) {
            Some(row) => Err(Error::invalid(format!(
                "{what} at txid {txid} has a row of page {} at txid {}: another txid, no page, or twice",
                row.page, row.txid
            ))),
            None => Ok(()),
        }
    }
}

fn check_ranges(what: &str, ranges: &[PageRange], limit: usize) -> Result<()> {
    if let Some(range) = ranges.iter().find(|range| range.first > range.last) {
        return Err(Error::invalid(format!(
            "{what} of pages {} to {}: the last is below the first",
            range.first, range.last
        )));
    }
    let pages: u64 = ranges.iter().map(|range| range.count()).sum();
    if pages > limit as u64 {
        return Err(Error::invalid(format!("{what} of {pages} pages, the limit is {limit}")));
    }
    Ok(())
}

#[async_trait]
impl PageStore for MemoryStore {
    fn limits(&self) -> StoreLimits {
        self.limits
    }

    async fn start_session(&self, request: SessionRequest) -> Result<()> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if state.sessions.contains_key(&request.session) && !state.live(request.session, now) {
            return Err(Error::invalid(format!("session {} has ended, start one with a new id", request.session)));
        }
        let expires = Some(now + request.lifetime);
        let session = Session { label: request.label, lifetime: request.lifetime, expires };
        state.sessions.insert(request.session, session);
        Ok(())
    }

    async fn renew_session(&self, session: SessionId) -> Result<()> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        match state.sessions.get_mut(&session) {
            Some(found) if found.expires.is_some_and(|at| at > now) => {
                found.expires = Some(now + found.lifetime);
                Ok(())
            }
            Some(_) | None => {
                Err(Error::fenced(format!("session {session} has expired; its leases may be others' now")))
            }
        }
    }

    async fn end_session(&self, session: SessionId) -> Result<()> {
        if let Some(found) = self.lock().sessions.get_mut(&session) {
            found.expires = None;
        }
        Ok(())
    }

    async fn open(&self, request: OpenRequest) -> Result<Opened> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let (id, created) = match state.names.get(&request.name) {
            Some(id) => (*id, false),
            None if request.create => {
                if let Some(lease) = request.lease
                    && !state.live(lease.session, now)
                {
                    return Err(Error::fenced(format!("session {} has expired or was never started", lease.session)));
                }
                state.last_id += 1;
                let id = DatabaseId(state.last_id);
                state.names.insert(request.name.clone(), id);
                state.databases.insert(id, Database::new(request.name.clone()));
                (id, true)
            }
            None => {
                return Err(Error::not_found(format!("there is no database named {}", request.name)));
            }
        };
        if let Some(lease) = request.lease {
            state.grant(id, lease.session, lease.force, now)?;
        }
        let database = state.database(id)?;
        let known = request.known.filter(|(known, _)| *known == id).map(|(_, txid)| txid);
        let tail = database.tail_after(known.unwrap_or(database.checkpoint), request.tail_bytes);
        let mut warm = Vec::new();
        if known.is_none() {
            for page in database.warm.pages() {
                database.read(id, page, database.checkpoint, &mut warm);
            }
        }
        Ok(Opened { database: id, created, head: state.head(database, now), tail, warm })
    }

    async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        let mut state = self.lock();
        let found = state.database_mut(database)?;
        if found.epoch == epoch && found.holder.is_none() {
            return Ok(());
        }
        found.fence(epoch)?;
        found.holder = None;
        found.warm = warm.into_iter().collect();
        Ok(())
    }

    async fn head(&self, request: HeadRequest) -> Result<HeadReply> {
        let now = self.clock.monotonic();
        let state = self.lock();
        let database = state.database(request.database)?;
        let ended = request.epoch.filter(|epoch| *epoch < database.epoch);
        Ok(HeadReply {
            name: database.name.clone(),
            head: state.head(database, now),
            tail: database.tail_after(request.known, request.tail_bytes),
            ended: ended.and_then(|epoch| database.ends.get(&epoch)).map(|(end, _)| *end),
        })
    }

    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        let mut committed = self.lock().database(database)?.committed.subscribe();
        let seen = committed.wait_for(|txid| *txid > known).await;
        seen.map(|txid| *txid).map_err(|_| missing(database))
    }

    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<Vec<ReadRow>> {
        check_ranges("read", pages, self.limits.read_pages)?;
        let state = self.lock();
        let mut databases = Vec::with_capacity(lineage.len());
        for entry in lineage {
            let at = snapshot.min(entry.max_txid);
            let database = state.database(entry.database)?;
            if at < database.horizon {
                return Err(Error::snapshot_too_old(format!(
                    "snapshot {at} is below the horizon {}",
                    database.horizon
                )));
            }
            databases.push((entry.database, database, at));
        }
        let mut wanted = PageSet::new();
        for range in pages {
            wanted.insert_range(*range);
        }
        let mut out = Vec::new();
        for page in wanted.pages() {
            for (id, database, at) in &databases {
                if database.read(*id, page, *at, &mut out) {
                    break;
                }
            }
        }
        Ok(out)
    }

    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        if mode == CommitMode::Atomic {
            let bytes: usize = requests.iter().map(|r| r.record.len()).sum();
            if requests.len() > self.limits.atomic_databases || bytes > self.limits.atomic_bytes {
                return Err(Error::invalid(format!(
                    "an atomic commit of {} databases and {bytes} bytes; the limits are {} and {}",
                    requests.len(),
                    self.limits.atomic_databases,
                    self.limits.atomic_bytes
                )));
            }
        }
        let mut state = self.lock();
        let mut named = HashMap::new();
        for request in &requests {
            *named.entry(request.database).or_insert(0_usize) += 1;
        }
        let mut verdicts = Vec::with_capacity(requests.len());
        for request in &requests {
            verdicts.push(if named.get(&request.database).is_some_and(|count| *count > 1) {
                Err(Error::invalid("the same database twice in one commit"))
            } else if request.record.len() > self.limits.record_bytes {
                let bytes = request.record.len();
                Err(Error::invalid(format!("a record of {bytes} bytes, the limit is {}", self.limits.record_bytes)))
            } else {
                state.database(request.database).and_then(|database| database.check_commit(request))
            });
        }
        if mode == CommitMode::Atomic && verdicts.iter().any(Result::is_err) {
            let failed = |verdict: Result<Verdict>| {
                Err(verdict.err().unwrap_or_else(|| Error::conflict("another commit of the atomic set failed")))
            };
            return Ok(verdicts.into_iter().map(failed).collect());
        }
        let mut outcomes = Vec::with_capacity(requests.len());
        for (request, verdict) in requests.into_iter().zip(verdicts) {
            if matches!(verdict, Ok(Verdict::Apply)) {
                state.database_mut(request.database)?.apply(request);
            }
            outcomes.push(verdict.map(|_| ()));
        }
        Ok(outcomes)
    }

    async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let state = self.lock();
        let mut rows = Vec::new();
        let mut bytes = 0;
        // Ancestors come last and hold the older records.
        for (index, entry) in lineage.iter().enumerate().rev() {
            let database = state.database(entry.database)?;
            let to = to.min(entry.max_txid).min(database.txid);
            let from = lineage.get(index + 1).map_or(after, |parent| after.max(parent.max_txid));
            if from >= to {
                continue;
            }
            if from < database.log_start {
                return Err(Error::snapshot_too_old(format!(
                    "records after {from} were asked for, those up to {} are gone",
                    database.log_start
                )));
            }
            for (txid, record) in database.log.range((Bound::Excluded(from), Bound::Included(to))) {
                if !rows.is_empty() && bytes + record.len() > self.limits.log_bytes {
                    return Ok(rows);
                }
                bytes += record.len();
                rows.push(LogRow { txid: *txid, record: record.clone() });
            }
        }
        Ok(rows)
    }

    async fn stage(&self, request: StageRequest) -> Result<()> {
        let txid = request.expected.next();
        self.check_rows("stage", &request.rows, txid)?;
        if let Some(row) = request.rows.iter().find(|row| matches!(row.kind, RowKind::Delta { .. })) {
            return Err(Error::invalid(format!("a staged row must be whole; page {} is a delta", row.page)));
        }
        let mut state = self.lock();
        let database = state.database_mut(request.database)?;
        database.fence(request.epoch)?;
        database.expect(request.expected)?;
        if database.generation != request.generation || database.staging.as_ref().is_some_and(|s| s.discarding) {
            return Err(Error::conflict(format!(
                "staging generation {} was discarded, the current one is {}",
                request.generation, database.generation
            )));
        }
        let staging =
            database.staging.get_or_insert_with(|| Staging { pages: PageSet::new(), last: 0, discarding: false });
        if request.sequence <= staging.last {
            return Ok(());
        }
        staging.last = request.sequence;
        for row in request.rows {
            staging.pages.insert(row.page);
            database.rows.insert((row.page, txid), (row.kind, row.bytes));
        }
        Ok(())
    }

    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded> {
        let mut state = self.lock();
        let database = state.database_mut(request.database)?;
        database.fence(request.epoch)?;
        database.expect(request.expected)?;
        let txid = request.expected.next();
        let goes_on = request.generation.checked_add(1) == Some(database.generation)
            && database.staging.as_ref().is_none_or(|staging| staging.discarding);
        if request.generation == database.generation {
            database.generation += 1;
        } else if !goes_on {
            return Err(Error::conflict(format!(
                "staging generation {} is not the current one, {}",
                request.generation, database.generation
            )));
        }
        let Some(staging) = &mut database.staging else {
            return Ok(Discarded { generation: database.generation, done: true });
        };
        staging.discarding = true;
        let mut left = PageSet::new();
        for (n, page) in staging.pages.pages().enumerate() {
            if n < request.limit {
                database.rows.remove(&(page, txid));
            } else {
                left.insert(page);
            }
        }
        let done = left.is_empty();
        staging.pages = left;
        if done {
            database.staging = None;
        }
        Ok(Discarded { generation: database.generation, done })
    }

    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()> {
        self.check_rows("checkpoint", &request.rows, request.txid)?;
        let mut state = self.lock();
        let database = state.database_mut(request.database)?;
        database.fence(request.epoch)?;
        if request.txid < database.checkpoint || request.txid > database.txid {
            return Err(Error::conflict(format!(
                "checkpoint {} is not between the newest checkpoint {} and the head {}",
                request.txid, database.checkpoint, database.txid
            )));
        }
        for row in request.rows {
            database.rows.insert((row.page, row.txid), (row.kind, row.bytes));
        }
        if request.last {
            database.checkpoint = request.txid;
            database.checkpoints.entry(request.txid).or_insert(request.time);
        }
        Ok(())
    }

    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        check_ranges("collection", &request.pages, self.limits.collect_pages)?;
        let mut state = self.lock();
        let database = state.database_mut(request.database)?;
        database.fence(request.epoch)?;
        let allowed = database
            .checkpoints
            .range(..=request.at_most)
            .rev()
            .find(|(_, time)| **time <= request.completed_before)
            .map(|(txid, _)| *txid);
        if let Some(horizon) = allowed.filter(|txid| *txid > database.horizon) {
            database.horizon = horizon;
            database.checkpoints = database.checkpoints.split_off(&horizon);
        }
        let mut rows = 0;
        for page in request.pages.iter().flat_map(|range| range.pages()) {
            rows += database.collect_page(page);
        }
        let through = request.log_through.min(database.horizon);
        let mut records = 0;
        if through > database.log_start {
            let kept = database.log.split_off(&through.next());
            records = std::mem::replace(&mut database.log, kept).len() as u64;
            database.log_start = through;
        }
        Ok(Collected { horizon: database.horizon, log_start: database.log_start, rows, records })
    }

    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        let now = self.clock.monotonic();
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entry = |(name, id): (&DatabaseName, &DatabaseId)| {
            state.database(*id).map(|db| ListEntry { name: name.clone(), database: *id, head: state.head(db, now) })
        };
        state
            .names
            .range::<DatabaseName, _>((from, Bound::Unbounded))
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .take(limit)
            .map(entry)
            .collect()
    }

    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()> {
        let mut state = self.lock();
        let found = state.database(database)?;
        found.fence(epoch)?;
        let old = found.name.clone();
        match state.names.get(&name) {
            Some(other) if *other == database => return Ok(()),
            Some(_) => {
                return Err(Error::conflict(format!("there is a database named {name} already")));
            }
            None => {}
        }
        state.names.remove(&old);
        state.names.insert(name.clone(), database);
        state.database_mut(database)?.name = name;
        Ok(())
    }

    async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let mut state = self.lock();
        state.database(database)?.fence(epoch)?;
        if let Some(mut found) = state.databases.remove(&database) {
            state.names.remove(&found.name);
            // Those who watch learn of it when the sender is gone.
            found.committed = watch::Sender::new(found.txid);
            state.condemned.push(found);
        }
        Ok(())
    }

    async fn purge(&self, limit: usize) -> Result<Purged> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        for database in state.databases.values_mut() {
            database.ends.retain(|_, (_, at)| now.saturating_sub(*at) < EPOCH_END_KEPT);
        }
        let mut removed = 0;
        while let Some(database) = state.condemned.last_mut() {
            while removed < limit && (database.rows.pop_first().is_some() || database.log.pop_first().is_some()) {
                removed += 1;
            }
            if removed >= limit {
                break;
            }
            state.condemned.pop();
        }
        Ok(Purged { removed: removed as u64, done: state.condemned.is_empty() })
    }

    async fn scan(&self, database: DatabaseId, after: Option<(PageNo, Txid)>, limit: usize) -> Result<Vec<PageRow>> {
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = state.database(database)?.rows.range((from, Bound::Unbounded));
        Ok(rows.take(limit).map(|(key, value)| row(*key, value)).collect())
    }
}
