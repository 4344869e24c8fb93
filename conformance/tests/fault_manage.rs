//! Databases as a whole, beside those who use them.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use std::sync::atomic::{AtomicBool, Ordering};

use litefleet::clock::ManualClock;
use litefleet::store::{
    Call, Deferred, Effect, Fault, FaultLayer, FaultPlan, Interceptor, Layer, MemoryStore, Operation, PageStore,
    Verdict,
};
use litefleet::{DatabaseName, Error, ErrorKind};
use litefleet_conformance::faults::{Process, Watch, pause};
use rusqlite::Connection;

fn name(name: &str) -> DatabaseName {
    DatabaseName::new(name).unwrap()
}

fn fill(connection: &Connection) {
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";
    let sql = format!("CREATE TABLE t (v); INSERT INTO t {rows} SELECT zeroblob(1000) FROM n");
    connection.execute_batch(&sql).unwrap();
}

/// A writer without retention collects the state that is being verified: in the rows, the log and the pages.
#[test]
fn verification_goes_on_when_its_state_was_collected() {
    for operation in [Operation::Scan, Operation::ReadLog, Operation::ReadPages] {
        let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
        let writer = Process::new(Arc::clone(&store), Process::small());
        let connection = writer.open("a", "&checkpoint_records=1000000");
        fill(&connection);
        let checkpoint = "PRAGMA litefleet_checkpoint";
        connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
        connection.execute_batch("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").unwrap();
        let watch = Arc::new(Watch::default());
        let other = Process::new(Arc::new(Layer::new(store, Arc::clone(&watch))), Process::small());
        watch.trigger(operation, 0, move || {
            connection.execute_batch("UPDATE t SET v = 3").unwrap();
            connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
        });
        let report = other.fleet().verify(&name("a"), &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(!watch.is_waiting(), "{}", operation.as_str());
        assert_eq!(report.problems, Vec::<String>::new(), "{}", operation.as_str());
        assert!(report.complete && report.pages > 500, "{report:?}");
    }
}

#[test]
fn verification_ends_when_it_is_told_to() {
    let process = Process::new(Arc::new(MemoryStore::default()), Process::small());
    fill(&process.open("a", ""));
    let verify = |most: u32| {
        let mut steps = 0;
        let mut seen = Vec::new();
        let report = process.fleet().verify(&name("a"), &mut |progress| {
            steps += 1;
            seen.push(progress.done);
            assert!(progress.done <= progress.total);
            if steps == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(seen.is_sorted(), "{seen:?}");
        (steps, report.unwrap())
    };
    let (steps, whole) = verify(u32::MAX);
    assert!(whole.complete && steps > 3);
    for most in 1..steps {
        let (took, part) = verify(most);
        assert_eq!((took, part.complete), (most, false));
        assert!(part.rows + part.pages <= whole.rows + whole.pages);
    }
}

type Deed = fn(&Process) -> Result<(), litefleet::Error>;

#[test]
fn removing_renaming_and_collecting_wait_for_the_lease_as_long_as_busy_says() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let holder = Process::new(Arc::clone(&store), Process::small());
    let hasty = Process::new(Arc::clone(&store), Process::small());
    let mut settings = Process::small();
    settings.database.busy = Duration::from_secs(20);
    let patient = Process::new(store, settings);
    let deeds: [Deed; 3] = [
        |process| process.fleet().collect(&name("a"), false).map(drop),
        |process| process.fleet().rename(&name("a"), &name("b"), false),
        |process| process.fleet().remove(&name("b"), false),
    ];
    for (deed, open) in deeds.into_iter().zip(["a", "a", "b"]) {
        let connection = holder.open(open, "");
        connection.execute_batch("CREATE TABLE IF NOT EXISTS t (v)").unwrap();
        assert_eq!(deed(&hasty).unwrap_err().kind(), ErrorKind::LeaseHeld);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| deed(&patient));
            pause(Duration::from_millis(30));
            drop(connection);
            waits.join().unwrap().unwrap();
        });
    }
    assert!(!patient.fleet().exists(&name("b")).unwrap());
}

/// Who had it open went on as if the lease were held, which was given back with the renaming, and showed old states as new.
#[test]
fn who_has_a_database_open_that_is_renamed_by_force_must_open_it_again() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let process = Process::new(Arc::clone(&store), Process::small());
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    process.fleet().rename(&name("a"), &name("b"), true).unwrap();
    let other = Process::new(store, Process::small());
    other.open("b", "").execute_batch("INSERT INTO t VALUES (2)").unwrap();
    let sum = |connection: &Connection| connection.query_row("SELECT sum(v) FROM t", [], |row| row.get::<_, i64>(0));
    sum(&connection).unwrap_err();
    let status: String = connection.query_row("PRAGMA litefleet_status", [], |row| row.get(0)).unwrap();
    assert!(status.contains("renamed to b"), "{status}");
    drop(connection);
    assert_eq!(sum(&process.open("b", "")).unwrap(), 3);
}

/// Who had it open went on with it under the old name, also when that was another database's by then, and so did every
/// later connection of that process; and one that was loaded anew became the other database under its connections.
#[test]
fn a_database_that_was_renamed_is_not_shown_under_its_old_name() {
    for collected in [false, true] {
        let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
        let process = Process::new(Arc::clone(&store), Process::small());
        process.open("a", "").execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
        let other = Process::new(store, Process::small());
        let sum =
            |connection: &Connection| connection.query_row("SELECT sum(v) FROM t", [], |row| row.get::<_, i64>(0));
        let early = other.follow("a");
        assert_eq!(sum(&early).unwrap(), 1);
        process.fleet().rename(&name("a"), &name("b"), false).unwrap();
        process.open("a", "").execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (100)").unwrap();
        let renamed = process.open("b", "&checkpoint_records=1000");
        renamed.execute_batch("INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)").unwrap();
        if collected {
            renamed.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
        }
        let late = other.follow("a");
        assert!(sum(&late).map_or(true, |sum| sum == 100), "collected: {collected}");
        sum(&early).unwrap_err();
        drop((early, late));
        assert_eq!((sum(&other.follow("a")).unwrap(), sum(&other.follow("b")).unwrap()), (100, 6));
    }
}

/// Each of these failed at the first call that did not reach the store, where opening and reading try again.
#[test]
fn managing_outlasts_a_store_that_is_away_for_a_moment() {
    // On a clock that stands still the store may be away for as long as it likes.
    let clock = Arc::new(ManualClock::default());
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock))), Arc::clone(&plan));
    let mut settings = Process::small();
    settings.database.store_timeout = Duration::from_secs(10);
    let process = Process::with_clock(Arc::new(store), settings, clock);
    process.open("a", "").execute_batch("CREATE TABLE t (v)").unwrap();
    let fleet = process.fleet();
    let away = |operation| {
        plan.disarm();
        plan.arm(Fault { operation: Some(operation), after: 0, times: 3, effect: Effect::Refuse });
    };
    away(Operation::Open);
    assert!(fleet.info(&name("a")).unwrap().head.txid.get() > 0);
    away(Operation::Open);
    assert!(fleet.exists(&name("a")).unwrap());
    away(Operation::List);
    assert_eq!(fleet.list("", None, 10).unwrap().len(), 1);
    for operation in [Operation::Open, Operation::Release] {
        away(operation);
        fleet.rename(&name("a"), &name("b"), false).unwrap();
        fleet.rename(&name("b"), &name("a"), false).unwrap();
    }
    away(Operation::Open);
    fleet.remove(&name("a"), false).unwrap();
    assert!(!fleet.exists(&name("a")).unwrap());
    assert_eq!(plan.hits(), 6 * 3);
}

/// Refuses large checkpoints.
#[derive(Debug, Default)]
struct Narrow(AtomicBool);

impl Interceptor for Narrow {
    fn before(&self, call: Call) -> Verdict {
        if call.operation == Operation::Checkpoint && call.sent > 50_000 && !self.0.load(Ordering::SeqCst) {
            return Verdict::Fail(Error::unavailable("too large for now (injected fault)"));
        }
        Verdict::Proceed
    }

    fn after(&self, _: Call, _: litefleet::Result<u64, &Error>) {}

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}

/// Idle databases were looked after one after the other: all waited for the first whose call did not come through.
#[test]
fn an_idle_database_does_not_wait_for_another() {
    let clock = Arc::new(ManualClock::default());
    let narrow = Arc::new(Narrow::default());
    let memory = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let mut settings = Process::small();
    settings.session_lifetime = Duration::from_secs(1_000_000);
    settings.database.store_timeout = Duration::from_secs(1_000_000);
    settings.database.checkpoint_records = 1_000_000;
    settings.database.transaction_bytes = 16 << 20;
    settings.database.checkpoint_idle = Duration::from_secs(60);
    let store = Arc::new(Layer::new(memory, Arc::clone(&narrow)));
    let process = Process::with_clock(store, settings, Arc::<ManualClock>::clone(&clock));
    let large = process.open("large", "");
    large.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (randomblob(200000))").unwrap();
    let few = ["b", "c", "d"].map(|name| (name, process.open(name, "")));
    let checkpoint = |of: &str| process.fleet().info(&name(of)).unwrap().head.checkpoint.get();
    // The second time the large one has not come through the first.
    for round in 1..=2 {
        for (_, connection) in &few {
            connection.execute_batch(&format!("CREATE TABLE t{round} (v)")).unwrap();
        }
        clock.advance(Duration::from_secs(61));
        for (of, _) in &few {
            for _ in 0..500 {
                if checkpoint(of) == round {
                    break;
                }
                pause(Duration::from_millis(20));
            }
            if checkpoint(of) != round {
                // Closing must not wait for it as well.
                narrow.0.store(true, Ordering::SeqCst);
                panic!("{of} waits for the large one");
            }
        }
    }
    assert_eq!(checkpoint("large"), 0);
    narrow.0.store(true, Ordering::SeqCst);
    large.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
    assert!(checkpoint("large") > 0);
}
