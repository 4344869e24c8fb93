//! Large transactions: pages go to the store early, as rows that nobody sees until the commit flips the head.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::sync::oneshot;

use super::TransactionBuffer;
use super::buffer::Source;
use super::database::{Database, Snapshot};
use crate::codec::{StagedPages, encode_image, encode_zero};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{DiscardRequest, PageRow, StageRequest};
use crate::types::{DatabaseId, Epoch, PAGE_SIZE, PageNo, PageSet, pages_for_size};

/// Runs of staged pages that a record names before it says "any page".
pub(super) const STAGED_RUNS: usize = 4096;
/// Pages in one stage call, where the store allows it: 1 MiB.
const CHUNK: usize = 256;

/// A transaction goes on while at least so many pages are on their way; for fewer it waits.
const WORTH_GOING_ON: usize = 64;
/// Bytes that are written back at once.
const BACK_AT_ONCE: usize = 64 * PAGE_SIZE;

impl Database {
    /// Writes into an open transaction.
    pub fn write(&self, buffer: &mut TransactionBuffer, offset: u64, bytes: &[u8]) -> Result<()> {
        let needed = buffer.needed(offset, bytes.len())?;
        let present = self.present(buffer, needed)?;
        buffer.write(offset, bytes, &present)?;
        if buffer.weight() > self.settings().transaction_bytes {
            self.fleet.bridge.wait(self.spill(buffer)).context(self.words("write"))?;
        }
        Ok(())
    }

    /// Writes what was in the file beyond its present end, as of an older snapshot, which is pinned.
    pub fn write_back(&self, buffer: &mut TransactionBuffer, before: Snapshot) -> Result<()> {
        let mut bytes = vec![0; BACK_AT_ONCE];
        while buffer.size < before.size {
            let offset = buffer.size;
            let count = usize::try_from(before.size - offset).unwrap_or(usize::MAX).min(BACK_AT_ONCE);
            let part = bytes.get_mut(..count).unwrap_or_default();
            self.read(before, offset, part)?;
            self.write(buffer, offset, part)?;
        }
        Ok(())
    }

    /// Sets the size of the file in an open transaction.
    pub fn truncate(&self, buffer: &mut TransactionBuffer, size: u64) -> Result<()> {
        let needed = buffer.cut_page(size)?.into_iter().collect();
        let present = self.present(buffer, needed)?;
        buffer.truncate(size, &present)
    }

    fn present(&self, buffer: &TransactionBuffer, needed: Vec<PageNo>) -> Result<HashMap<PageNo, Vec<u8>>> {
        if needed.is_empty() {
            return Ok(HashMap::new());
        }
        let images = self.buffered_pages(buffer, &needed)?;
        Ok(needed.into_iter().zip(images.into_iter().map(|image| image.to_vec())).collect())
    }

    /// Makes room in the buffer: sends a part of it to the store, but page 1, which SQLite writes last. A part of some size
    /// is on its way while SQLite goes on, until the next is to be sent.
    async fn spill(&self, buffer: &mut TransactionBuffer) -> Result<()> {
        let database = self.begin_staging(buffer).await?;
        let mut pages: Vec<PageNo> = buffer.pages.keys().copied().filter(|page| *page != PageNo::FIRST).collect();
        pages.sort_unstable();
        pages.truncate(self.chunk().min(pages.len().div_ceil(4)));
        let Some(this) = self.this.upgrade().filter(|_| !pages.is_empty()) else { return Ok(()) };
        let rows = self.staged_rows(buffer, database, &pages);
        let request = next_request(buffer, database, rows);
        let (landed, outcome) = oneshot::channel();
        buffer.take_off(&pages, outcome);
        let sending = async move {
            let outcome = this.send_staged(&request).await;
            drop(this);
            // The transaction waits for it before it ends, unless its process does.
            let _gone = landed.send(outcome);
        };
        if pages.len() < WORTH_GOING_ON {
            sending.await;
            return self.land(buffer).await;
        }
        self.fleet.bridge.spawn(sending);
        Ok(())
    }

    /// Waits for what is on its way to the store.
    pub(super) async fn land(&self, buffer: &mut TransactionBuffer) -> Result<()> {
        let Some(flight) = &mut buffer.flight else { return Ok(()) };
        // In a forked process nobody would ever tell.
        self.fleet.check_process()?;
        let stopped = || Err(Error::unavailable("the fleet was shut down before its staged pages had arrived"));
        let outcome = (&mut flight.outcome).await.unwrap_or_else(|_| stopped());
        let Some(flight) = buffer.flight.take() else { return outcome };
        match outcome {
            Ok(()) => {
                buffer.landed = flight.sequence;
                metrics::counter!("litefleet_staged_pages_total").increment(flight.pages.len() as u64);
            }
            Err(error) => {
                buffer.turn_back(flight);
                return Err(self.not_staged(buffer, error));
            }
        }
        Ok(())
    }

    /// Waits for what is on its way of a transaction that will not be committed: none of it arrives later.
    pub(super) fn abandon(&self, buffer: &mut TransactionBuffer) {
        if buffer.flight.is_some()
            && let Err(error) = self.fleet.bridge.wait(self.land(buffer))
        {
            tracing::debug!(database = %self.name, %error, "pages of a transaction that is rolled back were not staged");
        }
    }

    /// What a transaction does before it stages anything.
    async fn begin_staging(&self, buffer: &mut TransactionBuffer) -> Result<DatabaseId> {
        self.fleet.check_process()?;
        self.land(buffer).await?;
        if let Some(broken) = &buffer.broken {
            return Err(broken.clone());
        }
        self.ensure_lease().await?;
        if buffer.staged.is_empty() {
            if self.core().leftovers {
                self.discard_staged().await?;
            }
            buffer.generation = self.core().generation;
            (buffer.sequence, buffer.landed) = (0, 0);
        }
        self.id()
    }

    /// Pages in one stage call.
    fn chunk(&self) -> usize {
        self.fleet.store.limits().write_rows.clamp(1, CHUNK)
    }

    async fn send_staged(&self, request: &StageRequest) -> Result<()> {
        self.under_lease(|epoch| self.fleet.store.stage(StageRequest { epoch, ..request.clone() })).await
    }

    /// After a request to stage has failed. Perhaps it did reach the store.
    fn not_staged(&self, buffer: &mut TransactionBuffer, error: Error) -> Error {
        if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Fenced | ErrorKind::NotFound) {
            buffer.broken = Some(error.clone());
        }
        self.core().leftovers = true;
        error
    }

    /// Stages pages of the buffer. Those that are not buffered are staged as zeros.
    pub(super) async fn stage(&self, buffer: &mut TransactionBuffer, pages: &[PageNo]) -> Result<()> {
        let database = self.begin_staging(buffer).await?;
        // A panic may tear a request off, and nobody learns whether it took effect. What is sent beside the transaction counts as
        // staged before.
        self.core().leftovers = true;
        let mut chunks = pages.chunks(self.chunk());
        let mut next = chunks.next().map(|chunk| (chunk, self.staged_rows(buffer, database, chunk)));
        while let Some((chunk, rows)) = next {
            let request = next_request(buffer, database, rows);
            let mut sending = pin!(self.send_staged(&request));
            let early = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
            // While the store works on these, the next are made ready.
            next = chunks.next().map(|chunk| (chunk, self.staged_rows(buffer, database, chunk)));
            let outcome = match early {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => sending.await,
            };
            if let Err(error) = outcome {
                // What it holds is staged again before the commit, or discarded.
                buffer.staged.extend(chunk.iter().copied());
                return Err(self.not_staged(buffer, error));
            }
            buffer.landed = request.sequence;
            for page in chunk {
                buffer.pages.remove(page);
                buffer.cut.remove(*page);
                buffer.staged.insert(*page);
            }
            metrics::counter!("litefleet_staged_pages_total").increment(chunk.len() as u64);
        }
        Ok(())
    }

    /// Stages what was cut off since it was staged, as zeros.
    pub(super) async fn stage_cut(&self, buffer: &mut TransactionBuffer) -> Result<()> {
        loop {
            // Whole runs of pages: never all of them at once. What is staged is cut no more.
            let cut: Vec<PageNo> =
                buffer.cut.pages().filter(|page| !buffer.pages.contains_key(page)).take(16 * CHUNK).collect();
            if cut.is_empty() {
                return Ok(());
            }
            self.stage(buffer, &cut).await?;
        }
    }

    /// Pages of the buffer as rows. Those that are not buffered are zeros.
    fn staged_rows(&self, buffer: &TransactionBuffer, database: DatabaseId, pages: &[PageNo]) -> Vec<PageRow> {
        let (txid, compression) = (buffer.base.next(), self.settings().compression);
        let row = |page: &PageNo| match buffer.source(*page) {
            Source::Buffer(image) if image.iter().any(|byte| *byte != 0) => {
                encode_image(database, *page, txid, image, compression)
            }
            _ => encode_zero(database, *page, txid),
        };
        pages.iter().map(row).collect()
    }

    /// Whether the pages that were staged are what they were before the transaction: so it is after a rollback that
    /// wrote so much back that it was staged again. Stops at the first that differs.
    pub(super) fn staged_as_before(&self, buffer: &TransactionBuffer) -> Result<bool> {
        if buffer.staged.is_empty() || buffer.size != buffer.base_size || buffer.lowest != buffer.base_size {
            return Ok(false);
        }
        let kept = pages_for_size(buffer.size);
        let there = |page: &PageNo| page.get() <= kept && !buffer.pages.contains_key(page);
        let count = self.fleet.store.limits().read_pages.clamp(1, CHUNK);
        let mut pages = buffer.staged.pages().filter(there);
        loop {
            let chunk: Vec<PageNo> = pages.by_ref().take(count).collect();
            if chunk.is_empty() {
                return Ok(true);
            }
            if chunk.iter().any(|page| buffer.cut.contains(*page)) {
                return Ok(false);
            }
            if self.buffered_pages(buffer, &chunk)? != self.pages(buffer.base, &chunk)? {
                return Ok(false);
            }
        }
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

/// The next request of a transaction to stage. Of two the later one counts, also when the reply to the earlier one was lost. Its
/// epoch is that under which it is sent.
fn next_request(buffer: &mut TransactionBuffer, database: DatabaseId, rows: Vec<PageRow>) -> StageRequest {
    buffer.sequence += 1;
    let (expected, generation) = (buffer.base, buffer.generation);
    let (sequence, after) = (buffer.sequence, buffer.landed);
    StageRequest { database, epoch: Epoch(0), expected, generation, sequence, after, rows }
}

/// The staged pages as a record names them.
pub(super) fn staged_pages(staged: &PageSet) -> StagedPages {
    if staged.is_empty() {
        StagedPages::None
    } else if staged.run_count() > STAGED_RUNS {
        StagedPages::All
    } else {
        StagedPages::These(staged.clone())
    }
}

/// What the size was before, where it is less now. Where the record does not name the staged pages: also up to which of them there
/// are rows, of what was cut off again. They are collected by it.
pub(super) fn shrunk_from(buffer: &TransactionBuffer, staged: &StagedPages) -> u64 {
    let last = buffer.staged.ranges().last().filter(|_| *staged == StagedPages::All);
    let staged_to = last.map_or(0, |range| u64::from(range.last.get()) * PAGE_SIZE as u64);
    let before = buffer.base_size.max(staged_to);
    if buffer.size < before { before } else { 0 }
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
