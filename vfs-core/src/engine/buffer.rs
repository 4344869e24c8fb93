//! The transaction buffer: the pages that an open transaction has written, and the size of the file as it sees it.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::header;
use crate::error::{Error, Result};
use crate::types::{PAGE_SIZE, PageNo, PageRange, PageSet, Txid, pages_for_size};

/// What one buffered page takes besides its bytes.
const OVERHEAD: usize = 64;

/// What an open transaction has changed so far. Belongs to one connection.
#[derive(Debug)]
pub struct TransactionBuffer {
    /// The snapshot that the transaction changes.
    pub(super) base: Txid,
    /// The size of the file at that snapshot.
    pub(super) base_size: u64,
    /// The size of the file now.
    pub(super) size: u64,
    /// The lowest size since the transaction began: what lay beyond is gone, also when the file grew again.
    pub(super) lowest: u64,
    pub(super) pages: HashMap<PageNo, Box<[u8]>>,
    /// Pages that are on their way to the store, as they were sent.
    pub(super) flight: Option<Flight>,
    /// Pages that were written to the store early, those on their way included.
    pub(super) staged: PageSet,
    /// Those of them that were cut off since: zeros, and staged again as zeros before the commit.
    pub(super) cut: PageSet,
    /// The staging generation they were staged under.
    pub(super) generation: u64,
    /// The sequence of the last request to stage under it.
    pub(super) sequence: u64,
    /// The sequence of the last one that was acknowledged.
    pub(super) landed: u64,
    /// Page 1 differs from what SQLite wrote, so SQLite's cache of it must not be trusted after the commit.
    pub(super) header_altered: bool,
    /// Whoever writes is not SQLite: what stands in the header of page 1 means nothing.
    pub(super) foreign: bool,
    /// The transaction failed in a way that can only be rolled back.
    pub(super) broken: Option<Error>,
}

/// A request to stage that is under way while the transaction goes on.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) sequence: u64,
    pub(super) pages: HashMap<PageNo, Box<[u8]>>,
    pub(super) outcome: oneshot::Receiver<Result<()>>,
}

/// Where the bytes of a page come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source<'a> {
    Buffer(&'a [u8]),
    /// The row that this transaction staged.
    Staged,
    /// The snapshot that the transaction began with.
    Base,
    /// Past the lowest size and not written: zeros.
    Zeros,
}

impl TransactionBuffer {
    pub(super) fn new(base: Txid, size: u64) -> Self {
        Self {
            base,
            base_size: size,
            size,
            lowest: size,
            pages: HashMap::new(),
            flight: None,
            staged: PageSet::new(),
            cut: PageSet::new(),
            generation: 0,
            sequence: 0,
            landed: 0,
            header_altered: false,
            foreign: false,
            broken: None,
        }
    }

    /// Takes the bytes that are written as they are: neither the size that the header of page 1 names is adopted, nor its
    /// change counter replaced. For writers that are not SQLite.
    pub fn set_foreign(&mut self) {
        self.foreign = true;
    }

    /// The size of the file as the transaction sees it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the transaction has written anything since it began or last committed.
    pub fn is_dirty(&self) -> bool {
        !self.pages.is_empty()
            || !self.staged.is_empty()
            || self.size != self.base_size
            || self.lowest != self.base_size
    }

    /// Bytes of memory that it takes.
    pub(super) fn weight(&self) -> usize {
        self.pages.len() * (PAGE_SIZE + OVERHEAD)
    }

    /// The bytes of a page that need not be read from anywhere.
    fn image(&self, page: PageNo) -> Option<&[u8]> {
        let flying = || self.flight.as_ref().and_then(|flight| flight.pages.get(&page));
        self.pages.get(&page).or_else(flying).map(AsRef::as_ref)
    }

    pub(super) fn source(&self, page: PageNo) -> Source<'_> {
        match self.image(page) {
            Some(image) => Source::Buffer(image),
            None if self.staged.contains(page) && !self.cut.contains(page) => Source::Staged,
            None if page.get() > pages_for_size(self.lowest) => Source::Zeros,
            None => Source::Base,
        }
    }

    /// The pages whose present bytes must be given to [`write`](Self::write) or [`truncate`](Self::truncate), because
    /// they are changed in part only and are not buffered.
    pub(super) fn needed(&self, offset: u64, len: usize) -> Result<Vec<PageNo>> {
        let end = offset + len as u64;
        let mut needed = Vec::new();
        if len == 0 {
            return Ok(needed);
        }
        let first = PageNo::containing(offset)?;
        let last = PageNo::containing(end - 1)?;
        for page in [first, last] {
            let whole = page.offset() >= offset && page.offset() + PAGE_SIZE as u64 <= end;
            if !whole && !self.pages.contains_key(&page) && !needed.contains(&page) {
                needed.push(page);
            }
        }
        Ok(needed)
    }

    /// Writes bytes at an offset. `present` has the images of the [`needed`](Self::needed) pages.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], present: &HashMap<PageNo, Vec<u8>>) -> Result<()> {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = PageNo::containing(at)?;
            let start = usize::try_from(at - page.offset()).map_err(|_| Error::internal("offset in a page"))?;
            let len = rest.len().min(PAGE_SIZE - start);
            let (now, later) = rest.split_at(len);
            let image = self.pages.entry(page).or_insert_with(|| match present.get(&page) {
                Some(image) => image.clone().into_boxed_slice(),
                None => vec![0; PAGE_SIZE].into_boxed_slice(),
            });
            image[start..start + len].copy_from_slice(now);
            if page == PageNo::FIRST && start < 20 && start + len >= 20 && header::clear_wal_mode(image) {
                self.header_altered = true;
            }
            at += len as u64;
            rest = later;
        }
        self.size = self.size.max(at);
        Ok(())
    }

    /// The page that a truncation to `size` cuts in two and that is not buffered.
    pub(super) fn cut_page(&self, size: u64) -> Result<Option<PageNo>> {
        if size >= self.size || size.is_multiple_of(PAGE_SIZE as u64) {
            return Ok(None);
        }
        let page = PageNo::containing(size)?;
        Ok(Some(page).filter(|page| !self.pages.contains_key(page)))
    }

    /// Sets the size. `present` has the image of the [`cut_page`](Self::cut_page).
    pub(super) fn truncate(&mut self, size: u64, present: &HashMap<PageNo, Vec<u8>>) -> Result<()> {
        if size >= self.size {
            self.size = size;
            return Ok(());
        }
        let kept = pages_for_size(size);
        self.pages.retain(|page, _| page.get() <= kept);
        if let Some(flight) = &mut self.flight {
            flight.pages.retain(|page, _| page.get() <= kept);
        }
        for range in self.staged.ranges().filter(|range| range.last.get() > kept) {
            let first = PageNo(range.first.get().max(kept.saturating_add(1)));
            self.cut.insert_range(PageRange::new(first, range.last));
        }
        let within = usize::try_from(size % PAGE_SIZE as u64).unwrap_or(0);
        if within > 0 {
            let page = PageNo::containing(size)?;
            let image = self.pages.entry(page).or_insert_with(|| match present.get(&page) {
                Some(image) => image.clone().into_boxed_slice(),
                None => vec![0; PAGE_SIZE].into_boxed_slice(),
            });
            image[within..].fill(0);
        }
        self.size = size;
        self.lowest = self.lowest.min(size);
        Ok(())
    }

    /// Pages that exist now, were cut off or never there, and that nobody wrote: zeros.
    pub(super) fn zeroed(&self) -> PageSet {
        let first = pages_for_size(self.lowest).saturating_add(1);
        let last = pages_for_size(self.size);
        let mut set = PageSet::new();
        // Whole runs: a transaction may have staged more pages than can be counted out.
        let buffered = self.pages.keys().copied().map(PageRange::single);
        let written = buffered.chain(self.staged.ranges());
        let mut written: Vec<PageRange> =
            written.filter(|run| run.last.get() >= first && run.first.get() <= last).collect();
        written.sort_unstable();
        let mut next = first;
        for run in written {
            if run.first.get() > next {
                set.insert_range(PageRange::new(PageNo(next), PageNo(run.first.get() - 1)));
            }
            next = run.last.get().saturating_add(1).max(next);
        }
        if next <= last {
            set.insert_range(PageRange::new(PageNo(next), PageNo(last)));
        }
        set
    }

    /// Takes pages out, to send them to the store. What is read of them until they have arrived is what they are now.
    pub(super) fn take_off(&mut self, pages: &[PageNo], outcome: oneshot::Receiver<Result<()>>) {
        let pages: HashMap<PageNo, Box<[u8]>> = pages.iter().filter_map(|page| self.pages.remove_entry(page)).collect();
        for page in pages.keys() {
            self.staged.insert(*page);
            self.cut.remove(*page);
        }
        self.flight = Some(Flight { sequence: self.sequence, pages, outcome });
    }

    /// They have not arrived, or nobody knows: what was not written again meanwhile is buffered again. It counts as staged
    /// nevertheless: so it is staged again before the commit, or discarded.
    pub(super) fn turn_back(&mut self, flight: Flight) {
        for (page, image) in flight.pages {
            self.pages.entry(page).or_insert(image);
        }
    }

    /// Begins again on top of a commit of its own, or of the snapshot after a rollback.
    pub(super) fn reset(&mut self, base: Txid, size: u64) {
        *self = Self::new(base, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// So many pages cannot be counted out: it would take 16 GiB.
    #[test]
    fn zeroed_pages_are_told_by_runs() {
        let mut buffer = TransactionBuffer::new(Txid(1), 3 * PAGE_SIZE as u64);
        buffer.size = u64::from(u32::MAX - 1) * PAGE_SIZE as u64;
        buffer.staged.insert_range(PageRange::new(PageNo(2), PageNo(u32::MAX - 1000)));
        buffer.pages.insert(PageNo(u32::MAX - 500), vec![1; PAGE_SIZE].into_boxed_slice());
        buffer.pages.insert(PageNo(7), vec![1; PAGE_SIZE].into_boxed_slice());
        let run = |first, last| PageRange::new(PageNo(first), PageNo(last));
        let zeroed: Vec<PageRange> = buffer.zeroed().ranges().collect();
        assert_eq!(zeroed, [run(u32::MAX - 999, u32::MAX - 501), run(u32::MAX - 499, u32::MAX - 1)]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Write(u64, usize, u8),
        Truncate(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            3 => (0u64..40_000, 1usize..9000, any::<u8>()).prop_map(|(at, len, byte)| Op::Write(at, len, byte)),
            1 => (0u64..40_000).prop_map(Op::Truncate),
        ];
        prop::collection::vec(op, 0..30)
    }

    fn image(buffer: &TransactionBuffer, base: &[u8], page: PageNo) -> Vec<u8> {
        match buffer.source(page) {
            Source::Buffer(bytes) => bytes.to_vec(),
            Source::Base => {
                let start = usize::try_from(page.offset()).unwrap();
                let end = base.len().min(start + PAGE_SIZE);
                let mut image = base[start.min(end)..end].to_vec();
                image.resize(PAGE_SIZE, 0);
                image
            }
            Source::Staged | Source::Zeros => vec![0; PAGE_SIZE],
        }
    }

    proptest! {
        #[test]
        fn a_buffer_over_a_snapshot_reads_like_a_file(base_len in 0usize..30_000, ops in ops()) {
            let base = vec![0xaa; base_len];
            let mut model = base.clone();
            let mut buffer = TransactionBuffer::new(Txid(1), base.len() as u64);
            for op in ops {
                match op {
                    Op::Write(at, len, byte) => {
                        let bytes = vec![byte; len];
                        let present = buffer.needed(at, len).unwrap().into_iter().map(|p| (p, image(&buffer, &base, p))).collect();
                        buffer.write(at, &bytes, &present).unwrap();
                        let at = usize::try_from(at).unwrap();
                        if model.len() < at + len {
                            model.resize(at + len, 0);
                        }
                        model[at..at + len].fill(byte);
                    }
                    Op::Truncate(size) => {
                        let present = buffer.cut_page(size).unwrap().into_iter().map(|p| (p, image(&buffer, &base, p))).collect();
                        buffer.truncate(size, &present).unwrap();
                        model.resize(usize::try_from(size).unwrap(), 0);
                    }
                }
                prop_assert_eq!(buffer.size(), model.len() as u64);
                for page in 1..=pages_for_size(buffer.size()) {
                    let mut got = image(&buffer, &base, PageNo(page));
                    let start = (page as usize - 1) * PAGE_SIZE;
                    let mut want = model[start..model.len().min(start + PAGE_SIZE)].to_vec();
                    want.resize(PAGE_SIZE, 0);
                    if let Source::Base = buffer.source(PageNo(page)) {
                        got.truncate(want.len());
                    }
                    prop_assert_eq!(got, want);
                }
                let zeroed = buffer.zeroed();
                for page in zeroed.pages() {
                    prop_assert_eq!(buffer.source(page), Source::Zeros);
                }
            }
        }
    }
}
