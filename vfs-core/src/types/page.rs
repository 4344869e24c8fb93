//! Pages of the store: always 4,096 bytes, whatever page size SQLite uses.

use std::fmt;

use crate::error::{Error, Result};

/// Bytes of one store page.
pub const PAGE_SIZE: usize = 4096;

/// The number of a page: 1 is the first. 32 bits bound a database at 16 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(pub u32);

impl PageNo {
    /// The page that holds SQLite's header.
    pub const FIRST: Self = Self(1);

    /// The page that holds the byte at `offset`. `Invalid` past the largest database.
    pub fn containing(offset: u64) -> Result<Self> {
        u32::try_from(offset / PAGE_SIZE as u64 + 1)
            .map(Self)
            .map_err(|_| Error::full(format!("offset {offset} is past the largest database, 16 TiB")))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Where the page starts in the file.
    pub const fn offset(self) -> u64 {
        (self.0 as u64 - 1) * PAGE_SIZE as u64
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many pages a file of `size` bytes has, the last one perhaps in part.
///
/// Saturates at the largest page number; sizes past that are refused where they arise.
pub fn pages_for_size(size: u64) -> u32 {
    u32::try_from(size.div_ceil(PAGE_SIZE as u64)).unwrap_or(u32::MAX)
}

/// A run of pages, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    /// The first page.
    pub first: PageNo,
    /// The last page; never below `first`.
    pub last: PageNo,
}

impl PageRange {
    /// The run from `first` to `last`, both included.
    pub fn new(first: PageNo, last: PageNo) -> Self {
        debug_assert!(first <= last);
        Self { first, last }
    }

    /// One page.
    pub fn single(page: PageNo) -> Self {
        Self { first: page, last: page }
    }

    /// How many pages.
    pub fn count(self) -> u64 {
        u64::from(self.last.0) - u64::from(self.first.0) + 1
    }

    /// Whether the page is in the run.
    pub fn contains(self, page: PageNo) -> bool {
        self.first <= page && page <= self.last
    }

    /// Every page of the run, in order.
    pub fn pages(self) -> impl Iterator<Item = PageNo> {
        (self.first.0..=self.last.0).map(PageNo)
    }
}

/// A set of pages kept as sorted runs: small however large the runs are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    runs: std::collections::BTreeMap<u32, u32>,
    count: u64,
}

impl PageSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a page; false when it was there.
    pub fn insert(&mut self, page: PageNo) -> bool {
        let p = page.0;
        let below = self.runs.range(..=p).next_back().map(|(a, b)| (*a, *b));
        if below.is_some_and(|(_, last)| last >= p) {
            return false;
        }
        self.count += 1;
        let mut first = p;
        let mut last = p;
        if let Some((start, end)) = below
            && end.checked_add(1) == Some(p)
        {
            first = start;
        }
        if let Some(after) = p.checked_add(1)
            && let Some(end) = self.runs.remove(&after)
        {
            last = end;
        }
        self.runs.insert(first, last);
        true
    }

    /// Adds every page of a run.
    pub fn insert_range(&mut self, range: PageRange) {
        let (mut first, mut last) = (range.first.0, range.last.0);
        let touching: Vec<(u32, u32)> = self
            .runs
            .range(..=last.saturating_add(1))
            .rev()
            .take_while(|(_, end)| end.saturating_add(1) >= first)
            .map(|(a, b)| (*a, *b))
            .collect();
        for (start, end) in touching {
            self.runs.remove(&start);
            self.count -= u64::from(end) - u64::from(start) + 1;
            first = first.min(start);
            last = last.max(end);
        }
        self.runs.insert(first, last);
        self.count += u64::from(last) - u64::from(first) + 1;
    }

    /// Takes a page out; false when it was not there.
    pub fn remove(&mut self, page: PageNo) -> bool {
        let p = page.0;
        let Some((first, last)) = self.runs.range(..=p).next_back().map(|(a, b)| (*a, *b)) else { return false };
        if last < p {
            return false;
        }
        self.runs.remove(&first);
        if first < p {
            self.runs.insert(first, p - 1);
        }
        if p < last {
            self.runs.insert(p + 1, last);
        }
        self.count -= 1;
        true
    }

    /// Whether the page is in the set.
    pub fn contains(&self, page: PageNo) -> bool {
        self.runs.range(..=page.0).next_back().is_some_and(|(_, last)| *last >= page.0)
    }

    /// The runs, in order.
    pub fn ranges(&self) -> impl Iterator<Item = PageRange> + '_ {
        self.runs.iter().map(|(a, b)| PageRange { first: PageNo(*a), last: PageNo(*b) })
    }

    /// The runs, cut and grouped into pieces of at most `pages` pages each.
    pub fn chunks(&self, pages: usize) -> Vec<Vec<PageRange>> {
        let bound = u32::try_from(pages.max(1)).unwrap_or(u32::MAX);
        let mut chunks = Vec::new();
        let mut current = Vec::new();
        let mut room = bound;
        for range in self.ranges() {
            let mut next = Some(range.first.0);
            while let Some(first) = next.filter(|first| *first <= range.last.0) {
                let last = range.last.0.min(first.saturating_add(room - 1));
                current.push(PageRange::new(PageNo(first), PageNo(last)));
                room -= last - first + 1;
                if room == 0 {
                    chunks.push(std::mem::take(&mut current));
                    room = bound;
                }
                next = last.checked_add(1);
            }
        }
        if !current.is_empty() {
            chunks.push(current);
        }
        chunks
    }

    /// Every page, in order.
    pub fn pages(&self) -> impl Iterator<Item = PageNo> + '_ {
        self.ranges().flat_map(PageRange::pages)
    }

    /// How many pages.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many runs: what the set costs in memory.
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is no page in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

impl FromIterator<PageNo> for PageSet {
    fn from_iter<T: IntoIterator<Item = PageNo>>(pages: T) -> Self {
        let mut set = Self::new();
        set.extend(pages);
        set
    }
}

impl Extend<PageNo> for PageSet {
    fn extend<T: IntoIterator<Item = PageNo>>(&mut self, pages: T) {
        for page in pages {
            self.insert(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_page_set_is_a_set(ops in prop::collection::vec((1u32..60, 0u32..8, 0..3), 0..80)) {
            let mut set = PageSet::new();
            let mut model = BTreeSet::new();
            for (first, more, op) in ops {
                match op {
                    0 => prop_assert_eq!(set.insert(PageNo(first)), model.insert(first)),
                    1 => prop_assert_eq!(set.remove(PageNo(first)), model.remove(&first)),
                    _ => {
                        set.insert_range(PageRange::new(PageNo(first), PageNo(first + more)));
                        model.extend(first..=first + more);
                    }
                }
                prop_assert_eq!(set.pages().map(PageNo::get).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.count(), model.len() as u64);
                let chunks = set.chunks(3);
                prop_assert!(chunks.iter().all(|c| (1..=3).contains(&c.iter().map(|r| r.count()).sum::<u64>())));
                let chunked = chunks.into_iter().flatten().flat_map(PageRange::pages).map(PageNo::get);
                prop_assert!(chunked.eq(model.iter().copied()));
                prop_assert!((0..80).all(|p| set.contains(PageNo(p)) == model.contains(&p)));
            }
        }
    }

    #[test]
    fn sizes_and_offsets() {
        assert_eq!(PageNo::containing(0).unwrap(), PageNo(1));
        assert_eq!(PageNo::containing(4096).unwrap(), PageNo(2));
        assert!(PageNo::containing(u64::MAX).is_err());
        assert_eq!(pages_for_size(0), 0);
        assert_eq!(pages_for_size(1), 1);
        assert_eq!(pages_for_size(4097), 2);
    }
}
