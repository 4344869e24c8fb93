//! What is known of the b-trees of a file: the children of interior pages, in order.
//!
//! All children of one interior page are of one level, and so are those of its neighbours: with the list of the page
//! above them at hand, one can walk along a level from list to list. Where the list of the next interior page is not
//! known, the walk ends at that page: its number is known, so it can be asked for before anybody misses it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::header::page_size;
use crate::types::{PAGE_SIZE, PageNo};

/// Children remembered for one database: 4 bytes each in their list, and about 16 in the index.
const REMEMBERED: usize = 16 << 10;
/// What a list takes besides its children, counted as children.
const LIST_OVERHEAD: usize = 32;
/// One of so many children of a list missed one by one costs about as much as all others at once.
const LOOKUPS_PART: usize = 8;
/// … but not fewer than these.
const FEWEST_LOOKUPS: usize = 4;
/// No b-tree is deeper: pages that point at each other are damaged, or are no b-tree pages.
const DEEPEST: usize = 20;

/// A way along a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// A child of an interior page. It stays what it is, or leads nowhere, when lists are learnt or forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The interior page.
    list: u32,
    at: usize,
}

/// A run of misses along a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) direction: Direction,
    /// Pages that came along the last time.
    pub(super) window: usize,
}

/// What comes next on a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    To(Place),
    /// The level goes on among the children of an interior page that is not known, at or above the one beside.
    Unknown,
    End,
}

/// What is in the page cache.
pub(super) trait Cached {
    fn has(&self, page: u32) -> bool;

    fn image(&self, page: u32) -> Option<Bytes>;

    /// Pages of the file now.
    fn last_page(&self) -> u32;

    /// Whether the whole file has room in it.
    fn has_room(&self) -> bool;
}

#[derive(Debug)]
struct List {
    children: Vec<u32>,
    /// Where a run was last, if it is in this list.
    run: Option<(usize, Run)>,
    /// The last child that was missed and was part of no run: one may begin there.
    lone: Option<usize>,
    /// How many of those there were since the rest of the list was asked for, if it ever was.
    lookups: usize,
    /// When it was last used.
    used: u64,
}

/// The lists of one database.
#[derive(Debug, Default)]
pub(super) struct Structure {
    /// By the first page of the store that the interior page lies on.
    lists: BTreeMap<u32, List>,
    /// The list that each child is in: the one that was learnt last.
    parents: HashMap<u32, u32>,
    remembered: usize,
    clock: u64,
    /// SQLite's page size; 0 until it is known.
    page_size: usize,
}

impl Structure {
    /// How many pages of the store one of SQLite's takes. Small ones share one.
    pub(super) fn parts(&self) -> u32 {
        u32::try_from(self.page_size.div_ceil(PAGE_SIZE)).unwrap_or(1).max(1)
    }

    /// The first page of the store that belongs to the same page of SQLite.
    pub(super) fn first_part(&self, page: PageNo) -> u32 {
        let page = page.get();
        page - page.saturating_sub(1) % self.parts()
    }

    /// What the lists take, counted as children.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }

    /// Where a page is a child.
    pub(super) fn find(&mut self, page: u32) -> Option<Place> {
        let list = *self.parents.get(&page)?;
        let entry = self.lists.get_mut(&list)?;
        let at = entry.children.iter().position(|child| *child == page)?;
        self.clock += 1;
        entry.used = self.clock;
        Some(Place { list, at })
    }

    /// The page at a place.
    pub(super) fn child(&self, place: Place) -> Option<u32> {
        self.lists.get(&place.list)?.children.get(place.at).copied()
    }

    /// One step along the level of a place.
    pub(super) fn step(&mut self, place: Place, direction: Direction, cached: &dyn Cached) -> Step {
        self.step_within(place, direction, cached, DEEPEST)
    }

    fn step_within(&mut self, place: Place, direction: Direction, cached: &dyn Cached, depth: usize) -> Step {
        let Some(list) = self.lists.get(&place.list) else { return Step::End };
        let next = match direction {
            Direction::Forward => place.at.checked_add(1).filter(|at| *at < list.children.len()),
            Direction::Backward => place.at.checked_sub(1),
        };
        if let Some(at) = next {
            return Step::To(Place { at, ..place });
        }
        let Some(above) = self.find(place.list).filter(|_| depth > 0) else { return Step::End };
        match self.step_within(above, direction, cached, depth - 1) {
            Step::To(beside) => {
                let Some(list) = self.child(beside).filter(|page| self.knows(*page, cached)) else {
                    return Step::Unknown;
                };
                let last = self.lists.get(&list).map_or(0, |list| list.children.len().saturating_sub(1));
                Step::To(Place { list, at: if direction == Direction::Forward { 0 } else { last } })
            }
            other => other,
        }
    }

    /// Whether the children of an interior page are known, perhaps by a look into the cache.
    fn knows(&mut self, page: u32, cached: &dyn Cached) -> bool {
        if !self.lists.contains_key(&page) {
            self.learn_cached(page, cached);
        }
        self.lists.contains_key(&page)
    }

    /// The interior pages that have to be read before one can walk so many steps on from a place: as far as their
    /// numbers are known, at most `most`.
    pub(super) fn ahead(
        &mut self,
        from: Place,
        direction: Direction,
        steps: usize,
        most: usize,
        cached: &dyn Cached,
    ) -> Vec<u32> {
        let mut out = Vec::new();
        self.ahead_within(from, direction, steps, most, cached, &mut out);
        out
    }

    fn ahead_within(
        &mut self,
        from: Place,
        direction: Direction,
        steps: usize,
        most: usize,
        cached: &dyn Cached,
        out: &mut Vec<u32>,
    ) {
        let Some(list) = self.lists.get(&from.list) else { return };
        let each = list.children.len().max(1);
        let here = match direction {
            Direction::Forward => list.children.len().saturating_sub(from.at + 1),
            Direction::Backward => from.at,
        };
        // Fewer at each level: it ends even where damaged pages point in a circle.
        let lists = steps.saturating_sub(here).div_ceil(each).min(steps / 2);
        if lists == 0 || out.len() >= most {
            return;
        }
        let Some(mut above) = self.find(from.list) else { return };
        for _ in 0..lists {
            let Step::To(beside) = self.step(above, direction, cached) else { break };
            above = beside;
            let Some(page) = self.child(beside) else { break };
            if !self.knows(page, cached) && out.len() < most {
                out.push(page);
            }
        }
        let Some(above) = self.find(from.list) else { return };
        self.ahead_within(above, direction, lists, most, cached, out);
    }

    /// The window of the run that comes to a place, 0 of a lone miss: of which this is the next page that is not in the
    /// cache. It is taken from where it was.
    pub(super) fn arrive(
        &mut self,
        place: Place,
        direction: Direction,
        near: usize,
        cached: &dyn Cached,
    ) -> Option<usize> {
        let back = match direction {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        };
        let mut at = place;
        for _ in 0..near {
            let Step::To(before) = self.step(at, back, cached) else { return None };
            let list = self.lists.get_mut(&before.list)?;
            if let Some((_, run)) = list.run.filter(|(last, run)| *last == before.at && run.direction == direction) {
                list.run = None;
                return Some(run.window);
            }
            if list.lone == Some(before.at) {
                list.lone = None;
                return Some(0);
            }
            if !list.children.get(before.at).is_some_and(|page| cached.has(*page)) {
                return None;
            }
            at = before;
        }
        None
    }

    /// Notes a miss that belongs to no run. Whether there were so many that the rest of the list is no dearer.
    pub(super) fn note_lone(&mut self, place: Place) -> bool {
        let Some(list) = self.lists.get_mut(&place.list) else { return false };
        list.lone = Some(place.at);
        list.lookups += 1;
        list.lookups >= (list.children.len() / LOOKUPS_PART).max(FEWEST_LOOKUPS)
    }

    /// All that is not in the cache of the list that a place is in, but for the page there.
    pub(super) fn rest(&mut self, place: Place, cached: &dyn Cached) -> Vec<u32> {
        let Some(list) = self.lists.get_mut(&place.list) else { return Vec::new() };
        list.lookups = 0;
        let others = list.children.iter().enumerate().filter(|(at, page)| *at != place.at && !cached.has(**page));
        others.map(|(_, page)| *page).collect()
    }

    /// Notes how far a run has come.
    pub(super) fn note_run(&mut self, place: Place, run: Run) {
        if let Some(list) = self.lists.get_mut(&place.list) {
            list.run = Some((place.at, run));
        }
    }

    /// Learns from the image in the cache, if it is there.
    pub(super) fn learn_cached(&mut self, page: u32, cached: &dyn Cached) {
        if self.page_size == 0 {
            self.page_size =
                cached.image(PageNo::FIRST.get()).and_then(|header| page_size(&header)).map_or(0, |size| size as usize);
        }
        let parts = page..page.saturating_add(self.parts());
        let images: Option<Vec<_>> = parts.map(|part| Some((PageNo(part), cached.image(part)?))).collect();
        if let Some(images) = images
            && self.page_size > 0
        {
            self.learn(&images, self.page_size, cached.last_page());
        }
    }

    /// Learns from images of pages: in order of pages, `page_size` SQLite's own.
    pub(super) fn learn(&mut self, images: &[(PageNo, Bytes)], page_size: usize, last_page: u32) {
        if self.page_size != page_size {
            *self = Self { page_size, ..Self::default() };
        }
        let header = |page: PageNo, start: usize| if page == PageNo::FIRST && start == 0 { 100 } else { 0 };
        if page_size <= PAGE_SIZE {
            for (page, image) in images {
                for (number, part) in image.chunks(page_size).enumerate() {
                    self.learn_page(*page, part, header(*page, number), last_page);
                }
            }
            return;
        }
        let parts = page_size / PAGE_SIZE;
        for group in images.chunk_by(|(a, _), (b, _)| (a.get() as usize - 1) / parts == (b.get() as usize - 1) / parts)
        {
            if let Some((first, _)) = group.first()
                && group.len() == parts
            {
                let whole: Vec<u8> = group.iter().flat_map(|(_, image)| image.iter().copied()).collect();
                self.learn_page(*first, &whole, header(*first, 0), last_page);
            }
        }
    }

    fn learn_page(&mut self, page: PageNo, bytes: &[u8], header: usize, last_page: u32) {
        let Some(children) = children(bytes, header, self.page_size, last_page) else { return };
        if self.lists.get(&page.get()).is_some_and(|list| list.children == children) {
            return;
        }
        self.clock += 1;
        self.forget(page.get());
        self.remembered += children.len() + LIST_OVERHEAD;
        // A page may stand in the list of an interior page that has changed since: the newest knows best.
        self.parents.extend(children.iter().map(|child| (*child, page.get())));
        self.lists.insert(page.get(), List { children, run: None, lone: None, lookups: 0, used: self.clock });
        while self.remembered > REMEMBERED
            && let Some(oldest) = self.lists.iter().min_by_key(|(_, list)| list.used).map(|(page, _)| *page)
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, list: u32) {
        let Some(gone) = self.lists.remove(&list) else { return };
        self.remembered -= gone.children.len() + LIST_OVERHEAD;
        for child in gone.children {
            if self.parents.get(&child) == Some(&list) {
                self.parents.remove(&child);
            }
        }
    }
}

/// Whether a page of the store may be an interior page, or begin with one: by its first byte.
pub(super) fn may_be_interior(page: PageNo, image: &[u8]) -> bool {
    let at = if page == PageNo::FIRST { 100 } else { 0 };
    image.get(at).is_some_and(|flags| matches!(*flags, 2 | 5))
}

/// The children of a b-tree interior page: of each the first page of the store. `None` when it is none. Format: SQLite's
/// file format documentation, "B-tree Pages".
fn children(page: &[u8], header: usize, page_size: usize, last_page: u32) -> Option<Vec<u32>> {
    let flags = *page.get(header)?;
    if flags != 2 && flags != 5 {
        return None;
    }
    let half = |at: usize| page.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
    let word = |at: usize| page.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let cells = usize::from(half(header + 3)?);
    let mut out = Vec::with_capacity(cells.min(page.len() / 2) + 1);
    for cell in 0..=cells {
        let child = if cell == cells { word(header + 8)? } else { word(usize::from(half(header + 12 + cell * 2)?))? };
        let offset = u64::from(child.checked_sub(1)?) * page_size as u64;
        let page = PageNo::containing(offset).ok()?.get();
        if page > last_page {
            // Not an interior page after all: an overflow page that looks like one.
            return None;
        }
        // Small pages that share a page of the store are one.
        if out.last() != Some(&page) {
            out.push(page);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_interior_page_teaches_nothing() {
        assert_eq!(children(&[5; PAGE_SIZE], 0, PAGE_SIZE, 1000), None);
        assert_eq!(children(&[13; PAGE_SIZE], 0, PAGE_SIZE, 1000), None);
        assert_eq!(children(&[], 0, PAGE_SIZE, 1000), None);
    }
}
