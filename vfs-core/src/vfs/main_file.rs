//! The database file of one connection.

use std::sync::Arc;

use super::locks::LockLevel;
use super::super_journal::SuperGroup;
use super::{JOURNAL, Vfs};
use crate::engine::{Database, Snapshot, TransactionBuffer};
use crate::error::{Error, ErrorKind, Result};

/// A database file as one SQLite connection has it open.
#[derive(Debug)]
pub struct MainFile {
    vfs: Arc<Vfs>,
    database: Arc<Database>,
    level: LockLevel,
    /// Pinned while the lock is at least SHARED.
    snapshot: Option<Snapshot>,
    /// There while the lock is at least RESERVED.
    buffer: Option<TransactionBuffer>,
    /// The transaction over several databases that this one's prepared commit waits for.
    deferred: Option<Deferred>,
    /// The last commit point failed: SQLite rolls back now.
    failed: bool,
    last_error: Option<Error>,
}

/// A commit that waits for those of other databases.
#[derive(Debug)]
struct Deferred {
    group: Arc<SuperGroup>,
    /// Whether there is anything to commit in this one.
    changed: bool,
}

impl MainFile {
    pub(super) fn new(vfs: Arc<Vfs>, database: Arc<Database>) -> Self {
        Self {
            vfs,
            database,
            level: LockLevel::None,
            snapshot: None,
            buffer: None,
            deferred: None,
            failed: false,
            last_error: None,
        }
    }

    /// The database.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The VFS that it was opened through.
    pub fn vfs(&self) -> &Arc<Vfs> {
        &self.vfs
    }

    /// The lock that is held.
    pub fn level(&self) -> LockLevel {
        self.level
    }

    /// The last error that a call on this file returned.
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Remembers an error for `PRAGMA litefleet_error`.
    pub fn note_error(&mut self, error: Error) {
        self.last_error = Some(error);
    }

    /// After the commit of a transaction over several databases, this one goes on from the new state.
    fn settle(&mut self) {
        let Some(deferred) = self.deferred.take_if(|deferred| deferred.group.is_committed()) else { return };
        if !deferred.changed {
            if let Some(buffer) = &mut self.buffer {
                self.database.abandon(buffer);
            }
            return;
        }
        if let (Some(buffer), Some(snapshot)) = (&mut self.buffer, &mut self.snapshot) {
            *snapshot = self.database.committed(buffer, *snapshot);
        }
    }

    /// Leaves a transaction over several databases that is not committed: then none of them is.
    fn leave_group(&mut self) {
        self.settle();
        if let Some(deferred) = self.deferred.take() {
            deferred.group.abort();
            self.failed = true;
        }
    }

    /// After a failed commit point SQLite writes the old pages back: those it had written to the file, and not those
    /// that only a shorter file would have lost. So all that was buffered goes, the new size too, and what SQLite writes
    /// is what is there already.
    fn roll_back(&mut self) {
        self.leave_group();
        if std::mem::take(&mut self.failed)
            && let Some(buffer) = &mut self.buffer
        {
            self.database.abandon(buffer);
        }
    }

    fn snapshot(&self) -> Result<Snapshot> {
        self.snapshot.ok_or_else(|| Error::internal("used without a lock"))
    }

    fn buffer(&mut self) -> Result<&mut TransactionBuffer> {
        self.buffer.as_mut().ok_or_else(|| Error::internal("written without the RESERVED lock"))
    }

    /// Reads at an offset. Returns how many bytes there were; the rest of `out` is zeros. Before the first lock a file
    /// looks empty.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.settle();
        let Some(snapshot) = self.snapshot else {
            out.fill(0);
            return Ok(0);
        };
        // SQLite reads exactly these bytes, the change counter and what follows, when it begins a transaction and never
        // within one. What is still buffered then is left over from one that failed without being played back:
        // `journal_mode=OFF` under `locking_mode=EXCLUSIVE`, which neither writes back nor unlocks.
        if offset == 24 && out.len() == 16 && self.deferred.is_none() {
            self.discard()?;
        }
        match &self.buffer {
            Some(buffer) => self.database.read_buffered(buffer, offset, out),
            None => self.database.read(snapshot, offset, out),
        }
    }

    fn discard(&mut self) -> Result<()> {
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        if !buffer.is_dirty() {
            return Ok(());
        }
        self.database.end_write(buffer);
        let snapshot = self.snapshot.ok_or_else(|| Error::internal("a buffer without a snapshot"))?;
        self.buffer = None;
        self.buffer = Some(self.database.begin_write(snapshot)?);
        Ok(())
    }

    /// Writes at an offset, into the transaction buffer.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.roll_back();
        let database = Arc::clone(&self.database);
        database.write(self.buffer()?, offset, bytes)
    }

    /// Sets the size of the file.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.roll_back();
        let database = Arc::clone(&self.database);
        let buffer = self.buffer()?;
        // After its commit point SQLite cuts the file to the size that the commit has taken from page 1 already.
        if size == buffer.size() {
            return Ok(());
        }
        database.truncate(buffer, size)
    }

    /// The size of the file.
    pub fn size(&mut self) -> u64 {
        self.settle();
        match (&self.buffer, self.snapshot) {
            (Some(buffer), _) => buffer.size(),
            (None, Some(snapshot)) => snapshot.size,
            (None, None) => self.database.status().size,
        }
    }

    /// The commit point: SQLite has written every page of the transaction, and still has its journal. With the name of a
    /// super-journal the commit is held back until that is deleted.
    pub fn commit_point(&mut self, super_journal: Option<&str>) -> Result<()> {
        self.roll_back();
        let committed = self.commit_or_defer(super_journal);
        // After a plain "busy" SQLite keeps the transaction open, and its next COMMIT comes here without writing again.
        self.failed = committed.as_ref().is_err_and(|error| error.kind() != ErrorKind::LeaseHeld);
        committed
    }

    fn commit_or_defer(&mut self, super_journal: Option<&str>) -> Result<()> {
        let (Some(buffer), Some(snapshot)) = (&mut self.buffer, self.snapshot) else { return Ok(()) };
        let Some(name) = super_journal else {
            self.snapshot = Some(self.database.commit(buffer, snapshot)?);
            return Ok(());
        };
        let group = self.vfs.super_journals().get(name).ok_or_else(|| {
            Error::invalid(format!(
                "a transaction over several databases needs this VFS as the connection's own: its super-journal {name} \
                 was opened through another one, so the commit cannot be atomic"
            ))
        })?;
        if let Some(foreign) = group.journals().into_iter().find(|journal| !self.vfs.owns_journal(journal)) {
            return Err(Error::invalid(format!(
                "{foreign} belongs to a database outside this VFS: a transaction over both cannot be atomic"
            )));
        }
        let prepared = self.vfs.fleet().wait(self.database.prepare(buffer))?;
        let commit = prepared.map(|prepared| (Arc::clone(&self.database), prepared));
        let changed = commit.is_some();
        group.join(format!("{}{JOURNAL}", self.database.name()), commit)?;
        self.deferred = Some(Deferred { group, changed });
        Ok(())
    }

    /// Raises the lock.
    pub fn lock(&mut self, level: LockLevel) -> Result<()> {
        self.settle();
        if level <= self.level {
            return Ok(());
        }
        if self.snapshot.is_none() {
            self.snapshot = Some(self.database.begin_read()?);
            self.level = LockLevel::Shared;
        }
        if level >= LockLevel::Reserved && self.buffer.is_none() {
            self.buffer = Some(self.database.begin_write(self.snapshot()?)?);
        }
        self.level = level;
        Ok(())
    }

    /// Lowers the lock. Below RESERVED what was not committed is discarded.
    pub fn unlock(&mut self, level: LockLevel) {
        if level >= self.level {
            return;
        }
        self.leave_group();
        if level < LockLevel::Reserved
            && let Some(buffer) = self.buffer.take()
        {
            self.failed = false;
            self.database.end_write(&buffer);
        }
        if level == LockLevel::None
            && let Some(snapshot) = self.snapshot.take()
        {
            self.database.unpin(snapshot);
        }
        self.level = level;
    }

    /// Whether some connection of this process is writing.
    pub fn has_reserved_lock(&self) -> bool {
        self.database.has_writer()
    }

    /// Whether the name now means another database, as far as is known here.
    pub fn has_moved(&self) -> bool {
        self.database.stopped().is_some_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

impl Drop for MainFile {
    fn drop(&mut self) {
        self.unlock(LockLevel::None);
        self.vfs.fleet().disconnect(&self.database);
    }
}
