//! The database file of one connection.

use std::sync::Arc;

use super::loans::{Loans, SLACK};
use super::locks::{LockLevel, LockTable};
use super::pragmas::Modes;
use super::super_journal::SuperGroup;
use super::{JOURNAL, Vfs};
use crate::config::Locking;
use crate::engine::{Database, Snapshot, TransactionBuffer};
use crate::error::{Error, ErrorKind, Result};

/// A database file as one SQLite connection has it open.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact, read alone")]
pub struct MainFile {
    vfs: Arc<Vfs>,
    database: Arc<Database>,
    locks: Arc<LockTable>,
    /// This connection in `locks`.
    connection: u64,
    level: LockLevel,
    /// Pinned while the lock is at least SHARED.
    snapshot: Option<Snapshot>,
    /// No commit was made here since it was pinned: SQLite knows its change counter, and the next commit raises that.
    as_read: bool,
    /// The snapshot is counted as one of a connection that locks exclusively: until it is given up, also where SQLite is told
    /// to lock as usual before that.
    exclusive: bool,
    /// The lease is kept between transactions for this connection.
    keeps_lease: bool,
    /// There while the lock is at least RESERVED.
    buffer: Option<TransactionBuffer>,
    /// The transaction over several databases that this one takes part in.
    group: Option<Arc<SuperGroup>>,
    /// The super-journal of another VFS, which exists here for as long as the rollback of its transaction may look for it.
    refused: Option<String>,
    /// Something was written since its commit was prepared for the group.
    late: bool,
    /// A commit was made that SQLite has not confirmed: it may still roll it back, by writing the old pages.
    unconfirmed: bool,
    last_error: Option<Error>,
    loans: Loans,
    modes: Modes,
    /// Whether SQLite may think that a crash does not damage bytes beside those that are written: it never does, but an
    /// application can tell SQLite otherwise.
    powersafe_overwrite: bool,
}

impl MainFile {
    pub(super) fn new(vfs: Arc<Vfs>, database: Arc<Database>) -> Self {
        let locks = vfs.lock_table(database.name());
        Self {
            vfs,
            database,
            connection: locks.connection(),
            locks,
            level: LockLevel::None,
            snapshot: None,
            as_read: false,
            exclusive: false,
            keeps_lease: false,
            buffer: None,
            group: None,
            refused: None,
            late: false,
            unconfirmed: false,
            last_error: None,
            loans: Loans::default(),
            modes: Modes::default(),
            powersafe_overwrite: true,
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
        let Some(group) = self.group.take_if(|group| group.is_committed()) else { return };
        if let (Some(buffer), Some(snapshot), Some(committed)) =
            (&mut self.buffer, &mut self.snapshot, group.take_snapshot(self.database.name()))
        {
            self.database.go_on(buffer, *snapshot, committed);
            *snapshot = committed;
            self.as_read = false;
        } else if let Some(buffer) = &mut self.buffer {
            // It took part without a change.
            self.database.rewind(buffer);
        }
    }

    /// Leaves a transaction over several databases: if it is not committed yet, it never will be. Whether it was one.
    fn leave_group(&mut self) -> bool {
        self.settle();
        let Some(group) = self.group.take() else { return false };
        group.abort();
        if let Some(buffer) = &mut self.buffer {
            self.database.rewind(buffer);
        }
        true
    }

    fn forget_refused(&mut self) {
        if let Some(name) = self.refused.take() {
            self.vfs.super_journals().forget(&name);
        }
    }

    /// Remembers why a transaction over several databases failed, which no call on this file returned.
    pub(super) fn learn_failure(&mut self) {
        if let Some(error) = self.vfs.super_journals().take_failure(self.database.name(), self.connection) {
            self.last_error = Some(error);
        }
    }

    /// A call that would undo a commit of this connection has failed: what SQLite tells its user is not what is stored.
    fn undoing<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            if !self.unconfirmed {
                return error;
            }
            let words = "a commit was made that SQLite then wanted to undo, and could not";
            self.database.stop(Error::internal(words).with_source(error))
        })
    }

    fn snapshot(&self) -> Result<Snapshot> {
        self.snapshot.ok_or_else(|| Error::internal("used without a lock"))
    }

    fn buffer(&mut self) -> Result<&mut TransactionBuffer> {
        self.buffer.as_mut().ok_or_else(|| {
            Error::invalid("written without the RESERVED lock, as with nolock=1: it makes a connection the writer")
        })
    }

    /// Reads at an offset. Returns how many bytes there were; the rest of `out` is zeros. Before the first lock SQLite
    /// reads the header, once and as a hint: then the store is not asked for it, and a database that is not open in this
    /// process looks empty.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.settle();
        let Some(snapshot) = self.snapshot else { return Ok(self.database.peek(offset, out)) };
        // SQLite reads exactly these bytes, the change counter and what follows, when it begins a transaction and never
        // within one. What is still buffered then is left over from one that failed without being played back:
        // `journal_mode=OFF` under `locking_mode=EXCLUSIVE`, which neither writes back nor unlocks.
        if offset == 24
            && out.len() == 16
            && self.group.is_none()
            && let Some(buffer) = self.buffer.as_mut().filter(|buffer| buffer.is_dirty())
        {
            self.database.rewind(buffer);
        }
        match &self.buffer {
            Some(buffer) => self.database.read_buffered(buffer, offset, out),
            None => self.database.read(snapshot, offset, out),
        }
    }

    pub(super) fn modes(&mut self) -> &mut Modes {
        &mut self.modes
    }

    /// What SQLite may read in place, and what it has.
    pub fn loans(&mut self) -> &mut Loans {
        &mut self.loans
    }

    /// Lends bytes, where [`Loans`] allow it and they are in the file; until they are taken back they stay as they are.
    pub fn lend(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>> {
        let end = offset.saturating_add((count + SLACK) as u64);
        if self.snapshot.is_none() || end > self.loans.limit().min(self.size()) {
            return Ok(None);
        }
        let mut bytes = vec![0; count + SLACK];
        self.read(offset, &mut bytes[..count])?;
        Ok(Some(self.loans.lend(bytes)))
    }

    /// What SQLite is told about writing beside what is there.
    pub fn powersafe_overwrite(&self) -> bool {
        self.powersafe_overwrite
    }

    /// Sets what SQLite is told about writing beside what is there.
    pub fn set_powersafe_overwrite(&mut self, powersafe: bool) {
        self.powersafe_overwrite = powersafe;
    }

    /// Writes at an offset, into the transaction buffer.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.settle();
        self.late = self.group.is_some();
        let database = Arc::clone(&self.database);
        let written = self.buffer().and_then(|buffer| database.write(buffer, offset, bytes));
        self.undoing(written)
    }

    /// Says that it is not SQLite who writes in this transaction, but somebody who handles the database as a file: nothing
    /// is concluded from the header of page 1, and nothing in it replaced.
    pub fn write_as_foreigner(&mut self) -> Result<()> {
        self.buffer()?.set_foreign();
        Ok(())
    }

    /// Sets the size of the file.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.settle();
        let database = Arc::clone(&self.database);
        let buffer = self.buffer()?;
        // After its commit point SQLite cuts the file to the size that the commit has taken from page 1 already.
        if size == buffer.size() {
            return Ok(());
        }
        let cut = database.truncate(buffer, size);
        self.undoing(cut)
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
        self.vfs.fleet().check_process()?;
        self.settle();
        let Some(name) = super_journal else { return self.commit_alone() };
        self.leave_group();
        let Some(group) = self.vfs.super_journals().get(name) else {
            // SQLite rolls back now, and plays nothing back unless it finds the super-journal.
            let journal = format!("{}{JOURNAL}", self.database.name());
            self.group = Some(self.vfs.super_journals().refuse(name, &journal, self.locks.commit_with_others()));
            self.forget_refused();
            self.refused = Some(name.to_owned());
            return Err(Error::invalid(format!(
                "a transaction over several databases needs this VFS as the connection's own: its super-journal {name} \
                 was opened through another one, so the commit cannot be atomic"
            )));
        };
        // Whatever comes now, this one takes part: if it fails, all do.
        self.late = false;
        self.group = Some(Arc::clone(&group));
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        let prepared = self.vfs.fleet().wait(self.database.prepare_with_others(buffer));
        match prepared {
            Ok(Some(prepared)) => group.join(Arc::clone(&self.database), prepared),
            Ok(None) => Ok(()),
            Err(error) => {
                group.abort();
                Err(error)
            }
        }
    }

    fn commit_alone(&mut self) -> Result<()> {
        // SQLite is rolling back a transaction over several databases: nothing of it was stored.
        if self.leave_group() {
            return Ok(());
        }
        match &self.buffer {
            // What a rollback leaves in free pages is no commit. It stays in the buffer, as it would in a file.
            Some(buffer) if self.as_read && self.database.is_rolled_back(buffer) => Ok(()),
            _ => self.commit_buffer(),
        }
    }

    fn commit_buffer(&mut self) -> Result<()> {
        let (Some(buffer), Some(snapshot)) = (&mut self.buffer, self.snapshot) else { return Ok(()) };
        let committed = if self.unconfirmed {
            self.database.commit_back(buffer, snapshot)
        } else {
            self.database.commit(buffer, snapshot)
        };
        let committed = self.undoing(committed)?;
        if committed != snapshot {
            // The second of two commits undoes the first.
            self.unconfirmed = !self.unconfirmed;
            self.as_read = false;
        }
        self.snapshot = Some(committed);
        Ok(())
    }

    /// Commits what was written after the commit point. SQLite writes nothing between its commit point and the sync that
    /// follows; another VFS on top of this one may hold writes back until then, and what it acknowledges must be stored.
    /// SQLite still has its journal. In a transaction over several databases it is too late: the commit is prepared.
    pub fn commit_late_writes(&mut self) -> Result<()> {
        self.settle();
        if let Some(group) = &self.group {
            if !self.late {
                return Ok(());
            }
            group.abort();
            return Err(Error::invalid(format!(
                "database {}: written after its commit point, by another VFS that holds writes back: that cannot be part \
                 of a transaction over several databases",
                self.database.name()
            )));
        }
        if self.buffer.as_ref().is_some_and(TransactionBuffer::is_dirty) {
            self.commit_alone()?;
            // Together with what was committed before, one transaction, which SQLite may still roll back.
            self.unconfirmed = !self.as_read;
        }
        Ok(())
    }

    /// SQLite has finalised its journal: what was committed stays. It says so only of commits: what would still be buffered is
    /// stored now, and if that fails, the database stops.
    pub fn commit_confirmed(&mut self) -> Result<()> {
        self.settle();
        if self.as_read && self.group.is_none() && self.buffer.as_ref().is_some_and(TransactionBuffer::is_dirty) {
            self.commit_buffer().map_err(|error| self.database.stop(error))?;
        }
        self.unconfirmed = false;
        Ok(())
    }

    /// Raises the lock.
    pub fn lock(&mut self, level: LockLevel) -> Result<()> {
        self.settle();
        if level <= self.level {
            return Ok(());
        }
        self.vfs.fleet().check_process()?;
        let strict = self.database.settings().locking == Locking::Sqlite;
        let before = self.level;
        if before == LockLevel::Shared && level == LockLevel::Exclusive {
            // Only to play back a journal that somebody has left beside the database: what that changes is to be stored.
            self.as_read = false;
        }
        let (reached, allowed) = self.locks.raise(self.connection, before, level, strict);
        let taken = self.take(reached);
        if taken.is_err() {
            self.locks.lower(self.connection, reached, self.level);
        } else if reached >= LockLevel::Reserved {
            self.locks.is_writer(self.connection, reached);
        }
        taken.and(allowed.map_err(|error| error.context(self.database.name())))
    }

    /// Gets from the engine what a level of lock stands for.
    fn take(&mut self, level: LockLevel) -> Result<()> {
        if level >= LockLevel::Shared && self.snapshot.is_none() {
            let exclusive = self.modes.exclusive;
            let begun = if exclusive { self.database.begin_exclusive() } else { self.database.begin_read() };
            self.snapshot = Some(begun?);
            self.exclusive = exclusive;
            self.as_read = true;
            self.level = LockLevel::Shared;
        }
        if level >= LockLevel::Reserved && self.buffer.is_none() {
            self.buffer = Some(self.database.begin_write(self.snapshot()?, self.exclusive)?);
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
        self.learn_failure();
        self.unconfirmed = false;
        self.forget_refused();
        if level < LockLevel::Reserved
            && let Some(mut buffer) = self.buffer.take()
            && self.vfs.fleet().check_process().is_ok()
        {
            self.database.end_write(&mut buffer);
        }
        if level == LockLevel::None
            && let Some(snapshot) = self.snapshot.take()
        {
            if std::mem::take(&mut self.exclusive) {
                self.database.end_exclusive();
            }
            self.database.unpin(snapshot);
            self.settle_lease();
        }
        self.locks.lower(self.connection, self.level, level);
        self.level = level;
    }

    /// SQLite keeps its lock between transactions from now on, or does not any more. Where it has one already, what it has read
    /// must be what everybody reads until it gives that lock back: it hears of no other commit.
    pub(super) fn set_exclusive(&mut self, exclusive: bool) -> Result<()> {
        let before = std::mem::replace(&mut self.modes.exclusive, exclusive);
        self.settle_lease();
        if exclusive
            && !self.exclusive
            && let Some(snapshot) = self.snapshot
        {
            if let Err(error) = self.database.make_exclusive(snapshot, self.buffer.is_some()) {
                self.modes.exclusive = before;
                self.settle_lease();
                return Err(error);
            }
            self.exclusive = true;
        }
        Ok(())
    }

    /// Keeps the lease between transactions for as long as SQLite may keep its lock.
    fn settle_lease(&mut self) {
        let keep = self.modes.exclusive || self.exclusive;
        if std::mem::replace(&mut self.keeps_lease, keep) != keep && self.vfs.fleet().check_process().is_ok() {
            self.database.keep_lease(keep);
        }
    }

    /// Whether some connection of this process is writing.
    pub fn has_reserved_lock(&self) -> bool {
        self.locks.has_writer() || self.database.has_writer()
    }

    /// Whether the name now means another database, as far as is known here.
    pub fn has_moved(&self) -> bool {
        self.database.stopped().is_some_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

impl Drop for MainFile {
    fn drop(&mut self) {
        self.modes.exclusive = false;
        self.unlock(LockLevel::None);
        self.learn_failure();
        self.settle_lease();
        self.locks.leave(self.connection);
        self.vfs.fleet().disconnect(&self.database);
    }
}

#[cfg(test)]
#[path = "main_file_tests.rs"]
mod tests;
