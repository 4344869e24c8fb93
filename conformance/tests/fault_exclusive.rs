//! `locking_mode=EXCLUSIVE` of connections that only read: SQLite does not look at the change counter again, so nobody may
//! commit in the meantime, in this process or in another.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;
use std::time::Duration;

use litefleet::DatabaseName;
use litefleet::clock::ManualClock;
use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, Operation, PageStore};
use litefleet_conformance::faults::{Process, Watch, code, pause};
use rusqlite::{Connection, ErrorCode};

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn insert(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t VALUES (1)", [])
}

fn is_busy(outcome: rusqlite::Result<usize>) -> bool {
    outcome.is_err_and(|error| code(&error) == Some(ErrorCode::DatabaseBusy))
}

fn words(connection: &Connection, pragma: &str) -> String {
    connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap()
}

/// A session lives 15 s, and is relied on for 12.
const PAST_RELYING: Duration = Duration::from_secs(13);
const PAST_LIVING: Duration = Duration::from_secs(60);

/// A store on a clock that the test moves, one process over it that can be kept from it, and another one.
struct Pair {
    clock: Arc<ManualClock>,
    faults: Arc<FaultPlan>,
    one: Process,
    two: Process,
}

/// Rows of the table that a [`Pair`]'s reader has: more than SQLite keeps itself.
const ROWS: i64 = 400;

impl Pair {
    fn new(cache_bytes: usize) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store: Arc<dyn PageStore> = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
        let faults = Arc::new(FaultPlan::default());
        let faulty = Arc::new(FaultLayer::new(Arc::clone(&store), Arc::clone(&faults)));
        let mut settings = Process::small();
        settings.cache_bytes = cache_bytes;
        let process = |store| Process::with_clock(store, settings.clone(), Arc::<ManualClock>::clone(&clock));
        let (one, two) = (process(faulty), process(store));
        Self { clock, faults, one, two }
    }

    /// A connection of the first process that has locked exclusively, and read one row.
    fn reader(&self) -> Connection {
        let reader = self.one.open("a", "");
        let fill = format!(
            "CREATE TABLE t (v); INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
                SELECT randomblob(1000) FROM n;
             PRAGMA cache_size=10; PRAGMA locking_mode=EXCLUSIVE",
        );
        reader.execute_batch(&fill).unwrap();
        reader.query_row("SELECT v FROM t WHERE rowid = 1", [], |_| Ok(())).unwrap();
        reader
    }
}

/// What comes of a scan of all that the reader has not in SQLite's own cache.
fn scan(reader: &Connection) -> rusqlite::Result<i64> {
    reader.query_row("SELECT count(v) FROM t NOT INDEXED WHERE length(v) > 0", [], |row| row.get(0))
}

/// SQLite takes no lock any more, so it was never found out, and the old state was read for ever: also when the pages came from the
/// store, and when the database had stopped.
#[test]
fn an_exclusive_reader_learns_that_its_lease_is_lost() {
    type Way = (&'static str, fn(&Pair));
    let ways: [Way; 3] = [
        ("by force", |pair| {
            insert(&pair.two.open("a", "&takeover=1")).unwrap();
            pair.clock.advance(PAST_RELYING);
        }),
        ("it slept", |pair| {
            pair.clock.advance(PAST_LIVING);
            insert(&pair.two.open("a", "")).unwrap();
        }),
        ("its fleet was shut down", |pair| {
            pair.one.fleet().shutdown().unwrap();
            insert(&pair.two.open("a", "")).unwrap();
        }),
    ];
    for cache_bytes in [0, 64 << 20] {
        for (way, lose) in ways {
            let pair = Pair::new(cache_bytes);
            let reader = pair.reader();
            assert_eq!(scan(&reader).unwrap(), ROWS);
            lose(&pair);
            for _ in 0..2 {
                let seen = scan(&reader);
                assert!(seen.is_err(), "{way}, cache of {cache_bytes}: {seen:?}");
                let error = words(&reader, "litefleet_error");
                assert!(error.contains("another"), "{way}, cache of {cache_bytes}: {error}");
            }
            drop(reader);
            assert_eq!(scan(&pair.one.open("a", "")).unwrap(), ROWS + 1, "{way}");
        }
    }
}

/// While the session lives nothing is asked for what the cache has, and a lease that nobody has taken meanwhile is taken anew.
#[test]
fn an_exclusive_reader_goes_on_where_its_lease_is_its_own() {
    let pair = Pair::new(64 << 20);
    let reader = pair.reader();
    assert_eq!(scan(&reader).unwrap(), ROWS);
    let away = Fault { operation: None, after: 0, times: u64::MAX, effect: Effect::Refuse };
    pair.faults.arm(away);
    let before = pair.one.fleet().counters().round_trips();
    assert_eq!(scan(&reader).unwrap(), ROWS, "the store is away");
    assert_eq!(pair.one.fleet().counters().round_trips(), before);
    pair.clock.advance(PAST_LIVING);
    scan(&reader).unwrap_err();
    pair.faults.disarm();
    assert_eq!(scan(&reader).unwrap(), ROWS, "nobody else was here");
    assert!(is_busy(insert(&pair.two.open("a", ""))), "the lease is held");
    pair.one.fleet().shutdown().unwrap();
    assert_eq!(scan(&reader).unwrap(), ROWS);
    insert(&reader).unwrap();
    assert_eq!(scan(&reader).unwrap(), ROWS + 1);
}

/// Between the grant of its lease and its being counted another thread could give the lease back: the connection read the state of
/// that moment for ever, and nobody was kept out.
#[test]
fn a_lease_is_not_given_back_while_a_connection_begins_to_lock_exclusively() {
    for read_before in [false, true] {
        let clock = Arc::new(ManualClock::default());
        let store: Arc<dyn PageStore> = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
        let watch = Arc::new(Watch::default());
        let watched = Arc::new(Layer::new(Arc::clone(&store), Arc::clone(&watch)));
        let process = |store| Process::with_clock(store, Process::small(), Arc::<ManualClock>::clone(&clock));
        let (dead, two) = (process(Arc::clone(&store)), process(Arc::clone(&store)));
        let one = Arc::new(process(watched));
        // What a process has staged that died in a large transaction: the next holder of the lease discards it.
        let died = dead.open("a", "");
        died.execute_batch(
            "CREATE TABLE t (v); INSERT INTO t VALUES (1); PRAGMA cache_size = 8; BEGIN;
             INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                SELECT randomblob(1000) FROM n",
        )
        .unwrap();
        clock.advance(PAST_LIVING);
        let reader = one.open("a", "&lease=transaction");
        if read_before {
            reader.execute_batch("BEGIN").unwrap();
            assert_eq!(count(&reader), 1);
        }
        let database = one.fleet().connect(&DatabaseName::new("a").unwrap(), litefleet::Role::Writer, false);
        let (fleet, given) = (one.fleet().clone(), Arc::downgrade(&database));
        let discarded = Arc::clone(&watch);
        watch.observe(move || {
            if let Some(database) = given.upgrade()
                && discarded.counts().get(&Operation::DiscardStaged) == Some(&1)
            {
                let fleet = fleet.clone();
                let release = std::thread::spawn(move || fleet.release(&database));
                let _either = release.join().unwrap();
            }
            Ok(())
        });
        reader.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
        assert_eq!(count(&reader), 1);
        watch.rest();
        assert_eq!(watch.counts().get(&Operation::DiscardStaged), Some(&1));
        let other = two.open("a", "");
        assert!(is_busy(insert(&other)), "read before: {read_before}");
        if read_before {
            reader.execute_batch("COMMIT").unwrap();
        }
        insert(&reader).unwrap();
        assert_eq!(count(&reader), 2);
        one.fleet().disconnect(&database);
    }
}

/// The lease went to another process, whose commits the reader never saw, and its own writing failed for ever.
#[test]
fn a_lease_that_an_exclusive_reader_needs_is_not_idle() {
    let clock = Arc::new(ManualClock::default());
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let mut settings = Process::small();
    settings.session_lifetime = Duration::from_secs(3600);
    settings.database.lease_idle = Duration::from_secs(60);
    let [one, two] =
        [(); 2].map(|()| Process::with_clock(Arc::clone(&store), settings.clone(), Arc::<ManualClock>::clone(&clock)));
    let reader = one.open("a", "");
    reader.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    drop(reader);
    let reader = one.open("a", "");
    reader.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
    assert_eq!(count(&reader), 1);
    let other = two.open("a", "");
    assert!(is_busy(insert(&other)));
    // Idle databases are looked at every second.
    clock.advance(Duration::from_secs(120));
    pause(Duration::from_millis(2500));
    assert!(is_busy(insert(&other)), "the lease stays");
    let asked = reader.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap_err();
    assert!(asked.to_string().contains("exclusively"), "{asked}");
    let database = one.fleet().connect(&DatabaseName::new("a").unwrap(), litefleet::Role::Writer, false);
    assert!(!one.fleet().release(&database).unwrap());
    one.fleet().disconnect(&database);
    assert!(is_busy(insert(&other)), "the lease still stays");
    insert(&reader).unwrap();
    assert_eq!(count(&reader), 2);
    reader.execute_batch("PRAGMA locking_mode=NORMAL").unwrap();
    assert_eq!(count(&reader), 2);
    reader.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap();
    insert(&other).unwrap();
    assert_eq!(count(&other), 3);
}

/// With `lease=transaction` a reader holds no lease: one that locks exclusively takes it, at its first read or, when it has
/// read already, with the pragma, and gives it back with its lock.
#[test]
fn an_exclusive_reader_of_a_shared_database_keeps_the_lease_until_it_unlocks() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let mut settings = Process::small();
    settings.database.checkpoint_records = 1000;
    let [one, two] = [(); 2].map(|()| Process::new(Arc::clone(&store), settings.clone()));
    let parameters = "&lease=transaction";
    let (reader, other) = (one.open("a", parameters), two.open("a", parameters));
    reader.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    for read_before in [false, true] {
        let before = count(&reader);
        if read_before {
            reader.execute_batch("BEGIN").unwrap();
            assert_eq!(count(&reader), before);
        }
        reader.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
        assert_eq!(count(&reader), before);
        assert!(is_busy(insert(&other)));
        if read_before {
            reader.execute_batch("COMMIT").unwrap();
        }
        assert!(is_busy(insert(&other)), "between transactions, too");
        reader.execute_batch("PRAGMA locking_mode=NORMAL").unwrap();
        assert!(is_busy(insert(&other)), "until its lock is given back, with the end of the next read");
        assert_eq!(count(&reader), before);
        insert(&other).unwrap();
        assert_eq!(count(&reader), before + 1);
    }
    // What it has read is old already: the pragma says so, and nothing is locked.
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count(&reader), 3);
    insert(&other).unwrap();
    let refused = reader.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap_err();
    assert!(refused.to_string().contains("begin again"), "{refused}");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&reader), 4);
    insert(&other).unwrap();
    assert_eq!(count(&reader), 5);
}

/// A follower excludes nobody. Under EXCLUSIVE it stayed at its first state for ever.
#[test]
fn a_follower_does_not_lock_exclusively() {
    let process = Process::new(Arc::new(MemoryStore::default()), Process::small());
    let writer = process.open("a", "");
    writer.execute_batch("CREATE TABLE t (v)").unwrap();
    let follower = process.follow("a");
    let mode: String = follower.query_row("PRAGMA locking_mode=EXCLUSIVE", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "normal");
    for rows in 1..4 {
        insert(&writer).unwrap();
        assert_eq!(count(&follower), rows);
    }
    // A snapshot of before the writer's transaction does not stand in its way either.
    let other = process.open("a", "");
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    other.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
    assert!(other.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_err(), "it waits for the writer to end");
    insert(&writer).unwrap();
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&other), 4);
    assert!(is_busy(insert(&writer)));
}
