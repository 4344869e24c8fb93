//! The store in memory: the reference for the contract, and what simulations run on. Nothing survives the process.

mod database;
mod state;

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::model::{
    CheckpointRequest, CollectRequest, Collected, CommitRequest, DiscardRequest, Discarded, HeadReply, HeadRequest,
    Lineage, ListEntry, Listed, LogRow, OpenRequest, Opened, PageRow, PagesReply, Purged, SessionRequest, SharedLock,
    SharedRequest, StageRequest,
};
use super::{CommitMode, PageStore, StoreLimits};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::types::{DatabaseId, DatabaseName, Epoch, PageNo, PageRange, SessionId, Txid};
use database::{Database, Verdict, row};
use state::{Session, State, missing};

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
}

/// A standby that gets nothing more from its primary.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Standby(State);

#[cfg(test)]
impl MemoryStore {
    pub(crate) fn standby(&self) -> Standby {
        Standby(self.lock().clone())
    }

    /// A failover: what came after the standby was cut off is lost.
    pub(crate) fn fail_over_to(&self, standby: Standby) {
        *self.lock() = standby.0;
    }

    /// Damage: the records after `after` are gone.
    pub(crate) fn lose_records(&self, database: DatabaseId, after: Txid) -> Result<()> {
        self.lock().database_mut(database)?.log.retain(|txid, _| *txid <= after);
        Ok(())
    }
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
        let expires = Some(now.saturating_add(request.lifetime));
        let session = Session { label: request.label, lifetime: request.lifetime, expires };
        state.sessions.insert(request.session, session);
        Ok(())
    }

    async fn renew_session(&self, session: SessionId) -> Result<()> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        match state.sessions.get_mut(&session) {
            Some(found) if found.expires.is_some_and(|at| at > now) => {
                found.expires = Some(now.saturating_add(found.lifetime));
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
                if let Some(lease) = request.lease {
                    state.check_live(lease.session, now)?;
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
        found.put_warm(warm);
        Ok(())
    }

    async fn head(&self, request: HeadRequest) -> Result<HeadReply> {
        self.lock().look(request, self.clock.monotonic())
    }

    async fn lock_shared(&self, request: SharedRequest) -> Result<HeadReply> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        state.lock_shared(request.head.database, request.lock, now)?;
        state.look(request.head, now)
    }

    async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        self.lock().database_mut(database)?.locks.unlock_shared(lock);
        Ok(())
    }

    async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.lock().lock_exclusive(database, epoch, self.clock.monotonic())
    }

    async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let mut state = self.lock();
        let found = state.database_mut(database)?;
        found.fence(epoch)?;
        found.locks.unlock_exclusive();
        Ok(())
    }

    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        let mut committed = self.lock().database(database)?.committed.subscribe();
        let seen = committed.wait_for(|txid| *txid > known).await;
        seen.map(|txid| *txid).map_err(|_| missing(database))
    }

    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply> {
        let wanted = self.limits.check_read(pages)?;
        let state = self.lock();
        let mut databases = Vec::with_capacity(lineage.len());
        let (mut horizon, mut own) = (Txid(0), None);
        for entry in lineage {
            let at = snapshot.min(entry.max_txid);
            let database = state.database(entry.database)?;
            if at < database.horizon {
                return Err(Error::snapshot_too_old(format!(
                    "snapshot {at} is below the horizon {}",
                    database.horizon
                )));
            }
            horizon = horizon.max(database.horizon);
            own.get_or_insert((database.checkpoint, database.txid));
            databases.push((entry.database, database, at));
        }
        let mut rows = Vec::new();
        for page in wanted.pages() {
            for (id, database, at) in &databases {
                if database.read(*id, page, *at, &mut rows) {
                    break;
                }
            }
        }
        let (checkpoint, head) = own.unwrap_or_default();
        Ok(PagesReply { rows, horizon, checkpoint, head: Some(head) })
    }

    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        let formal = self.limits.check_commits(&requests, mode)?;
        let mut state = self.lock();
        let check = |(request, form): (&CommitRequest, Result<()>)| {
            form.and_then(|()| state.database(request.database)?.check_commit(request))
        };
        let verdicts: Vec<Result<Verdict>> = requests.iter().zip(formal).map(check).collect();
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
        self.limits.check_stage(&request)?;
        self.lock().database_mut(request.database)?.stage(request)
    }

    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded> {
        self.lock().database_mut(request.database)?.discard(request)
    }

    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()> {
        self.limits.check_checkpoint(&request)?;
        self.lock().database_mut(request.database)?.checkpoint(request)
    }

    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        let pages = self.limits.check_collect(&request)?;
        self.lock().database_mut(request.database)?.collect(&request, &pages)
    }

    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        let now = self.clock.monotonic();
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entry = |(name, id): (&DatabaseName, &DatabaseId)| {
            let listed = |db| Listed { database: *id, head: state.head(db, now) };
            ListEntry { name: name.clone(), database: Some(*id), state: state.database(*id).map(listed) }
        };
        Ok(state
            .names
            .range::<DatabaseName, _>((from, Bound::Unbounded))
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .take(limit)
            .map(entry)
            .collect())
    }

    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()> {
        let mut state = self.lock();
        let found = state.database(database)?;
        let old = found.name.clone();
        if old == name {
            return Ok(());
        }
        found.fence(epoch)?;
        if state.names.contains_key(&name) {
            return Err(Error::conflict(format!("there is a database named {name} already")));
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
        let living: HashSet<SessionId> =
            state.sessions.keys().copied().filter(|session| state.live(*session, now)).collect();
        for database in state.databases.values_mut() {
            database.locks.forget_ended(|session| living.contains(&session));
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
