//! The log tail: the records after a completed checkpoint, and where each page changed in them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{PatchBase, Record, StagedPages, image_checksum};
use crate::error::{Error, Result};
use crate::types::{DatabaseId, PageNo, PageSet, Txid};

/// The records from `start` (not included) to the head (included), without a gap.
#[derive(Debug, Default)]
pub(super) struct LogTail {
    start: Txid,
    records: VecDeque<Arc<Record>>,
    weight: usize,
    /// For each patched page the records that patch it, in order.
    patched: HashMap<PageNo, Vec<Txid>>,
    /// Records that zero or stage whole runs of pages. Few.
    wide: Vec<Arc<Record>>,
}

impl LogTail {
    pub(super) fn starting_at(start: Txid) -> Self {
        Self { start, ..Self::default() }
    }

    pub(super) fn start(&self) -> Txid {
        self.start
    }

    pub(super) fn end(&self) -> Txid {
        Txid(self.start.get() + self.records.len() as u64)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn patched_pages(&self) -> usize {
        self.patched.len()
    }

    pub(super) fn push(&mut self, record: Arc<Record>) -> Result<()> {
        if record.txid != self.end().next() {
            return Err(Error::internal(format!("record {} after record {}", record.txid, self.end())));
        }
        self.weight += record.weight;
        for (page, _) in &record.body.pages {
            self.patched.entry(*page).or_default().push(record.txid);
        }
        if !record.body.zeroed.is_empty() || record.body.staged != StagedPages::None {
            self.wide.push(Arc::clone(&record));
        }
        self.records.push_back(record);
        Ok(())
    }

    /// Forgets the records up to `start`.
    pub(super) fn trim(&mut self, start: Txid) {
        let mut touched = BTreeSet::new();
        while self.start < start {
            let Some(record) = self.records.pop_front() else { break };
            self.start = record.txid;
            self.weight -= record.weight;
            touched.extend(record.body.pages.iter().map(|(page, _)| *page));
        }
        for page in touched {
            if let Some(txids) = self.patched.get_mut(&page) {
                txids.drain(..txids.partition_point(|txid| *txid <= self.start));
                if txids.is_empty() {
                    self.patched.remove(&page);
                }
            }
        }
        self.wide.retain(|record| record.txid > self.start);
        if self.patched.capacity() > 1024 && self.patched.len() * 4 < self.patched.capacity() {
            self.patched.shrink_to_fit();
        }
    }

    fn record(&self, txid: Txid) -> Option<&Arc<Record>> {
        let index = txid.get().checked_sub(self.start.get())?.checked_sub(1)?;
        self.records.get(usize::try_from(index).ok()?)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.iter()
    }

    /// The first change of the page after `after`; [`Txid::MAX`] when there is none.
    pub(super) fn next_change(&self, page: PageNo, after: Txid) -> Txid {
        let patched = self
            .patched
            .get(&page)
            .and_then(|txids| txids.get(txids.partition_point(|txid| *txid <= after)).copied())
            .unwrap_or(Txid::MAX);
        let wide = self
            .wide
            .iter()
            .filter(|record| record.txid > after)
            .find(|record| record.body.zeroed.contains(page) || record.body.staged.contains(page))
            .map_or(Txid::MAX, |record| record.txid);
        patched.min(wide)
    }

    /// Turns the image of a row at `from` into the image at `to`. Returns the last change that was applied.
    pub(super) fn bring_forward(
        &self,
        database: DatabaseId,
        page: PageNo,
        from: Txid,
        to: Txid,
        image: Bytes,
    ) -> Result<(Txid, Bytes)> {
        let mut at = from.max(self.start);
        let mut last = from;
        let mut work: Option<Vec<u8>> = None;
        if let Some(restart) = self.restart(page, to).filter(|restart| *restart > at) {
            // What was before does not count, so its row need not have been read.
            at = Txid(restart.get() - 1);
        }
        loop {
            at = self.next_change(page, at);
            if at > to {
                break;
            }
            let Some(record) = self.record(at) else {
                return Err(Error::internal(format!("record {at} is not in the tail")));
            };
            let current = work.get_or_insert_with(|| image.to_vec());
            if let Some(patch) = record.body.patch(page) {
                patch.apply(current)?;
                if image_checksum(database, page, at, current) != patch.checksum {
                    return Err(Error::corrupt(format!("page {page} at txid {at}: the patch does not fit its base")));
                }
            } else if record.body.zeroed.contains(page) {
                current.fill(0);
            } else if matches!(record.body.staged, StagedPages::These(_)) {
                return Err(Error::corrupt(format!("page {page} at txid {at}: its staged row is missing")));
            }
            last = at;
        }
        Ok((last, work.map_or(image, Bytes::from)))
    }

    /// The newest change up to `to` that starts the page from zeros, if no staged row comes after it: what was before does
    /// not matter to the image at `to`.
    pub(super) fn restart(&self, page: PageNo, to: Txid) -> Option<Txid> {
        let patched = self.patched.get(&page).into_iter().flatten().rev().copied();
        let from_zeros = |txid: &Txid| {
            let patch = self.record(*txid).and_then(|record| record.body.patch(page));
            *txid <= to && patch.is_some_and(|patch| patch.base == PatchBase::Zeros)
        };
        let patched = patched.into_iter().find(from_zeros);
        let wide = || self.wide.iter().rev().filter(|record| record.txid <= to);
        let zeroed = wide().find(|record| record.body.zeroed.contains(page)).map(|record| record.txid);
        let staged = wide().find(|record| record.body.staged.contains(page)).map(|record| record.txid);
        patched.max(zeroed).filter(|restart| Some(*restart) > staged)
    }

    /// Whether the tail alone says what a page is at `to`, without a row of the store: it starts from zeros in it, or there
    /// was nothing before it.
    pub(super) fn is_sufficient(&self, page: PageNo, to: Txid) -> bool {
        let whole = self.start == Txid(0) && !self.is_staged_after(page, Txid(0), to);
        whole || self.restart(page, to).is_some()
    }

    /// Pages that the newest records change, at most so many.
    pub(super) fn newest_pages(&self, most: usize) -> Vec<PageNo> {
        let mut pages: Vec<PageNo> = Vec::new();
        for (page, _) in self.records.iter().rev().flat_map(|record| &record.body.pages) {
            if pages.len() >= most {
                break;
            }
            if !pages.contains(page) {
                pages.push(*page);
            }
        }
        pages
    }

    /// Whether the image at `to` may rest on a row that was staged after `from`, which is then not to be had from here.
    pub(super) fn is_staged_after(&self, page: PageNo, from: Txid, to: Txid) -> bool {
        let from = from.max(self.restart(page, to).unwrap_or_default());
        self.wide.iter().any(|record| record.txid > from && record.txid <= to && record.body.staged.contains(page))
    }

    /// Whether the record there may have staged the page.
    pub(super) fn is_staged_at(&self, page: PageNo, txid: Txid) -> bool {
        self.record(txid).is_some_and(|record| record.body.staged.contains(page))
    }

    /// The pages that a checkpoint at `to` must write: those whose last change up to there is not a staged row.
    pub(super) fn changed(&self, to: Txid) -> PageSet {
        let mut set = PageSet::new();
        for record in &self.wide {
            if record.txid <= to {
                for range in record.body.zeroed.ranges() {
                    set.insert_range(range);
                }
            }
        }
        let mut pages: Vec<PageNo> =
            self.patched.iter().filter(|(_, t)| t.first() <= Some(&to)).map(|(p, _)| *p).collect();
        pages.sort_unstable();
        for page in pages {
            set.insert(page);
        }
        set
    }

    /// The largest size of the file in the records up to `to`.
    pub(super) fn largest_size(&self, to: Txid) -> u64 {
        self.records.iter().take_while(|r| r.txid <= to).map(|r| r.body.size.max(r.body.shrunk_from)).max().unwrap_or(0)
    }
}
