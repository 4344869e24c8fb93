//! Taking the lease, giving it back, and learning what others have committed.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::Instrument;

use super::database::{Core, Database, Lease, Role, Snapshot};
use super::tail::LogTail;
use super::{TransactionBuffer, cache::CachedImage};
use crate::codec::Record;
use crate::config::LeaseMode;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{DiscardRequest, Head, HeadRequest, LeaseRequest, LogRow, OpenRequest, Opened, ReadRow, Tail};
use crate::types::{DatabaseId, Epoch, Txid};

/// The most bytes of log that an open brings along; a longer tail is asked for on its own.
const INLINE_TAIL: usize = 4 << 20;
/// The most bytes of log that come in one piece: what the default settings let a tail grow to.
const LARGEST_PIECE: usize = 64 << 20;
/// How often a load that raced with others is tried again.
const LOAD_TRIES: usize = 5;
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(5);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The place of the one writer, given up unless it is kept: after an error, and after a panic in the store.
struct WriterSlot<'a> {
    database: &'a Database,
    kept: bool,
}

impl WriterSlot<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for WriterSlot<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.database.core().writer = false;
            self.database.fleet.bridge.wait(self.database.give_back());
        }
    }
}

impl Database {
    /// Calls the store until it can be reached, or the time for it is over.
    pub(super) async fn retry<T, F, Fut>(&self, call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let limit = self.settings().store_timeout;
        self.fleet.retry(limit, call).await
    }

    /// Pins the head as the snapshot of a read transaction, after whatever the lease mode asks for.
    pub fn begin_read(&self) -> Result<Snapshot> {
        if let Some(snapshot) = self.pin_if_current()? {
            return Ok(snapshot);
        }
        let work = async {
            let _one = self.acquiring.lock().await;
            // Whoever was before may have done the work.
            if let Some(snapshot) = self.pin_if_current()? {
                return Ok(snapshot);
            }
            match (self.role, self.lease_mode()) {
                (Role::Writer, LeaseMode::Exclusive) => self.acquire_lease().await,
                (Role::Writer, LeaseMode::Transaction) | (Role::Follower, _) => self.refresh().await,
            }
            .context(self.words("open"))?;
            let mut core = self.core();
            core.check()?;
            Ok(core.pin(self.fleet.clock.monotonic()))
        };
        self.fleet.bridge.wait(work.instrument(tracing::debug_span!("open", database = %self.name)))
    }

    fn pin_if_current(&self) -> Result<Option<Snapshot>> {
        let live = self.fleet.session.live();
        let now = self.fleet.clock.monotonic();
        let staleness = if self.role == Role::Follower { self.settings().staleness } else { Duration::ZERO };
        let mut core = self.core();
        core.check()?;
        if core.database.is_none() {
            return Ok(None);
        }
        let current = match self.role {
            Role::Writer => {
                !core.releasing
                    && core.lease.is_some_and(|lease| live.is_some_and(|live| live.session == lease.session))
            }
            Role::Follower => !staleness.is_zero() && now.saturating_sub(core.checked) < staleness,
        };
        Ok(current.then(|| core.pin(now)))
    }

    /// Becomes the writer. `Conflict` when the snapshot is not the head any more, `LeaseHeld` when somebody else writes.
    pub fn begin_write(&self, snapshot: Snapshot) -> Result<TransactionBuffer> {
        let busy = self.settings().busy;
        let start = self.fleet.clock.monotonic();
        while let Err(error) = self.take_writer_slot(snapshot) {
            let waited = self.fleet.clock.monotonic().saturating_sub(start);
            if error.kind() != ErrorKind::LeaseHeld || waited >= busy {
                return Err(error.context(self.words("write")));
            }
            self.fleet.bridge.wait(self.fleet.pause(FIRST_PAUSE));
        }
        let slot = WriterSlot { database: self, kept: false };
        let buffer = self.fleet.bridge.wait(self.hold_for_write(snapshot)).context(self.words("write"))?;
        slot.keep();
        Ok(buffer)
    }

    fn take_writer_slot(&self, snapshot: Snapshot) -> Result<()> {
        let mut core = self.core();
        core.check()?;
        if self.role == Role::Follower {
            return Err(Error::invalid("opened read-only"));
        }
        // SQLite has read page 1 by now, and checked its cache against it: no other snapshot can take the place of this
        // one, so there is nothing to wait for.
        if snapshot.txid != core.head {
            return Err(stale(snapshot, core.head));
        }
        if core.writer {
            return Err(Error::lease_held("another connection of this process is writing"));
        }
        core.writer = true;
        Ok(())
    }

    async fn hold_for_write(&self, snapshot: Snapshot) -> Result<TransactionBuffer> {
        self.ensure_lease().await?;
        let (head, size) = {
            let core = self.core();
            (core.head, core.size)
        };
        if snapshot.txid != head {
            return Err(stale(snapshot, head));
        }
        Ok(TransactionBuffer::new(head, size))
    }

    /// Takes the lease unless it is held and the session is alive.
    pub(super) async fn ensure_lease(&self) -> Result<()> {
        let current = |live: Option<super::session::Live>| {
            let core = self.core();
            core.check()?;
            Ok(core.lease.is_some_and(|lease| live.is_some_and(|live| live.session == lease.session)))
        };
        if self.role == Role::Follower {
            return Err(Error::invalid("opened read-only: it holds no lease"));
        }
        if current(self.fleet.session.live())? {
            return Ok(());
        }
        let _one = self.acquiring.lock().await;
        if current(self.fleet.session.live())? {
            return Ok(());
        }
        // Work in the background may outlive the last connection. A grant would fence whoever opened it since.
        if !self.is_connected() {
            return Err(Error::fenced("it was closed, and its lease given back"));
        }
        self.acquire_lease().await
    }

    /// The writer is done: whoever comes next may write. A transaction that did not commit leaves nothing staged.
    pub fn end_write(&self, buffer: &TransactionBuffer) {
        let left = {
            let mut core = self.core();
            core.leftovers |= !buffer.staged.is_empty();
            core.leftovers && core.lease.is_some() && core.stopped.is_none()
        };
        if left {
            // What cannot be discarded now is discarded by the next holder of the lease, or before the next staging.
            if let Err(error) = self.fleet.bridge.wait(self.discard_staged()) {
                tracing::warn!(database = %self.name, %error, "staged pages are left for later");
            }
        }
        let now = self.fleet.clock.monotonic();
        let held = {
            let mut core = self.core();
            core.writer = false;
            core.active = now;
            core.lease.is_some()
        };
        if held && self.lease_mode() == LeaseMode::Transaction {
            self.fleet.bridge.wait(self.give_back());
        }
    }

    /// Gives the lease back where the mode says so, unless somebody writes, or a checkpoint is about to use it and gives it
    /// back itself.
    pub(super) async fn give_back(&self) {
        if self.lease_mode() == LeaseMode::Transaction
            && !self.checkpoint_scheduled.load(Ordering::Acquire)
            && let Err(error) = self.release_lease().await
        {
            tracing::warn!(database = %self.name, %error, "the lease could not be given back; it ends with the session");
        }
    }

    /// Gives the lease back, if it is held and nobody writes.
    pub(super) async fn release_lease(&self) -> Result<()> {
        let (database, lease, warm) = {
            let mut core = self.core();
            if core.writer {
                return Ok(());
            }
            let (Some(database), Some(lease)) = (core.database, core.lease.take()) else { return Ok(()) };
            core.shared = true;
            (database, lease, core.warm_set())
        };
        metrics::counter!("litefleet_leases_released_total").increment(1);
        match self.fleet.store.release(database, lease.epoch, warm).await {
            // Somebody else has it already, or a late request of our own.
            Err(error) if error.kind() == ErrorKind::Fenced => self.release_again(database, lease).await,
            // The database is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            reply => reply,
        }
    }

    /// Opens the database with its lease. The caller holds `acquiring`.
    pub(super) async fn acquire_lease(&self) -> Result<()> {
        let settings = self.settings();
        let start = self.fleet.clock.monotonic();
        let mut pause = FIRST_PAUSE;
        for _ in 0..LOAD_TRIES {
            let opened = loop {
                let live = self.retry(|| self.fleet.session.ensure()).await?;
                let known = self.known();
                // By force only at first: two that took over from each other for ever would help nobody.
                let force = settings.takeover && known.is_none();
                let lease = Some(LeaseRequest { session: live.session, force });
                match self.retry(|| self.fleet.store.open(self.open_request(lease, known))).await {
                    Ok(opened) => break (opened, live.session),
                    Err(error) if error.kind() == ErrorKind::LeaseHeld => {
                        metrics::counter!("litefleet_leases_refused_total").increment(1);
                        self.check_deposed().await?;
                        if self.fleet.clock.monotonic().saturating_sub(start) + pause > settings.busy {
                            return Err(error);
                        }
                        self.fleet.pause(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Err(error) if error.kind() == ErrorKind::Fenced => {
                        // The session expired on the way: `ensure` finds that out and starts another.
                        if self.retry(|| self.fleet.session.renew()).await?.is_some() {
                            return Err(error);
                        }
                    }
                    Err(error) => return Err(error),
                }
            };
            let (opened, session) = opened;
            metrics::counter!("litefleet_leases_granted_total").increment(1);
            let lease = Lease { epoch: opened.head.epoch, session };
            let (staged, database) = (opened.head.staged, opened.database);
            let taken = self.take_over_state(opened, Some(lease)).await;
            if taken.is_err() {
                // Held by nobody here, it must not be held in the store. If that fails, it ends with the session.
                let _released = self.fleet.store.release(database, lease.epoch, Vec::new()).await;
            }
            if taken? {
                if staged && !self.core().writer {
                    self.discard_staged_alone().await?;
                }
                return Ok(());
            }
        }
        Err(Error::unavailable("the log changed while it was being read, several times over; try again"))
    }

    fn open_request(&self, lease: Option<LeaseRequest>, known: Option<(DatabaseId, Txid)>) -> OpenRequest {
        OpenRequest {
            name: self.name.clone(),
            create: self.role == Role::Writer && known.is_none() && self.create.load(Ordering::Acquire),
            lease,
            known,
            tail_bytes: INLINE_TAIL,
        }
    }

    fn known(&self) -> Option<(DatabaseId, Txid)> {
        let core = self.core();
        core.database.filter(|_| !core.reload).map(|database| (database, core.head))
    }

    /// Asks the store for what is new, without a lease. The caller holds `acquiring`.
    async fn refresh(&self) -> Result<()> {
        for _ in 0..LOAD_TRIES {
            let Some((database, known)) = self.known() else {
                let opened = self.retry(|| self.fleet.store.open(self.open_request(None, None))).await?;
                if self.take_over_state(opened, None).await? {
                    return Ok(());
                }
                continue;
            };
            let request = HeadRequest { database, known, epoch: None, tail_bytes: INLINE_TAIL };
            let reply = match self.retry(|| self.fleet.store.head(request)).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.stop(error)),
                reply => reply?,
            };
            if self.advance(database, known, &reply.head, reply.tail, None).await? {
                return Ok(());
            }
            self.reload().await?;
        }
        Err(Error::unavailable("the log changed while it was being read, several times over; try again"))
    }

    /// Loads the state from the newest checkpoint on, in place of one whose continuation is gone.
    async fn reload(&self) -> Result<()> {
        let opened = self.retry(|| self.fleet.store.open(self.open_request(None, None))).await?;
        self.load(opened, None).await.map(|_| ())
    }

    /// Makes what an open returned the state here. False when it has to be asked for again.
    async fn take_over_state(&self, opened: Opened, lease: Option<Lease>) -> Result<bool> {
        let (known, shared) = {
            let core = self.core();
            let shared = core.shared || core.lease.is_none();
            (core.database.map(|database| (database, core.head, core.commit_id)), shared)
        };
        let Some((database, head, commit_id)) = known else { return self.load(opened, lease).await };
        if database != opened.database {
            return Err(self.stop(Error::not_found("it was deleted, and another one created under its name")));
        }
        if self.core().reload {
            return self.load(opened, lease).await;
        }
        let unchanged = opened.head.txid == head && opened.head.commit_id == commit_id;
        if !unchanged && !shared {
            let what = format!("the lease was lost, and another holder committed up to txid {}", opened.head.txid);
            return Err(self.stop(Error::fenced(what)));
        }
        if unchanged && let Tail::Reload = opened.tail {
            // Our state is the newest, and whole: nothing of the log is needed.
            return self.advance(database, head, &opened.head, Tail::Complete(Vec::new()), lease).await;
        }
        if self.advance(database, head, &opened.head, opened.tail, lease).await? {
            return Ok(true);
        }
        // Records that we lack are gone: begin again, and leave old snapshots to fail.
        self.core().reload = true;
        Ok(false)
    }

    /// Applies the records after `known`. False when they are gone.
    async fn advance(
        &self,
        database: DatabaseId,
        known: Txid,
        head: &Head,
        tail: Tail,
        lease: Option<Lease>,
    ) -> Result<bool> {
        match tail {
            Tail::Complete(rows) => self.append(database, known, &rows)?,
            Tail::Reload => return Ok(false),
            // So many, and nobody here reads what was before the checkpoint.
            Tail::Truncated if head.checkpoint > known && self.core().oldest_pin().is_none() => return Ok(false),
            Tail::Truncated => {
                let mut at = known;
                while at < head.txid {
                    if head.checkpoint > known && self.core().tail.weight() > self.largest_tail() {
                        return Ok(false);
                    }
                    let piece = match self.read_log_piece(database, at, head.txid).await {
                        Err(error) if error.kind() == ErrorKind::SnapshotTooOld => return Ok(false),
                        piece => piece?,
                    };
                    self.append(database, at, &piece)?;
                    at = self.core().head;
                }
            }
        }
        let now = self.fleet.clock.monotonic();
        let mut core = self.core();
        if core.head != head.txid {
            drop(core);
            return Ok(false);
        }
        core.note_head(head, now);
        self.bound_tail(&mut core, now);
        grant(&mut core, lease);
        Ok(true)
    }

    /// Makes records that follow what is known a part of it.
    fn append(&self, database: DatabaseId, known: Txid, rows: &[LogRow]) -> Result<()> {
        let records = decode(database, rows)?;
        let mut core = self.core();
        if core.head != known {
            return Err(Error::internal("the head moved while nobody could write"));
        }
        for record in records {
            if let Err(error) = self.publish(&mut core, record, None) {
                drop(core);
                return Err(self.stop(error));
            }
        }
        Ok(())
    }

    /// Makes what an open returned the whole state. False when the log moved on meanwhile.
    async fn load(&self, opened: Opened, lease: Option<Lease>) -> Result<bool> {
        let Opened { database, head, tail, warm, .. } = opened;
        let rows = match tail {
            Tail::Complete(rows) => rows,
            Tail::Reload => return Ok(false),
            Tail::Truncated => match self.long_tail(database, head.checkpoint, head.txid).await? {
                Some(rows) => rows,
                None => return Ok(false),
            },
        };
        let mut tail = LogTail::starting_at(head.checkpoint);
        for record in decode(database, &rows)? {
            if record.txid != tail.end().next() {
                return Ok(false);
            }
            tail.push(record.into())?;
        }
        if tail.end() != head.txid {
            return Ok(false);
        }
        let now = self.fleet.clock.monotonic();
        let mut core = self.core();
        // Under the lock: who loads pages of the old state meanwhile keeps them under its name.
        self.forget_cache();
        core.reload = false;
        core.new_weight = tail.weight();
        core.new_pages = tail.patched_pages();
        core.database = Some(database);
        core.head = head.txid;
        core.commit_id = head.commit_id;
        core.size = head.size;
        core.checkpoint = head.checkpoint;
        core.checkpoints = vec![head.checkpoint];
        core.largest_size = tail.largest_size(head.txid).max(head.size);
        // Without a warm set the pages that the log names are the best guess.
        core.cold = warm.is_empty();
        core.tail = tail;
        core.note_head(&head, now);
        core.active = now;
        grant(&mut core, lease);
        self.keep_warm(&mut core, database, &warm)?;
        Ok(true)
    }

    /// Puts the rows that came with an open into the cache.
    fn keep_warm(&self, core: &mut Core, database: DatabaseId, rows: &[ReadRow]) -> Result<()> {
        for (page, row_txid, image) in super::read::images(rows)? {
            core.warm.push(page);
            // The rows are those of the checkpoint: a page that was staged since has a newer one.
            if core.tail.is_staged_after(page, row_txid, core.head) {
                continue;
            }
            let (from, image) = core.tail.bring_forward(database, page, row_txid, core.head, image)?;
            self.fleet.cache.insert(self.key(page, Txid::MAX), CachedImage { from, image });
        }
        Ok(())
    }

    /// The records after `after` up to `to`, which were too many to come with an open: in one call if possible. `None` when
    /// some of them are gone.
    async fn long_tail(&self, database: DatabaseId, after: Txid, to: Txid) -> Result<Option<Vec<LogRow>>> {
        let request = HeadRequest { database, known: after, epoch: None, tail_bytes: LARGEST_PIECE };
        match self.retry(|| self.fleet.store.head(request)).await?.tail {
            Tail::Complete(mut rows) => {
                // A follower's writer goes on meanwhile.
                rows.retain(|row| row.txid <= to);
                Ok(Some(rows))
            }
            Tail::Reload => Ok(None),
            Tail::Truncated => match self.read_log(database, after, to).await {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld => Ok(None),
                rows => rows.map(Some),
            },
        }
    }

    /// The records after `after` up to `to`, in as many calls as it takes.
    async fn read_log(&self, database: DatabaseId, after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let mut rows: Vec<LogRow> = Vec::new();
        loop {
            let from = rows.last().map_or(after, |row| row.txid);
            if from >= to {
                return Ok(rows);
            }
            rows.extend(self.read_log_piece(database, from, to).await?);
        }
    }

    /// The first records after `after`, as many as come in one call.
    pub(super) async fn read_log_piece(&self, database: DatabaseId, after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let lineage = [crate::store::Lineage { database, max_txid: Txid::MAX }];
        let piece = self.retry(|| self.fleet.store.read_log(&lineage, after, to)).await?;
        if piece.first().map(|row| row.txid) != Some(after.next()) {
            return Err(Error::corrupt(format!("the log has no record after txid {after}")));
        }
        Ok(piece)
    }

    /// Deletes what a transaction has staged and not committed.
    pub(super) async fn discard_staged(&self) -> Result<()> {
        self.under_lease(|epoch| self.discard_under(epoch)).await
    }

    /// The same for a caller that holds `acquiring`.
    pub(super) async fn discard_staged_alone(&self) -> Result<()> {
        let (_, epoch) = self.held()?;
        self.discard_under(epoch).await.map_err(|error| self.refused(error, epoch))
    }

    async fn discard_under(&self, epoch: Epoch) -> Result<()> {
        let database = self.id()?;
        let (expected, generation) = {
            let core = self.core();
            (core.head, core.generation)
        };
        let limit = self.fleet.store.limits().write_rows;
        loop {
            let request = DiscardRequest { database, epoch, expected, generation, limit };
            let discarded = self.retry(|| self.fleet.store.discard_staged(request)).await?;
            let mut core = self.core();
            core.generation = discarded.generation;
            if discarded.done {
                core.leftovers = false;
                return Ok(());
            }
        }
    }
}

fn stale(snapshot: Snapshot, head: Txid) -> Error {
    Error::conflict(format!("the read transaction is at txid {}, the database at {head}: begin again", snapshot.txid))
}

fn grant(core: &mut Core, lease: Option<Lease>) {
    if lease.is_some() {
        core.lease = lease;
        core.shared = false;
    }
}

fn decode(database: DatabaseId, rows: &[LogRow]) -> Result<Vec<Record>> {
    rows.iter().map(|row| Record::decode(database, row.txid, &row.record)).collect()
}
