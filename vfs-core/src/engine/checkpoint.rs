//! Checkpoints: page rows for what the log changed, so that the log before is no longer needed to read.
//!
//! A page of which little changed gets a delta to its last whole row instead of a whole row: a checkpoint writes about
//! what the transactions wrote, not pages.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use tracing::Instrument;

use super::core::Core;
use super::database::Database;
use super::fencing::TRIES;
use crate::codec::{Compression, decode_row, diff, encode_delta, encode_image, encode_zero, zero_image};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{CheckpointRequest, PageRow, PagesReply, ReadRow, RowKind};
use crate::types::{DatabaseId, Epoch, PageNo, PageRange, PageSet, Txid, pages_for_size};

/// Pages in one piece of a checkpoint.
const CHUNK: usize = 256;
/// A delta is considered while its runs take less than this.
const LARGEST_DELTA: usize = 1024;
/// Commits wait for a checkpoint when the tail is this many times over its bound.
const OVERRUN: usize = 8;
/// The tail is never much more than this many times its bound: what snapshots in use hold back is given up then, and as
/// long as no checkpoint can be made commits are refused.
const LARGEST_TAIL: usize = 16;

/// Says that no checkpoint is scheduled any more, also when it panicked.
struct Scheduled<'a>(&'a Database);

impl Drop for Scheduled<'_> {
    fn drop(&mut self) {
        self.0.checkpoint_scheduled.store(false, Ordering::Release);
    }
}

/// Says that a checkpoint or a collection is over, also when it panicked.
pub(super) struct Maintenance<'a>(&'a Database);

impl Drop for Maintenance<'_> {
    fn drop(&mut self) {
        self.0.maintenance.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a checkpoint has to write. It is worth something only under the lease that it was made under: whoever had the lease
/// after that may have written a checkpoint as well, and deleted what these rows would rest on.
struct Plan {
    database: DatabaseId,
    epoch: Epoch,
    /// The newest checkpoint before it: the records since then are in the tail.
    since: Txid,
    to: Txid,
    pages: PageSet,
    /// Pages past it were cut off.
    kept: u32,
}

/// Which piece of a checkpoint a request is.
#[derive(Clone, Copy, Debug)]
struct Place {
    attempt: u64,
    piece: u64,
    last: bool,
}

/// Who wants a checkpoint or a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Somebody who waits for it: the lease is taken where it is not held.
    Caller,
    /// Nobody: it is done under the lease that is held, and not without one. One that was given back meanwhile, by a
    /// pragma or when the fleet was shut down, would be taken again and kept.
    Background,
    /// The last connection as it closes, or the fleet as it is shut down: as for a caller, but what it does not pay to collect
    /// is left for later.
    Closing,
}

/// The last whole image of a page in the store.
struct Base {
    txid: Txid,
    image: Bytes,
}

impl Database {
    /// Has a checkpoint made in the background when the tail is over a bound, and waits for it when far over.
    pub(super) fn schedule_checkpoint(&self) {
        if !self.checkpoint_is_due(0) {
            return;
        }
        let bytes = self.settings().checkpoint_bytes;
        if self.core().new_weight > bytes.saturating_mul(OVERRUN) {
            if let Err(error) = self.fleet.bridge.wait(self.checkpoint()) {
                tracing::warn!(database = %self.name, %error, "checkpoint failed");
            }
            return;
        }
        if self.checkpoint_scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        // Who waits for all work in the background makes one at the end.
        let Some(working) = self.fleet.background.begin_now() else {
            self.checkpoint_scheduled.store(false, Ordering::Release);
            return;
        };
        let Some(this) = self.this.upgrade() else { return };
        self.fleet.bridge.spawn(async move {
            let scheduled = Scheduled(&this);
            if let Err(error) = this.maintain().await {
                tracing::warn!(database = %this.name, %error, "checkpoint failed; it is tried again after the next commit");
            }
            drop(scheduled);
            this.give_back().await;
            drop(this);
            drop(working);
        });
    }

    /// Before a commit: a tail at its bound is made shorter by a checkpoint, or the commit is refused. Old records could be
    /// read from the store again instead of being kept; but where no checkpoint can be made the log grows without an end,
    /// and with it the next open and the work of the first checkpoint that succeeds.
    pub(super) async fn make_room(&self) -> Result<()> {
        let bound = self.largest_tail();
        if self.core().new_weight <= bound {
            return Ok(());
        }
        let made = self.checkpoint().await.map(|_| ());
        made.context(format_args!(
            "the log tail is over {bound} bytes, 16 times checkpoint_bytes, and no checkpoint can be made"
        ))
    }

    /// Gives up snapshots in use that hold back too much of the tail.
    pub(super) fn bound_tail(&self, core: &mut Core, now: Duration) {
        if core.tail.weight() > self.largest_tail() {
            core.expire_pins(now, Duration::ZERO);
        }
    }

    pub(super) fn largest_tail(&self) -> usize {
        self.settings().checkpoint_bytes.saturating_mul(LARGEST_TAIL)
    }

    /// Has the lease kept from here on until the result is dropped.
    pub(super) fn begin_maintenance(&self) -> Maintenance<'_> {
        self.maintenance.fetch_add(1, Ordering::AcqRel);
        Maintenance(self)
    }

    /// Whether a checkpoint or a collection uses the lease, or is about to.
    pub(super) fn is_maintained(&self) -> bool {
        self.checkpoint_scheduled.load(Ordering::Acquire) || self.maintenance.load(Ordering::Acquire) > 0
    }

    /// In the background: a checkpoint, and the garbage that it makes collectable.
    pub(super) async fn maintain(&self) -> Result<()> {
        self.checkpoint_for(For::Background).await?;
        self.collect_for(For::Background).await.map(|_| ())
    }

    /// Whether there is a lease to work under.
    pub(super) async fn lease_for(&self, who: For) -> Result<bool> {
        match who {
            For::Caller | For::Closing => self.ensure_lease().await.map(|()| true),
            For::Background => self.has_lease(),
        }
    }

    /// Before the lease is given back: a checkpoint, when there is something for it, and then what an older one has made
    /// garbage, when it pays. Without this a database that is only ever open for a short time would never be collected.
    pub(super) async fn checkpoint_at_close(&self) -> Result<()> {
        let collect = {
            let core = self.core();
            core.head > core.checkpoint && core.checkpoint > core.horizon
        };
        self.checkpoint().await?;
        if collect { self.collect_for(For::Closing).await.map(|_| ()) } else { Ok(()) }
    }

    /// Writes a checkpoint at the present head. Returns its txid.
    pub async fn checkpoint(&self) -> Result<Txid> {
        self.checkpoint_for(For::Caller).await
    }

    async fn checkpoint_for(&self, who: For) -> Result<Txid> {
        let span = tracing::debug_span!("checkpoint", database = %self.name);
        let made = async {
            let _kept = self.begin_maintenance();
            let _one = self.maintaining.lock().await;
            self.checkpoint_alone(who).await
        };
        made.instrument(span).await.context(self.words("checkpoint"))
    }

    async fn checkpoint_alone(&self, who: For) -> Result<Txid> {
        let mut tries = 1;
        loop {
            if !self.lease_for(who).await? {
                return Ok(self.core().checkpoint);
            }
            let (_, epoch) = self.held()?;
            let plan = {
                let core = self.core();
                let Some(plan) = core.plan(epoch) else { return Ok(core.checkpoint) };
                plan
            };
            match self.write_checkpoint(&plan).await {
                // All over again, from what is there then.
                Err(error) if error.kind() == ErrorKind::Fenced && tries < TRIES => self.regain(error, epoch).await?,
                Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => self.look_again(epoch).await?,
                written => return written.map(|()| plan.to).map_err(|error| self.refused(error, epoch)),
            }
            tries += 1;
        }
    }

    async fn write_checkpoint(&self, plan: &Plan) -> Result<()> {
        let start = self.fleet.clock.monotonic();
        let limits = self.fleet.store.limits();
        let size = CHUNK.min(limits.write_rows).min(limits.read_pages).max(1);
        let mut chunks = plan.pages.chunks(size).into_iter().peekable();
        let (attempt, after_another) = self.core().begin_attempt(plan.epoch);
        let mut place = Place { attempt, piece: 0, last: false };
        if after_another {
            // Rows of the one before may be there now, and gone after a failover. Each request asks for the pieces before it:
            // with one that comes before the first read, whatever has that one has what was read.
            self.write_piece(plan, place, Vec::new()).await?;
            place.piece += 1;
        }
        let mut written = 0;
        while !place.last {
            let ranges = chunks.next().unwrap_or_default();
            let rows = self.rows(plan, &ranges).await?;
            place.last = chunks.peek().is_none();
            written += rows.len();
            if place.last || !rows.is_empty() {
                self.write_piece(plan, place, rows).await?;
                place.piece += 1;
            }
        }
        let now = self.fleet.clock.monotonic();
        {
            let mut core = self.core();
            core.incomplete = None;
            core.note_checkpoint(plan.to);
            core.collect_at = now.checked_add(self.settings().retention);
        }
        let taken = now.saturating_sub(start);
        metrics::counter!("litefleet_checkpoints_total").increment(1);
        metrics::counter!("litefleet_checkpoint_rows_total").increment(written as u64);
        metrics::histogram!("litefleet_checkpoint_seconds").record(taken.as_secs_f64());
        tracing::debug!(database = %self.name, txid = %plan.to, rows = written, ?taken, "checkpoint");
        Ok(())
    }

    async fn write_piece(&self, plan: &Plan, place: Place, rows: Vec<PageRow>) -> Result<()> {
        let Place { attempt, piece, last } = place;
        let (database, epoch, txid, since) = (plan.database, plan.epoch, plan.to, plan.since);
        let time = self.fleet.clock.unix();
        let warm = if last { self.core().warm_set() } else { Vec::new() };
        let request = CheckpointRequest { database, epoch, txid, since, attempt, piece, rows, last, time, warm };
        self.retry(|| self.fleet.store.checkpoint(request.clone())).await
    }

    /// The rows of some pages as of the checkpoint. A page whose newest row is right already gets none.
    async fn rows(&self, plan: &Plan, ranges: &[PageRange]) -> Result<Vec<PageRow>> {
        let pages: Vec<PageNo> = ranges.iter().flat_map(|range| range.pages()).collect();
        let wanted: Vec<PageNo> = {
            let core = self.core();
            plan.check(&core)?;
            let reads = |page: &PageNo| page.get() <= plan.kept && core.tail.restart(*page, plan.to).is_none();
            pages.iter().copied().filter(reads).collect()
        };
        let PagesReply { rows: stored, horizon, checkpoint, head } = if wanted.is_empty() {
            PagesReply { rows: Vec::new(), horizon: Txid(0), checkpoint: plan.since, head: None }
        } else {
            let (lineage, ranges) = (self.lineage()?, super::rows::ranges(wanted.iter().copied()));
            self.retry(|| self.fleet.store.read_pages(&lineage, &ranges, plan.to)).await?
        };
        // The patches in the tail do not fit what was there before it.
        if checkpoint < plan.since || head.is_some_and(|head| head < plan.to) {
            return Err(Error::conflict(format!(
                "the store has lost the checkpoint {} or commits since: the newest checkpoint is {checkpoint}",
                plan.since
            )));
        }
        let (mut stored, mut wanted) = (stored.as_slice(), wanted.into_iter().peekable());
        let compression = self.settings().compression;
        let mut rows = Vec::with_capacity(pages.len());
        for page in pages {
            let count = stored.iter().take_while(|read| read.row.page == page).count();
            let (own, rest) = stored.split_at(count);
            stored = rest;
            if page.get() > plan.kept {
                rows.push(encode_zero(plan.database, page, plan.to));
                continue;
            }
            let (row, image, base) = newest(own, page)?;
            // One that was read and has no row is zeros as of the horizon. The others start from zeros later on.
            let hole = wanted.next_if_eq(&page).map_or(Txid(0), |_| horizon);
            let from = row.unwrap_or(hole);
            let (last, image) = {
                let core = self.core();
                plan.check(&core)?;
                core.tail.bring_forward(plan.database, page, from, plan.to, image)?
            };
            if row == Some(last) {
                continue;
            }
            rows.push(encode(plan, page, &image, base.as_ref(), compression));
        }
        Ok(rows)
    }
}

impl Plan {
    /// Whether the tail still has what the plan goes by.
    fn check(&self, core: &Core) -> Result<()> {
        if core.lease.is_some_and(|lease| lease.epoch == self.epoch) && core.tail.start() <= self.since {
            return Ok(());
        }
        Err(Error::fenced(format!("the lease was lost during a checkpoint at txid {}", self.to)))
    }
}

/// The newest row's txid, its image, and the whole image it rests on.
fn newest(rows: &[ReadRow], page: PageNo) -> Result<(Option<Txid>, Bytes, Option<Base>)> {
    let Some(ReadRow { database, row }) = rows.first() else { return Ok((None, zero_image(), None)) };
    let content = decode_row(*database, row)?;
    let base = match row.kind {
        RowKind::Zero => None,
        RowKind::Image => Some(Base { txid: row.txid, image: content.clone().image(*database, page, row.txid, None)? }),
        RowKind::Delta { base } => {
            let missing = || Error::corrupt(format!("page {page} at txid {}: its base is missing", row.txid));
            let found = rows.get(1).filter(|found| found.row.txid == base).ok_or_else(missing)?;
            let image = decode_row(found.database, &found.row)?.image(found.database, page, base, None)?;
            Some(Base { txid: base, image })
        }
    };
    let image = content.image(*database, page, row.txid, base.as_ref().map(|base| &base.image))?;
    Ok((Some(row.txid), image, base))
}

fn encode(plan: &Plan, page: PageNo, image: &Bytes, base: Option<&Base>, compression: Compression) -> PageRow {
    if image.iter().all(|byte| *byte == 0) {
        return encode_zero(plan.database, page, plan.to);
    }
    let delta = base.and_then(|base| {
        let runs = diff(&base.image, image);
        (runs.len() <= LARGEST_DELTA).then(|| encode_delta(plan.database, page, plan.to, base.txid, &runs, image))
    });
    match delta {
        // So small that a whole image can hardly be smaller.
        Some(delta) if delta.bytes.len() <= LARGEST_DELTA / 4 => delta,
        Some(delta) => {
            let whole = encode_image(plan.database, page, plan.to, image, compression);
            // A delta keeps its base alive: it must be worth it.
            if delta.bytes.len() * 2 < whole.bytes.len() { delta } else { whole }
        }
        None => encode_image(plan.database, page, plan.to, image, compression),
    }
}

impl Core {
    /// What a checkpoint at the head has to write. `None` when there is nothing.
    fn plan(&self, epoch: Epoch) -> Option<Plan> {
        let database = self.database?;
        if self.head <= self.checkpoint {
            return None;
        }
        let to = self.head;
        let since = self.checkpoint;
        let changed = self.tail.changed(to);
        let mut pages = if self.tail.start() == since {
            changed
        } else {
            changed.pages().filter(|page| self.tail.next_change(*page, since) <= to).collect()
        };
        let kept = pages_for_size(self.size);
        let largest = pages_for_size(self.largest_size);
        if kept < largest {
            pages.insert_range(PageRange::new(PageNo(kept.saturating_add(1)), PageNo(largest)));
        }
        Some(Plan { database, epoch, since, to, pages, kept })
    }
}
