//! Databases as a whole: listed, looked at, renamed, removed, cleared of garbage, verified. Nothing of SQLite is needed for
//! it.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::background::PURGE_STEP;
use super::collect::CollectReport;
use super::database::{Database, Role};
use super::fencing::TRIES;
use super::fleet::Fleet;
use super::session::Ended;
use super::verify::{Progress, Verification, VerifyReport};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{Head, LeaseRequest, ListEntry, OpenRequest, Opened, Tail};
use crate::types::{DatabaseId, DatabaseName, Epoch, Txid};

/// No lease was ever granted under it.
const NO_EPOCH: Epoch = Epoch(0);
/// Between two tries to take a lease, or to look at a state that was collected.
const PAUSE: Duration = Duration::from_millis(5);
/// How often a state may be collected under a verification before it has come a step further.
const VERIFY_TRIES: usize = 50;

/// The most bytes of log that are looked at to tell how long it is.
const INFO_TAIL: usize = 64 << 20;

/// What is known of a database without opening it.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its name.
    pub name: DatabaseName,
    /// Its id.
    pub database: DatabaseId,
    /// Its head.
    pub head: Head,
    /// Records after the newest checkpoint; `None` when they are too many to have come along, or cannot be read.
    pub tail_records: Option<usize>,
    /// Their bytes.
    pub tail_bytes: Option<usize>,
}

impl Fleet {
    /// Calls the store until it can be reached, or the time for it is over.
    async fn retry<T, F, Fut>(&self, call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.inner.retry(self.inner.settings.database.store_timeout, call).await
    }

    /// Databases by name: see [`list`](crate::store::PageStore::list).
    pub fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        self.wait(self.retry(|| self.inner.store.list(prefix, after, limit))).context("list databases")
    }

    /// What is known of a database. Takes no lease.
    pub fn info(&self, name: &DatabaseName) -> Result<Info> {
        let whole = OpenRequest { tail_bytes: INFO_TAIL, ..request(name, None) };
        let opened = self.wait(async {
            match self.retry(|| self.inner.store.open(whole.clone())).await {
                // The head may be whole where the log is not.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.retry(|| self.inner.store.open(request(name, None))).await
                }
                opened => opened,
            }
        });
        let Opened { database, head, tail, .. } = opened.context(format_args!("database {name}: info"))?;
        let rows = match &tail {
            Tail::Complete(rows) => Some(rows),
            Tail::Truncated | Tail::Reload => None,
        };
        Ok(Info {
            name: name.clone(),
            database,
            head,
            tail_records: rows.map(Vec::len),
            tail_bytes: rows.map(|rows| rows.iter().map(|row| row.record.len()).sum()),
        })
    }

    /// Whether a database of this name exists. Takes no lease.
    pub fn exists(&self, name: &DatabaseName) -> Result<bool> {
        match self.wait(self.retry(|| self.inner.store.open(request(name, None)))) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renames or deletes a database, under its lease. A sweep that gives leases of this process back, or a connection that
    /// comes and goes, may take that one away before it is done: then it is taken again, as a writer does.
    async fn under_lease<F, Fut>(&self, name: &DatabaseName, force: bool, deed: F) -> Result<(Opened, Result<()>)>
    where
        F: Fn(DatabaseId, Head) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let start = self.inner.clock.monotonic();
        let mut tries = 1;
        loop {
            let held = self.hold(name, force, start).await?;
            match deed(held.database, held.head.clone()).await {
                Err(error) if error.kind() == ErrorKind::Fenced && tries < TRIES => tries += 1,
                done => return Ok((held, done)),
            }
        }
    }

    /// Takes the lease of a database that is to be renamed or deleted. Waits for it until `busy` after `start`.
    async fn hold(&self, name: &DatabaseName, force: bool, start: Duration) -> Result<Opened> {
        let busy = self.inner.settings.database.busy;
        let mut ended = Ended::default();
        loop {
            let live = self.retry(|| self.inner.session.ensure()).await?;
            let lease = Some(LeaseRequest { session: live.session, force });
            let open_here = self.inner.registry.all().into_iter().any(|db| db.name() == name && db.holds_lease());
            let opened = if open_here && !force {
                Err(used_here())
            } else {
                self.retry(|| self.inner.store.open(request(name, lease))).await
            };
            let mut refused = None;
            match opened {
                Err(error) if error.kind() == ErrorKind::LeaseHeld => refused = Some(error),
                // The session ended on the way: the next one serves as well.
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    if self.retry(|| self.inner.session.renew()).await?.is_some() {
                        return Err(error);
                    }
                    ended.note()?;
                }
                Err(error) => {
                    if error.kind() == ErrorKind::Unavailable {
                        self.inner.unreturned.perhaps_granted(name, live.session);
                    }
                    return Err(error);
                }
                // The session's lease is that of every connection here, too.
                Ok(opened) if !force && self.inner.registry.is_used(name, opened.database) => {
                    self.inner.unreturned.kept(opened.database, live.session);
                    refused = Some(used_here());
                }
                Ok(opened) => return Ok(opened),
            }
            if let Some(refused) = refused {
                if self.inner.clock.monotonic().saturating_sub(start) >= busy {
                    return Err(refused);
                }
                self.inner.pause(PAUSE).await;
            }
        }
    }

    /// Those who have a database open here. By its id: another one may have its name by now.
    fn open_here(&self, database: DatabaseId) -> Vec<Arc<Database>> {
        let mut open = self.inner.registry.all();
        open.retain(|open| open.status().database == Some(database));
        open
    }

    /// Those of them who write.
    fn writers_of(&self, database: DatabaseId) -> Vec<Arc<Database>> {
        let mut open = self.open_here(database);
        open.retain(|open| open.role() == Role::Writer);
        open
    }

    /// Gives back a lease that was taken for one deed, unless somebody here goes on under it: the next write finds its new
    /// epoch.
    async fn give_back_unused(&self, held: &Opened) -> Result<()> {
        let released = self.retry(|| self.inner.release_unused(held.database, held.head.epoch, None)).await;
        if !matches!(released, Ok(true))
            && let Some(holder) = &held.head.holder
        {
            self.inner.unreturned.kept(held.database, holder.session);
        }
        released.map(|_| ())
    }

    /// Deletes a database. `LeaseHeld` while somebody has it open, after `busy`, unless `force`. One whose head is damaged, so
    /// that nobody can write to it, is deleted without its lease.
    pub fn remove(&self, name: &DatabaseName, force: bool) -> Result<()> {
        self.wait(async {
            let delete = |database, head: Head| self.delete_held(database, head.epoch);
            let database = match self.under_lease(name, force, delete).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => self.delete_damaged(name, error).await?,
                held => self.deleted(held?).await?,
            };
            self.stop_deleted(database);
            Ok(())
        })
        .context(format_args!("database {name}: remove"))
    }

    /// Deletes a database that nobody has ever committed to. `Conflict` where somebody has, and `LeaseHeld` while somebody has it
    /// open, after `busy`.
    pub fn remove_empty(&self, name: &DatabaseName) -> Result<()> {
        self.wait(async {
            // Of the lease that it is deleted under: nobody can commit between.
            let delete = |database, head: Head| async move {
                match head.txid {
                    Txid(0) => self.delete_held(database, head.epoch).await,
                    txid => Err(Error::conflict(format!("it is not empty: it is at txid {txid}"))),
                }
            };
            let held = self.under_lease(name, false, delete).await?;
            self.stop_deleted(self.deleted(held).await?);
            Ok(())
        })
        .context(format_args!("database {name}: remove if empty"))
    }

    /// What was deleted, if it was; else its lease is given back.
    async fn deleted(&self, (held, deleted): (Opened, Result<()>)) -> Result<DatabaseId> {
        if deleted.is_err() {
            // If that fails, it is tried again.
            let _released = self.give_back_unused(&held).await;
        }
        deleted.map(|()| held.database)
    }

    fn stop_deleted(&self, database: DatabaseId) {
        for open in self.open_here(database) {
            let _stopped = open.stop(Error::not_found("it was deleted"));
        }
    }

    /// Deletes a database under its lease. Nobody else can have: what is gone at the second try went with the first, whose reply
    /// was lost.
    async fn delete_held(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let mut tries = 0;
        let delete = || {
            tries += 1;
            self.inner.store.delete(database, epoch)
        };
        match self.retry(delete).await {
            Err(error) if error.kind() == ErrorKind::NotFound && tries > 1 => Ok(()),
            deleted => deleted,
        }
    }

    /// Deletes a database that could not be opened, if it is the head that is damaged: the store looks.
    async fn delete_damaged(&self, name: &DatabaseName, damage: Error) -> Result<DatabaseId> {
        let listed = self.retry(|| self.inner.store.list(name.as_str(), None, 1)).await?;
        let named = listed.into_iter().find(|entry| entry.name == *name);
        let Some(database) = named.and_then(|entry| entry.database) else { return Err(damage) };
        match self.delete_held(database, NO_EPOCH).await {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(damage),
            deleted => deleted.map(|()| database),
        }
    }

    /// Gives a database another name. `LeaseHeld` while somebody has it open, after `busy`, unless `force`; `Conflict` when
    /// the name is taken.
    pub fn rename(&self, from: &DatabaseName, to: &DatabaseName, force: bool) -> Result<()> {
        self.wait(async {
            let rename =
                |database, head: Head| self.retry(move || self.inner.store.rename(database, head.epoch, to.clone()));
            let (held, renamed) = self.under_lease(from, force, rename).await?;
            if renamed.is_ok() {
                // By its old name it cannot take the lease again, which is given back now.
                for open in self.writers_of(held.database) {
                    let _stopped = open.stop(Error::not_found(format!("it was renamed to {to}")));
                }
            }
            if let Err(error) = self.give_back_unused(&held).await {
                tracing::debug!(database = %from, %error, "a lease is still to be given back");
            }
            renamed
        })
        .context(format_args!("database {from}: rename to {to}"))
    }

    /// Makes a checkpoint and collects garbage in a database, taking its lease for that long. `LeaseHeld` while somebody else
    /// has it open, after `busy`, unless `force`.
    pub fn collect(&self, name: &DatabaseName, force: bool) -> Result<CollectReport> {
        self.check_process()?;
        let database = self.connect(name, Role::Writer, false);
        let report = self.wait(async {
            let collected = async {
                if force {
                    database.seize_lease().await.context(format_args!("database {name}: collect garbage"))?;
                }
                database.checkpoint().await?;
                database.collect().await
            };
            let report = collected.await;
            database.give_back().await;
            report
        });
        self.disconnect(&database);
        report
    }

    /// Removes the bytes of deleted databases, until `progress`, which is told how many rows and records that were so far,
    /// wants it to end. Returns how many there were, as [`Purged::removed`](crate::store::Purged::removed) counts them.
    /// `Unavailable` when others, who are at it as well, get no further.
    pub fn purge(&self, progress: &mut (dyn FnMut(u64) -> ControlFlow<()> + Send)) -> Result<u64> {
        self.check_process()?;
        self.wait(async {
            let (mut removed, mut moved) = (0, self.inner.clock.monotonic());
            loop {
                let purged = self.inner.store.purge(PURGE_STEP).await.context("purge")?;
                removed += purged.removed;
                if purged.done || progress(removed).is_break() {
                    return Ok(removed);
                }
                let now = self.inner.clock.monotonic();
                if purged.removed > 0 {
                    moved = now;
                } else if now.saturating_sub(moved) > self.inner.settings.database.store_timeout {
                    let what =
                        "what is left of removed databases is held by somebody else who removes it; try again later";
                    return Err(Error::unavailable(what).context("purge"));
                }
            }
        })
    }

    /// Checks every stored byte of a database, until `progress` wants it to end. Takes no lease. While it looks a writer
    /// may collect the state that it looks at: then it goes on with a newer one.
    pub fn verify(
        &self,
        name: &DatabaseName,
        progress: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
    ) -> Result<VerifyReport> {
        self.check_process()?;
        let database = self.connect(name, Role::Follower, false);
        let report = self.verify_open(&database, progress);
        self.disconnect(&database);
        report
    }

    fn verify_open(
        &self,
        database: &Arc<Database>,
        progress: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
    ) -> Result<VerifyReport> {
        let mut verification = Verification::default();
        let mut tries = 0;
        loop {
            let snapshot = database.begin_read()?;
            let before = verification.done();
            let looked = self.wait(database.verify(snapshot, &mut verification, progress));
            database.unpin(snapshot);
            match looked {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld && tries < VERIFY_TRIES => {
                    tries = if verification.done() > before { 0 } else { tries + 1 };
                    self.wait(self.inner.pause(PAUSE));
                }
                looked => return looked.map(|()| verification.report),
            }
        }
    }
}

fn used_here() -> Error {
    Error::lease_held("it is open in this process: close it first")
}

/// Asks for the head alone: what is done with a database as a whole must not need what is in it.
fn request(name: &DatabaseName, lease: Option<LeaseRequest>) -> OpenRequest {
    OpenRequest { name: name.clone(), create: false, lease, known: None, tail_bytes: 0 }
}

#[cfg(test)]
#[path = "manage_tests.rs"]
mod tests;
