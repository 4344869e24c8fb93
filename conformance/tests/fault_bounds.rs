//! Memory is bounded by the settings, whatever the store refuses.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;
use std::time::Duration;

use litefleet::clock::ManualClock;
use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation, PageStore};
use litefleet::{DatabaseName, FleetSettings, Role};
use litefleet_conformance::faults::{Process, code, pause};
use rusqlite::{Connection, ErrorCode};

const BOUND: usize = 4096;
/// The bound of the tail, and one record more.
const LARGEST: usize = 16 * BOUND + 3000;

fn settings() -> FleetSettings {
    let mut settings = Process::small();
    settings.database.checkpoint_bytes = BOUND;
    settings.database.checkpoint_records = 1_000_000;
    settings
}

fn faulty() -> (Process, Arc<FaultPlan>, Arc<dyn PageStore>) {
    let (plan, store) = (Arc::new(FaultPlan::default()), Arc::new(MemoryStore::default()));
    let layer = FaultLayer::new(Arc::<MemoryStore>::clone(&store), Arc::clone(&plan));
    (Process::new(Arc::new(layer), settings()), plan, store)
}

fn line(connection: &Connection, schema: &str, key: &str) -> usize {
    let sql = format!("PRAGMA {schema}.litefleet_status");
    let status: String = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
    line.unwrap().parse().unwrap()
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// The log tail grew without an end.
#[test]
fn commits_are_refused_while_no_checkpoint_can_be_made() {
    for (effect, expected) in [(Effect::Full, ErrorCode::DiskFull), (Effect::Refuse, ErrorCode::SystemIoFailure)] {
        for mode in ["NORMAL", "EXCLUSIVE"] {
            let (process, plan, store) = faulty();
            let connection = process.open("a", "");
            connection.execute_batch(&format!("CREATE TABLE t (v); PRAGMA locking_mode = {mode}")).unwrap();
            plan.arm(Fault { operation: Some(Operation::Checkpoint), after: 0, times: u64::MAX, effect });
            let insert = "INSERT INTO t VALUES (randomblob(1000))";
            let mut there = 0;
            let error = loop {
                match connection.execute_batch(insert) {
                    Ok(()) => there += 1,
                    Err(error) => break error,
                }
                assert!(line(&connection, "main", "tail_bytes") <= LARGEST, "after {there} commits");
            };
            assert_eq!(code(&error), Some(expected), "{error}");
            let words: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
            assert!(words.contains("database a: commit: the log tail is over 65536 bytes"), "{words}");
            assert!(words.contains("checkpoint_bytes") && words.contains("injected"), "{words}");
            connection.execute_batch(insert).unwrap_err();
            assert_eq!(count(&connection, "t"), there, "reading goes on");
            plan.disarm();
            connection.execute_batch(insert).unwrap();
            assert_eq!(count(&connection, "t"), there + 1);
            assert!(line(&connection, "main", "tail_bytes") <= BOUND);
            drop(connection);
            let other = Process::new(store, settings());
            assert_eq!(count(&other.follow("a"), "t"), there + 1);
            assert_eq!(other.problems("a"), Vec::<String>::new());
        }
    }
}

#[test]
fn a_commit_of_several_is_refused_while_one_has_no_room() {
    let (process, plan, _) = faulty();
    let connection = process.open("a", "");
    connection.execute(&format!("ATTACH '{}' AS b", process.uri("b", "")), []).unwrap();
    connection.execute_batch("CREATE TABLE main.t (v); CREATE TABLE b.t (v)").unwrap();
    plan.arm(Fault { operation: Some(Operation::Checkpoint), after: 0, times: u64::MAX, effect: Effect::Full });
    let mut there = 0;
    while connection.execute_batch("INSERT INTO b.t VALUES (randomblob(1000))").is_ok() {
        there += 1;
    }
    let both = "BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO b.t VALUES (1); COMMIT";
    assert_eq!(code(&connection.execute_batch(both).unwrap_err()), Some(ErrorCode::DiskFull));
    assert!(connection.is_autocommit());
    assert_eq!((count(&connection, "main.t"), count(&connection, "b.t")), (0, there));
    assert!(line(&connection, "b", "tail_bytes") <= LARGEST);
    plan.disarm();
    connection.execute_batch(both).unwrap();
    assert_eq!((count(&connection, "main.t"), count(&connection, "b.t")), (1, there + 1));
}

/// What SQLite writes back to undo a commit must not be refused, or the commit stays.
#[test]
fn a_commit_that_undoes_another_needs_no_room() {
    let (process, plan, _) = faulty();
    let connection = process.open("a", "");
    connection.execute(&format!("ATTACH '{}' AS b", process.uri("b", "")), []).unwrap();
    connection.execute_batch("CREATE TABLE main.t (v); CREATE TABLE b.t (v); PRAGMA synchronous = OFF").unwrap();
    connection.execute_batch("PRAGMA main.synchronous = OFF; PRAGMA b.synchronous = OFF").unwrap();
    plan.arm(Fault { operation: Some(Operation::Checkpoint), after: 0, times: u64::MAX, effect: Effect::Full });
    let near = 16 * BOUND - 1000;
    while line(&connection, "main", "tail_bytes") < near {
        connection.execute_batch("INSERT INTO main.t VALUES (randomblob(500))").unwrap();
    }
    let there = count(&connection, "main.t");
    // Without a super-journal each commits alone; the second one fails, and SQLite rolls back the first.
    plan.arm(Fault { operation: Some(Operation::Commit), after: 1, times: 1, effect: Effect::Full });
    let sql = "BEGIN; INSERT INTO main.t VALUES (randomblob(2500)); INSERT INTO b.t VALUES (1); COMMIT";
    connection.execute_batch(sql).unwrap_err();
    assert!(line(&connection, "main", "tail_bytes") > 16 * BOUND, "the first one was committed");
    assert_eq!((count(&connection, "main.t"), count(&connection, "b.t")), (there, 0));
}

/// A read transaction may be as old as `snapshot_age`, and older while it is at the head.
#[test]
fn a_snapshot_that_is_too_old_is_given_up() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let mut settings = Process::small();
    settings.session_lifetime = Duration::from_secs(1_000_000);
    settings.database.snapshot_age = Duration::from_secs(100);
    settings.cache_bytes = 0;
    let process = Process::with_clock(store, settings, Arc::<ManualClock>::clone(&clock));
    let writer = process.open("a", "");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)";
    let fill = format!("CREATE TABLE t (v); INSERT INTO t {rows} SELECT randomblob(1000) FROM n");
    writer.execute_batch(&fill).unwrap();
    let reader = process.open("a", "");
    reader.execute_batch("PRAGMA cache_size = 2; BEGIN; SELECT count(*) FROM t").unwrap();
    clock.advance(Duration::from_secs(1000));
    // Snapshots are looked at once a second: three looks.
    pause(Duration::from_millis(3100));
    assert_eq!(count(&reader, "t"), 300, "old, but at the head");
    writer.execute_batch("UPDATE t SET v = zeroblob(1000)").unwrap();
    // The writer began on the same state: its age counts from the last who did.
    clock.advance(Duration::from_secs(101));
    let checkpoint = || writer.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
    let error = loop {
        checkpoint();
        match reader.query_row("SELECT sum(length(v)) FROM t WHERE v <> zeroblob(1000)", [], |row| row.get::<_, i64>(0))
        {
            Ok(sum) => assert_eq!(sum, 300_000, "what it began with"),
            Err(error) => break error,
        }
        pause(Duration::from_millis(50));
    };
    assert_eq!(error.sqlite_error().unwrap().extended_code, 517, "SQLITE_BUSY_SNAPSHOT: {error}");
    reader.execute_batch("ROLLBACK").unwrap();
    assert_eq!(count(&reader, "t"), 300);
}

/// A follower is as far behind as it allows, and no further.
#[test]
fn a_view_that_is_too_stale_is_refreshed() {
    let clock = Arc::new(ManualClock::default());
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let process = Process::with_clock(Arc::clone(&store), Process::small(), Arc::<ManualClock>::clone(&clock));
    let mut settings = Process::small();
    settings.database.staleness = Duration::from_secs(10);
    let other = Process::with_clock(store, settings, Arc::<ManualClock>::clone(&clock));
    let writer = process.open("a", "");
    writer.execute_batch("CREATE TABLE t (v)").unwrap();
    let follower = other.follow("a");
    for round in 0..3 {
        assert_eq!(count(&follower, "t"), round);
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        clock.advance(Duration::from_millis(9_999));
        let before = other.fleet().counters().round_trips();
        assert_eq!(count(&follower, "t"), round, "as old as it may be");
        assert_eq!(other.fleet().counters().round_trips(), before);
        clock.advance(Duration::from_millis(1));
    }
    assert_eq!(count(&follower, "t"), 3);
}

/// A follower that was long away loaded the whole log since, whatever its size.
#[test]
fn a_follower_that_was_away_loads_no_more_than_the_tail() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let mut settings = settings();
    settings.database.retention = Duration::from_secs(3600);
    let process = Process::new(Arc::clone(&store), settings.clone());
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (0)").unwrap();
    for pinned in [false, true] {
        let other = Process::new(Arc::clone(&store), settings.clone());
        let fleet = other.fleet();
        let database = fleet.connect(&DatabaseName::new("a").unwrap(), Role::Follower, false);
        let snapshot = database.begin_read().unwrap();
        if !pinned {
            database.unpin(snapshot);
        }
        // More than comes along with a head.
        for _ in 0..120 {
            connection.execute_batch("UPDATE t SET v = randomblob(50000)").unwrap();
        }
        connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
        let newer = database.begin_read().unwrap();
        assert_eq!(newer.txid, database.status().txid);
        assert!(database.status().tail_bytes <= LARGEST, "{} (pinned: {pinned})", database.status().tail_bytes);
        assert_eq!(count(&other.follow("a"), "t"), 1);
        database.unpin(newer);
        fleet.disconnect(&database);
    }
}

/// The time at which to collect was past what can be counted: the checkpoint panicked, after it was made.
#[test]
fn retention_may_be_for_ever() {
    let mut settings = settings();
    settings.database.retention = Duration::MAX;
    let process = Process::new(Arc::new(MemoryStore::default()), settings);
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    for _ in 0..2 {
        let said: String = connection.query_row("PRAGMA litefleet_checkpoint", [], |row| row.get(0)).unwrap();
        assert!(said.starts_with("checkpoint at txid "), "{said}");
    }
    assert_eq!(count(&connection, "t"), 1);
}
