//! Lost leases: what it means when a write is refused as fenced, or an open finds another holder.
//!
//! An epoch that is over was ended by another process, which took the lease after the session here had expired or by
//! force, or by a request of our own that arrived late and was granted again. Only a commit in between makes the state
//! here useless: then the database stops. Without one the lease is taken anew, and the write sent under its epoch.

use std::cmp::Ordering;
use std::fmt;
use std::future::Future;

use super::core::Lease;
use super::database::{Database, Role};
use super::rows::behind;
use crate::codec::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Head, HeadRequest, OpenRequest};
use crate::types::{CommitId, DatabaseId, Epoch, Txid};

/// How often a write is sent under another epoch.
pub(super) const TRIES: usize = 3;

impl Database {
    /// Whether an epoch is that of the lease held here.
    pub(super) fn is_current(&self, epoch: Epoch) -> bool {
        self.core().lease.is_some_and(|lease| lease.epoch == epoch)
    }

    /// A write was refused for good. Only when the lease is still thought to be held under that epoch has somebody else
    /// taken it.
    pub(super) fn refused(&self, error: Error, epoch: Epoch) -> Error {
        match error.kind() {
            ErrorKind::Fenced if self.is_current(epoch) => self.stop(error),
            ErrorKind::NotFound => self.stop(error),
            ErrorKind::Fenced => Error::unavailable("the lease was given back meanwhile").with_source(error),
            _ => error,
        }
    }

    /// Sends a write under the lease's epoch, and where that is over under a new one. The caller does not hold
    /// `acquiring`.
    pub(super) async fn under_lease<T, F, Fut>(&self, mut call: F) -> Result<T>
    where
        F: FnMut(Epoch) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut tries = 1;
        loop {
            let (_, epoch) = self.held()?;
            match self.retry(|| call(epoch)).await {
                Err(error) if error.kind() == ErrorKind::Fenced && tries < TRIES => self.regain(error, epoch).await?,
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.look_again(epoch).await?;
                    return Err(error);
                }
                reply => return reply.map_err(|error| self.refused(error, epoch)),
            }
            tries += 1;
        }
    }

    /// Takes a lease anew that was lost. An error: it was given back, is somebody else's now, or the database has stopped.
    pub(super) async fn regain(&self, error: Error, epoch: Epoch) -> Result<()> {
        let _one = self.acquiring.lock().await;
        if self.core().lease.is_some_and(|lease| lease.epoch > epoch) {
            return Ok(());
        }
        // Work in the background may outlive the last connection. A grant would fence whoever opened it since.
        if !self.is_current(epoch) || !self.is_connected() {
            return Err(self.refused(error, epoch));
        }
        match self.acquire_lease().await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.stop(error)),
            regained => regained,
        }
    }

    /// A write under the lease, or a read, rested on something that the store does not have. Nobody else writes under it, so the store may
    /// have lost what it had acknowledged, in a crash or a failover: what it has is loaded, so that what comes next rests on
    /// that. An error: commits are among what it has lost, and the database has stopped; or it cannot be asked.
    pub(super) async fn look_again(&self, epoch: Epoch) -> Result<()> {
        // A commit that is under way ends first.
        let _one = self.acquiring.lock().await;
        self.look_again_alone(epoch).await
    }

    /// The same for a caller that holds `acquiring`.
    pub(super) async fn look_again_alone(&self, epoch: Epoch) -> Result<()> {
        if !self.is_current(epoch) {
            return Ok(());
        }
        let database = self.id()?;
        let request = OpenRequest { create: false, ..self.open_request(None, None) };
        let opened = match self.retry(|| self.fleet.store.open(request.clone())).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.stop(error)),
            opened => opened?,
        };
        // Who has lost the name, or the lease, finds it out by the next write.
        if opened.database != database {
            return Ok(());
        }
        self.check_history(&opened.head)?;
        if opened.head.epoch != epoch {
            return Ok(());
        }
        self.check_alone(database, &opened.head).await?;
        let checkpoint = {
            let mut core = self.core();
            if core.head != opened.head.txid {
                return Ok(());
            }
            core.generation = opened.head.generation;
            core.leftovers |= opened.head.staged;
            core.checkpoint
        };
        if opened.head.checkpoint < checkpoint {
            let newest = opened.head.checkpoint;
            tracing::warn!(database = %self.name, lost = %checkpoint, %newest, "the store has lost a checkpoint");
            self.load(opened, None).await?;
        }
        Ok(())
    }

    /// Whether the store still has what was committed here, or read, as far as its head tells. A database whose history was lost
    /// stops: what this process has in its caches, and SQLite in its own, is no part of what comes next.
    pub(super) fn check_history(&self, head: &Head) -> Result<()> {
        let (known, commit_id) = self.known_commit();
        let lost = match head.txid.cmp(&known) {
            Ordering::Greater => false,
            Ordering::Equal => head.commit_id != commit_id,
            // A follower may read from one standby and then from another that is behind.
            Ordering::Less => self.role == Role::Writer,
        };
        if !lost {
            return Ok(());
        }
        Err(self.stop_lost(known, commit_id, format_args!("{} at txid {}", head.commit_id, head.txid)))
    }

    /// The same, where the store has gone on: by the record of the commit after the one that is known here.
    pub(super) fn check_follows(&self, record: &Record) -> Result<()> {
        let (known, commit_id) = self.known_commit();
        if record.txid != known.next() || record.body.follows == commit_id.link() {
            return Ok(());
        }
        Err(self.stop_lost(
            known,
            commit_id,
            format_args!("another one there, which {} follows", record.body.commit_id),
        ))
    }

    /// The same, by asking: whether the store has the commit that is known here. The log tells it, by a whole record; the head does as
    /// well where that is what is known, as it was when the store told of `head`.
    pub(super) async fn check_known(&self, database: DatabaseId, head: Option<Txid>) -> Result<()> {
        let (known, commit_id) = self.known_commit();
        let Some(before) = known.get().checked_sub(1).map(Txid) else { return Ok(()) };
        if head == Some(known) && self.is_head(database, known, commit_id).await? {
            return Ok(());
        }
        match self.read_log_piece(database, before, known).await {
            Ok(rows) => {
                for row in rows {
                    let found = Record::decode(database, row.txid, &row.record)?.body.commit_id;
                    if found != commit_id {
                        return Err(self.stop_lost(known, commit_id, format_args!("{found} there")));
                    }
                }
                Ok(())
            }
            // Collected: then it is the head, or nobody can tell.
            Err(error) if error.kind() == ErrorKind::SnapshotTooOld => {
                self.is_head(database, known, commit_id).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the head is at the txid that is known here. An error: it is another commit there.
    async fn is_head(&self, database: DatabaseId, known: Txid, commit_id: CommitId) -> Result<bool> {
        let request = HeadRequest { database, known, epoch: None, tail_bytes: 0 };
        let ask = || async {
            let head = self.fleet.store.head(request).await?.head;
            if head.txid < known { Err(behind(known)) } else { Ok(head) }
        };
        let head = self.retry(ask).await?;
        if head.txid == known && head.commit_id != commit_id {
            return Err(self.stop_lost(known, commit_id, format_args!("{} there", head.commit_id)));
        }
        Ok(head.txid == known)
    }

    /// Nobody else commits under the epoch of the lease here, unless the store has lost that grant and granted the epoch again,
    /// with commits or without.
    async fn check_alone(&self, database: DatabaseId, head: &Head) -> Result<()> {
        if head.txid <= self.known_commit().0 {
            return Ok(());
        }
        self.check_known(database, Some(head.txid)).await?;
        Err(self.stop(Error::fenced(format!(
            "the store has lost a grant of the lease, in a crash or a failover: another process has committed up to txid {} under \
             the same epoch; open the database again",
            head.txid
        ))))
    }

    fn known_commit(&self) -> (Txid, CommitId) {
        let core = self.core();
        (core.head, core.commit_id)
    }

    fn stop_lost(&self, known: Txid, commit_id: CommitId, found: fmt::Arguments<'_>) -> Error {
        self.stop(Error::fenced(format!(
            "the store has lost commits, in a crash or a failover: this process has seen commit {commit_id} at txid {known}, and \
             the store has {found}; open the database again"
        )))
    }

    /// Another process holds the lease that was held here. If it has committed, the state here is of no use any more.
    pub(super) async fn check_deposed(&self) -> Result<()> {
        let (database, known, commit_id) = {
            let core = self.core();
            match core.database {
                Some(database) if core.lease.is_some() && !core.shared => (database, core.head, core.commit_id),
                _ => return Ok(()),
            }
        };
        let request = HeadRequest { database, known, epoch: None, tail_bytes: 0 };
        let head = match self.retry(|| self.fleet.store.head(request)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.stop(error)),
            reply => reply?.head,
        };
        self.core().holder = head.holder.as_ref().map(|holder| holder.label.clone());
        if head.txid == known && head.commit_id == commit_id {
            return Ok(());
        }
        let what = format!("another process took the lease over, and committed up to txid {}", head.txid);
        Err(self.stop(Error::fenced(what)))
    }

    /// Makes the lease ours again that a late request of our own has raised the epoch of. False when it is not ours.
    pub(super) fn adopt(&self, head: &Head) -> bool {
        let mut core = self.core();
        let Some(lease) = core.lease else { return false };
        let ours = head.holder.as_ref().is_some_and(|holder| holder.session == lease.session);
        if ours {
            core.lease = Some(Lease { epoch: head.epoch, ..lease });
        }
        ours
    }
}
