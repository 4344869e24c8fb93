//! One open database, shared by all connections of the process to its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::cache::{CacheKey, CachedImage};
use super::fleet::FleetInner;
use super::prefetch::Prefetcher;
use super::tail::LogTail;
use crate::codec::{Record, StagedPages, image_checksum, zero_image};
use crate::config::{DatabaseSettings, LeaseMode};
use crate::error::{Error, Result};
use crate::store::{Head, Lineage};
use crate::types::{CommitId, DatabaseId, DatabaseName, Epoch, PageNo, SessionId, Txid, pages_for_size};

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

#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) epoch: Epoch,
    pub(super) session: SessionId,
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    count: usize,
    since: Duration,
}

/// The state of an open database. Held only for short, never across a call to the store.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact, read alone")]
pub(super) struct Core {
    pub(super) database: Option<DatabaseId>,
    pub(super) lease: Option<Lease>,
    /// The lease was given back by this process, so that others may have written since.
    pub(super) shared: bool,
    pub(super) head: Txid,
    pub(super) commit_id: CommitId,
    pub(super) size: u64,
    pub(super) checkpoint: Txid,
    pub(super) horizon: Txid,
    pub(super) generation: u64,
    /// Rows that were staged and not committed may still be in the store.
    pub(super) leftovers: bool,
    pub(super) tail: LogTail,
    /// Completed checkpoints that the tail may be trimmed to, in order.
    pub(super) checkpoints: Vec<Txid>,
    /// Weight of the records, and pages in them, since the newest checkpoint.
    pub(super) new_weight: usize,
    pub(super) new_pages: usize,
    /// A commit is under way that gives the lease back: reads ask the store meanwhile.
    pub(super) releasing: bool,
    /// The state here cannot be continued and is loaded again.
    pub(super) reload: bool,
    /// The largest size of the file since the newest completed checkpoint.
    pub(super) largest_size: u64,
    pins: BTreeMap<Txid, Pin>,
    pub(super) writer: bool,
    pub(super) stopped: Option<Error>,
    /// When the head was last read from the store.
    pub(super) checked: Duration,
    /// When the last commit was made, or the last lock given back.
    pub(super) active: Duration,
    pub(super) connections: usize,
    /// The first pages that were read since the open: what the next open wants at once.
    pub(super) warm: Vec<PageNo>,
    /// No warm pages came with the open, and none was read since.
    pub(super) cold: bool,
    /// When the checkpoints made here are old enough for what they made garbage.
    pub(super) collect_at: Option<Duration>,
}

pub(super) const WARM_PAGES: usize = 32;
/// How long an idle database keeps what it learnt for prefetching.
const STRUCTURE_KEPT: Duration = Duration::from_secs(10);

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
    /// One acquisition of the lease, or look at the head, at a time.
    pub(super) acquiring: tokio::sync::Mutex<()>,
    /// One checkpoint or collection at a time.
    pub(super) maintaining: tokio::sync::Mutex<()>,
    pub(super) checkpoint_scheduled: AtomicBool,
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
            acquiring: tokio::sync::Mutex::new(()),
            maintaining: tokio::sync::Mutex::new(()),
            checkpoint_scheduled: AtomicBool::new(false),
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

    /// Checkpoints and gives the lease back where the settings say so.
    pub(super) async fn look_after(&self) -> Result<()> {
        let settings = self.settings();
        let now = self.fleet.clock.monotonic();
        let (idle, checkpoint) = {
            let core = self.core();
            let resting = core.lease.is_some() && !core.writer && core.stopped.is_none();
            let idle = now.saturating_sub(core.active);
            (idle.min(if resting { idle } else { Duration::ZERO }), core.head > core.checkpoint)
        };
        if now.saturating_sub(self.core().active) > STRUCTURE_KEPT {
            self.forget_structure();
        }
        let release = !settings.lease_idle.is_zero() && idle >= settings.lease_idle;
        if !idle.is_zero() && self.core().collect_at.take_if(|at| now >= *at).is_some() {
            let collected = self.collect().await?;
            if collected.horizon < collected.checkpoint {
                // A snapshot in use holds it back.
                self.core().collect_at.get_or_insert(now + settings.retention.max(STRUCTURE_KEPT));
            }
        }
        if checkpoint && !idle.is_zero() && (release || idle >= settings.checkpoint_idle) {
            self.maintain().await?;
        }
        if release { self.release_lease().await } else { Ok(()) }
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
        let keep_old = !core.pins.is_empty();
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
        core.head = txid;
        core.commit_id = commit_id;
        core.size = size;
        core.largest_size = core.largest_size.max(size);
        Ok(())
    }
}

impl Core {
    pub(super) fn check(&self) -> Result<()> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// Takes over what the store says of the head, besides its txid.
    pub(super) fn note_head(&mut self, head: &Head, now: Duration) {
        self.checked = now;
        self.horizon = head.horizon;
        self.generation = head.generation;
        self.leftovers |= head.staged;
        self.note_checkpoint(head.checkpoint);
    }

    /// A checkpoint was completed.
    pub(super) fn note_checkpoint(&mut self, checkpoint: Txid) {
        if checkpoint > self.checkpoint && checkpoint <= self.head {
            self.checkpoint = checkpoint;
            self.checkpoints.push(checkpoint);
            let new = self.tail.records().filter(|record| record.txid > checkpoint);
            (self.new_weight, self.new_pages) =
                new.fold((0, 0), |(weight, pages), r| (weight + r.weight, pages + r.body.pages.len()));
            self.largest_size = self
                .tail
                .records()
                .filter(|record| record.txid >= checkpoint)
                .map(|record| record.body.size)
                .fold(self.size, u64::max);
            self.trim();
        }
    }

    pub(super) fn pin(&mut self, now: Duration) -> Snapshot {
        let pin = self.pins.entry(self.head).or_insert(Pin { count: 0, since: now });
        pin.count += 1;
        pin.since = now;
        Snapshot { txid: self.head, size: self.size }
    }

    fn unpin(&mut self, txid: Txid) {
        if let Some(pin) = self.pins.get_mut(&txid) {
            pin.count -= 1;
            if pin.count == 0 {
                self.pins.remove(&txid);
            }
        }
    }

    /// Remembers a page among the first that were read.
    pub(super) fn note_warm(&mut self, page: PageNo) {
        if self.warm.len() < WARM_PAGES && !self.warm.contains(&page) {
            self.warm.push(page);
        }
    }

    /// What the next open wants at once: the pages that were read first, and, where few were read from the store, those
    /// that were written last.
    pub(super) fn warm_set(&self) -> Vec<PageNo> {
        let mut warm = self.warm.clone();
        for page in std::iter::once(PageNo::FIRST).chain(self.tail.newest_pages(WARM_PAGES)) {
            if warm.len() < WARM_PAGES && page.get() <= pages_for_size(self.size) && !warm.contains(&page) {
                warm.push(page);
            }
        }
        warm
    }

    /// The oldest snapshot in use.
    pub(super) fn oldest_pin(&self) -> Option<Txid> {
        self.pins.keys().next().copied()
    }

    /// Gives up snapshots that are older than allowed: their readers get `SnapshotTooOld` when they read on.
    pub(super) fn expire_pins(&mut self, now: Duration, age: Duration) -> usize {
        let head = self.head;
        let before = self.pins.len();
        self.pins.retain(|txid, pin| *txid == head || now.saturating_sub(pin.since) <= age);
        let expired = before - self.pins.len();
        if expired > 0 {
            self.trim();
        }
        expired
    }

    /// Forgets the records that no snapshot in use needs.
    pub(super) fn trim(&mut self) {
        let oldest = self.oldest_pin().unwrap_or(self.head);
        let keep = self.checkpoints.partition_point(|checkpoint| *checkpoint <= oldest);
        if let Some(start) = keep.checked_sub(1).and_then(|index| self.checkpoints.get(index)).copied() {
            self.tail.trim(start);
            self.checkpoints.drain(..keep - 1);
        }
    }
}
