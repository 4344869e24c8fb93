//! SQLite's locks, and what they stand for in the engine.

use super::MainFile;
use crate::config::Locking;
use crate::engine::Role;
use crate::error::{ErrorKind, Result};
use crate::vfs::locks::LockLevel;

impl MainFile {
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
        // A follower disturbs nobody, unless it was asked to: it has what the store has, whoever locks that here.
        let takes_part = strict || self.database.role() == Role::Writer;
        let (reached, allowed) =
            if takes_part { self.locks.raise(self.connection, before, level, strict) } else { (level, Ok(())) };
        let taken = self.take(before, reached);
        if taken.is_err() {
            self.locks.lower(self.connection, reached, self.level);
        }
        if self.level >= LockLevel::Reserved {
            self.locks.is_writer(self.connection, self.level);
        }
        taken.and(allowed.map_err(|error| error.context(self.database.name())))
    }

    /// Gets from the engine what a level of lock stands for.
    fn take(&mut self, before: LockLevel, level: LockLevel) -> Result<()> {
        if level >= LockLevel::Shared && self.snapshot.is_none() {
            let exclusive = self.modes.exclusive;
            // Who locks exclusively has the lease, which keeps other writers out from the start.
            let shares = !exclusive && self.database.locks_between_processes();
            let begun = if exclusive {
                self.database.begin_exclusive()
            } else if shares {
                self.database.begin_shared()
            } else {
                self.database.begin_read()
            };
            self.snapshot = Some(begun?);
            self.exclusive = exclusive;
            self.shares = shares;
            self.as_read = true;
            self.level = LockLevel::Shared;
        }
        if level >= LockLevel::Reserved && self.buffer.is_none() {
            self.buffer = Some(self.database.begin_write(self.snapshot()?, self.exclusive)?);
            self.level = LockLevel::Reserved;
        }
        if level >= LockLevel::Pending {
            self.shut_others_out(before)?;
        }
        self.level = level;
        Ok(())
    }

    /// Keeps the readers of other processes out. Where they are in the way it has PENDING; who would roll a journal back, from SHARED
    /// at once, keeps nobody out while it is not alone.
    fn shut_others_out(&mut self, before: LockLevel) -> Result<()> {
        let shut = self.database.begin_exclusive_lock();
        if let Err(error) = &shut {
            if before < LockLevel::Reserved {
                self.end_write();
                self.level = LockLevel::Shared;
            } else if error.kind() == ErrorKind::LeaseHeld {
                self.level = LockLevel::Pending;
            }
        }
        shut
    }

    /// It is not the writer any more.
    fn end_write(&mut self) {
        if let Some(mut buffer) = self.buffer.take()
            && self.vfs.fleet().check_process().is_ok()
        {
            self.database.end_write(&mut buffer);
        }
    }

    /// Lowers the lock. Below RESERVED what was not committed is discarded.
    pub fn unlock(&mut self, level: LockLevel) {
        if level >= self.level {
            return;
        }
        self.leave_group();
        self.learn_failure();
        self.unconfirmed = None;
        self.forget_uncut();
        self.forget_refused();
        if level < LockLevel::Reserved {
            self.end_write();
        }
        if level == LockLevel::None
            && let Some(snapshot) = self.snapshot.take()
        {
            if std::mem::take(&mut self.exclusive) {
                self.database.end_exclusive();
            }
            self.database.unpin(snapshot);
            self.settle_lease();
            if std::mem::take(&mut self.shares) {
                self.database.end_shared();
            }
        }
        self.locks.lower(self.connection, self.level, level);
        self.level = level;
    }

    /// SQLite keeps its lock between transactions from now on, or does not any more. Where it has one already, what it has read
    /// must be what everybody reads until it gives that lock back: it hears of no other commit.
    pub(in crate::vfs) fn set_exclusive(&mut self, exclusive: bool) -> Result<()> {
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
    pub(super) fn settle_lease(&mut self) {
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
