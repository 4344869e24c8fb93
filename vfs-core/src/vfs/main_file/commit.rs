//! The commit point, what comes after it, and transactions over several databases.

use std::sync::Arc;

use super::MainFile;
use crate::engine::{Snapshot, TransactionBuffer};
use crate::error::{Error, Result};
use crate::vfs::JOURNAL;

impl MainFile {
    /// After the commit of a transaction over several databases, this one goes on from the new state.
    pub(super) fn settle(&mut self) {
        let Some(group) = self.group.take_if(|group| group.is_committed()) else { return };
        if let (Some(buffer), Some(snapshot), Some(committed)) =
            (&mut self.buffer, &mut self.snapshot, group.take_snapshot(self.database.name()))
        {
            self.database.go_on(buffer, committed);
            // SQLite does not undo it any more.
            self.database.unpin(*snapshot);
            *snapshot = committed;
            self.as_read = false;
        } else if let Some(buffer) = &mut self.buffer {
            // It took part without a change.
            self.database.rewind(buffer);
        }
    }

    /// Leaves a transaction over several databases: if it is not committed yet, it never will be. Whether it was one.
    pub(super) fn leave_group(&mut self) -> bool {
        self.settle();
        let Some(group) = self.group.take() else { return false };
        group.abort();
        if let Some(buffer) = &mut self.buffer {
            self.database.rewind(buffer);
        }
        true
    }

    pub(super) fn forget_refused(&mut self) {
        if let Some(name) = self.refused.take() {
            self.vfs.super_journals().forget(&name);
        }
    }

    /// Remembers why a transaction over several databases failed, which no call on this file returned.
    pub(in crate::vfs) fn learn_failure(&mut self) {
        if let Some(error) = self.vfs.super_journals().take_failure(self.database.name(), self.connection) {
            self.last_error = Some(error);
        }
    }

    /// Whether the last commit may yet be undone. One that SQLite has not confirmed may also be what a rollback left in free
    /// pages, under `locking_mode=EXCLUSIVE`: that transaction is over with its journal.
    fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some_and(|journal| journal == self.locks.finalised())
    }

    /// A call that would undo a commit of this connection has failed: what SQLite tells its user is not what is stored.
    pub(super) fn undoing<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            if !self.is_unconfirmed() {
                return error;
            }
            let words = "a commit was made that SQLite then wanted to undo, and could not";
            self.database.stop(Error::internal(words).with_source(error))
        })
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
        // A VFS on top may keep syncs to itself.
        group.check().inspect_err(|_| group.abort())?;
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

    /// What SQLite has cut off, or what it undoes, is not as it was before any more.
    pub(super) fn forget_uncut(&mut self) {
        if let Some(before) = self.uncut.take() {
            self.database.unpin(before);
        }
    }

    /// SQLite writes after its commit point: it undoes the commit. What that cut off comes back first.
    pub(super) fn restore_uncut(&mut self) -> Result<()> {
        let Some(before) = self.uncut else { return Ok(()) };
        let database = Arc::clone(&self.database);
        let restored = self.buffer().and_then(|buffer| database.write_back(buffer, before));
        self.forget_uncut();
        restored
    }

    fn commit_buffer(&mut self) -> Result<()> {
        self.vfs.fleet().check_process()?;
        let undoes = self.is_unconfirmed();
        if undoes {
            let restored = self.restore_uncut();
            self.undoing(restored)?;
        }
        let (Some(buffer), Some(snapshot)) = (&mut self.buffer, self.snapshot) else { return Ok(()) };
        // As SQLite knows it: a commit may cut off more.
        let size = buffer.size().min(snapshot.size);
        let committed =
            if undoes { self.database.commit_back(buffer, snapshot) } else { self.database.commit(buffer, snapshot) };
        let committed = self.undoing(committed)?;
        if committed != snapshot {
            // The second of two commits undoes the first.
            self.unconfirmed = (!undoes).then(|| self.locks.finalised());
            self.as_read = false;
            self.forget_uncut();
            if committed.size < snapshot.size {
                self.uncut = Some(Snapshot { size, ..snapshot });
            }
            if undoes || committed.size >= size {
                self.forget_uncut();
            }
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
            self.unconfirmed = (!self.as_read).then(|| self.locks.finalised());
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
        self.unconfirmed = None;
        self.forget_uncut();
        Ok(())
    }
}
