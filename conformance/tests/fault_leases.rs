//! Leases that expire, are taken by force, are given back, and are waited for.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;
use std::time::Duration;

use litefleet::clock::ManualClock;
use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, Operation, PageStore};
use litefleet::{DatabaseName, FleetSettings};
use litefleet_conformance::faults::{Process, Watch, block_on, code, pause};
use rusqlite::{Connection, ErrorCode};

/// Longer than any session lives.
const LONG: Duration = Duration::from_secs(60);

/// A store on a clock that the test moves, and processes on the same.
struct Place {
    clock: Arc<ManualClock>,
    store: Arc<dyn PageStore>,
}

impl Place {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
        Self { clock, store }
    }

    fn process(&self) -> Process {
        self.process_on(Arc::clone(&self.store), Process::small())
    }

    fn process_on(&self, store: Arc<dyn PageStore>, settings: FleetSettings) -> Process {
        Process::with_clock(store, settings, Arc::<ManualClock>::clone(&self.clock))
    }

    /// A process over a store that can be made to fail.
    fn faulty(&self) -> (Process, Arc<FaultPlan>) {
        let plan = Arc::new(FaultPlan::default());
        let store = Arc::new(FaultLayer::new(Arc::clone(&self.store), Arc::clone(&plan)));
        (self.process_on(store, Process::small()), plan)
    }
}

fn values(connection: &Connection) -> Vec<i64> {
    read(connection).unwrap()
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY rowid")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn insert(connection: &Connection, value: i64) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t (v) VALUES (?1)", [value])
}

fn words(connection: &Connection, pragma: &str) -> String {
    connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap()
}

fn is_busy(error: &rusqlite::Error) -> bool {
    code(error) == Some(ErrorCode::DatabaseBusy)
}

/// Rows of some size in one transaction that is still open: most of them are staged.
fn begin_large(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA cache_size = 8; BEGIN; INSERT INTO t (v, b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1
            FROM n WHERE i < 200) SELECT 1000 + i, randomblob(1000) FROM n",
    )
}

fn create(process: &Process) -> Connection {
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v, b); INSERT INTO t (v) VALUES (1)").unwrap();
    connection
}

#[test]
fn who_slept_while_another_wrote_is_fenced_on_every_connection_until_it_opens_again() {
    let place = Place::new();
    let (sleeper, other) = (place.process(), place.process());
    let first = create(&sleeper);
    let second = sleeper.open("a", "");
    assert_eq!(values(&second), [1]);
    place.clock.advance(LONG);
    insert(&other.open("a", ""), 2).unwrap();
    for _ in 0..2 {
        for connection in [&first, &second] {
            assert!(read(connection).is_err() && insert(connection, 3).is_err());
            let error = words(connection, "litefleet_error");
            assert!(error.contains("database a") && error.contains("the lease was lost"), "{error}");
            assert!(error.contains("close it and open it again"), "{error}");
        }
    }
    drop((first, second));
    let again = sleeper.open("a", "");
    insert(&again, 3).unwrap();
    assert_eq!(values(&again), [1, 2, 3]);
}

#[test]
fn who_slept_while_nobody_wrote_goes_on() {
    for other_looked in [false, true] {
        let place = Place::new();
        let (sleeper, other) = (place.process(), place.process());
        let connection = create(&sleeper);
        place.clock.advance(LONG);
        if other_looked {
            assert_eq!(values(&other.open("a", "")), [1]);
        }
        assert_eq!(values(&connection), [1]);
        place.clock.advance(LONG);
        insert(&connection, 2).unwrap();
        assert_eq!(values(&other.follow("a")), [1, 2]);
    }
}

#[test]
fn a_transaction_whose_lease_is_lost_leaves_nothing() {
    for large in [false, true] {
        let place = Place::new();
        let (sleeper, other) = (place.process(), place.process());
        let connection = create(&sleeper);
        if large {
            begin_large(&connection).unwrap();
        } else {
            connection.execute_batch("BEGIN; INSERT INTO t (v) VALUES (1000)").unwrap();
        }
        place.clock.advance(LONG);
        insert(&other.open("a", ""), 2).unwrap();
        connection.execute_batch("COMMIT").unwrap_err();
        assert!(connection.is_autocommit(), "SQLite has rolled back");
        assert!(words(&connection, "litefleet_status").contains("stopped: "));
        drop(connection);
        assert_eq!(values(&other.follow("a")), [1, 2]);
        assert_eq!(other.problems("a"), Vec::<String>::new());
        assert_eq!(values(&sleeper.open("a", "")), [1, 2]);
    }
}

/// It did not stop before its next commit, and went on with reads of what it knew.
#[test]
fn a_large_transaction_that_is_fenced_stops_the_database_at_once() {
    let place = Place::new();
    let (process, other) = (place.process(), place.process());
    let connection = create(&process);
    insert(&other.open("a", "&takeover=1"), 2).unwrap();
    begin_large(&connection).unwrap_err();
    assert!(words(&connection, "litefleet_status").contains("stopped: "));
    read(&connection).unwrap_err();
    drop(connection);
    assert_eq!(values(&process.open("a", "")), [1, 2]);
}

#[test]
fn a_lease_is_taken_by_force_only_when_asked() {
    let place = Place::new();
    let (holder, other) = (place.process(), place.process());
    let connection = create(&holder);
    let error = read(&other.open("a", "")).unwrap_err();
    assert!(is_busy(&error), "{error}");
    let taker = other.open("a", "&takeover=1");
    insert(&taker, 2).unwrap();
    insert(&connection, 3).unwrap_err();
    assert!(words(&connection, "litefleet_error").contains("fenced"));
    // Who was taken from does not take back what is held.
    drop(connection);
    assert!(is_busy(&read(&holder.open("a", "")).unwrap_err()));
    drop(taker);
    assert_eq!(values(&holder.open("a", "")), [1, 2]);
}

/// Waits until a process was told that its session is over.
fn wait_for_the_news(process: &Process) {
    while process.fleet().counters().get(Operation::RenewSession).errors == 0 {
        pause(Duration::from_millis(10));
    }
}

/// Renews its session ten times a second of real time, while the clock of the test stands still.
fn often() -> FleetSettings {
    FleetSettings { session_lifetime: Duration::from_millis(300), session_margin: Duration::ZERO, ..Process::small() }
}

/// Never renews its session by itself.
fn never() -> FleetSettings {
    FleetSettings { session_lifetime: Duration::from_secs(100_000), ..Process::small() }
}

/// Force ended nothing but the right to write: the deposed process read its old state until it next wrote.
#[test]
fn who_was_deposed_by_force_stops_at_its_next_renewal() {
    let place = Place::new();
    let (holder, other) = (place.process_on(Arc::clone(&place.store), often()), place.process());
    let connection = create(&holder);
    let elsewhere = holder.open("b", "");
    elsewhere.execute_batch("CREATE TABLE t (v, b); INSERT INTO t (v) VALUES (7)").unwrap();
    let taker = other.open("a", "&takeover=1");
    insert(&taker, 2).unwrap();
    wait_for_the_news(&holder);
    read(&connection).unwrap_err();
    let error = words(&connection, "litefleet_error");
    assert!(error.contains("committed up to txid 3") && error.ends_with("(fenced)"), "{error}");
    assert!(words(&connection, "litefleet_status").contains("stopped: "));
    // Nobody else has the other one, whose lease ended with the session.
    assert_eq!(values(&elsewhere), [7]);
    insert(&elsewhere, 8).unwrap();
    assert_eq!(values(&other.follow("b")), [7, 8]);
    drop((connection, taker));
    assert_eq!(values(&holder.open("a", "")), [1, 2]);
}

/// Also when it cannot renew its session.
#[test]
fn who_was_deposed_by_force_stops_when_it_cannot_rely_on_its_session_any_more() {
    let place = Place::new();
    let [holder, other] = [(); 2].map(|()| place.process_on(Arc::clone(&place.store), never()));
    let connection = create(&holder);
    let taker = other.open("a", "&takeover=1");
    insert(&taker, 2).unwrap();
    assert_eq!(values(&connection), [1], "it has not been told yet");
    // Less the margin.
    place.clock.advance(never().session_lifetime.saturating_sub(never().session_margin));
    read(&connection).unwrap_err();
    let error = words(&connection, "litefleet_error");
    assert!(error.contains("committed up to txid 3") && error.ends_with("(fenced)"), "{error}");
}

#[test]
fn who_was_deposed_by_one_that_wrote_nothing_goes_on() {
    for told in [false, true] {
        let place = Place::new();
        let settings = if told { often() } else { never() };
        let (holder, other) = (place.process_on(Arc::clone(&place.store), settings), place.process());
        let connection = create(&holder);
        let taker = other.open("a", "&takeover=1");
        assert_eq!(values(&taker), [1]);
        if told {
            wait_for_the_news(&holder);
        }
        assert_eq!(read(&connection).is_err(), told);
        assert!(is_busy(&insert(&connection, 2).unwrap_err()), "the taker has the lease");
        assert!(!words(&connection, "litefleet_status").contains("stopped: "));
        drop(taker);
        insert(&connection, 3).unwrap();
        assert_eq!(values(&connection), [1, 3]);
        // Taken and given back between two commits, it is not even noticed.
        drop(other.open("a", "&takeover=1").execute_batch("SELECT count(*) FROM t"));
        begin_large(&connection).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        assert_eq!(values(&other.follow("a")).len(), 202);
        assert_eq!(other.problems("a"), Vec::<String>::new());
    }
}

/// A grant that reached the store late raised the epoch under the one that was granted instead of it: the next write was
/// taken for a deposed one, and the database stopped.
#[test]
fn a_late_open_of_our_own_is_no_other_holder() {
    let write: fn(&Connection) = |connection| {
        insert(connection, 2).unwrap();
    };
    let stage: fn(&Connection) = |connection| {
        begin_large(connection).unwrap();
        connection.execute_batch("ROLLBACK; BEGIN; INSERT INTO t (v) VALUES (2); COMMIT").unwrap();
    };
    let checkpoint: fn(&Connection) = |connection| {
        assert!(words(connection, "litefleet_checkpoint").starts_with("checkpoint at"));
        insert(connection, 2).unwrap();
    };
    for next in [write, stage, checkpoint] {
        let place = Place::new();
        let (process, plan) = place.faulty();
        plan.arm(Fault { operation: Some(Operation::Open), after: 0, times: 1, effect: Effect::Late });
        let connection = create(&process);
        assert_eq!(block_on(async move { plan.deliver().await }), 1);
        next(&connection);
        assert_eq!(values(&connection), [1, 2]);
        // What is held is given back, under whatever epoch.
        drop(connection);
        assert_eq!(values(&place.process().open("a", "")), [1, 2]);
    }
}

/// Nobody knew of the lease that a late grant had left, and nobody else could have it.
#[test]
fn a_lease_that_a_late_open_has_taken_again_is_given_back() {
    let place = Place::new();
    let (process, plan) = place.faulty();
    plan.arm(Fault { operation: Some(Operation::Open), after: 0, times: 1, effect: Effect::Late });
    let connection = create(&process);
    assert_eq!(values(&connection), [1]);
    connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
    assert_eq!(block_on(async move { plan.deliver().await }), 1);
    drop(connection);
    insert(&place.process().open("a", ""), 2).unwrap();
}

/// The reply to a commit is lost, and the epoch is over by a late open of our own: nobody else decides the outcome.
#[test]
fn an_unknown_outcome_under_an_epoch_that_a_late_open_ended_is_resolved() {
    for effect in [Effect::LoseReply, Effect::LoseRequest, Effect::Late] {
        for parameters in ["", "&lease=transaction"] {
            let place = Place::new();
            let (process, plan) = place.faulty();
            let connection = process.open("a", parameters);
            connection.execute_batch("CREATE TABLE t (v, b); INSERT INTO t (v) VALUES (1)").unwrap();
            connection.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap();
            plan.arm(Fault { operation: Some(Operation::Open), after: 0, times: 1, effect: Effect::Late });
            connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (v) VALUES (2)").unwrap();
            plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect });
            plan.arm(Fault { operation: Some(Operation::Head), after: 0, times: 1, effect: Effect::Refuse });
            let (late, done) = (Arc::clone(&plan), std::sync::mpsc::channel());
            std::thread::spawn(move || {
                // After the commit was sent, before its outcome is looked for: the look is refused at first.
                while late.hits() < 3 {
                    std::thread::yield_now();
                }
                block_on(async move { late.deliver().await });
                done.0.send(()).unwrap();
            });
            connection.execute_batch("COMMIT").unwrap();
            done.1.recv().unwrap();
            insert(&connection, 3).unwrap();
            drop(connection);
            assert_eq!(values(&place.process().open("a", "")), [1, 2, 3], "{effect:?} {parameters}");
        }
    }
}

/// Late writes of a deposed holder, of every kind.
#[test]
fn what_a_deposed_writer_sent_late_changes_nothing() {
    for operation in [Operation::Stage, Operation::DiscardStaged, Operation::Checkpoint, Operation::Collect] {
        let place = Place::new();
        let (process, plan) = place.faulty();
        let other = place.process();
        let connection = create(&process);
        plan.arm(Fault { operation: Some(operation), after: 0, times: 1000, effect: Effect::Late });
        // Time stands still, so that a call is tried again and again: a clock that runs ends that.
        let clock = Arc::clone(&place.clock);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let runs = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(1)).is_err() {
                clock.advance(Duration::from_millis(3));
            }
        });
        let large = begin_large(&connection).and_then(|()| connection.execute_batch("COMMIT"));
        let _failed = connection.execute_batch("ROLLBACK; PRAGMA litefleet_checkpoint");
        let _rolled_back = begin_large(&connection).and_then(|()| connection.execute_batch("ROLLBACK"));
        let _checkpoint = connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(()));
        stop.send(()).unwrap();
        runs.join().unwrap();
        assert_eq!(large.is_ok(), operation != Operation::Stage, "{}", operation.as_str());
        assert!(plan.hits() > 0, "{} was never called", operation.as_str());
        let taker = other.open("a", "&takeover=1");
        begin_large(&taker).unwrap();
        let late = block_on(async move { plan.deliver().await });
        assert!(late > 0);
        taker.execute_batch("COMMIT").unwrap();
        let rows = 1 + 200 * (1 + usize::from(large.is_ok()));
        assert_eq!(values(&other.follow("a")).len(), rows, "{}", operation.as_str());
        assert_eq!(other.problems("a"), Vec::<String>::new(), "{}", operation.as_str());
    }
}

#[test]
fn the_next_holder_discards_what_a_dead_one_had_staged() {
    let place = Place::new();
    let (dead, next) = (place.process(), place.process());
    let connection = create(&dead);
    begin_large(&connection).unwrap();
    let name = DatabaseName::new("a").unwrap();
    assert!(next.fleet().info(&name).unwrap().head.staged);
    place.clock.advance(LONG);
    let taker = next.open("a", "");
    assert_eq!(values(&taker), [1]);
    assert!(!next.fleet().info(&name).unwrap().head.staged);
    insert(&taker, 2).unwrap();
    assert_eq!(values(&taker), [1, 2]);
    connection.execute_batch("COMMIT").unwrap_err();
    assert_eq!(next.problems("a"), Vec::<String>::new());
}

#[test]
fn a_lease_that_nobody_uses_is_given_back() {
    let place = Place::new();
    let (holder, other) = (place.process(), place.process());
    let connection = holder.open("a", "&lease_idle=1000");
    connection.execute_batch("CREATE TABLE t (v, b); INSERT INTO t (v) VALUES (1)").unwrap();
    let second = other.open("a", "");
    assert!(is_busy(&insert(&second, 2).unwrap_err()));
    place.clock.advance(Duration::from_secs(2));
    // Idle databases are looked at once a second.
    second.busy_timeout(Duration::from_secs(10)).unwrap();
    insert(&second, 2).unwrap();
    drop(second);
    // It was not lost: what the other wrote is seen.
    insert(&connection, 3).unwrap();
    assert_eq!(values(&connection), [1, 2, 3]);
}

#[test]
fn who_waits_for_a_lease_gets_it_when_it_is_given_back() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (holder, other) = (Process::new(Arc::clone(&store), Process::small()), Process::new(store, Process::small()));
    for parameters in ["", "&busy=20000"] {
        let connection = holder.open("a", "");
        connection.execute_batch("CREATE TABLE IF NOT EXISTS t (v, b)").unwrap();
        let waiting = other.open("a", parameters);
        if parameters.is_empty() {
            assert!(is_busy(&read(&waiting).unwrap_err()));
            waiting.busy_timeout(Duration::from_secs(20)).unwrap();
        }
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || insert(&waiting, 1).map(|_| waiting));
            pause(Duration::from_millis(30));
            drop(connection);
            waits.join().unwrap().unwrap();
        });
    }
    assert_eq!(values(&other.follow("a")).len(), 2);
}

/// Within one process too.
#[test]
fn a_second_writer_of_the_same_process_waits_as_long_as_it_says() {
    let process = Process::new(Arc::new(MemoryStore::default()), Process::small());
    let first = create(&process);
    let second = process.open("a", "&busy=20000");
    first.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (v) VALUES (2)").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || {
            let waited = second.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (v) VALUES (3); COMMIT");
            // The snapshot is from before the first one's commit where the read began before it.
            waited.or_else(|_| second.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (v) VALUES (3); COMMIT"))
        });
        pause(Duration::from_millis(30));
        first.execute_batch("COMMIT").unwrap();
        waits.join().unwrap().unwrap();
    });
    assert_eq!(values(&first), [1, 2, 3]);
}

/// What a slow reply told was taken for as new as the moment when it came.
#[test]
fn the_view_of_a_follower_is_as_old_as_the_request_for_it() {
    let place = Place::new();
    let process = place.process();
    let writer = create(&process);
    let watch = Arc::new(Watch::default());
    let mut settings = Process::small();
    settings.database.staleness = Duration::from_secs(10);
    let follower = place.process_on(Arc::new(Layer::new(Arc::clone(&place.store), Arc::clone(&watch))), settings);
    let reader = follower.follow("a");
    let (clock, counted) = (Arc::clone(&place.clock), Arc::clone(&watch));
    let mut told = 0;
    // Every reply that tells the head is slow.
    watch.observe(move || {
        let counts = counted.counts();
        let now = [Operation::Open, Operation::Head].iter().filter_map(|operation| counts.get(operation)).sum();
        if now > told {
            told = now;
            clock.advance(LONG);
        }
        Ok(())
    });
    assert_eq!(values(&reader), [1]);
    insert(&writer, 2).unwrap();
    assert_eq!(values(&reader), [1, 2]);
    watch.rest();
}

/// The checkpoint had read what it needed from a tail that was gone when it came to write: rows of zeros, and deltas on rows that
/// the other process had collected, took the place of that one's rows, under the lease that had been taken again meanwhile.
#[test]
fn a_checkpoint_that_outlives_its_lease_writes_nothing() {
    let place = Place::new();
    let watch = Arc::new(Watch::default());
    let store: Arc<dyn PageStore> = Arc::new(Layer::new(Arc::clone(&place.store), Arc::clone(&watch)));
    let mut settings = Process::small();
    settings.database.checkpoint_records = 1000;
    let process = place.process_on(store, settings.clone());
    let connection = create(&process);
    let checkpoint = |connection: &Connection| words(connection, "litefleet_checkpoint");
    checkpoint(&connection);
    // Pages that have a row, which the checkpoint reads, and pages that have none, which it makes from the log.
    connection.execute_batch("INSERT INTO t VALUES (2, zeroblob(100)); CREATE TABLE u AS SELECT 3 AS v").unwrap();
    let other = process.open("a", "");
    settings.database.takeover = true;
    let thief = place.process_on(Arc::clone(&place.store), settings);
    watch.trigger(Operation::ReadPages, 0, move || {
        // Threads of their own: SQLite is in the middle of a call on this one.
        let meanwhile = || {
            let stolen = thief.open("a", "");
            assert_eq!(values(&stolen), [1, 2]);
            checkpoint(&stolen);
            thief.fleet().collect(&DatabaseName::new("a").unwrap(), false).unwrap();
            drop(stolen);
            insert(&other, 4).unwrap();
            drop(other);
        };
        std::thread::scope(|scope| scope.spawn(meanwhile).join()).unwrap();
    });
    checkpoint(&connection);
    assert!(!watch.is_waiting(), "it read no page");
    drop((connection, process));
    let fresh = place.process();
    let connection = fresh.open("a", "");
    assert_eq!(values(&connection), [1, 2, 4]);
    assert_eq!(connection.query_row("SELECT v FROM u", [], |row| row.get(0)), Ok(3));
    assert_eq!(words(&connection, "integrity_check"), "ok");
}
