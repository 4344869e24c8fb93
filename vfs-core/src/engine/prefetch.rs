//! Prefetching: a cache miss brings along pages that the structure of the file says are read next.
//!
//! A b-tree interior page lists its children in order. When pages of a level are missed one after the other, in either
//! direction, the next ones come in the same round trip, more each time; and so do the interior pages above those that
//! will be wanted after them, so that a run goes on over the end of a list without a miss of its own. Each list keeps the
//! state of its run: an index and the table that it leads into are read in turn, and neither ends the other's run. The same
//! goes for pages that follow each other in the file: overflow chains and freelist trunks are mostly laid out so, and a
//! backup reads so. One miss alone brings nothing along, and two misses are in a row only when all pages between them are
//! in the cache: point lookups pay for no more than they read. But where they have missed an eighth of a list one by one,
//! and the cache has room for the whole file, the rest of the list comes with the next: in one round trip it costs about
//! what they have cost already, so that at the worst it doubles their price.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::structure::{Cached, Direction, Place, Run, Step, Structure, may_be_interior};
use crate::types::PageNo;

/// Pages that come along with the second miss in a row.
const FIRST_WINDOW: usize = 8;
/// The most pages that come along.
pub(super) const LARGEST_WINDOW: usize = 512;
/// How many pages between two misses in a row may be in the cache.
const NEAR: usize = 64;

/// What was learnt of one database's structure, and where runs of misses stand.
#[derive(Debug, Default)]
pub(super) struct Prefetcher {
    structure: Structure,
    /// The run in the order of the file: the last page that was brought along, or missed.
    file_last: u32,
    file_window: usize,
}

impl Prefetcher {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Learns from pages that were loaded: `images` in order of pages, `page_size` SQLite's own.
    pub(super) fn learn(&mut self, images: &[(PageNo, Bytes)], page_size: usize, last_page: u32) {
        self.structure.learn(images, page_size, last_page);
    }

    /// The pages to bring along with a missed one, those that are wanted first first, at most `bound` of them. `visited`
    /// are interior pages that were read of late.
    pub(super) fn plan(
        &mut self,
        missed: PageNo,
        bound: usize,
        visited: &[PageNo],
        cached: &dyn Cached,
    ) -> Vec<PageNo> {
        let page = self.structure.first_part(missed);
        let mut place = self.structure.find(page);
        if place.is_none() {
            // Its parent came from this process's own writing, or with the open, or was forgotten since.
            for page in visited {
                let first = self.structure.first_part(*page);
                self.structure.learn_cached(first, cached);
            }
            place = self.structure.find(page);
        }
        let mut along = place.map(|place| self.along_tree(place, bound, cached)).unwrap_or_default();
        let in_file = self.along_file(missed, bound, cached);
        if along.is_empty() {
            along = in_file;
        }
        along.retain(|page| *page <= cached.last_page());
        along.truncate(bound);
        along.into_iter().map(PageNo).collect()
    }

    fn along_tree(&mut self, place: Place, bound: usize, cached: &dyn Cached) -> Vec<u32> {
        let parts = self.structure.parts();
        let bound = bound / usize::try_from(parts).unwrap_or(1);
        let run = [Direction::Forward, Direction::Backward].into_iter().find_map(|direction| {
            self.structure.arrive(place, direction, NEAR, cached).map(|window| (direction, window))
        });
        let Some((direction, window)) = run.filter(|_| bound > 0) else {
            let many = self.structure.note_lone(place);
            let rest = if many && cached.has_room() { self.structure.rest(place, cached) } else { Vec::new() };
            return rest.into_iter().take(bound).flat_map(|page| page..page.saturating_add(parts)).collect();
        };
        let window = grow(window, bound);
        let mut next = self.walk(place, direction, window, cached);
        // What the two windows after this one will want to know.
        let last = next.last().copied().unwrap_or(place);
        let mut along = self.structure.ahead(last, direction, 2 * grow(window, bound), (bound / 4).max(1), cached);
        along.retain(|page| !cached.has(*page));
        next.truncate(bound.saturating_sub(along.len()));
        let pages = next.iter().filter_map(|place| self.structure.child(*place)).filter(|page| !cached.has(*page));
        let pages: Vec<u32> = pages.collect();
        // A run that brought less than it might is not much of a reason for more.
        let run = Run { direction, window: pages.len() };
        self.structure.note_run(next.last().copied().unwrap_or(place), run);
        along.extend(pages);
        along.into_iter().flat_map(|page| page..page.saturating_add(parts)).collect()
    }

    /// The places after one until so many of them are not in the cache.
    fn walk(&mut self, from: Place, direction: Direction, window: usize, cached: &dyn Cached) -> Vec<Place> {
        let (mut at, mut missing) = (from, 0);
        let mut out = Vec::new();
        while missing < window && out.len() < window + NEAR {
            let Step::To(next) = self.structure.step(at, direction, cached) else { break };
            missing += usize::from(self.structure.child(next).is_some_and(|page| !cached.has(page)));
            out.push(next);
            at = next;
        }
        out
    }

    fn along_file(&mut self, missed: PageNo, bound: usize, cached: &dyn Cached) -> Vec<u32> {
        let page = missed.get();
        let mut between = self.file_last.saturating_add(1)..page;
        let in_a_row = page > self.file_last && between.len() < NEAR && between.all(|page| cached.has(page));
        self.file_window = if in_a_row { grow(self.file_window, bound) } else { 0 };
        let more = u32::try_from(self.file_window).unwrap_or(0);
        let end = page.saturating_add(more).min(cached.last_page());
        self.file_last = end.max(page);
        (page.saturating_add(1)..=end).filter(|page| !cached.has(*page)).collect()
    }
}

fn grow(window: usize, bound: usize) -> usize {
    (window * 4).max(FIRST_WINDOW).min(bound)
}

/// Interior pages that were read of late, from the cache or not: a few numbers that cost a read nothing.
#[derive(Debug, Default)]
pub(super) struct Visited([AtomicU32; 32]);

impl Visited {
    /// Notes a page that was read, if it may be one.
    pub(super) fn note(&self, page: PageNo, image: &[u8]) {
        if may_be_interior(page, image)
            && let Some(slot) = self.0.get(page.get() as usize % self.0.len())
        {
            slot.store(page.get(), Ordering::Relaxed);
        }
    }

    /// Their numbers.
    pub(super) fn pages(&self) -> Vec<PageNo> {
        self.0.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|page| *page > 0).map(PageNo).collect()
    }
}

#[cfg(test)]
#[path = "prefetch_tests.rs"]
mod tests;
