//! Page sizes, and files that shrink.

use super::bench::{Bench, EngineHarness, dump, fill, number, run};

const SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/// SQLite's page size is none of the store's business.
pub fn every_page_size_is_stored(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    for size in SIZES {
        let name = format!("size-{size}");
        let connection = bench.open(&name);
        run(&connection, &format!("PRAGMA page_size={size}"));
        fill(&connection, "t", 60, 700);
        run(&connection, "DELETE FROM t WHERE k % 3 = 0; UPDATE t SET v = zeroblob(9000) WHERE k % 7 = 0");
        let before = dump(&connection);
        assert_eq!(number(&connection, "PRAGMA page_size"), i64::from(size));
        drop(connection);
        let again = bench.open(&name);
        assert!(dump(&again) == before, "page size {size}");
        // Known once the file was read: before the first lock no file is.
        assert_eq!(number(&again, "PRAGMA page_size"), i64::from(size));
        bench.check(&name);
    }
}

/// A VACUUM that changes the page size still writes at the old one, and its file may end within one of our pages.
pub fn vacuum_changes_the_page_size(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    fill(&connection, "t", 200, 300);
    fill(&connection, "big", 3, 20_000);
    let before = dump(&connection);
    let reader = bench.open("a");
    for size in [512, 65_536, 1024, 32_768, 4096, 512, 2048, 16_384, 8192] {
        run(&connection, &format!("PRAGMA page_size={size}; VACUUM"));
        assert_eq!(number(&connection, "PRAGMA page_size"), i64::from(size));
        assert!(dump(&connection) == before, "page size {size}");
        assert!(dump(&reader) == before, "page size {size}, another connection");
        bench.check("a");
    }
}

/// `auto_vacuum=FULL` cuts the file at every commit, after the commit point.
pub fn full_auto_vacuum_shrinks_the_file(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "PRAGMA page_size=1024; PRAGMA auto_vacuum=FULL");
    fill(&connection, "t", 300, 500);
    let reader = bench.open("a");
    let mut pages = number(&connection, "PRAGMA page_count");
    for keep in [250, 100, 30, 1] {
        run(&connection, &format!("DELETE FROM t WHERE k > {keep}"));
        let now = number(&connection, "PRAGMA page_count");
        assert!(now < pages, "{now} pages after {pages}");
        pages = now;
        assert_eq!(number(&reader, "SELECT count(*) FROM t"), keep);
        assert_eq!(number(&reader, "PRAGMA page_count"), pages);
        let size = bench.fleet.info(&litefleet::DatabaseName::new("a").unwrap()).unwrap().head.size;
        assert_eq!(i64::try_from(size).unwrap(), pages * 1024, "the store has the size that SQLite sees");
        bench.check("a");
    }
    fill(&connection, "t", 300, 500);
    bench.check("a");
}

/// `incremental_vacuum` moves pages from the end into holes.
pub fn incremental_vacuum_shrinks_the_file(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "PRAGMA auto_vacuum=INCREMENTAL");
    fill(&connection, "t", 300, 3000);
    run(&connection, "DELETE FROM t WHERE k % 2 = 0");
    let before = dump(&connection);
    for _ in 0..8 {
        let pages = number(&connection, "PRAGMA page_count");
        run(&connection, "PRAGMA incremental_vacuum(10)");
        assert_eq!(number(&connection, "PRAGMA page_count"), pages - 10);
        assert!(dump(&connection) == before);
        bench.check("a");
    }
    run(&connection, "PRAGMA incremental_vacuum");
    assert_eq!(number(&connection, "PRAGMA freelist_count"), 0);
    bench.check("a");
}
