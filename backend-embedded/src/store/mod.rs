//! The contract, on the engine. One file per group of methods; here is what they share.
//!
//! Readers take a snapshot of the engine and nothing else. Writers take turns: each checks its conditions on a snapshot
//! under the writer's mutex, and makes its changes as one batch. The calls have no await point in them, so no lock is
//! ever held across one.

mod checkpoint;
mod collect;
mod commit;
mod locks;
mod log;
mod naming;
mod open;
mod pages;
mod purge;
mod stage;
mod stored;
mod watch;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use litefleet::store::{
    CheckpointRequest, CollectRequest, Collected, CommitMode, CommitRequest, DiscardRequest, Discarded, HeadReply,
    HeadRequest, Lineage, ListEntry, LogRow, OpenRequest, Opened, PageRow, PageStore, PagesReply, Purged,
    SessionRequest, SharedLock, SharedRequest, StageRequest, StoreLimits,
};
use litefleet::{DatabaseId, DatabaseName, Epoch, PageNo, PageRange, Result, SessionId, Txid};

use crate::config::EmbeddedConfig;
use crate::engine::{Engine, pause};
use crate::error::{Fault, Outcome};
use crate::keys::{self, Kind, Table};
use crate::recovery::Slot;
use crate::sessions::Sessions;
use locks::Locks;
use watch::Watchers;

/// A store in one directory of this machine.
#[derive(Debug)]
pub struct EmbeddedStore {
    /// Whose turn it is to write. Taken before the slot's lock.
    writer: Mutex<Writer>,
    /// Taken before the writer's mutex by those who write page rows, so that they wait for room one after the other.
    page_writer: Mutex<()>,
    sessions: Sessions,
    watchers: Watchers,
    locks: Locks,
    /// The process that has it open.
    process: u32,
    slot: Slot,
}

/// What only the writer knows.
#[derive(Debug)]
struct Writer {
    /// The largest id given out.
    last_id: u64,
    /// The largest id that the store says may have been given out.
    reserved_id: u64,
    /// Databases of which it was said that something left over cannot be removed: it is tried again at each call.
    unremovable: BTreeSet<DatabaseId>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, or makes one when there is nothing there.
    ///
    /// - `Invalid`: the directory holds something else, or a store of a newer format.
    /// - `Unavailable`: a process has it open (the message names it), or the operating system refuses.
    /// - `Corrupt`: its files are damaged.
    /// - `Full`: there is no room to open it.
    pub fn open(config: EmbeddedConfig) -> Result<Self> {
        let sessions = Sessions::new(config.clock.clone());
        let slot = Slot::open(config)?;
        let key = keys::singleton(Kind::LastId);
        let last_id = slot.with(|engine| match engine.view().get(Table::Heads, &key)? {
            Some(value) => Ok(stored::number("the last database id", &key, &value)?),
            None => Ok(0),
        })?;
        let writer = Mutex::new(Writer { last_id, reserved_id: last_id, unremovable: BTreeSet::new() });
        Ok(Self {
            writer,
            page_writer: Mutex::default(),
            sessions,
            watchers: Watchers::default(),
            locks: Locks::default(),
            process: std::process::id(),
            slot,
        })
    }

    fn limits(&self) -> &StoreLimits {
        &self.slot.config().limits
    }

    /// Runs a reader.
    fn read<T>(&self, run: impl FnOnce(&Engine) -> Outcome<T>) -> Result<T> {
        Ok(self.slot.with(run)?)
    }

    /// Runs a writer when it is its turn. When the engine had stopped before it, the engine is opened again and the
    /// writer runs once more; when it may have stopped in the middle, the engine is opened again too, so that the next
    /// caller finds the outcome, whatever it is.
    fn write<T>(&self, mut run: impl FnMut(&Engine, &mut Writer) -> Outcome<T>) -> Outcome<T> {
        // A panic leaves no more than ids that are never given out.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.slot.with(|engine| run(engine, &mut writer));
        let outcome = match outcome {
            Err(stopped @ Fault::Stopped) => {
                self.slot.reopen(&stopped)?;
                self.slot.with(|engine| run(engine, &mut writer))
            }
            outcome => outcome,
        };
        if let Err(fault) = &outcome
            && fault.needs_reopening()
            && let Err(closed) = self.slot.reopen(fault)
        {
            // Tried again by the next call.
            tracing::error!(error = &closed as &dyn std::error::Error, "the store stays closed");
        }
        outcome
    }

    /// As [`write`](Self::write), for those that write or delete page rows: waits first until what was written before
    /// is out of memory.
    fn write_pages<T>(&self, run: impl FnMut(&Engine, &mut Writer) -> Outcome<T>) -> Outcome<T> {
        let _turn = self.page_writer.lock().unwrap_or_else(PoisonError::into_inner);
        // An engine that has stopped is the writer's business.
        while let Ok(true) = self.slot.with(Engine::page_room_is_wanting) {
            pause();
        }
        self.write(run)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // A process that was forked from the one that has it open must not write, and has no workers to end.
        if std::process::id() != self.process {
            self.slot.leak();
            return;
        }
        let closed = match self.slot.with(Engine::mark_end) {
            Err(fault) if fault.needs_reopening() => self.slot.reopen(&fault),
            closed => closed,
        };
        if let Err(fault) = closed {
            tracing::error!(
                error = &fault as &dyn std::error::Error,
                "the store is closed after an error: what was not acknowledged may be lost"
            );
        }
        self.slot.close();
    }
}

#[async_trait]
impl PageStore for EmbeddedStore {
    fn limits(&self) -> StoreLimits {
        *self.limits()
    }

    async fn start_session(&self, request: SessionRequest) -> Result<()> {
        self.sessions.start(request)
    }

    async fn renew_session(&self, session: SessionId) -> Result<()> {
        self.sessions.renew(session)
    }

    async fn end_session(&self, session: SessionId) -> Result<()> {
        self.sessions.end(session);
        Ok(())
    }

    async fn open(&self, request: OpenRequest) -> Result<Opened> {
        self.open_database(&request)
    }

    async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        self.release_lease(database, epoch, &warm)
    }

    async fn head(&self, request: HeadRequest) -> Result<HeadReply> {
        self.read_head(&request)
    }

    async fn lock_shared(&self, request: SharedRequest) -> Result<HeadReply> {
        self.lock_for_reading(&request)
    }

    async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        self.unlock_for_reading(database, lock)
    }

    async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.lock_for_writing(database, epoch)
    }

    async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.unlock_for_writing(database, epoch)
    }

    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        self.watch_head(database, known).await
    }

    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply> {
        self.read_page_rows(lineage, pages, snapshot)
    }

    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        let outcome = self.commit_all(&requests, mode);
        // Whatever came of it: those who watch look for themselves.
        for request in requests {
            self.watchers.wake(request.database);
        }
        outcome
    }

    async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        self.read_log_rows(lineage, after, to)
    }

    async fn stage(&self, request: StageRequest) -> Result<()> {
        self.stage_rows(&request)
    }

    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded> {
        self.discard(&request)
    }

    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()> {
        self.write_checkpoint(&request)
    }

    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        self.collect_garbage(&request)
    }

    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        self.list_databases(prefix, after, limit)
    }

    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()> {
        self.rename_database(database, epoch, &name)
    }

    async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let outcome = self.delete_database(database, epoch);
        // Also where it may be done or not: those who watch look for themselves.
        self.watchers.wake(database);
        if outcome.is_ok() {
            self.locks.forget(database);
        }
        outcome
    }

    async fn purge(&self, limit: usize) -> Result<Purged> {
        self.purge_deleted(limit)
    }

    async fn scan(&self, database: DatabaseId, after: Option<(PageNo, Txid)>, limit: usize) -> Result<Vec<PageRow>> {
        self.scan_rows(database, after, limit)
    }
}
