//! Reading much, and reading here and there, of a database that the cache has nothing of: in how many round trips, and how
//! many pages come that nobody wanted.

use rusqlite::Connection;

use super::bench::{Bench, EngineHarness, number, run, timeless};

/// Rows of one page each: over 50 MiB of them, where the store gives as many pages at once as all stores do.
const MANY: u64 = 12_900;
/// … and fewer where it gives only a few.
const FEW: u64 = 900;
/// The most pages that come with one miss.
const LARGEST: u64 = 512;

struct Table {
    bench: Bench,
    rows: u64,
}

impl Table {
    /// One row to a page; an index of few children to a page, so that it has many levels.
    fn new(harness: &dyn EngineHarness) -> Self {
        let bench = Bench::with(harness, |settings| {
            *settings = timeless(litefleet::FleetSettings::default());
            settings.cache_bytes = 256 << 20;
        });
        let rows = if (bench.store.limits().read_pages as u64) < LARGEST { FEW } else { MANY };
        let connection = bench.open("a");
        run(
            &connection,
            &format!(
                "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB NOT NULL, tag TEXT NOT NULL); \
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
                 INSERT INTO t SELECT i, zeroblob(3600), printf('%0400d', i) FROM n; \
                 CREATE INDEX by_tag ON t(tag); PRAGMA litefleet_checkpoint"
            ),
        );
        assert!(rows < MANY || number(&connection, "PRAGMA page_count") * 4096 > 50 << 20);
        Self { bench, rows }
    }

    /// Another process, in which nothing is cached; it knows the schema.
    fn cold(&self) -> (Bench, Connection) {
        let bench = self.bench.another();
        let connection = bench.open_with("a", "mode=ro");
        number(&connection, "SELECT count(*) FROM sqlite_schema");
        (bench, connection)
    }

    /// Round trips and pages of a query that says how many rows it read.
    fn read(&self, sql: &str) -> (u64, u64) {
        let (bench, connection) = self.cold();
        let (trips, pages) = (bench.trips(), bench.fleet.cache().entries);
        assert_eq!(number(&connection, sql), i64::try_from(self.rows).unwrap());
        (bench.trips() - trips, bench.fleet.cache().entries - pages)
    }

    /// As many round trips as the pages need at the most for each, and a few to find out that they are read in order.
    fn most_trips(&self, pages: u64) -> u64 {
        let each = LARGEST.min(self.bench.store.limits().read_pages as u64);
        pages.div_ceil(each) + 14
    }
}

/// A cold scan of 50 MiB takes at most 40 round trips, forward and backward, and what the cache then has is what was read.
pub fn cold_scans_take_few_trips_in_both_directions(harness: &dyn EngineHarness) {
    let table = Table::new(harness);
    for order in ["", " ORDER BY k DESC"] {
        let (trips, pages) = table.read(&format!("SELECT count(length(v)) FROM (SELECT v FROM t{order} LIMIT -1)"));
        assert!(trips <= table.most_trips(table.rows), "{trips} trips{order}");
        assert!(trips <= 40 || table.rows < MANY, "{trips} trips{order}");
        assert!(pages <= table.rows + table.rows / 50, "{pages} pages for {} rows{order}", table.rows);
    }
}

/// An index is read ahead over all its levels, alone and beside the table that it leads into.
pub fn cold_index_scans_take_few_trips(harness: &dyn EngineHarness) {
    let table = Table::new(harness);
    let leaves = table.rows / 8;
    for order in ["", " DESC"] {
        let (trips, _) =
            table.read(&format!("SELECT count(tag) FROM (SELECT tag FROM t ORDER BY tag{order} LIMIT -1)"));
        assert!(trips <= table.most_trips(leaves) + 6, "{trips} trips of the index{order}");
        let rows = "SELECT v FROM t INDEXED BY by_tag WHERE tag > '0'";
        let sql = format!("SELECT count(length(v)) FROM ({rows} ORDER BY tag{order} LIMIT -1)");
        let (trips, _) = table.read(&sql);
        let most = table.most_trips(leaves) + table.most_trips(table.rows) + 6;
        assert!(trips <= most, "{trips} trips of the index and its table{order}, {most} allowed");
    }
}

/// A lookup costs the pages on its way, and next to nothing besides.
pub fn random_lookups_bring_nothing_along(harness: &dyn EngineHarness) {
    let table = Table::new(harness);
    let (bench, connection) = table.cold();
    let (trips, pages) = (bench.trips(), bench.fleet.cache().entries);
    let mut state = 1_u64;
    for _ in 0..400 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (state >> 33) % table.rows + 1;
        assert_eq!(number(&connection, &format!("SELECT length(v) FROM t WHERE k = {key}")), 3600);
    }
    let (trips, pages) = (bench.trips() - trips, bench.fleet.cache().entries - pages);
    assert!(pages * 10 <= trips * 13, "{pages} pages in {trips} trips");
    assert!(table.rows < MANY || pages <= 400 * 5 / 4, "{pages} pages for 400 lookups");
}

/// A process that wrote the database itself, and whose cache is smaller than it, knows its structure all the same.
pub fn scan_after_own_writing_takes_few_trips(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| {
        *settings = timeless(litefleet::FleetSettings::default());
        settings.cache_bytes = 8 << 20;
    });
    let rows = if (bench.store.limits().read_pages as u64) < LARGEST { 300 } else { 4000 };
    let connection = bench.open("a");
    run(
        &connection,
        &format!(
            "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB NOT NULL); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO t SELECT i, zeroblob(4000) FROM n; PRAGMA litefleet_checkpoint; PRAGMA shrink_memory"
        ),
    );
    let before = bench.trips();
    assert_eq!(number(&connection, "SELECT count(length(v)) FROM t"), rows);
    let trips = bench.trips() - before;
    // An eighth of the cache at a time: 246 pages.
    let each = 246.min(bench.store.limits().read_pages as u64);
    let most = u64::try_from(rows).unwrap().div_ceil(each) + 20;
    assert!(trips <= most, "{trips} trips, {most} allowed");
}
