//! Commits: a transaction buffer becomes one record, and the record the new head.

use bytes::Bytes;
use tracing::Instrument;

use super::buffer::Source;
use super::database::{Database, Snapshot};
use super::outcome::Fate;
use super::stage::{shrunk_from, staged_pages};
use super::{TransactionBuffer, header};
use crate::codec::{Patch, PatchBase, Record, RecordBody, diff, image_checksum, zero_image};
use crate::config::LeaseMode;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{CommitRequest, Staged};
use crate::types::{CommitId, PageNo, pages_for_size};

/// What a record takes besides its patches, at most.
const RECORD_OVERHEAD: usize = 64 << 10;
/// How often a commit that certainly did not happen is tried again.
pub(super) const COMMIT_TRIES: usize = 3;
/// A commit that is ready to be sent.
#[derive(Debug)]
pub struct Prepared {
    pub(super) request: CommitRequest,
    body: RecordBody,
    images: Vec<(PageNo, Bytes)>,
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
pub(super) struct Flight<'a> {
    pub(super) database: &'a Database,
    pub(super) landed: bool,
}

impl Flight<'_> {
    pub(super) fn land(mut self) {
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
    /// Commits what the buffer holds, durably, and begins a new transaction on top of it. Returns its snapshot, pinned in place
    /// of the one before; where the file is smaller now, that one stays pinned as well. Without a change it does nothing. After an
    /// error nothing was committed, unless the database has stopped, and the buffer is empty: SQLite rolls back, and what it plays
    /// back equals what is stored.
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
                self.go_on(buffer, snapshot);
                if snapshot.size >= pinned.size {
                    self.unpin(pinned);
                }
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
        self.abandon(buffer);
        if !buffer.staged.is_empty() {
            self.core().leftovers = true;
        }
        buffer.reset(buffer.base, buffer.base_size);
    }

    /// After a commit of its own a connection goes on from it.
    pub fn go_on(&self, buffer: &mut TransactionBuffer, committed: Snapshot) {
        buffer.reset(committed.txid, committed.size);
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
        self.land(buffer).await?;
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
            pages.sort_unstable();
            self.stage(buffer, &pages).await?;
            self.stage_cut(buffer).await?;
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
                |old: &Bytes| !buffer.foreign && page == PageNo::FIRST && header::is_written_back(image, old);
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

    fn assemble(&self, buffer: &TransactionBuffer, changes: Changes) -> Result<Prepared> {
        let (database, epoch) = self.held()?;
        let staged = staged_pages(&buffer.staged);
        // Where the head here is not what the transaction began on any more, the store refuses the commit.
        let follows = self.core().commit_id;
        let patched = changes.patches.iter().map(|(page, _)| *page);
        debug_assert!(patched.clone().all(|page| !buffer.staged.contains(page)));
        let body = RecordBody {
            commit_id: CommitId(self.fleet.randomness.id()),
            follows: follows.link(),
            time: self.fleet.clock.unix(),
            size: buffer.size,
            shrunk_from: shrunk_from(buffer, &staged),
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
            follows,
            commit_id: body.commit_id,
            size: body.size,
            record,
            staged: (!buffer.staged.is_empty())
                .then_some(Staged { generation: buffer.generation, last: buffer.landed }),
            // Under the exclusive lock others are kept out until SQLite unlocks: it may still undo the commit.
            release: self.lease_mode() == LeaseMode::Transaction
                && self.core().locks.exclusive.is_none()
                && !self.is_maintained()
                && !self.checkpoint_is_due(body.pages.len()),
        };
        Ok(Prepared { request, body, images: changes.images })
    }

    /// Sends a commit, and makes sure of its outcome. Returns its snapshot, pinned for the connection.
    pub(super) async fn send(&self, prepared: Prepared) -> Result<Snapshot> {
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
            self.lock_again(prepared.request.epoch).await?;
            let request = &prepared.request;
            let sent = self.retry(|| self.fleet.batcher.commit(request.clone())).await;
            let error = match sent {
                Ok(()) => return Ok(self.finish(prepared)),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::CommitUnknown => match self.resolve(&prepared.request).await? {
                    Fate::Done => return Ok(self.finish(prepared)),
                    Fate::DoneThenFenced(fenced) => {
                        let snapshot = self.finish(prepared);
                        self.stop(fenced);
                        return Ok(snapshot);
                    }
                    Fate::Undone => self.renew_attempt(&mut prepared)?,
                },
                ErrorKind::Conflict => {
                    self.look_again_alone(prepared.request.epoch).await?;
                    if prepared.request.staged.is_some() {
                        return Err(error);
                    }
                    self.discard_staged_alone().await?;
                }
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
    pub(super) fn renew_attempt(&self, prepared: &mut Prepared) -> Result<()> {
        let (database, epoch) = self.held()?;
        prepared.body.commit_id = CommitId(self.fleet.randomness.id());
        prepared.request.commit_id = prepared.body.commit_id;
        prepared.request.epoch = epoch;
        prepared.request.record =
            prepared.body.encode(database, prepared.request.expected.next(), self.settings().compression);
        Ok(())
    }

    /// A commit took effect: it becomes this process's view. Its snapshot is pinned for the connection. Where it cannot be
    /// taken over the database has stopped; the commit is done all the same, and told so.
    pub(super) fn finish(&self, prepared: Prepared) -> Snapshot {
        let snapshot = Snapshot { txid: prepared.request.expected.next(), size: prepared.request.size };
        self.take_over(prepared).unwrap_or(snapshot)
    }

    fn take_over(&self, prepared: Prepared) -> Result<Snapshot> {
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
            // One that was granted meanwhile, to find out what became of the commit, did not go back with it.
            if let Some(other) = core.lease.take().filter(|lease| lease.epoch != request.epoch) {
                self.fleet.unreturned.kept(request.database, other.session);
            }
            core.shared = true;
            core.holder = None;
        }
        self.bound_tail(&mut core, now);
        Ok(core.pin(now))
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

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
