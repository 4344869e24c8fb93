//! The locks of a database, for a store whose sessions and locks end with the process: it keeps them in memory.

use std::collections::BTreeSet;

use super::model::SharedLock;
use crate::types::{Epoch, SessionId};

/// Who has locked one database.
#[derive(Clone, Debug, Default)]
pub struct SharedLocks {
    shared: BTreeSet<SharedLock>,
    /// The epoch whose holder has locked exclusively. It means something while that is the current one and its lease is held.
    exclusive: Option<Epoch>,
}

impl SharedLocks {
    /// Adds a shared lock, whose session lives. Returns the session that is in the way: `holder` has the lease, under `epoch`, and
    /// lives.
    pub fn lock_shared(&mut self, lock: SharedLock, epoch: Epoch, holder: Option<SessionId>) -> Result<(), SessionId> {
        let other = holder.filter(|holder| *holder != lock.session && self.exclusive == Some(epoch));
        match other {
            Some(other) if !self.shared.iter().any(|shared| shared.session == lock.session) => Err(other),
            _ => {
                self.shared.insert(lock);
                Ok(())
            }
        }
    }

    /// Takes a shared lock away.
    pub fn unlock_shared(&mut self, lock: SharedLock) {
        self.shared.remove(&lock);
    }

    /// The holder of the lease locks exclusively. Returns a session that is in the way, in which case the lock keeps new ones out
    /// all the same. Locks of sessions that do not live are forgotten.
    pub fn lock_exclusive(
        &mut self,
        epoch: Epoch,
        holder: SessionId,
        lives: impl Fn(SessionId) -> bool,
    ) -> Result<(), SessionId> {
        self.exclusive = Some(epoch);
        self.forget_ended(lives);
        let other = self.shared.iter().map(|shared| shared.session).find(|session| *session != holder);
        other.map_or(Ok(()), Err)
    }

    /// Forgets the locks of sessions that do not live.
    pub fn forget_ended(&mut self, lives: impl Fn(SessionId) -> bool) {
        self.shared.retain(|shared| lives(shared.session));
    }

    /// Whoever holds the lease lets others in again.
    pub fn unlock_exclusive(&mut self) {
        self.exclusive = None;
    }

    /// Whether nobody has locked anything, where the lease is as said.
    pub fn is_unlocked(&self, epoch: Epoch, holder: Option<SessionId>) -> bool {
        self.shared.is_empty() && (holder.is_none() || self.exclusive != Some(epoch))
    }
}
