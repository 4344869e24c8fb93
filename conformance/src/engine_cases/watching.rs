//! Waiting for commits.

use std::time::Duration;

use litefleet::store::Operation;
use litefleet::{DatabaseName, ErrorKind, Txid};

use super::bench::{Bench, EngineHarness, run};

const LONG: Duration = Duration::from_secs(60);

fn name(name: &str) -> DatabaseName {
    DatabaseName::new(name).unwrap()
}

/// A watch tells of every commit of another process, in order and once, and asks for nothing between them.
pub fn watch_tells_of_every_commit(harness: &dyn EngineHarness) {
    let bench = Bench::plain(harness);
    assert_eq!(bench.fleet.watch(&name("a"), None).unwrap_err().kind(), ErrorKind::NotFound);
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(x)");
    let other = bench.another();
    let mut watch = other.fleet.watch(&name("a"), None).unwrap();
    assert_eq!(watch.known(), Txid(1));
    assert_eq!(watch.next(Duration::from_millis(20)).unwrap(), [], "nobody commits");
    let before = other.fleet.counters().get(Operation::Watch).calls;
    std::thread::scope(|scope| {
        let watching = scope.spawn(move || {
            let mut seen = Vec::new();
            while seen.len() < 20 {
                seen.extend(watch.next(LONG).unwrap());
            }
            seen
        });
        for round in 0..20 {
            run(&connection, &format!("INSERT INTO t VALUES({round})"));
        }
        let seen = watching.join().unwrap();
        let txids: Vec<u64> = seen.iter().map(|commit| commit.txid.get()).collect();
        assert_eq!(txids, (2..=21).collect::<Vec<u64>>());
        let head = bench.fleet.info(&name("a")).unwrap().head;
        let last = seen.last().unwrap();
        assert_eq!((last.commit_id, last.size), (head.commit_id, head.size));
        assert!(seen.iter().all(|commit| commit.time.get() > 0 && commit.record_bytes > 40));
    });
    let calls = other.fleet.counters().get(Operation::Watch).calls - before;
    assert!(calls <= 20, "{calls} calls for 20 commits");
    // From any commit on that the log still has.
    let mut again = bench.fleet.watch(&name("a"), Some(Txid(0))).unwrap();
    let mut count = 0;
    while again.known() < Txid(21) {
        count += again.next(LONG).unwrap().len();
    }
    assert_eq!(count, 21);
}

/// Commits whose records were collected are left out, and a database that is removed is no more.
pub fn watch_goes_on_after_a_collection_and_ends_with_the_database(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| settings.database.retention = Duration::ZERO);
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(x)");
    for round in 0..10 {
        run(&connection, &format!("INSERT INTO t VALUES({round})"));
    }
    run(&connection, "PRAGMA litefleet_checkpoint; INSERT INTO t VALUES(10)");
    let mut watch = bench.another().fleet.watch(&name("a"), Some(Txid(0))).unwrap();
    let seen = watch.next(LONG).unwrap();
    assert!(seen.len() < 12 && seen.last().unwrap().txid == Txid(12), "{seen:?}");
    drop(connection);
    std::thread::scope(|scope| {
        let ended = scope.spawn(move || watch.next(LONG).unwrap_err().kind());
        bench.fleet.remove(&name("a"), false).unwrap();
        assert_eq!(ended.join().unwrap(), ErrorKind::NotFound);
    });
}
