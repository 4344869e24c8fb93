//! Shared locks and the exclusive one. They are those of sessions, which end with the process, and so are in memory alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use litefleet::store::{HeadReply, SharedLock, SharedLocks, SharedRequest};
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, ErrorKind, Result, SessionId};

use super::{EmbeddedStore, stored};
use crate::values::HeadValue;

/// Of each database that has any. Taken before the slot's lock.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<DatabaseId, SharedLocks>>);

impl Locks {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, SharedLocks>> {
        // Each change is one call that cannot panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A database was deleted.
    pub(super) fn forget(&self, database: DatabaseId) {
        self.lock().remove(&database);
    }
}

impl EmbeddedStore {
    pub(super) fn lock_for_reading(&self, request: &SharedRequest) -> Result<HeadReply> {
        let (database, lock) = (request.head.database, request.lock);
        {
            let mut all = self.locks.lock();
            let (head, name) = self.look(database)?;
            self.sessions.check_live(lock.session)?;
            let holder = head.holder.filter(|holder| self.sessions.live(*holder));
            let locks = all.entry(database).or_default();
            locks.lock_shared(lock, head.epoch, holder).map_err(|other| self.locked(&name, "exclusively", other))?;
        }
        // With the lock: whoever has locked exclusively before it has committed before it. What is read may be large, and other
        // databases have the same mutex.
        self.read_head(&request.head)
    }

    pub(super) fn unlock_for_reading(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        let mut all = self.locks.lock();
        if let Some(locks) = all.get_mut(&database) {
            locks.unlock_shared(lock);
        }
        self.tidy(&mut all, database)
    }

    pub(super) fn lock_for_writing(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let mut all = self.locks.lock();
        let (head, name) = self.look(database)?;
        stored::fence(&head, epoch)?;
        let Some(holder) = head.holder else { return Err(Error::internal("a lease that is held has no holder")) };
        self.sessions.check_live(holder)?;
        let locks = all.entry(database).or_default();
        let locked = locks.lock_exclusive(epoch, holder, |session| self.sessions.live(session));
        locked.map_err(|other| self.locked(&name, "for reading", other))
    }

    pub(super) fn unlock_for_writing(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let mut all = self.locks.lock();
        stored::fence(&self.look(database)?.0, epoch)?;
        if let Some(locks) = all.get_mut(&database) {
            locks.unlock_exclusive();
        }
        self.tidy(&mut all, database)
    }

    /// What nobody has locked needs no memory.
    fn tidy(&self, all: &mut HashMap<DatabaseId, SharedLocks>, database: DatabaseId) -> Result<()> {
        let (head, _) = self.look(database)?;
        if all.get(&database).is_some_and(|locks| locks.is_unlocked(head.epoch, head.holder)) {
            all.remove(&database);
        }
        Ok(())
    }

    /// The locks of sessions that are over, and what is left of exclusive ones.
    pub(super) fn forget_ended_locks(&self) {
        let databases: Vec<DatabaseId> = self.locks.lock().keys().copied().collect();
        for database in databases {
            let mut all = self.locks.lock();
            if let Some(locks) = all.get_mut(&database) {
                locks.forget_ended(|session| self.sessions.live(session));
            }
            // Where the head cannot be read the rest is left to whoever finds out why.
            if self.tidy(&mut all, database).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                all.remove(&database);
            }
        }
    }

    fn look(&self, database: DatabaseId) -> Result<(HeadValue, DatabaseName)> {
        self.read(|engine| {
            let view = engine.view();
            Ok((stored::head(&view, database)?, stored::name(&view, database)?))
        })
    }

    fn locked(&self, name: &DatabaseName, how: &str, by: SessionId) -> Error {
        Error::lease_held(format!("{name} is locked {how} by {}", self.sessions.holder(by).label))
    }
}
