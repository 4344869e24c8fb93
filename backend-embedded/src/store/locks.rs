//! Shared locks and the exclusive one. They are those of sessions, which end with the process, and so are in memory alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use litefleet::store::{HeadReply, SharedLock, SharedLocks, SharedRequest};
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, Result, SessionId};

use super::{EmbeddedStore, stored};

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
        let mut all = self.locks.lock();
        // After the lock was taken: who has locked exclusively before it has committed before it too, or is in the way.
        let reply = self.read_head(&request.head)?;
        self.sessions.check_live(request.lock.session)?;
        let holder = reply.head.holder.as_ref().map(|holder| holder.session);
        let living = holder.filter(|holder| self.sessions.live(*holder));
        let locks = all.entry(request.head.database).or_default();
        match locks.lock_shared(request.lock, reply.head.epoch, living) {
            Ok(()) => Ok(reply),
            Err(other) => Err(self.locked(&reply.name, "exclusively", other)),
        }
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
        let (holder, name) = self.read(|engine| {
            let view = engine.view();
            let head = stored::head(&view, database)?;
            stored::fence(&head, epoch)?;
            Ok((head.holder, stored::name(&view, database)?))
        })?;
        let Some(holder) = holder else { return Err(Error::internal("a lease that is held has no holder")) };
        let locks = all.entry(database).or_default();
        let locked = locks.lock_exclusive(epoch, holder, |session| self.sessions.live(session));
        locked.map_err(|other| self.locked(&name, "for reading", other))
    }

    pub(super) fn unlock_for_writing(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let mut all = self.locks.lock();
        self.read(|engine| {
            let head = stored::head(&engine.view(), database)?;
            Ok(stored::fence(&head, epoch)?)
        })?;
        if let Some(locks) = all.get_mut(&database) {
            locks.unlock_exclusive();
        }
        self.tidy(&mut all, database)
    }

    /// What nobody has locked needs no memory.
    fn tidy(&self, all: &mut HashMap<DatabaseId, SharedLocks>, database: DatabaseId) -> Result<()> {
        let head = self.read(|engine| stored::head(&engine.view(), database))?;
        if all.get(&database).is_some_and(|locks| locks.is_unlocked(head.epoch, head.holder)) {
            all.remove(&database);
        }
        Ok(())
    }

    fn locked(&self, name: &DatabaseName, how: &str, by: SessionId) -> Error {
        Error::lease_held(format!("{name} is locked {how} by {}", self.sessions.holder(by).label))
    }
}
