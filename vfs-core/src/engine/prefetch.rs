//! Prefetching: a cache miss brings along pages that the structure of the file says are read next.
//!
//! A b-tree interior page lists its children in order. When pages of such a list are missed one after the other, in either
//! direction, the next ones of the list come in the same round trip, more each time. The same goes for pages that
//! follow each other in the file: overflow chains and freelist trunks are mostly laid out so, and a backup reads so. One
//! miss alone brings nothing along: point lookups pay for no more than they read.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::types::{PAGE_SIZE, PageNo};

/// Pages that come along with the second miss in a row.
const FIRST_WINDOW: usize = 8;
/// The most pages that come along.
pub(super) const LARGEST_WINDOW: usize = 512;
/// Children remembered for one database: 64 KiB.
const REMEMBERED: usize = 16 << 10;
/// A miss so near after the window before counts as the next in a row.
const NEAR: usize = 4;

/// Where a run of misses stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    /// The last page that was brought along, or missed.
    last: u32,
    window: usize,
}

/// What was learnt of one database's structure.
#[derive(Debug, Default)]
pub(super) struct Prefetcher {
    /// The children of interior pages, in order, the newest list last.
    lists: VecDeque<Vec<u32>>,
    remembered: usize,
    /// The run of misses in the order of the lists, and the one in the order of the file.
    forward: Run,
    backward: Run,
    file: Run,
}

impl Prefetcher {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The pages to bring along with a missed one, in the order in which they are expected, at most `bound` of them.
    pub(super) fn plan(&mut self, missed: PageNo, last_page: u32, bound: usize) -> Vec<PageNo> {
        let page = missed.get();
        let found =
            self.lists.iter().rev().find_map(|list| list.iter().position(|child| *child == page).map(|at| (list, at)));
        let mut along: Vec<u32> = Vec::new();
        if let Some((list, at)) = found {
            // A run goes on from one list to the next: its first child follows the last one of the list before.
            let follows = |run: Run, step: &dyn Fn(usize) -> Option<usize>| {
                let near = (1..=NEAR).filter_map(step).any(|index| list.get(index) == Some(&run.last));
                near || (run.window > 0 && step(1).and_then(|index| list.get(index)).is_none())
            };
            let forward = follows(self.forward, &|by| at.checked_sub(by));
            let backward = follows(self.backward, &|by| Some(at + by));
            self.forward = grow(self.forward, forward, page, bound);
            self.backward = grow(self.backward, backward && !forward, page, bound);
            along.extend(list.iter().skip(at + 1).take(self.forward.window));
            if let Some(last) = along.last() {
                self.forward.last = *last;
            }
            if along.is_empty() {
                along.extend(list.iter().take(at).rev().take(self.backward.window));
                if let Some(last) = along.last() {
                    self.backward.last = *last;
                }
            }
        }
        let near = page > self.file.last && page - self.file.last <= u32::try_from(NEAR).unwrap_or(1);
        self.file = grow(self.file, near, page, bound);
        if along.is_empty() && self.file.window > 0 {
            let more = u32::try_from(self.file.window).unwrap_or(0);
            let end = page.saturating_add(more).min(last_page);
            along.extend(page.saturating_add(1)..=end);
            self.file.last = end.max(page);
        }
        along.into_iter().map(PageNo).collect()
    }

    /// Learns from pages that were loaded: `images` in order of pages, `page_size` SQLite's own.
    pub(super) fn learn(&mut self, images: &[(PageNo, Bytes)], page_size: usize, last_page: u32) {
        if page_size <= PAGE_SIZE {
            for (page, image) in images {
                for start in (0..image.len()).step_by(page_size) {
                    let end = (start + page_size).min(image.len());
                    let header = if *page == PageNo::FIRST && start == 0 { 100 } else { 0 };
                    self.learn_page(&image[start..end], header, page_size, last_page);
                }
            }
            return;
        }
        let parts = page_size / PAGE_SIZE;
        for group in images.chunk_by(|(a, _), (b, _)| (a.get() as usize - 1) / parts == (b.get() as usize - 1) / parts)
        {
            if group.len() == parts {
                let whole: Vec<u8> = group.iter().flat_map(|(_, image)| image.iter().copied()).collect();
                let header = if group[0].0 == PageNo::FIRST { 100 } else { 0 };
                self.learn_page(&whole, header, page_size, last_page);
            }
        }
    }

    fn learn_page(&mut self, page: &[u8], header: usize, page_size: usize, last_page: u32) {
        let Some(children) = children(page, header, page_size, last_page) else { return };
        if self.lists.contains(&children) {
            return;
        }
        self.remembered += children.len();
        self.lists.push_back(children);
        while self.remembered > REMEMBERED
            && let Some(oldest) = self.lists.pop_front()
        {
            self.remembered -= oldest.len();
        }
    }
}

fn grow(run: Run, goes_on: bool, page: u32, bound: usize) -> Run {
    let window = match (goes_on, run.window) {
        (false, _) => 0,
        (true, 0) => FIRST_WINDOW.min(bound),
        (true, window) => (window * 4).min(bound),
    };
    Run { last: page, window }
}

/// The children of a b-tree interior page, as pages of the store. `None` when it is none. Format: SQLite's file format
/// documentation, "B-tree Pages".
fn children(page: &[u8], header: usize, page_size: usize, last_page: u32) -> Option<Vec<u32>> {
    let flags = *page.get(header)?;
    if flags != 2 && flags != 5 {
        return None;
    }
    let half = |at: usize| page.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
    let word = |at: usize| page.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let cells = usize::from(half(header + 3)?);
    let mut out = Vec::with_capacity(cells + 1);
    for cell in 0..=cells {
        let child = if cell == cells { word(header + 8)? } else { word(usize::from(half(header + 12 + cell * 2)?))? };
        let offset = u64::from(child.checked_sub(1)?) * page_size as u64;
        let page = PageNo::containing(offset).ok()?.get();
        if page > last_page {
            // Not an interior page after all: an overflow page that looks like one.
            return None;
        }
        // All parts of a large page, and small ones that share a page once.
        for part in 0..u32::try_from(page_size.div_ceil(PAGE_SIZE)).ok()? {
            if out.last() != Some(&(page + part)) {
                out.push(page + part);
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interior(children: &[u32]) -> Bytes {
        let mut page = vec![0u8; PAGE_SIZE];
        page[0] = 5;
        let (last, cells) = children.split_last().unwrap();
        page[3..5].copy_from_slice(&u16::try_from(cells.len()).unwrap().to_be_bytes());
        page[8..12].copy_from_slice(&last.to_be_bytes());
        for (index, child) in cells.iter().enumerate() {
            let at = PAGE_SIZE - (index + 1) * 6;
            page[12 + index * 2..14 + index * 2].copy_from_slice(&u16::try_from(at).unwrap().to_be_bytes());
            page[at..at + 4].copy_from_slice(&child.to_be_bytes());
        }
        Bytes::from(page)
    }

    /// Misses every page of the order that did not come along before; returns how many misses that took.
    fn misses(prefetcher: &mut Prefetcher, order: &[u32]) -> usize {
        let mut there = std::collections::HashSet::new();
        let mut count = 0;
        for page in order {
            if there.insert(*page) {
                count += 1;
                there.extend(prefetcher.plan(PageNo(*page), 100_000, LARGEST_WINDOW).into_iter().map(PageNo::get));
            }
        }
        count
    }

    #[test]
    fn scans_in_both_directions_take_few_round_trips_and_lookups_bring_nothing_along() {
        // Leaves scattered over the file: only the lists say what comes next.
        let leaves: Vec<u32> = (0..4000u32).map(|i| 2 + (i * 7919) % 90_001).collect();
        let mut prefetcher = Prefetcher::default();
        let parents: Vec<(PageNo, Bytes)> = leaves
            .chunks(400)
            .enumerate()
            .map(|(i, c)| (PageNo(95_000 + u32::try_from(i).unwrap()), interior(c)))
            .collect();
        prefetcher.learn(&parents, PAGE_SIZE, 100_000);
        assert!(misses(&mut prefetcher, &leaves) < 30);
        let backwards: Vec<u32> = leaves.iter().rev().copied().collect();
        assert!(misses(&mut prefetcher, &backwards) < 30);
        let mut lookups = 0;
        for at in [3000usize, 17, 2100, 900, 3999, 0, 1234] {
            lookups += prefetcher.plan(PageNo(leaves[at]), 100_000, LARGEST_WINDOW).len();
        }
        assert_eq!(lookups, 0);
    }

    #[test]
    fn reading_the_file_in_order_takes_few_round_trips() {
        let mut prefetcher = Prefetcher::default();
        let order: Vec<u32> = (1..=10_000).collect();
        assert!(misses(&mut prefetcher, &order) < 40);
    }

    #[test]
    fn what_is_no_interior_page_teaches_nothing() {
        assert_eq!(children(&[5; PAGE_SIZE], 0, PAGE_SIZE, 1000), None);
        assert_eq!(children(&[13; PAGE_SIZE], 0, PAGE_SIZE, 1000), None);
        assert_eq!(children(&[], 0, PAGE_SIZE, 1000), None);
    }
}
