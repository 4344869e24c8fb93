//! The database file of one connection.

mod commit;
mod locking;

use std::sync::Arc;

use super::Vfs;
use super::loans::{Loans, SLACK};
use super::locks::{LockLevel, LockTable};
use super::pragmas::Modes;
use super::super_journal::SuperGroup;
use crate::engine::{Database, Snapshot, TransactionBuffer};
use crate::error::{Error, Result};

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
    /// The snapshot was pinned under a lock of the store, which is given back with it.
    shares: bool,
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
    /// A commit was made that SQLite has not confirmed: until it has finalised its journal, and this is no more the number of
    /// that, it may still roll it back, by writing the old pages.
    unconfirmed: Option<u64>,
    /// What was committed before a commit that has made the file smaller, pinned until SQLite cuts the file itself: to SQLite it is
    /// as long as before, and should SQLite undo that commit, it has journaled nothing of what lies beyond the new end.
    uncut: Option<Snapshot>,
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
            shares: false,
            keeps_lease: false,
            buffer: None,
            group: None,
            refused: None,
            late: false,
            unconfirmed: None,
            uncut: None,
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
        if self.exclusive {
            self.database.check_exclusive(snapshot)?;
        }
        // SQLite reads exactly these bytes, the change counter and what follows, when it begins a transaction and never
        // within one. What is still buffered then is left over from one that failed without being played back:
        // `journal_mode=OFF` under `locking_mode=EXCLUSIVE`, which neither writes back nor unlocks. So is a transaction over
        // several databases that this one took part in. What was stored of it stays: SQLite has played back what it could.
        if offset == 24 && out.len() == 16 {
            self.unconfirmed = None;
            self.forget_uncut();
            if !self.leave_group()
                && let Some(buffer) = self.buffer.as_mut().filter(|buffer| buffer.is_dirty())
            {
                self.database.rewind(buffer);
            }
        }
        if self
            .uncut
            .is_some_and(|before| offset.saturating_add(out.len() as u64) > snapshot.size && offset < before.size)
        {
            self.restore_uncut()?;
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
        let restored = self.restore_uncut();
        let written = restored.and_then(|()| database.write(self.buffer()?, offset, bytes));
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
        // After its commit point SQLite cuts the file to the size that the commit has taken from page 1 already.
        if size == self.buffer()?.size() {
            self.forget_uncut();
            return Ok(());
        }
        let restored = self.restore_uncut();
        let cut = restored.and_then(|()| database.truncate(self.buffer()?, size));
        self.undoing(cut)
    }

    /// The size of the file.
    pub fn size(&mut self) -> u64 {
        self.settle();
        match (&self.buffer, self.snapshot) {
            (Some(buffer), _) => buffer.size().max(self.uncut.map_or(0, |before| before.size)),
            (None, Some(snapshot)) => snapshot.size,
            (None, None) => self.database.status().size,
        }
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
mod tests;
