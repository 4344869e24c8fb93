//! Leases that this process has no use for and could not give back, or may have been granted without being told.
//!
//! The session of a process is renewed for as long as it lives, so such a lease would be taken for as long, and nobody
//! else could write. They are written down here, and the sweep gives them back.
//!
//! Whether somebody in this process uses a lease is found out after its epoch was read: a grant that comes later raises the
//! epoch, and the release of the one that was read does nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::database::Database;
use super::fleet::FleetInner;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Head, HeadRequest, OpenRequest};
use crate::types::{DatabaseId, DatabaseName, Epoch, SessionId, Txid};

/// How often a grant that was not told of is looked for after nothing was found: the request may still be on its way.
const LOOKS: u32 = 3;
/// The most leases that one round looks at.
const AT_ONCE: usize = 64;

/// Whose lease it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// A database that is known.
    Database(DatabaseId),
    /// The one that was opened by this name, without an answer.
    Named(DatabaseName),
}

/// What is to be given back: whose lease, under which session, and how often nothing must be found before it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Unreturned(Mutex<BTreeMap<(Whose, SessionId), u32>>);

impl Unreturned {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Whose, SessionId), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease could not be given back.
    pub(super) fn kept(&self, database: DatabaseId, session: SessionId) {
        self.lock().insert((Whose::Database(database), session), 1);
    }

    /// A lease was asked for, and there was no answer.
    pub(super) fn perhaps_granted(&self, name: &DatabaseName, session: SessionId) {
        self.lock().insert((Whose::Named(name.clone()), session), LOOKS);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn found_nothing(&self, key: &(Whose, SessionId)) {
        let mut all = self.lock();
        if let Some(looks) = all.get_mut(key) {
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                all.remove(key);
            }
        }
    }
}

impl FleetInner {
    /// Gives back what can be given back now. Ends where the store is not reached: it is tried again.
    pub(super) async fn return_leases(&self) {
        let round: Vec<_> = self.unreturned.lock().keys().take(AT_ONCE).cloned().collect();
        for key in round {
            match self.return_lease(&key.0, key.1).await {
                Ok(true) => self.unreturned.found_nothing(&key),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "leases are still to be given back");
                    return;
                }
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

    async fn look_at(&self, whose: &Whose) -> Result<Option<(DatabaseId, Head)>> {
        let found = match whose {
            Whose::Database(database) => {
                let (known, epoch, tail_bytes) = (Txid(0), None, 0);
                let request = HeadRequest { database: *database, known, epoch, tail_bytes };
                self.store.head(request).await.map(|reply| (*database, reply.head))
            }
            Whose::Named(name) => {
                let (create, lease, known, tail_bytes) = (false, None, None, 0);
                let request = OpenRequest { name: name.clone(), create, lease, known, tail_bytes };
                self.store.open(request).await.map(|opened| (opened.database, opened.head))
            }
        };
        found.map(Some).or_else(unless_gone)
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
