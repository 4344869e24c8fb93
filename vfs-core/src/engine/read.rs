//! Reading: a page at a snapshot is the newest row at or below it, and the patches of the log after that row.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::Instrument;

use super::TransactionBuffer;
use super::buffer::Source;
use super::cache::CachedImage;
use super::core::{Core, WARM_PAGES};
use super::database::{Database, Snapshot};
use super::prefetch::{LARGEST_WINDOW, Prefetcher};
use super::structure::Cached;
use crate::codec::{decode_row, zero_image};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{PageRow, PagesReply, ReadRow, RowKind};
use crate::types::{DatabaseId, PAGE_SIZE, PageNo, PageRange, PageSet, Txid, pages_for_size};

/// The newest images of a database's pages, as far as the cache has them.
struct Newest<'a> {
    database: &'a Database,
    last_page: u32,
}

impl Cached for Newest<'_> {
    fn has(&self, page: u32) -> bool {
        self.database.fleet.cache.contains(&self.database.key(PageNo(page), Txid::MAX))
    }

    fn image(&self, page: u32) -> Option<Bytes> {
        self.database.fleet.cache.get(&self.database.key(PageNo(page), Txid::MAX)).map(|entry| entry.image)
    }

    fn last_page(&self) -> u32 {
        self.last_page
    }

    fn has_room(&self) -> bool {
        self.last_page as usize <= self.database.fleet.cache.capacity()
    }
}

/// The images that rows hold, each as of its row's txid: deltas are applied to the bases that follow them.
pub(super) fn images(rows: &[ReadRow]) -> impl Iterator<Item = Result<(PageNo, Txid, Bytes)>> + '_ {
    let mut rows = rows.iter().peekable();
    std::iter::from_fn(move || {
        let ReadRow { database, row } = rows.next()?;
        let base = match row.kind {
            RowKind::Delta { base } => rows.next_if(|next| next.row.page == row.page && next.row.txid == base),
            RowKind::Image | RowKind::Zero => None,
        };
        Some(image(*database, row, base).map(|image| (row.page, row.txid, image)))
    })
}

fn image(database: DatabaseId, row: &PageRow, base: Option<&ReadRow>) -> Result<Bytes> {
    let base = match base {
        Some(found) => {
            let (page, txid) = (found.row.page, found.row.txid);
            Some(decode_row(found.database, &found.row)?.image(found.database, page, txid, None)?)
        }
        None => None,
    };
    decode_row(database, row)?.image(database, row.page, row.txid, base.as_ref())
}

/// What the store said of some pages.
struct Told {
    /// Where the tail began when it was asked.
    start: Txid,
    /// A page without a row is zeros as of this.
    horizon: Txid,
    images: HashMap<PageNo, (Txid, Bytes)>,
}

impl Told {
    fn new(start: Txid, reply: &PagesReply) -> Result<Self> {
        let images = images(&reply.rows).map(|image| image.map(|(page, txid, image)| (page, (txid, image))));
        Ok(Self { start, horizon: reply.horizon, images: images.collect::<Result<_>>()? })
    }

    /// A page's image, and since when it is that at the latest.
    fn image(&self, page: PageNo) -> (Txid, Bytes) {
        self.images.get(&page).cloned().unwrap_or_else(|| (self.horizon, zero_image()))
    }
}

/// A set of pages as the ranges of a request.
pub(super) fn ranges(pages: impl IntoIterator<Item = PageNo>) -> Vec<PageRange> {
    pages.into_iter().collect::<PageSet>().ranges().collect()
}

impl Database {
    /// Reads at an offset as of a snapshot. Returns how many bytes there were; the rest of `out` is zeros.
    pub fn read(&self, snapshot: Snapshot, offset: u64, out: &mut [u8]) -> Result<usize> {
        // Nearly every read is of one page that the cache has.
        if let Some((page, start)) = within_page(snapshot.size, offset, out.len())
            && let Some(image) = self.cached(snapshot.txid, page)?
        {
            return copy_part(&image, start, out);
        }
        let pages = |pages: &[PageNo]| self.pages(snapshot.txid, pages);
        read_through(snapshot.size, offset, out, &pages)
    }

    /// Reads without a snapshot what is in the cache of the newest page known here, and nothing otherwise.
    pub fn peek(&self, offset: u64, out: &mut [u8]) -> usize {
        out.fill(0);
        let (head, size) = {
            let core = self.core();
            if core.stopped.is_some() {
                return 0;
            }
            (core.head, core.size)
        };
        let Some((page, start)) = within_page(size, offset, out.len()) else { return 0 };
        match self.cached(head, page) {
            Ok(Some(image)) => copy_part(&image, start, out).unwrap_or(0),
            Ok(None) | Err(_) => 0,
        }
    }

    /// As [`read`](Self::read), through the buffer of an open transaction.
    pub fn read_buffered(&self, buffer: &TransactionBuffer, offset: u64, out: &mut [u8]) -> Result<usize> {
        if let Some((page, start)) = within_page(buffer.size, offset, out.len()) {
            match buffer.source(page) {
                Source::Buffer(image) => return copy_part(image, start, out),
                Source::Base => {
                    if let Some(image) = self.cached(buffer.base, page)? {
                        return copy_part(&image, start, out);
                    }
                }
                Source::Staged | Source::Zeros => {}
            }
        }
        read_through(buffer.size, offset, out, &|pages: &[PageNo]| self.buffered_pages(buffer, pages))
    }

    /// Images of pages as an open transaction sees them.
    pub(super) fn buffered_pages(&self, buffer: &TransactionBuffer, pages: &[PageNo]) -> Result<Vec<Bytes>> {
        let mut out = vec![zero_image(); pages.len()];
        let (mut base, mut staged) = (Vec::new(), Vec::new());
        for (index, page) in pages.iter().enumerate() {
            match buffer.source(*page) {
                Source::Buffer(image) => out[index] = Bytes::copy_from_slice(image),
                Source::Zeros => {}
                Source::Base => base.push((index, *page)),
                Source::Staged => staged.push((index, *page)),
            }
        }
        if !base.is_empty() {
            let wanted: Vec<PageNo> = base.iter().map(|(_, page)| *page).collect();
            for ((index, _), image) in base.iter().zip(self.pages(buffer.base, &wanted)?) {
                out[*index] = image;
            }
        }
        if !staged.is_empty() {
            let wanted: Vec<PageNo> = staged.iter().map(|(_, page)| *page).collect();
            let found = self.fleet.bridge.wait(self.read_staged(buffer, &wanted))?;
            for (index, page) in staged {
                let missing = || Error::internal(format!("page {page}: its staged row is missing"));
                out[index] = found.get(&page).cloned().ok_or_else(missing)?;
            }
        }
        Ok(out)
    }

    /// Images of pages at a snapshot, in the order asked for.
    pub(super) fn pages(&self, snapshot: Txid, pages: &[PageNo]) -> Result<Vec<Bytes>> {
        let mut out = Vec::with_capacity(pages.len());
        let mut missing = Vec::new();
        for (index, page) in pages.iter().enumerate() {
            let cached = self.find(snapshot, *page)?;
            self.fleet.cache.count(cached.is_some());
            if cached.is_none() {
                missing.push((index, *page));
            }
            out.push(cached.unwrap_or_default());
        }
        if !missing.is_empty() {
            let missed: Vec<PageNo> = missing.iter().map(|(_, page)| *page).collect();
            let wanted = [&missed[..], &self.bring_along(&missed)].concat();
            let span = tracing::debug_span!("read", database = %self.name, pages = wanted.len());
            let load = async {
                match self.load_pages(snapshot, &wanted).await {
                    // It may be one that nobody has asked for.
                    Err(error) if error.kind() == ErrorKind::Corrupt && wanted.len() > missed.len() => {
                        self.load_pages(snapshot, &missed).await
                    }
                    loaded => loaded,
                }
            };
            let loaded = self.fleet.bridge.wait(load.instrument(span));
            let mut loaded = loaded.context(self.words("read"))?;
            for (index, page) in missing {
                out[index] = loaded.remove(&page).unwrap_or_else(zero_image);
            }
        }
        Ok(out)
    }

    /// The pages to load together with missed ones.
    fn bring_along(&self, missed: &[PageNo]) -> Vec<PageNo> {
        let cache = &self.fleet.cache;
        // What comes along must not push out what was read, nor itself, nor take another call.
        let call = self.fleet.store.limits().read_pages.saturating_sub(missed.len());
        let bound = LARGEST_WINDOW.min(cache.capacity() / 8).min(call);
        let last_page = pages_for_size(self.core().size);
        let mut along = self.first_pages(bound, last_page);
        if let Some(last) = missed.last() {
            let newest = Newest { database: self, last_page };
            along.extend(self.prefetcher().plan(*last, bound, &self.visited.pages(), &newest));
        }
        along.retain(|page| !missed.contains(page) && !cache.contains(&self.key(*page, Txid::MAX)));
        along.truncate(bound);
        metrics::counter!("litefleet_prefetched_pages_total").increment(along.len() as u64);
        along
    }

    /// After an open that brought no warm pages: those that were written last, once.
    fn first_pages(&self, bound: usize, last_page: u32) -> Vec<PageNo> {
        let mut core = self.core();
        if !std::mem::take(&mut core.cold) {
            return Vec::new();
        }
        let mut pages = core.tail.newest_pages(WARM_PAGES.min(bound));
        pages.retain(|page| page.get() <= last_page);
        pages
    }

    fn prefetcher(&self) -> MutexGuard<'_, Prefetcher> {
        self.prefetcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the prefetcher see what was loaded.
    fn learn(&self, images: &HashMap<PageNo, Bytes>, last_page: u32) {
        let header = images.get(&PageNo::FIRST).cloned();
        let header = header.or_else(|| self.fleet.cache.get(&self.key(PageNo::FIRST, Txid::MAX)).map(|e| e.image));
        let Some(page_size) = header.and_then(|header| super::header::page_size(&header)) else { return };
        let mut images: Vec<(PageNo, Bytes)> = images.iter().map(|(page, image)| (*page, image.clone())).collect();
        images.sort_unstable_by_key(|(page, _)| *page);
        self.prefetcher().learn(&images, page_size as usize, last_page);
    }

    /// Forgets what was learnt of the structure, to save memory.
    pub(super) fn forget_structure(&self) {
        self.prefetcher().clear();
    }

    /// The image of a page at a snapshot, if the cache has it.
    pub(super) fn cached(&self, snapshot: Txid, page: PageNo) -> Result<Option<Bytes>> {
        let found = self.find(snapshot, page)?;
        // A page that is missed here is asked for again by `pages`, and counted there.
        if found.is_some() {
            self.fleet.cache.count(true);
        }
        Ok(found)
    }

    fn find(&self, snapshot: Txid, page: PageNo) -> Result<Option<Bytes>> {
        let cache = &self.fleet.cache;
        if let Some(entry) = cache.get(&self.key(page, Txid::MAX))
            && entry.from <= snapshot
        {
            self.visited.note(page, &entry.image);
            return Ok(Some(entry.image));
        }
        // The newest image is from after the snapshot, or not there. Under the lock the log says which image is wanted,
        // and no commit moves it meanwhile.
        let core = self.core();
        if snapshot < core.tail.start() {
            return Err(too_old(snapshot, core.tail.start()).context(self.words("read")));
        }
        let before = core.tail.next_change(page, snapshot);
        Ok(cache.get(&self.key(page, before)).map(|entry| entry.image))
    }

    /// Loads pages from the store into the cache. Pages that do not exist are left out.
    pub(super) async fn load_pages(&self, snapshot: Txid, pages: &[PageNo]) -> Result<HashMap<PageNo, Bytes>> {
        let lineage = self.lineage()?;
        let limit = self.fleet.store.limits().read_pages.max(1);
        let mut out = HashMap::with_capacity(pages.len());
        let pages = self.keep_sufficient(snapshot, pages, &mut out)?;
        for chunk in pages.chunks(limit) {
            let ranges = ranges(chunk.iter().copied());
            // Rows fit the tail that was there when they were read: a checkpoint that is completed meanwhile takes records
            // from it, and the rows in their place are not among these. Then they are read again.
            loop {
                let start = self.core().tail.start();
                let reply = self.retry(|| self.fleet.store.read_pages(&lineage, &ranges, snapshot)).await?;
                let told = Told::new(start, &reply)?;
                if self.keep_told(lineage[0].database, snapshot, chunk, &told, &mut out)? {
                    break;
                }
            }
        }
        let last_page = pages_for_size(self.core().size);
        self.learn(&out, last_page);
        Ok(out)
    }

    /// Keeps the images of those pages that the tail alone tells, and returns the others.
    fn keep_sufficient(
        &self,
        snapshot: Txid,
        pages: &[PageNo],
        out: &mut HashMap<PageNo, Bytes>,
    ) -> Result<Vec<PageNo>> {
        let database = self.id()?;
        let mut core = self.core();
        let core = &mut *core;
        if snapshot < core.tail.start() {
            return Err(too_old(snapshot, core.tail.start()));
        }
        let mut others = Vec::with_capacity(pages.len());
        for page in pages {
            if core.tail.is_sufficient(*page, snapshot) {
                self.keep(core, database, snapshot, *page, (Txid(0), zero_image()), out)?;
            } else {
                others.push(*page);
            }
        }
        Ok(others)
    }

    /// Brings the image of a row forward to the snapshot, and puts it into the cache.
    fn keep(
        &self,
        core: &mut Core,
        database: DatabaseId,
        snapshot: Txid,
        page: PageNo,
        (row, image): (Txid, Bytes),
        out: &mut HashMap<PageNo, Bytes>,
    ) -> Result<()> {
        let (from, image) = core.tail.bring_forward(database, page, row, snapshot, image)?;
        let before = core.tail.next_change(page, snapshot);
        self.fleet.cache.insert(self.key(page, before), CachedImage { from, image: image.clone() });
        core.note_warm(page);
        out.insert(page, image);
        Ok(())
    }

    /// Brings the images of rows forward to the snapshot, and puts them into the cache. False when the tail does not start
    /// where it did when the rows were asked for.
    fn keep_told(
        &self,
        database: DatabaseId,
        snapshot: Txid,
        pages: &[PageNo],
        told: &Told,
        out: &mut HashMap<PageNo, Bytes>,
    ) -> Result<bool> {
        let mut core = self.core();
        let core = &mut *core;
        if snapshot < core.tail.start() {
            return Err(too_old(snapshot, core.tail.start()));
        }
        if core.tail.start() != told.start {
            return Ok(false);
        }
        for page in pages {
            self.keep(core, database, snapshot, *page, told.image(*page), out)?;
        }
        Ok(true)
    }

    /// The rows that an open transaction has staged.
    async fn read_staged(&self, buffer: &TransactionBuffer, pages: &[PageNo]) -> Result<HashMap<PageNo, Bytes>> {
        let lineage = self.lineage()?;
        let at = buffer.base.next();
        let mut out = HashMap::with_capacity(pages.len());
        for chunk in pages.chunks(self.fleet.store.limits().read_pages.max(1)) {
            let ranges = ranges(chunk.iter().copied());
            let reply = self.retry(|| self.fleet.store.read_pages(&lineage, &ranges, at)).await?;
            for image in images(&reply.rows) {
                let (page, txid, image) = image?;
                if txid == at {
                    out.insert(page, image);
                }
            }
        }
        Ok(out)
    }
}

fn too_old(snapshot: Txid, start: Txid) -> Error {
    Error::snapshot_too_old(format!("the read transaction is at txid {snapshot}, kept are those from {start} on"))
}

/// The page that holds all of a read, and where in it the read begins. `None` when it takes more than one page, or
/// reaches past the end.
fn within_page(size: u64, offset: u64, len: usize) -> Option<(PageNo, usize)> {
    let page = PageNo::containing(offset).ok()?;
    let start = usize::try_from(offset - page.offset()).ok()?;
    (start + len <= PAGE_SIZE && offset + len as u64 <= size).then_some((page, start))
}

fn copy_part(image: &[u8], start: usize, out: &mut [u8]) -> Result<usize> {
    let part = image.get(start..start + out.len()).ok_or_else(|| Error::internal("an image of a wrong length"))?;
    out.copy_from_slice(part);
    Ok(out.len())
}

/// Copies what pages hold between `offset` and the end of `out` or of the file.
fn read_through(
    size: u64,
    offset: u64,
    out: &mut [u8],
    pages: &dyn Fn(&[PageNo]) -> Result<Vec<Bytes>>,
) -> Result<usize> {
    let there = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
    let (head, rest) = out.split_at_mut(there);
    rest.fill(0);
    if there == 0 {
        return Ok(0);
    }
    let first = PageNo::containing(offset)?;
    let last = PageNo::containing(offset + there as u64 - 1)?;
    debug_assert!(last.get() <= pages_for_size(size));
    let wanted: Vec<PageNo> = PageRange::new(first, last).pages().collect();
    let images = pages(&wanted)?;
    let mut at = 0;
    for (page, image) in wanted.iter().zip(images) {
        let start = usize::try_from(offset.saturating_sub(page.offset())).unwrap_or(0);
        let len = (PAGE_SIZE - start).min(there - at);
        let bytes = image.get(start..start + len).ok_or_else(|| Error::internal("an image of a wrong length"))?;
        head[at..at + len].copy_from_slice(bytes);
        at += len;
    }
    Ok(there)
}

#[cfg(test)]
#[path = "hole_tests.rs"]
mod tests;
