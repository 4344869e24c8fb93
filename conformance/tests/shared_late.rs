//! `locking=sqlite` with `lease=transaction`: requests that had no answer, were sent again, and arrive when all is over.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, Operation, PageStore};
use litefleet_conformance::faults::{Process, Watch, block_on, code, pause};
use rusqlite::{Connection, ErrorCode};

const LOCKS: &str = "&locking=sqlite&lease=transaction";

/// Two processes: one whose calls can be spoiled, and another.
struct Two {
    spoiled: Process,
    plan: Arc<FaultPlan>,
    watch: Arc<Watch>,
    other: Process,
}

impl Two {
    fn new() -> Self {
        let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
        let (plan, watch) = (Arc::new(FaultPlan::default()), Arc::new(Watch::default()));
        let faulty = Arc::new(FaultLayer::new(Arc::clone(&store), Arc::clone(&plan)));
        let spoiled = Process::new(Arc::new(Layer::new(faulty, Arc::clone(&watch))), Process::small());
        Self { spoiled, plan, watch, other: Process::new(store, Process::small()) }
    }

    /// So many calls of an operation, the next ones, are to arrive late.
    fn delay(&self, operation: Operation, times: u64) {
        self.plan.arm(Fault { operation: Some(operation), after: 0, times, effect: Effect::Late });
    }

    fn deliver(&self) {
        self.plan.disarm();
        let plan = Arc::clone(&self.plan);
        assert!(block_on(async move { plan.deliver().await }) > 0);
    }
}

#[track_caller]
fn run(connection: &Connection, sql: &str) {
    connection.execute_batch(sql).unwrap();
}

#[track_caller]
fn busy(connection: &Connection, sql: &str) {
    let error = connection.execute_batch(sql).unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::DatabaseBusy), "{error}");
}

/// What is left over is given back within some seconds, or never.
#[track_caller]
fn run_in_the_end(connection: &Connection, sql: &str) {
    for _ in 0..600 {
        if connection.execute_batch(sql).is_ok() {
            return;
        }
        pause(Duration::from_millis(20));
    }
    run(connection, sql);
}

/// The lock was given back once, the late request was granted after that, and nobody else could commit any more.
#[test]
fn a_lock_that_was_asked_for_twice_is_nobodys_in_the_end() {
    let two = Two::new();
    let (reader, writer) = (two.spoiled.open("a", LOCKS), two.other.open("a", LOCKS));
    run(&writer, "CREATE TABLE t (v)");
    run(&reader, "SELECT * FROM t");
    two.delay(Operation::LockShared, 1);
    run(&reader, "SELECT * FROM t");
    two.deliver();
    run_in_the_end(&writer, "INSERT INTO t VALUES (1)");
}

/// The same where the second request was refused.
#[test]
fn a_lock_that_was_refused_after_a_request_without_an_answer_is_nobodys() {
    let two = Two::new();
    let (reader, writer) = (two.spoiled.open("a", LOCKS), two.other.open("a", LOCKS));
    run(&writer, "CREATE TABLE t (v)");
    run(&reader, "SELECT * FROM t");
    run(&writer, "BEGIN EXCLUSIVE");
    two.delay(Operation::LockShared, 1);
    busy(&reader, "SELECT * FROM t");
    run(&writer, "COMMIT");
    two.deliver();
    run_in_the_end(&writer, "INSERT INTO t VALUES (1)");
}

/// The same for the lease, which went back with the commit: it was granted once more, for as long as the process lived.
#[test]
fn a_lease_that_was_asked_for_twice_is_nobodys_in_the_end() {
    let two = Two::new();
    let (writer, other) = (two.spoiled.open("a", "&lease=transaction"), two.other.open("a", "&lease=transaction"));
    run(&writer, "CREATE TABLE t (v)");
    two.delay(Operation::Open, 1);
    run(&writer, "INSERT INTO t VALUES (1)");
    two.deliver();
    run_in_the_end(&other, "INSERT INTO t VALUES (2)");
}

/// While a checkpoint keeps the lease the next transaction is under the same one. What lets others in after the transaction before
/// arrived in the middle of it: they read beside its commit.
#[test]
fn others_that_are_let_in_late_are_not_let_in_beside_the_next_writer() {
    let two = Two::new();
    let (writer, reader) = (two.spoiled.open("a", LOCKS), two.other.open("a", LOCKS));
    run(&writer, "CREATE TABLE t (v)");
    run(&reader, "SELECT * FROM t");
    two.delay(Operation::UnlockExclusive, u64::MAX);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    two.watch.trigger(Operation::Checkpoint, 0, move || _ = wait.recv());
    // Until a checkpoint is under way.
    while two.watch.is_waiting() {
        run(&writer, "INSERT INTO t VALUES (1)");
        pause(Duration::from_millis(10));
    }
    assert!(two.watch.counts().contains_key(&Operation::UnlockExclusive));
    run(&writer, "BEGIN EXCLUSIVE");
    two.deliver();
    busy(&reader, "SELECT * FROM t");
    run(&writer, "COMMIT");
    done.send(()).unwrap();
    run_in_the_end(&reader, "SELECT * FROM t");
}
