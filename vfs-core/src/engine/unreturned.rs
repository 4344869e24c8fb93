//! Leases and locks that this process has no use for and could not give back, or may have been granted without being told.
//!
//! The session of a process is renewed for as long as it lives, so such a lease would be taken for as long, and nobody
//! else could write. They are written down here, and the sweep gives them back.
//!
//! Whether somebody in this process uses a lease is found out after its epoch was read: a grant that comes later raises the
//! epoch, and the release of the one that was read does nothing.
//!
//! They end with their session: those of one that this process has no more are forgotten. And there is a bound, since a store
//! that is away can leave one for every name that is asked for: past it the session itself is ended, which gives back all leases of
//! this process with one call. Whoever here uses one takes it anew.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::database::Database;
use super::fleet::FleetInner;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Head, HeadRequest, OpenRequest, SharedLock};
use crate::types::{DatabaseId, DatabaseName, Epoch, SessionId, Txid};

/// How often a grant that was not told of is looked for after nothing was found: the request may still be on its way.
const LOOKS: u32 = 3;
/// A store that is not reached so often in a row is away.
const UNAVAILABLE: usize = 3;
/// The most leases that are written down: 2 MiB of names at most.
const MOST: usize = 4096;
/// An epoch that no other has come after: whoever asks with it asks how things are in the end.
const NO_OTHER_AFTER: Epoch = Epoch(u64::MAX >> 1);

/// Whose lease it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// A database that is known.
    Database(DatabaseId),
    /// The one that was opened by this name, without an answer.
    Named(DatabaseName),
}

/// One that is to be given back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Lease(Whose),
    /// The shared lock of a database that has this number.
    Lock(DatabaseId, u64),
}

/// What is to be given back, under which session, and how often nothing must be found before it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Unreturned(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    held: BTreeMap<(Held, SessionId), u32>,
    /// A session of which there were too many.
    overflowed: Option<SessionId>,
}

impl Unreturned {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease could not be given back.
    pub(super) fn kept(&self, database: DatabaseId, session: SessionId) {
        self.note(Held::Lease(Whose::Database(database)), session, 1);
    }

    /// A lease was asked for, and there was no answer: also where it was asked for again, and granted. The first request may be
    /// granted once more when that one has been given back.
    pub(super) fn perhaps_granted(&self, name: &DatabaseName, session: SessionId) {
        self.note(Held::Lease(Whose::Named(name.clone())), session, LOOKS);
    }

    /// A shared lock was asked for, or given back, and there was no answer: as with leases.
    pub(super) fn perhaps_locked(&self, database: DatabaseId, lock: SharedLock) {
        self.note(Held::Lock(database, lock.number), lock.session, LOOKS);
    }

    fn note(&self, held: Held, session: SessionId, looks: u32) {
        let mut list = self.lock();
        let full = list.held.len() >= MOST;
        match list.held.entry((held, session)) {
            Entry::Occupied(mut old) => *old.get_mut() = looks,
            Entry::Vacant(new) if !full => {
                new.insert(looks);
            }
            Entry::Vacant(_) => list.overflowed = Some(session),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let list = self.lock();
        list.held.is_empty() && list.overflowed.is_none()
    }

    /// Forgets those of every session but this one, which alone is renewed. What is left, and whether it is too much.
    fn of(&self, current: Option<SessionId>) -> (Vec<(Held, SessionId)>, bool) {
        let mut list = self.lock();
        list.held.retain(|(_, session), _| Some(*session) == current);
        list.overflowed = list.overflowed.filter(|session| Some(*session) == current);
        (list.held.keys().cloned().collect(), list.overflowed.is_some())
    }

    fn found_nothing(&self, key: &(Held, SessionId)) {
        let mut list = self.lock();
        if let Some(looks) = list.held.get_mut(key) {
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                list.held.remove(key);
            }
        }
    }
}

impl FleetInner {
    /// Gives back what can be given back now. Ends where the store is not reached: it is tried again.
    pub(super) async fn return_leases(&self) {
        let current = self.session.current();
        let (round, too_many) = self.unreturned.of(current);
        if let Some(session) = current.filter(|_| too_many) {
            match self.session.give_up(session).await {
                Ok(()) => tracing::warn!(%session, "session ended: too many of its leases were to be given back"),
                Err(error) => tracing::debug!(%error, "a session is still to be ended, for its leases"),
            }
            return;
        }
        let mut unavailable = 0;
        for key in round {
            let (held, session) = &key;
            let returned = match held {
                Held::Lease(whose) => self.return_lease(whose, *session).await,
                Held::Lock(database, number) => {
                    self.return_lock(*database, SharedLock { session: *session, number: *number }).await
                }
            };
            let away = returned.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable);
            unavailable = if away { unavailable + 1 } else { 0 };
            match returned {
                Ok(true) => self.unreturned.found_nothing(&key),
                Ok(false) => {}
                // It may be this one database that cannot be reached.
                Err(error) if away => {
                    tracing::debug!(%error, "leases are still to be given back");
                    if unavailable == UNAVAILABLE {
                        return;
                    }
                }
                // One that cannot be given back does not stand in the way of others.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, "a lease could not be given back");
                    self.unreturned.found_nothing(&key);
                }
                Err(error) => tracing::debug!(%error, "a lease is still to be given back"),
            }
        }
    }

    /// Gives a lease back that is this session's and that nobody here uses. False when that cannot be told yet.
    pub(super) async fn return_lease(&self, whose: &Whose, session: SessionId) -> Result<bool> {
        let Some((database, head)) = self.look_at(whose).await? else { return Ok(true) };
        if head.holder.is_none_or(|holder| holder.session != session) {
            return Ok(true);
        }
        self.release_unused(database, head.epoch, None).await
    }

    /// Gives a lock back. It has a number of its own, and nobody uses one that is written down here.
    async fn return_lock(&self, database: DatabaseId, lock: SharedLock) -> Result<bool> {
        let unlocked = self.store.unlock_shared(database, lock).await;
        unlocked.or_else(|error| unless_gone(error).map(|_: Option<()>| ())).map(|()| true)
    }

    async fn look_at(&self, whose: &Whose) -> Result<Option<(DatabaseId, Head)>> {
        let database = match whose {
            Whose::Database(database) => *database,
            Whose::Named(name) => {
                let (create, lease, known, tail_bytes) = (false, None, None, 0);
                let request = OpenRequest { name: name.clone(), create, lease, known, tail_bytes };
                match self.store.open(request).await.map(|opened| opened.database).map(Some).or_else(unless_gone)? {
                    Some(database) => database,
                    None => return Ok(None),
                }
            }
        };
        // With an epoch: that the lease is not ours any more is relied on, and a failover must not undo it.
        let request = HeadRequest { database, known: Txid(0), epoch: Some(NO_OTHER_AFTER), tail_bytes: 0 };
        self.store.head(request).await.map(|reply| Some((database, reply.head))).or_else(unless_gone)
    }

    /// Gives the lease of this epoch back unless somebody here uses it, other than `but`. False when that cannot be told yet.
    pub(super) async fn release_unused(
        &self,
        database: DatabaseId,
        epoch: Epoch,
        but: Option<&Database>,
    ) -> Result<bool> {
        match self.registry.uses_lease(database, but) {
            Some(true) => return Ok(true),
            None => return Ok(false),
            Some(false) => {}
        }
        match self.store.release(database, epoch, Vec::new()).await {
            // It was granted anew.
            Err(error) if error.kind() == ErrorKind::Fenced => Ok(false),
            released => released.map(|()| true).or_else(|error| unless_gone(error).map(|_: Option<()>| true)),
        }
    }
}

fn unless_gone<T>(error: Error) -> Result<Option<T>> {
    if error.kind() == ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

#[cfg(test)]
#[path = "unreturned_tests.rs"]
mod tests;
