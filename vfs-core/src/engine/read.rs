//! Reading: from the buffer of an open transaction, from the cache, else from the store, with what is likely to be wanted next.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::Instrument;

use super::TransactionBuffer;
use super::buffer::Source;
use super::core::WARM_PAGES;
use super::database::{Database, Snapshot};
use super::prefetch::{LARGEST_WINDOW, Prefetcher};
use super::rows::check_snapshot;
use super::structure::Cached;
use crate::codec::zero_image;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::types::{PAGE_SIZE, PageNo, PageRange, Txid, pages_for_size};

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
    pub(super) fn learn(&self, images: &HashMap<PageNo, Bytes>, last_page: u32) {
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
        check_snapshot(&core, snapshot).context(self.words("read"))?;
        let before = core.tail.next_change(page, snapshot);
        Ok(cache.get(&self.key(page, before)).map(|entry| entry.image))
    }
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
