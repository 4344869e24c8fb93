//! Commits: a transaction buffer becomes one record, and the record the new head.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::Instrument;

use super::buffer::Source;
use super::database::{Database, Lease, Snapshot};
use super::fleet::FleetInner;
use super::{TransactionBuffer, header};
use crate::codec::{Patch, PatchBase, Record, RecordBody, StagedPages, diff, image_checksum, zero_image};
use crate::config::LeaseMode;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{CommitMode, CommitRequest, HeadRequest, LeaseRequest, OpenRequest, Tail};
use crate::types::{CommitId, PageNo, PageSet, pages_for_size};

/// Runs of staged pages that a record names before it says "any page".
const STAGED_RUNS: usize = 4096;
/// What a record takes besides its patches, at most.
const RECORD_OVERHEAD: usize = 64 << 10;
/// How often a commit that certainly did not happen is tried again.
const COMMIT_TRIES: usize = 3;
/// The most bytes of log that come along when an outcome is looked for.
const OUTCOME_TAIL: usize = 64 << 20;

/// A commit that is ready to be sent.
#[derive(Debug)]
pub struct Prepared {
    request: CommitRequest,
    body: RecordBody,
    images: Vec<(PageNo, Bytes)>,
}

/// What became of a commit whose reply was lost.
#[derive(Clone, Debug)]
enum Fate {
    /// It is done.
    Done,
    /// It never happened and never will.
    Undone,
    /// It is done, and then another process took the lease over, for this reason the database stops.
    DoneThenFenced(Error),
}

/// Whether the log tail must have room for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Needed,
    Given,
}

/// The pages that a transaction really changed.
#[derive(Default)]
struct Changes {
    patches: Vec<(PageNo, Patch)>,
    images: Vec<(PageNo, Bytes)>,
    bytes: usize,
}

/// A commit under way. Torn off, by a panic in the store, its outcome is unknown and the database stops.
struct Flight<'a> {
    database: &'a Database,
    landed: bool,
}

impl Flight<'_> {
    fn land(mut self) {
        self.landed = true;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.database.core().releasing = false;
        if !self.landed {
            let words = "a commit was torn off: it may or may not have happened; opening the database again tells";
            self.database.stop(Error::commit_unknown(words));
        }
    }
}

impl Database {
    /// Commits what the buffer holds, durably, and begins a new transaction on top of it. Without a change it does
    /// nothing. After an error nothing was committed, unless the database has stopped, and the buffer is empty: SQLite
    /// rolls back, and what it plays back equals what is stored.
    pub fn commit(&self, buffer: &mut TransactionBuffer, pinned: Snapshot) -> Result<Snapshot> {
        self.commit_in(buffer, pinned, Room::Needed)
    }

    /// As [`commit`](Self::commit), for what SQLite writes back to undo a commit: it must not fail for want of room.
    pub fn commit_back(&self, buffer: &mut TransactionBuffer, pinned: Snapshot) -> Result<Snapshot> {
        self.commit_in(buffer, pinned, Room::Given)
    }

    fn commit_in(&self, buffer: &mut TransactionBuffer, pinned: Snapshot, room: Room) -> Result<Snapshot> {
        let start = self.fleet.clock.monotonic();
        let work = async {
            let Some(prepared) = self.prepare(buffer).await? else { return Ok(None) };
            if room == Room::Needed {
                self.make_room().await?;
            }
            self.send(prepared).await.map(Some)
        };
        let span = tracing::debug_span!("commit", database = %self.name);
        let committed = self.fleet.bridge.wait(work.instrument(span));
        let taken = self.fleet.clock.monotonic().saturating_sub(start);
        match committed.context(self.words("commit")) {
            Ok(None) => {
                self.rewind(buffer);
                Ok(pinned)
            }
            Ok(Some(snapshot)) => {
                metrics::histogram!("litefleet_commit_seconds").record(taken.as_secs_f64());
                self.go_on(buffer, pinned, snapshot);
                Ok(snapshot)
            }
            Err(error) => {
                metrics::counter!("litefleet_commits_failed_total", "kind" => error.kind().as_str()).increment(1);
                self.rewind(buffer);
                Err(error)
            }
        }
    }

    /// Empties the buffer: the transaction begins again on the snapshot that it began with.
    pub fn rewind(&self, buffer: &mut TransactionBuffer) {
        if !buffer.staged.is_empty() {
            self.core().leftovers = true;
        }
        buffer.reset(buffer.base, buffer.base_size);
    }

    /// After a commit of its own a connection goes on from it. The commit has pinned its snapshot.
    pub fn go_on(&self, buffer: &mut TransactionBuffer, pinned: Snapshot, committed: Snapshot) {
        buffer.reset(committed.txid, committed.size);
        self.unpin(pinned);
    }

    /// Prepares a commit that is made together with those of other databases.
    pub async fn prepare_with_others(&self, buffer: &mut TransactionBuffer) -> Result<Option<Prepared>> {
        let prepared = self.prepare(buffer).await?;
        if prepared.is_some() {
            self.make_room().await.context(self.words("commit"))?;
        }
        Ok(prepared)
    }

    /// Turns the buffer into a commit, staging what must be staged. `None` when nothing was changed.
    async fn prepare(&self, buffer: &mut TransactionBuffer) -> Result<Option<Prepared>> {
        if let Some(broken) = &buffer.broken {
            return Err(broken.clone());
        }
        if !buffer.is_dirty() {
            return Ok(None);
        }
        self.ensure_lease().await?;
        self.check_base(buffer)?;
        if !buffer.foreign {
            self.adopt_header_size(buffer)?;
        }
        let mut changes = self.changes(buffer)?;
        let unchanged = changes.patches.is_empty()
            && buffer.size == buffer.base_size
            && buffer.lowest == buffer.base_size
            && buffer.staged.pages().all(|p| p.get() > pages_for_size(buffer.size) || buffer.pages.contains_key(&p));
        let unchanged = unchanged || (changes.patches.is_empty() && self.staged_as_before(buffer)?);
        if unchanged {
            // What was staged is discarded before the next staging, or the next commit.
            return Ok(None);
        }
        if !buffer.foreign && self.freshen_counter(buffer)? {
            changes = self.changes(buffer)?;
        }
        let limits = self.fleet.store.limits();
        let bound = limits.record_bytes.saturating_sub(RECORD_OVERHEAD).min(self.settings().transaction_bytes);
        let stage_all = changes.bytes > bound;
        if stage_all || !buffer.staged.is_empty() {
            let mut pages: Vec<PageNo> = if stage_all {
                buffer.pages.keys().copied().collect()
            } else {
                buffer.pages.keys().copied().filter(|page| buffer.staged.contains(*page)).collect()
            };
            pages.extend(buffer.cut.pages().filter(|page| !buffer.pages.contains_key(page)));
            pages.sort_unstable();
            self.stage(buffer, &pages).await?;
            changes = self.changes(buffer)?;
        } else if self.core().leftovers {
            self.discard_staged().await?;
        }
        self.assemble(buffer, changes).map(Some)
    }

    fn check_base(&self, buffer: &TransactionBuffer) -> Result<()> {
        let head = self.core().head;
        if head == buffer.base {
            return Ok(());
        }
        Err(Error::conflict(format!("the transaction began at txid {}, the database is at {head}", buffer.base)))
    }

    /// SQLite cuts the file only after its commit point, but page 1 says the size already.
    fn adopt_header_size(&self, buffer: &mut TransactionBuffer) -> Result<()> {
        let size = match buffer.source(PageNo::FIRST) {
            Source::Buffer(page) => header::file_size(page),
            Source::Staged | Source::Base | Source::Zeros => None,
        };
        match size {
            Some(size) if size < buffer.size => self.truncate(buffer, size),
            _ => Ok(()),
        }
    }

    /// Compares what is buffered with what it replaces.
    fn changes(&self, buffer: &TransactionBuffer) -> Result<Changes> {
        let database = self.id()?;
        let txid = buffer.base.next();
        let kept = pages_for_size(buffer.lowest);
        let mut pages: Vec<PageNo> = buffer.pages.keys().copied().collect();
        pages.sort_unstable();
        let old: Vec<PageNo> = pages.iter().copied().filter(|page| page.get() <= kept).collect();
        let mut bases = self.pages(buffer.base, &old)?.into_iter();
        let zeros = zero_image();
        let mut changes = Changes::default();
        for page in pages {
            let Some(image) = buffer.pages.get(&page) else { continue };
            let previous = if page.get() <= kept { bases.next() } else { None };
            let (mut base, runs) = match &previous {
                Some(old) => (PatchBase::Previous, diff(old, image)),
                None => (PatchBase::Zeros, diff(&zeros, image)),
            };
            let written_back =
                |old: &Bytes| !buffer.foreign && page == PageNo::FIRST && header::is_counter_written_back(image, old);
            if previous.as_ref().is_some_and(|old| runs.is_empty() || written_back(old)) {
                continue;
            }
            let mut runs = runs;
            if previous.is_some() && runs.len() > image.len() / 2 {
                let whole = diff(&zeros, image);
                if whole.len() <= runs.len() {
                    (base, runs) = (PatchBase::Zeros, whole);
                }
            }
            let checksum = image_checksum(database, page, txid, image);
            changes.bytes += runs.len() + 16;
            changes.patches.push((page, Patch { base, runs: Bytes::from(runs), checksum }));
            changes.images.push((page, Bytes::copy_from_slice(image)));
        }
        Ok(changes)
    }

    /// Other connections tell by the change counter that their caches are stale: a value that was used before would
    /// deceive them, so it is replaced. Returns whether page 1 was changed here.
    fn freshen_counter(&self, buffer: &mut TransactionBuffer) -> Result<bool> {
        if buffer.size == 0 {
            return Ok(false);
        }
        let now = self.buffered_pages(buffer, &[PageNo::FIRST])?;
        let before =
            if buffer.base_size == 0 { vec![zero_image()] } else { self.pages(buffer.base, &[PageNo::FIRST])? };
        let (Some(now), Some(before)) = (now.first(), before.first()) else { return Ok(false) };
        if !header::is_sqlite(now) {
            return Ok(false);
        }
        let (used, next) = (header::change_counter(before), header::change_counter(now));
        let fresh = match (header::counter_was_used(now, before), buffer.header_altered) {
            (true, _) => used.wrapping_add(1),
            (false, true) => next.wrapping_add(1),
            (false, false) => return Ok(false),
        };
        let mut page = now.to_vec();
        header::set_change_counter(&mut page, fresh);
        buffer.pages.insert(PageNo::FIRST, page.into_boxed_slice());
        Ok(true)
    }

    fn assemble(&self, buffer: &TransactionBuffer, changes: Changes) -> Result<Prepared> {
        let (database, epoch) = self.held()?;
        let staged = staged_pages(&buffer.staged);
        let patched = changes.patches.iter().map(|(page, _)| *page);
        debug_assert!(patched.clone().all(|page| !buffer.staged.contains(page)));
        let body = RecordBody {
            commit_id: CommitId(self.fleet.randomness.id()),
            time: self.fleet.clock.unix(),
            size: buffer.size,
            shrunk_from: if buffer.size < buffer.base_size { buffer.base_size } else { 0 },
            zeroed: buffer.zeroed(),
            staged,
            pages: changes.patches,
        };
        let txid = buffer.base.next();
        let record = body.encode(database, txid, self.settings().compression);
        let request = CommitRequest {
            database,
            epoch,
            expected: buffer.base,
            commit_id: body.commit_id,
            size: body.size,
            record,
            staged: Some(buffer.generation).filter(|_| !buffer.staged.is_empty()),
            release: self.lease_mode() == LeaseMode::Transaction
                && !self.checkpoint_scheduled.load(Ordering::Acquire)
                && !self.checkpoint_is_due(body.pages.len()),
        };
        Ok(Prepared { request, body, images: changes.images })
    }

    /// Sends a commit, and makes sure of its outcome. Returns its snapshot, pinned for the connection.
    async fn send(&self, prepared: Prepared) -> Result<Snapshot> {
        let committed = {
            // Nobody takes the lease anew, or looks at the head, while a commit is under way.
            let _one = self.acquiring.lock().await;
            self.core().releasing = prepared.request.release;
            let flight = Flight { database: self, landed: false };
            let sent = self.send_alone(prepared).await;
            flight.land();
            sent
        };
        if committed.is_ok() {
            self.schedule_checkpoint();
        }
        committed
    }

    /// The caller holds `acquiring`.
    async fn send_alone(&self, mut prepared: Prepared) -> Result<Snapshot> {
        for _ in 0..COMMIT_TRIES {
            let request = &prepared.request;
            let sent = self.retry(|| self.fleet.batcher.commit(request.clone())).await;
            let error = match sent {
                Ok(()) => return self.finish(prepared),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::CommitUnknown => match self.resolve(&prepared.request).await? {
                    Fate::Done => return self.finish(prepared),
                    Fate::DoneThenFenced(fenced) => {
                        let snapshot = self.finish(prepared)?;
                        self.stop(fenced);
                        return Ok(snapshot);
                    }
                    Fate::Undone => self.renew_attempt(&mut prepared)?,
                },
                ErrorKind::Conflict if prepared.request.staged.is_none() => self.discard_staged_alone().await?,
                ErrorKind::Fenced => {
                    // The lease was given back or taken anew within this process, or lost to one that has committed
                    // nothing. If it has, that is found out here.
                    self.acquire_lease().await?;
                    if self.core().head != prepared.request.expected {
                        return Err(error);
                    }
                    self.renew_attempt(&mut prepared)?;
                }
                ErrorKind::NotFound => return Err(self.stop(error)),
                _ => return Err(error),
            }
        }
        Err(Error::unavailable("the commit did not reach the store, several times over; nothing was committed"))
    }

    /// The same commit under the present epoch and a new id. The one before can never take effect any more.
    fn renew_attempt(&self, prepared: &mut Prepared) -> Result<()> {
        let (database, epoch) = self.held()?;
        prepared.body.commit_id = CommitId(self.fleet.randomness.id());
        prepared.request.commit_id = prepared.body.commit_id;
        prepared.request.epoch = epoch;
        prepared.request.record =
            prepared.body.encode(database, prepared.request.expected.next(), self.settings().compression);
        Ok(())
    }

    /// A commit took effect: it becomes this process's view. Its snapshot is pinned for the connection.
    fn finish(&self, prepared: Prepared) -> Result<Snapshot> {
        let Prepared { request, body, images } = prepared;
        let bytes = request.record.len() as u64;
        metrics::counter!("litefleet_commits_total").increment(1);
        metrics::counter!("litefleet_commit_record_bytes_total").increment(bytes);
        let now = self.fleet.clock.monotonic();
        let mut core = self.core();
        if let Err(error) = self.publish(&mut core, Record::new(request.expected.next(), body), Some(images)) {
            drop(core);
            return Err(self.stop(error));
        }
        core.active = now;
        if request.staged.is_some() {
            core.generation += 1;
            core.leftovers = false;
        }
        if request.release {
            core.lease = None;
            core.shared = true;
        }
        self.bound_tail(&mut core, now);
        Ok(core.pin(now))
    }

    /// Finds out what became of a commit whose reply was lost. An error: it did not happen and the database has stopped,
    /// or it cannot be known now, and the database has stopped. The caller holds `acquiring`.
    async fn resolve(&self, request: &CommitRequest) -> Result<Fate> {
        metrics::counter!("litefleet_commits_unknown_total").increment(1);
        match self.resolve_once(request).await {
            Ok(fate) => {
                tracing::info!(database = %self.name, commit = %request.commit_id, ?fate, "unknown outcome resolved");
                Ok(fate)
            }
            Err(error) if error.kind() == ErrorKind::Fenced => Err(self.stop(error)),
            Err(error) => {
                let words = format!(
                    "commit {} at txid {} may or may not have happened, and that cannot be found out now: {}; opening the \
                     database again tells",
                    request.commit_id,
                    request.expected.next(),
                    error.message()
                );
                Err(self.stop(Error::commit_unknown(words).with_source(error)))
            }
        }
    }

    async fn resolve_once(&self, request: &CommitRequest) -> Result<Fate> {
        for _ in 0..COMMIT_TRIES {
            if let Some(fate) = self.outcome(request).await? {
                return Ok(fate);
            }
        }
        Err(Error::commit_unknown("the lease changed hands again and again"))
    }

    /// Looks at the head, and raises the epoch where the commit may still be on its way. `None`: look again.
    async fn outcome(&self, request: &CommitRequest) -> Result<Option<Fate>> {
        let (known, epoch) = (request.expected, request.epoch);
        let ask = HeadRequest { database: request.database, known, epoch: Some(epoch), tail_bytes: OUTCOME_TAIL };
        let reply = self.retry(|| self.fleet.store.head(ask)).await?;
        let head = &reply.head;
        if head.epoch > epoch {
            // A late open of our own may have raised the epoch: the lease is still ours, and was all the time.
            let done = head.txid == known.next() && head.commit_id == request.commit_id;
            if (done || head.txid == known) && self.adopt(head) {
                if done
                    && request.release
                    && let Err(error) =
                        self.retry(|| self.fleet.store.release(request.database, head.epoch, Vec::new())).await
                {
                    // The commit is done, whatever becomes of the lease, which ends with the session.
                    tracing::warn!(database = %self.name, %error, "the lease could not be given back");
                }
                return Ok(Some(if done { Fate::Done } else { Fate::Undone }));
            }
            // The epoch is over: what it was is what it will be.
            let done = match (reply.ended, reply.tail) {
                (Some(end), _) => end.txid == known.next() && end.commit_id == request.commit_id,
                (None, Tail::Complete(rows)) => match rows.first() {
                    Some(row) => {
                        let record = Record::decode(request.database, row.txid, &row.record)?;
                        record.body.commit_id == request.commit_id
                    }
                    None => false,
                },
                (None, _) => return Err(Error::commit_unknown("the store no longer knows how the epoch ended")),
            };
            // One that gave the lease back with it has lost nothing.
            if done && request.release {
                return Ok(Some(Fate::Done));
            }
            if done {
                return Ok(Some(Fate::DoneThenFenced(Error::fenced("another process took the lease over"))));
            }
            return Err(Error::fenced("another process took the lease over; the commit did not happen"));
        }
        if reply.head.txid > known {
            // Nobody else writes under our epoch, and nothing else of ours is under way.
            return if reply.head.commit_id == request.commit_id {
                Ok(Some(Fate::Done))
            } else {
                Err(Error::fenced(format!("txid {} is not this commit", reply.head.txid)))
            };
        }
        // It may still be on its way. Under a higher epoch it can no longer take effect.
        let live = self.retry(|| self.fleet.session.ensure()).await?;
        let open = OpenRequest {
            name: reply.name,
            create: false,
            lease: Some(LeaseRequest { session: live.session, force: false }),
            known: Some((request.database, known)),
            tail_bytes: 0,
        };
        let opened = match self.retry(|| self.fleet.store.open(open.clone())).await {
            Err(error) if error.kind() == ErrorKind::LeaseHeld => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.retry(|| self.fleet.session.renew()).await?;
                return Ok(None);
            }
            opened => opened?,
        };
        if opened.database != request.database {
            return Err(Error::fenced("the database was deleted"));
        }
        self.core().lease = Some(Lease { epoch: opened.head.epoch, session: live.session });
        if opened.head.txid == known {
            return Ok(Some(Fate::Undone));
        }
        let done = opened.head.txid == known.next() && opened.head.commit_id == request.commit_id;
        // Otherwise another process has held the lease in between: how our epoch ended tells the rest.
        Ok(done.then_some(Fate::Done))
    }

    pub(super) fn checkpoint_is_due(&self, more_pages: usize) -> bool {
        let settings = self.settings();
        let core = self.core();
        // What snapshots in use hold back does not count: a checkpoint would not free it.
        core.new_weight > settings.checkpoint_bytes
            || core.head.get() - core.checkpoint.get() >= settings.checkpoint_records as u64
            || core.new_pages.min(core.tail.patched_pages()) + more_pages > settings.checkpoint_pages
    }
}

fn staged_pages(staged: &PageSet) -> StagedPages {
    if staged.is_empty() {
        StagedPages::None
    } else if staged.run_count() > STAGED_RUNS {
        StagedPages::All
    } else {
        StagedPages::These(staged.clone())
    }
}

/// Commits several databases as one: all or none. Returns the snapshots of the commits, pinned for their connections.
pub fn commit_atomically(parts: Vec<(Arc<Database>, Prepared)>) -> Result<Vec<Snapshot>> {
    let Some(fleet) = parts.first().map(|(database, _)| Arc::clone(&database.fleet)) else { return Ok(Vec::new()) };
    fleet.bridge.wait(send_all(&fleet, parts))
}

async fn send_all(fleet: &FleetInner, mut parts: Vec<(Arc<Database>, Prepared)>) -> Result<Vec<Snapshot>> {
    // A commit of one is a commit.
    if parts.len() == 1
        && let Some((database, prepared)) = parts.pop()
    {
        return database.send(prepared).await.map(|snapshot| vec![snapshot]).context(database.words("commit"));
    }
    let databases: Vec<Arc<Database>> = parts.iter().map(|(database, _)| Arc::clone(database)).collect();
    let committed = {
        // Each has one writer, so no two of these ever wait for each other.
        let mut guards = Vec::with_capacity(databases.len());
        for database in &databases {
            guards.push(database.acquiring.lock().await);
            database.core().releasing = true;
        }
        let flights: Vec<Flight<'_>> = databases.iter().map(|database| Flight { database, landed: false }).collect();
        let sent = send_all_alone(fleet, parts).await;
        flights.into_iter().for_each(Flight::land);
        sent
    };
    if committed.is_ok() {
        for database in &databases {
            database.schedule_checkpoint();
        }
    }
    committed
}

/// The caller holds `acquiring` of every database.
async fn send_all_alone(fleet: &FleetInner, parts: Vec<(Arc<Database>, Prepared)>) -> Result<Vec<Snapshot>> {
    let Some((first, _)) = parts.first() else { return Ok(Vec::new()) };
    let requests: Vec<CommitRequest> = parts.iter().map(|(_, prepared)| prepared.request.clone()).collect();
    let sent = first.retry(|| fleet.store.commit(requests.clone(), CommitMode::Atomic)).await;
    let fate = match sent {
        Ok(outcomes) => judge(&parts, outcomes).map(|()| Fate::Done),
        Err(error) if error.kind() == ErrorKind::CommitUnknown => {
            // They stand or fall together: one tells it for all.
            match requests.first() {
                Some(request) => first.resolve(request).await,
                None => Ok(Fate::Done),
            }
        }
        Err(error) => Err(error),
    };
    match fate {
        Ok(Fate::Undone) => Err(Error::unavailable("the commit did not reach the store; nothing was committed")),
        Ok(fate) => {
            let mut snapshots = Vec::with_capacity(parts.len());
            for (database, prepared) in parts {
                let snapshot = Snapshot { txid: prepared.request.expected.next(), size: prepared.request.size };
                // One that cannot take the commit over has stopped; the commit is done all the same.
                snapshots.push(database.finish(prepared).unwrap_or(snapshot));
                if let Fate::DoneThenFenced(fenced) = &fate {
                    database.stop(fenced.clone());
                }
            }
            Ok(snapshots)
        }
        Err(error) => {
            for (database, _) in parts.iter().skip(1) {
                if error.kind() == ErrorKind::CommitUnknown {
                    database.stop(error.clone());
                }
            }
            Err(error.context("commit of several databases"))
        }
    }
}

/// The outcome of an atomic commit. Those that were fenced stop.
fn judge(parts: &[(Arc<Database>, Prepared)], outcomes: Vec<Result<()>>) -> Result<()> {
    let mut reason: Option<Error> = None;
    for ((database, prepared), outcome) in parts.iter().zip(outcomes) {
        let Err(error) = outcome else { continue };
        let error = match error.kind() {
            ErrorKind::Fenced | ErrorKind::NotFound => database.refused(error, prepared.request.epoch),
            _ => error,
        };
        // The reason, not its consequence for the others.
        if reason.as_ref().is_none_or(|reason| reason.kind() == ErrorKind::Conflict) {
            reason = Some(error);
        }
    }
    reason.map_or(Ok(()), Err)
}
