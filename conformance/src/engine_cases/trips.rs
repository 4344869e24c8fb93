//! The round-trip budget of the design, counted exactly by the fleet's own counters.

use litefleet::DatabaseName;
use litefleet::store::Operation;

use super::bench::{Bench, EngineHarness, fill, number, run};

const READ: &str = "SELECT sum(length(v)) FROM t";

/// Round trips of an action.
fn trips<T>(bench: &Bench, action: impl FnOnce() -> T) -> (u64, T) {
    let before = bench.trips();
    let value = action();
    (bench.trips() - before, value)
}

/// A database that was filled and closed, in a fleet that has a session.
fn closed(harness: &dyn EngineHarness) -> Bench {
    let bench = Bench::plain(harness);
    let connection = bench.open("a");
    fill(&connection, "t", 10, 1000);
    drop(connection);
    // What is read first is what the next open gets along with it.
    let connection = bench.open("a");
    number(&connection, READ);
    drop(connection);
    bench
}

/// Opening a cleanly closed database for write and reading its warm pages: one.
pub fn open_and_warm_read_take_one_trip(harness: &dyn EngineHarness) {
    let bench = closed(harness);
    let (count, connection) = trips(&bench, || bench.open("a"));
    assert_eq!(count, 0, "nothing is asked before the first lock");
    assert_eq!(trips(&bench, || number(&connection, READ)), (1, 10_000));
}

/// So it is when the pages were only written: the checkpoint of the close took them from the log, and with the lease a set
/// without them was stored.
pub fn open_after_writes_alone_takes_one_trip(harness: &dyn EngineHarness) {
    let bench = Bench::plain(harness);
    fill(&bench.open("a"), "t", 10, 1000);
    let connection = bench.open("a");
    assert_eq!(trips(&bench, || number(&connection, READ)), (1, 10_000));
}

/// Another fleet, that has a session and nothing of the database: as a process after a crash of the first one.
fn successor(bench: &Bench) -> Bench {
    let other = bench.another();
    run(&other.open("other"), "CREATE TABLE IF NOT EXISTS t(x)");
    other
}

/// Opening after a crash: one, since the log comes along, and the pages that were warm at the last checkpoint.
pub fn open_after_a_crash_takes_one_trip(harness: &dyn EngineHarness) {
    let bench = Bench::plain(harness);
    let crashed = bench.open("a");
    fill(&crashed, "t", 10, 1000);
    run(&crashed, "UPDATE t SET v = zeroblob(500) WHERE k = 3");
    let next = successor(&bench);
    let connection = next.open_with("a", "takeover=1");
    assert_eq!(trips(&next, || number(&connection, READ)), (1, 9500), "no checkpoint was ever made");
    run(
        &connection,
        "CREATE TABLE few(k INTEGER PRIMARY KEY, v); INSERT INTO few VALUES(1, 10); PRAGMA litefleet_checkpoint",
    );
    run(&connection, "UPDATE few SET v = 20");
    let next = successor(&bench);
    let connection = next.open_with("a", "takeover=1");
    let before = next.fleet.counters().all();
    let (count, value) = trips(&next, || number(&connection, "SELECT v FROM few"));
    let after = next.fleet.counters().all();
    assert_eq!((count, value), (1, 20), "the open brings what was warm at the checkpoint: {before:?}, then {after:?}");
}

/// … and two when the log is over what comes along.
pub fn open_after_a_crash_with_a_long_tail_takes_two_trips(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| {
        *settings = super::bench::timeless(litefleet::FleetSettings::default());
        settings.database.checkpoint_bytes = 64 << 20;
    });
    let crashed = bench.open("a");
    run(&crashed, "CREATE TABLE t(k INTEGER PRIMARY KEY, v)");
    for _ in 0..450 {
        run(&crashed, "INSERT INTO t(v) VALUES(randomblob(20000))");
    }
    let next = successor(&bench);
    let connection = next.open_with("a", "takeover=1");
    assert_eq!(trips(&next, || number(&connection, "SELECT count(*) FROM t")), (2, 450));
    let follower = bench.another().open_with("a", "mode=ro");
    assert_eq!(number(&follower, "SELECT sum(length(v)) FROM t"), 9_000_000);
}

/// A small commit: one. Reading under the lease: none.
pub fn small_commit_takes_one_trip_and_reads_none(harness: &dyn EngineHarness) {
    let bench = closed(harness);
    let (one, two) = (bench.open("a"), bench.open("a"));
    number(&one, READ);
    for round in 0..5 {
        assert_eq!(trips(&bench, || run(&one, &format!("UPDATE t SET v = '{round}' WHERE k = 3"))).0, 1, "commit");
        assert_eq!(trips(&bench, || number(&one, READ)).0, 0, "read");
        assert_eq!(trips(&bench, || number(&two, READ)).0, 0, "read of another connection");
    }
    assert_eq!(trips(&bench, || run(&one, "BEGIN IMMEDIATE; COMMIT; BEGIN; SELECT * FROM t; ROLLBACK")).0, 0);
}

/// A page that is not in the cache: one.
pub fn cache_miss_takes_one_trip(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| {
        *settings = super::bench::timeless(litefleet::FleetSettings::default());
    });
    let connection = bench.open("a");
    fill(&connection, "t", 300, 3000);
    run(&connection, "PRAGMA litefleet_checkpoint");
    drop(connection);
    let other = bench.another();
    let connection = other.open("a");
    number(&connection, "SELECT length(v) FROM t WHERE k = 1");
    let (count, _) = trips(&other, || number(&connection, "SELECT length(v) FROM t WHERE k = 150"));
    assert_eq!(count, 1, "its one leaf");
    assert_eq!(trips(&other, || number(&connection, "SELECT length(v) FROM t WHERE k = 150")).0, 0);
}

/// Closing: one, after the last checkpoint.
pub fn close_takes_one_trip_after_the_checkpoint(harness: &dyn EngineHarness) {
    let bench = closed(harness);
    let connection = bench.open("a");
    run(&connection, "UPDATE t SET v = 'x' WHERE k = 3; PRAGMA litefleet_checkpoint");
    let (count, ()) = trips(&bench, || drop(connection));
    assert_eq!(count, 1);
    assert_eq!(bench.fleet.info(&DatabaseName::new("a").unwrap()).unwrap().head.holder, None);
}

/// Reading by a follower: one, and none within the staleness that it allows.
pub fn follower_read_takes_one_trip_or_none(harness: &dyn EngineHarness) {
    let bench = closed(harness);
    let writer = bench.open("a");
    number(&writer, READ);
    let other = bench.another();
    let follower = other.open_with("a", "mode=ro");
    number(&follower, READ);
    for round in 0..4 {
        run(&writer, &format!("UPDATE t SET v = zeroblob({round}) WHERE k = 3"));
        let (count, sum) = trips(&other, || number(&follower, READ));
        assert_eq!((count, sum), (1, 9000 + round), "the head, and what is new along with it");
    }
    drop(follower);
    let third = bench.another();
    let stale = third.open_with("a", "mode=ro&staleness=86400000");
    number(&stale, READ);
    run(&writer, "UPDATE t SET v = zeroblob(500) WHERE k = 3");
    assert_eq!(trips(&third, || number(&stale, READ)), (0, 9003), "as old as allowed");
}

/// Commits of many databases at the same moment share calls: never more than one each.
pub fn commits_at_once_share_calls(harness: &dyn EngineHarness) {
    let bench = Bench::plain(harness);
    let count = 16;
    let names: Vec<String> = (0..count).map(|i| format!("d{i}")).collect();
    let connections: Vec<_> = names.iter().map(|name| bench.open(name)).collect();
    for connection in &connections {
        run(connection, "CREATE TABLE t(x)");
    }
    let before = bench.fleet.counters().get(Operation::Commit).calls;
    let start = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        for connection in connections {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for round in 0..5 {
                    run(&connection, &format!("INSERT INTO t VALUES({round})"));
                }
            });
        }
    });
    let calls = bench.fleet.counters().get(Operation::Commit).calls - before;
    assert!(calls <= 5 * count as u64, "{calls} calls for {} commits", 5 * count);
    for name in &names {
        assert_eq!(number(&bench.open_with(name, "mode=ro"), "SELECT count(*) FROM t"), 5);
    }
}
