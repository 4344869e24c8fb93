use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::types::PAGE_SIZE;

const LAST_PAGE: u32 = 100_000;

/// A file of interior pages and leaves, and which of them are in the cache.
#[derive(Default)]
struct File {
    interior: BTreeMap<u32, Bytes>,
    there: RefCell<HashSet<u32>>,
    fits: bool,
}

impl Cached for File {
    fn has(&self, page: u32) -> bool {
        self.there.borrow().contains(&page)
    }

    fn image(&self, page: u32) -> Option<Bytes> {
        self.has(page).then(|| self.interior.get(&page).cloned().unwrap_or_else(|| Bytes::from(vec![13; PAGE_SIZE])))
    }

    fn last_page(&self) -> u32 {
        LAST_PAGE
    }

    fn has_room(&self) -> bool {
        self.fits
    }
}

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

/// A tree with its leaves scattered over the file: only the lists say what comes next. Returns the leaves in order, each
/// with the path to it.
fn tree(file: &mut File, leaves: u32, fan_out: usize, first: u32) -> Vec<Vec<u32>> {
    let mut paths: Vec<Vec<u32>> = (0..leaves).map(|i| vec![first + (i * 7919) % 40_009]).collect();
    let mut level: Vec<u32> = paths.iter().map(|path| path[0]).collect();
    let (mut free, mut below) = (90_100 + first / 10, 1);
    while level.len() > 1 {
        below *= fan_out;
        let above: Vec<u32> = (free..).take(level.len().div_ceil(fan_out)).collect();
        file.interior.extend(above.iter().copied().zip(level.chunks(fan_out).map(interior)));
        for (at, path) in paths.iter_mut().enumerate() {
            path.insert(0, above[at / below]);
        }
        free += u32::try_from(above.len()).unwrap();
        level = above;
    }
    paths
}

/// Numbers in no order, the same each time.
fn scattered(count: usize, below: usize) -> impl Iterator<Item = usize> + Clone {
    let next =
        |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(1), next).take(count).map(move |state| usize::try_from(state >> 33).unwrap() % below)
}

/// Reads pages as SQLite would; returns how many round trips that took, and how many pages came.
fn read(prefetcher: &mut Prefetcher, file: &File, order: impl IntoIterator<Item = u32>) -> (usize, usize) {
    let (mut trips, mut pages) = (0, 0);
    for page in order {
        if file.has(page) {
            continue;
        }
        let mut batch = vec![PageNo(page)];
        batch.extend(prefetcher.plan(PageNo(page), LARGEST_WINDOW, &[], file));
        batch.sort_unstable();
        file.there.borrow_mut().extend(batch.iter().map(|page| page.get()));
        let images: Vec<(PageNo, Bytes)> = batch.iter().map(|page| (*page, file.image(page.get()).unwrap())).collect();
        prefetcher.learn(&images, PAGE_SIZE, LAST_PAGE);
        trips += 1;
        pages += batch.len();
    }
    (trips, pages)
}

#[test]
fn scans_in_both_directions_take_few_round_trips() {
    for fan_out in [450, 100, 12] {
        let mut file = File::default();
        let paths = tree(&mut file, 12_800, fan_out, 1);
        let count = 12_800 + file.interior.len();
        let (trips, pages) = read(&mut Prefetcher::default(), &file, paths.iter().flatten().copied());
        assert!(trips <= 40, "{trips} forward, {fan_out} children each");
        assert_eq!(pages, count, "nothing twice, and nothing else");
        file.there.borrow_mut().clear();
        let (trips, pages) = read(&mut Prefetcher::default(), &file, paths.iter().rev().flatten().copied());
        assert!(trips <= 40, "{trips} backward, {fan_out} children each");
        assert_eq!(pages, count);
    }
}

#[test]
fn an_index_and_its_table_are_read_in_turn_without_ending_each_others_runs() {
    let mut file = File::default();
    let index = tree(&mut file, 1000, 100, 1);
    let table = tree(&mut file, 12_000, 450, 50_000);
    // Each leaf of the index leads to twelve of the table, in no order.
    let order = index.iter().enumerate().flat_map(|(at, path)| {
        let rows = scattered((at + 1) * 5, 12_000).skip(at * 5);
        path.iter().copied().chain(rows.flat_map(|row| table[row].iter().copied())).collect::<Vec<u32>>()
    });
    let order: Vec<u32> = order.collect();
    let (trips, _) = read(&mut Prefetcher::default(), &file, order.iter().copied());
    let rows: HashSet<usize> = scattered(5000, 12_000).collect();
    // Each page of the table alone, and what is above it; of the index's thousand hardly any.
    assert!(trips < rows.len() + 27 + 40, "{trips} for {} pages of the table", rows.len());
}

#[test]
fn lookups_bring_nothing_along() {
    let mut file = File::default();
    let paths = tree(&mut file, 12_800, 450, 1);
    let mut prefetcher = Prefetcher::default();
    let order = scattered(3000, 12_800).flat_map(|leaf| paths[leaf].iter().copied());
    let wanted: HashSet<u32> = order.clone().collect();
    let (_, pages) = read(&mut prefetcher, &file, order);
    assert!(pages * 100 <= wanted.len() * 110, "{pages} pages for {}", wanted.len());
}

#[test]
fn lookups_all_over_a_file_that_fits_take_few_round_trips() {
    // So many that all lists are remembered.
    for fan_out in [450, 200] {
        let mut file = File { fits: true, ..File::default() };
        let paths = tree(&mut file, 12_800, fan_out, 1);
        let count = 12_800 + file.interior.len();
        let order = scattered(100_000, 12_800).flat_map(|leaf| paths[leaf].iter().copied());
        let (trips, pages) = read(&mut Prefetcher::default(), &file, order);
        let lists = file.interior.len();
        assert!(trips <= count / 8 + lists * 5, "{trips}, {fan_out} children each");
        assert_eq!(pages, count, "nothing twice, and nothing else");
    }
}

#[test]
fn a_few_lookups_bring_nothing_along_even_where_all_fits() {
    let mut file = File { fits: true, ..File::default() };
    let paths = tree(&mut file, 12_800, 450, 1);
    let order = scattered(600, 12_800).flat_map(|leaf| paths[leaf].iter().copied());
    let wanted: HashSet<u32> = order.clone().collect();
    let (_, pages) = read(&mut Prefetcher::default(), &file, order);
    assert!(pages * 100 <= wanted.len() * 110, "{pages} pages for {}", wanted.len());
}

#[test]
fn a_short_scan_brings_little_along() {
    let mut file = File::default();
    let paths = tree(&mut file, 12_800, 450, 1);
    let order = paths[447..453].iter().flatten().copied();
    let (_, pages) = read(&mut Prefetcher::default(), &file, order);
    assert!(pages <= 6 + 3 + 8, "{pages} pages for 6 leaves and the 3 above them");
}

#[test]
fn reading_the_file_in_order_takes_few_round_trips() {
    let file = File::default();
    let (trips, pages) = read(&mut Prefetcher::default(), &file, 1..=10_000);
    assert!(trips < 40, "{trips}");
    assert!(pages < 10_000 + LARGEST_WINDOW);
}

#[test]
fn parents_that_were_never_loaded_are_learnt_from_the_cache() {
    let mut file = File::default();
    let paths = tree(&mut file, 2000, 400, 2);
    // The header says how large SQLite's pages are.
    let mut header = vec![0; PAGE_SIZE];
    header[16..18].copy_from_slice(&[0x10, 0]);
    file.interior.insert(1, Bytes::from(header));
    file.there.borrow_mut().extend(file.interior.keys().copied());
    let visited: Vec<PageNo> = file.interior.keys().copied().map(PageNo).collect();
    let mut prefetcher = Prefetcher::default();
    let mut trips = 0;
    for page in paths.iter().map(|path| *path.last().unwrap()) {
        if !file.has(page) {
            let along = prefetcher.plan(PageNo(page), LARGEST_WINDOW, &visited, &file);
            file.there.borrow_mut().extend(along.into_iter().map(PageNo::get).chain([page]));
            trips += 1;
        }
    }
    assert!(trips < 15, "{trips}");
}

#[test]
fn pages_that_point_at_each_other_end_a_plan() {
    let mut file = File::default();
    let circle = interior(&[10, 11]);
    file.interior.extend([(10, circle.clone()), (11, circle)]);
    read(&mut Prefetcher::default(), &file, [10, 11, 10, 11, 12]);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut file = File::default();
    let paths = tree(&mut file, 20_000, 40, 1);
    let mut prefetcher = Prefetcher::default();
    let (trips, _) = read(&mut prefetcher, &file, paths.iter().flatten().copied());
    assert!(trips < 60, "{trips}");
    assert!(prefetcher.structure.remembered() <= 16 << 10);
}
