//! One open database, shared by all connections of the process to its name.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::cache::{CacheKey, CachedImage};
use super::checkpoint::For;
use super::core::Core;
use super::fleet::FleetInner;
use super::prefetch::{Prefetcher, Visited};
use crate::codec::{Record, StagedPages, image_checksum, zero_image};
use crate::config::{DatabaseSettings, LeaseMode};
use crate::error::{Error, ErrorKind, Result};
use crate::store::Lineage;
use crate::types::{DatabaseId, DatabaseName, Epoch, PageNo, Txid};

/// Whether a database is open for writing, or follows another process's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes the lease.
    Writer,
    /// Holds no lease and sees the store's head, within the staleness it allows.
    Follower,
}

/// A committed state that a reader has pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its txid.
    pub txid: Txid,
    /// Bytes of the file.
    pub size: u64,
}

/// What `PRAGMA litefleet_status` shows.
#[derive(Clone, Debug)]
pub struct Status {
    /// The database's id, once it was opened.
    pub database: Option<DatabaseId>,
    /// The last commit known here.
    pub txid: Txid,
    /// The newest completed checkpoint.
    pub checkpoint: Txid,
    /// The horizon.
    pub horizon: Txid,
    /// The epoch of the lease held here.
    pub epoch: Option<Epoch>,
    /// Who holds the lease where it is not held here, as the store last said: the label of its session.
    pub holder: Option<String>,
    /// Bytes of the file.
    pub size: u64,
    /// Records in the tail.
    pub tail_records: usize,
    /// Bytes of memory of the tail.
    pub tail_bytes: usize,
    /// Snapshots in use.
    pub snapshots: usize,
    /// Why the database stopped, if it did.
    pub stopped: Option<Error>,
}

/// How long an idle database keeps what it learnt for prefetching.
const STRUCTURE_KEPT: Duration = Duration::from_secs(10);

/// A database is being looked after for as long as this lives.
pub(super) struct Looking<'a>(&'a Database);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.looked_after.store(false, Ordering::Release);
    }
}

/// One open database.
#[derive(Debug)]
pub struct Database {
    pub(super) this: Weak<Self>,
    pub(super) fleet: Arc<FleetInner>,
    pub(super) name: DatabaseName,
    pub(super) role: Role,
    /// The name of this state in the cache; a new one when the state was loaded again.
    instance: AtomicU64,
    settings: Mutex<DatabaseSettings>,
    pub(super) create: AtomicBool,
    core: Mutex<Core>,
    pub(super) prefetcher: Mutex<Prefetcher>,
    pub(super) visited: Visited,
    /// One acquisition of the lease, or look at the head, at a time.
    pub(super) acquiring: tokio::sync::Mutex<()>,
    /// One checkpoint or collection at a time.
    pub(super) maintaining: tokio::sync::Mutex<()>,
    pub(super) checkpoint_scheduled: AtomicBool,
    /// It is being looked after.
    looked_after: AtomicBool,
    /// Connections that keep the lease between transactions, whatever the setting says.
    pub(super) keepers: AtomicUsize,
    /// Checkpoints and collections under way, which the lease is kept for.
    pub(super) maintenance: AtomicUsize,
}

impl Database {
    pub(super) fn new(fleet: Arc<FleetInner>, name: DatabaseName, role: Role) -> Arc<Self> {
        let settings = Mutex::new(fleet.settings.database.clone());
        let instance = AtomicU64::new(fleet.next_instance());
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            fleet,
            name,
            role,
            instance,
            settings,
            create: AtomicBool::new(false),
            core: Mutex::default(),
            prefetcher: Mutex::default(),
            visited: Visited::default(),
            acquiring: tokio::sync::Mutex::new(()),
            maintaining: tokio::sync::Mutex::new(()),
            checkpoint_scheduled: AtomicBool::new(false),
            looked_after: AtomicBool::new(false),
            keepers: AtomicUsize::new(0),
            maintenance: AtomicUsize::new(0),
        })
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name.
    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// How it was opened.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its settings now.
    pub fn settings(&self) -> DatabaseSettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes settings: the latest connection that names one decides.
    pub fn change_settings(&self, change: impl FnOnce(&mut DatabaseSettings)) {
        change(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn lease_mode(&self) -> LeaseMode {
        if self.keepers.load(Ordering::Acquire) > 0 {
            return LeaseMode::Exclusive;
        }
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).lease
    }

    pub(super) fn instance(&self) -> u64 {
        self.instance.load(Ordering::Acquire)
    }

    pub(super) fn forget_cache(&self) {
        self.instance.store(self.fleet.next_instance(), Ordering::Release);
    }

    pub(super) fn key(&self, page: PageNo, before: Txid) -> CacheKey {
        CacheKey { instance: self.instance(), page, before }
    }

    pub(super) fn id(&self) -> Result<DatabaseId> {
        self.core().database.ok_or_else(|| Error::internal(format!("{}: used before it was opened", self.name)))
    }

    pub(super) fn lineage(&self) -> Result<[Lineage; 1]> {
        Ok([Lineage { database: self.id()?, max_txid: Txid::MAX }])
    }

    /// The id and the epoch to write under. `Fenced` without a lease.
    pub(super) fn held(&self) -> Result<(DatabaseId, Epoch)> {
        let core = self.core();
        core.check()?;
        match (core.database, core.lease) {
            (Some(database), Some(lease)) => Ok((database, lease.epoch)),
            _ => Err(Error::fenced(format!("{}: the lease is not held", self.name))),
        }
    }

    /// The words before every message.
    pub(super) fn words(&self, operation: &str) -> String {
        format!("database {}: {operation}", self.name)
    }

    /// Stops the database on this process: every call fails with this error until it is opened again.
    pub fn stop(&self, error: Error) -> Error {
        let error = error.context(format_args!("database {} stopped; close it and open it again", self.name));
        tracing::error!(database = %self.name, %error, "database stopped");
        metrics::counter!("litefleet_databases_stopped_total").increment(1);
        self.core().stopped.get_or_insert(error).clone()
    }

    /// Whether the database has stopped.
    pub fn stopped(&self) -> Option<Error> {
        self.core().stopped.clone()
    }

    /// Whether a connection of this process writes or locks exclusively, so that the lease cannot be given back.
    pub fn needs_lease(&self) -> bool {
        self.core().needs_lease()
    }

    /// Whether a connection of this process is writing.
    pub fn has_writer(&self) -> bool {
        self.core().writer
    }

    /// A connection was opened.
    pub(super) fn connect(&self) {
        self.core().connections += 1;
    }

    /// A connection was closed; returns whether it was the last.
    pub(super) fn disconnect(&self) -> bool {
        let mut core = self.core();
        core.connections = core.connections.saturating_sub(1);
        core.connections == 0
    }

    /// Whether some connection is open.
    pub(super) fn is_connected(&self) -> bool {
        self.core().connections > 0
    }

    /// Whether the lease is held here.
    pub fn holds_lease(&self) -> bool {
        self.core().lease.is_some()
    }

    /// Gives up snapshots that have been in use for too long.
    pub(super) fn expire_snapshots(&self) {
        let (now, age) = (self.fleet.clock.monotonic(), self.settings().snapshot_age);
        let expired = self.core().expire_pins(now, age);
        if expired > 0 {
            tracing::warn!(database = %self.name, expired, "snapshots were in use for too long");
        }
    }

    /// Begins to look after it, unless somebody is at it.
    pub(super) fn begin_looking(&self) -> Option<Looking<'_>> {
        (!self.looked_after.swap(true, Ordering::AcqRel)).then(|| Looking(self))
    }

    /// Checkpoints and gives the lease back where the settings say so.
    pub(super) async fn look_after(&self) -> Result<()> {
        let settings = self.settings();
        let now = self.fleet.clock.monotonic();
        let (idle, checkpoint, unused) = {
            let held = self.has_lease().unwrap_or(false);
            let core = self.core();
            let resting = held && !core.needs_lease();
            let idle = now.saturating_sub(core.active);
            // A long scan is no idle database.
            let unused = idle > STRUCTURE_KEPT && core.pins.is_empty() && !core.writer;
            (idle.min(if resting { idle } else { Duration::ZERO }), core.wants_checkpoint(now), unused)
        };
        if unused {
            self.forget_structure();
        }
        let release = !settings.lease_idle.is_zero() && idle >= settings.lease_idle;
        let mut failed = Ok(());
        if !idle.is_zero() && self.core().collect_at.take_if(|at| now >= *at).is_some() {
            let collected = self.collect_for(For::Background).await;
            if collected.as_ref().map_or(true, |collected| collected.horizon < collected.checkpoint) {
                // A snapshot in use holds it back, or the store did not answer.
                let later = now.checked_add(settings.retention.max(STRUCTURE_KEPT));
                let mut core = self.core();
                core.collect_at = core.collect_at.or(later);
            }
            failed = collected.map(drop);
        }
        if checkpoint && !idle.is_zero() && (release || idle >= settings.checkpoint_idle) {
            let made = self.maintain().await;
            if made.as_ref().is_err_and(|error| error.kind() != ErrorKind::Unavailable) {
                self.core().note_setback(now, settings.checkpoint_idle.max(STRUCTURE_KEPT));
            }
            failed = failed.and(made);
        }
        // Whatever became of that: others wait for the lease.
        if release {
            return failed.and(self.release_lease().await);
        }
        self.give_back().await;
        failed
    }

    /// What is known of it here.
    pub fn status(&self) -> Status {
        let core = self.core();
        Status {
            database: core.database,
            txid: core.head,
            checkpoint: core.checkpoint,
            horizon: core.horizon,
            epoch: core.lease.map(|lease| lease.epoch),
            holder: core.holder.clone().filter(|_| core.lease.is_none()),
            size: core.size,
            tail_records: core.tail.len(),
            tail_bytes: core.tail.weight(),
            snapshots: core.pins.values().map(|pin| pin.count).sum(),
            stopped: core.stopped.clone(),
        }
    }

    /// Gives a pinned snapshot back.
    pub fn unpin(&self, snapshot: Snapshot) {
        let mut core = self.core();
        core.unpin(snapshot.txid);
        core.active = self.fleet.clock.monotonic();
        core.trim();
    }

    /// Makes a record part of this process's view: moves the cached images, and then the head.
    ///
    /// `images` has the new images of a commit of our own; without it they are built from the cached ones.
    pub(super) fn publish(&self, core: &mut Core, record: Record, images: Option<Vec<(PageNo, Bytes)>>) -> Result<()> {
        let database = core.database.ok_or_else(|| Error::internal("published before it was opened"))?;
        let txid = record.txid;
        // Who commits goes on from its own commit.
        let keep_old = core.has_pins_beside(usize::from(images.is_some()));
        let cache = &self.fleet.cache;
        let replace = |page: PageNo, new: &mut dyn FnMut(Option<&Bytes>) -> Result<Option<Bytes>>| -> Result<()> {
            let old = cache.remove(&self.key(page, Txid::MAX));
            let new = new(old.as_ref().map(|old| &old.image))?;
            if let Some(old) = old.filter(|_| keep_old) {
                cache.insert(self.key(page, txid), old);
            }
            if let Some(image) = new {
                cache.insert(self.key(page, Txid::MAX), CachedImage { from: txid, image });
            }
            Ok(())
        };
        if let Some(images) = images {
            for (page, image) in images {
                replace(page, &mut |_| Ok(Some(image.clone())))?;
            }
        } else {
            for (page, patch) in &record.body.pages {
                replace(*page, &mut |old| {
                    let Some(old) = old else { return Ok(None) };
                    let mut image = old.to_vec();
                    patch.apply(&mut image)?;
                    if image_checksum(database, *page, txid, &image) != patch.checksum {
                        return Err(Error::corrupt(format!(
                            "page {page} at txid {txid}: the patch does not fit its base"
                        )));
                    }
                    Ok(Some(Bytes::from(image)))
                })?;
            }
        }
        for page in record.body.zeroed.pages() {
            replace(page, &mut |old| Ok(old.map(|_| zero_image())))?;
        }
        match &record.body.staged {
            StagedPages::None => {}
            StagedPages::These(set) => set.pages().try_for_each(|page| replace(page, &mut |_| Ok(None)))?,
            StagedPages::All => self.forget_cache(),
        }
        let (commit_id, size) = (record.body.commit_id, record.body.size);
        core.new_weight += record.weight;
        core.new_pages += record.body.pages.len();
        core.tail.push(Arc::new(record))?;
        metrics::histogram!("litefleet_tail_bytes").record(u32::try_from(core.tail.weight()).unwrap_or(u32::MAX));
        core.head = txid;
        core.commit_id = commit_id;
        core.size = size;
        core.largest_size = core.largest_size.max(size);
        Ok(())
    }
}
