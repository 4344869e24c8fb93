//! The rules of the design that are easy to break: each case fails when its rule is taken out.

use super::bench::{Bench, EngineHarness, dump, fill, number, run};

/// The warm pages that come with an open are those of the checkpoint: where a page was staged since, they are not what
/// the page is.
pub fn open_after_a_staged_commit_reads_the_staged_pages(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| {
        settings.database.transaction_bytes = 64 << 10;
        settings.database.checkpoint_records = usize::MAX;
        settings.database.checkpoint_pages = usize::MAX;
        settings.database.checkpoint_bytes = usize::MAX;
    });
    let connection = bench.open("a");
    fill(&connection, "t", 30, 3000);
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 30);
    drop(connection);
    // Closed: the first pages that were read come along with each open from now on.
    let connection = bench.open("a");
    assert_eq!(number(&connection, "SELECT sum(length(v)) FROM t"), 90_000);
    run(&connection, "PRAGMA litefleet_release");
    run(&connection, "UPDATE t SET v = zeroblob(4000) || k");
    fill(&connection, "t", 100, 3000);
    run(&connection, "INSERT INTO t(v) VALUES('small')");
    let expected = dump(&connection);
    let other = bench.another();
    assert!(dump(&other.open_with("a", "mode=ro")) == expected);
    bench.check("a");
}
