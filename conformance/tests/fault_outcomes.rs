//! What becomes of commits whose reply was lost.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;

use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, Operation, PageStore};
use litefleet_conformance::faults::{Process, Watch, block_on, code};
use rusqlite::{Connection, ErrorCode};

/// A store that can be made to fail, as seen from a process and from the others.
struct Place {
    inner: Arc<dyn PageStore>,
    plan: Arc<FaultPlan>,
    watch: Arc<Watch>,
    process: Process,
}

impl Place {
    fn new() -> Self {
        let inner: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
        let (plan, watch) = (Arc::new(FaultPlan::default()), Arc::new(Watch::default()));
        let faulty = Arc::new(FaultLayer::new(Arc::clone(&inner), Arc::clone(&plan)));
        let store = Arc::new(Layer::new(faulty, Arc::clone(&watch)));
        Self { process: Process::new(store, Process::small()), inner, plan, watch }
    }

    fn spoil(&self, operation: Option<Operation>, times: u64, effect: Effect) {
        self.plan.arm(Fault { operation, after: 0, times, effect });
    }

    fn deliver(&self) -> usize {
        let plan = Arc::clone(&self.plan);
        block_on(async move { plan.deliver().await })
    }

    /// Another process takes the lease by force and writes, just before the next call of an operation.
    fn take_over_before(&self, operation: Operation, name: &'static str) {
        let inner = Arc::clone(&self.inner);
        self.watch.trigger(operation, 0, move || {
            // SQLite is in the middle of a call on this thread.
            std::thread::spawn(move || take_over(&inner, name)).join().expect("it takes over");
        });
    }

    fn values(&self, name: &str) -> Vec<i64> {
        values(&Process::light(Arc::clone(&self.inner), Process::small()).follow(name))
    }
}

fn take_over(inner: &Arc<dyn PageStore>, name: &str) {
    let other = Process::light(Arc::clone(inner), Process::small());
    other.open(name, "&takeover=1").execute("INSERT INTO t VALUES (100)", []).expect("it writes");
}

fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY rowid").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn words(connection: &Connection, pragma: &str) -> String {
    connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap()
}

fn insert(connection: &Connection, value: i64) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t VALUES (?1)", [value])
}

#[test]
fn a_delayed_commit_is_fenced_before_it_is_tried_again() {
    let place = Place::new();
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v)").unwrap();
    place.spoil(Some(Operation::Commit), 1, Effect::Late);
    insert(&connection, 1).unwrap();
    assert_eq!(place.values("a"), [1]);
    assert_eq!(place.deliver(), 1);
    assert_eq!(place.values("a"), [1]);
    insert(&connection, 2).unwrap();
    assert_eq!(values(&connection), [1, 2]);
    assert_eq!(place.process.problems("a"), Vec::<String>::new());
}

#[test]
fn a_commit_whose_reply_was_lost_is_done_once() {
    let place = Place::new();
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v)").unwrap();
    place.spoil(Some(Operation::Commit), 1, Effect::LoseReply);
    insert(&connection, 1).unwrap();
    insert(&connection, 2).unwrap();
    assert_eq!(place.values("a"), [1, 2]);
}

#[test]
fn a_commit_that_nobody_can_tell_of_stops_the_database() {
    for (effect, there) in [(Effect::LoseReply, vec![1, 2]), (Effect::LoseRequest, vec![1]), (Effect::Late, vec![1])] {
        let place = Place::new();
        let connection = place.process.open("a", "");
        let second = place.process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(values(&second), [1]);
        place.spoil(Some(Operation::Commit), 1, effect);
        place.spoil(Some(Operation::Head), 1000, Effect::Refuse);
        insert(&connection, 2).unwrap_err();
        place.plan.disarm();
        // On every connection, also now that the store is back, and until it is opened again.
        for connection in [&connection, &second] {
            insert(connection, 3).unwrap_err();
            connection.prepare("SELECT v FROM t").and_then(|mut s| s.query([])?.next().map(drop)).unwrap_err();
            let status = words(connection, "litefleet_status");
            assert!(status.contains("opening the database again tells"), "{status}");
            let error = words(connection, "litefleet_error");
            assert!(error.contains("may or may not have happened") && error.contains("database a"), "{error}");
        }
        let again = place.process.open("a", "");
        assert_eq!(values(&again), there, "{effect:?}");
        place.deliver();
        insert(&again, 4).unwrap();
        drop((connection, second));
        insert(&again, 5).unwrap();
        assert_eq!(place.values("a"), [there, vec![4, 5]].concat(), "{effect:?}");
    }
}

/// The last connection from before gave back the lease that whoever opened the database again had by then, and another
/// process could write behind its back.
#[test]
fn the_close_of_one_that_has_stopped_leaves_the_lease_to_who_opened_it_again() {
    let place = Place::new();
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v)").unwrap();
    place.spoil(Some(Operation::Commit), 1, Effect::LoseReply);
    place.spoil(Some(Operation::Head), 1000, Effect::Refuse);
    insert(&connection, 1).unwrap_err();
    place.plan.disarm();
    let again = place.process.open("a", "");
    assert_eq!(values(&again), [1]);
    drop(connection);
    let other = Process::light(Arc::clone(&place.inner), Process::small());
    let refused = insert(&other.open("a", ""), 2).unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::DatabaseBusy));
    insert(&again, 3).unwrap();
    assert_eq!(values(&again), [1, 3]);
}

/// It was reported as failed: the error of the lost lease took the place of the outcome.
#[test]
fn a_commit_that_is_done_succeeds_also_when_the_lease_was_lost_since() {
    let place = Place::new();
    let connection = place.process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v)").unwrap();
    place.spoil(Some(Operation::Commit), 1, Effect::LoseReply);
    place.take_over_before(Operation::Head, "a");
    insert(&connection, 1).unwrap();
    insert(&connection, 2).unwrap_err();
    assert!(words(&connection, "litefleet_status").contains("another process took the lease over"));
    drop(connection);
    assert_eq!(values(&place.process.open("a", "")), [1, 100]);
}

#[test]
fn a_commit_that_did_not_happen_before_the_lease_was_lost_never_does() {
    for effect in [Effect::LoseRequest, Effect::Late] {
        let place = Place::new();
        let connection = place.process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v)").unwrap();
        place.spoil(Some(Operation::Commit), 1, effect);
        place.take_over_before(Operation::Head, "a");
        insert(&connection, 1).unwrap_err();
        assert!(words(&connection, "litefleet_error").contains("the commit did not happen"));
        place.deliver();
        assert_eq!(place.values("a"), [100]);
    }
}

/// It was reported as failed: a late open of our own had taken the lease again that the commit gave back, and what was
/// told was that this could not be undone.
#[test]
fn a_commit_that_is_done_succeeds_also_when_its_lease_cannot_be_given_back() {
    let place = Place::new();
    let connection = place.process.open("a", "&lease=transaction");
    connection.execute_batch("CREATE TABLE t (v)").unwrap();
    place.spoil(Some(Operation::Open), 1, Effect::Late);
    connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    place.spoil(Some(Operation::Commit), 1, Effect::LoseReply);
    place.spoil(Some(Operation::Release), 1000, Effect::Refuse);
    let plan = Arc::clone(&place.plan);
    // Just before the outcome is looked for.
    place.watch.trigger(Operation::Head, 0, move || assert_eq!(block_on(async move { plan.deliver().await }), 1));
    connection.execute_batch("COMMIT").unwrap();
    assert!(!place.watch.is_waiting());
    assert!(place.plan.hits() >= 3, "the open, the commit, and at least one release");
    place.plan.disarm();
    insert(&connection, 2).unwrap();
    assert_eq!(place.values("a"), [1, 2]);
}

fn two(place: &Place) -> Connection {
    let connection = place.process.open("a", "");
    connection.execute(&format!("ATTACH '{}' AS b", place.process.uri("b", "")), []).unwrap();
    connection.execute_batch("CREATE TABLE main.t (v); CREATE TABLE b.t (v)").unwrap();
    connection
}

const BOTH: &str = "BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO b.t VALUES (1); COMMIT";

/// One of the databases tells for all: where it had lost its lease since, the others stayed behind their own commit.
#[test]
fn a_commit_of_several_that_is_done_is_so_in_all() {
    let place = Place::new();
    let connection = two(&place);
    place.spoil(Some(Operation::Commit), 1, Effect::LoseReply);
    place.take_over_before(Operation::Head, "a");
    connection.execute_batch(BOTH).unwrap();
    connection.execute("INSERT INTO main.t VALUES (2)", []).unwrap_err();
    drop(connection);
    let b = place.process.open("b", "");
    insert(&b, 2).unwrap();
    assert_eq!((place.values("a"), place.values("b")), (vec![1, 100], vec![1, 2]));
}

#[test]
fn a_commit_of_several_that_nobody_can_tell_of_stops_all() {
    for (effect, there) in [(Effect::LoseReply, vec![1]), (Effect::Late, vec![])] {
        let place = Place::new();
        let connection = two(&place);
        place.spoil(Some(Operation::Commit), 1, effect);
        place.spoil(Some(Operation::Head), 1000, Effect::Refuse);
        connection.execute_batch(BOTH).unwrap_err();
        place.plan.disarm();
        for schema in ["main", "b"] {
            assert!(words(&connection, &format!("{schema}.litefleet_status")).contains("stopped: "), "{schema}");
        }
        drop(connection);
        // Either of them settles it for both.
        assert_eq!(values(&place.process.open("b", "")), there);
        place.deliver();
        assert_eq!((place.values("a"), place.values("b")), (there.clone(), there));
    }
}

/// It did not stop, and so failed every commit of several from then on.
#[test]
fn a_database_that_is_fenced_in_a_commit_of_several_stops() {
    let place = Place::new();
    let connection = two(&place);
    take_over(&place.inner, "b");
    connection.execute_batch(BOTH).unwrap_err();
    assert!(words(&connection, "b.litefleet_status").contains("stopped: "));
    assert!(!words(&connection, "main.litefleet_status").contains("stopped: "));
    drop(connection);
    let connection = place.process.open("a", "");
    connection.execute(&format!("ATTACH '{}' AS b", place.process.uri("b", "")), []).unwrap();
    connection.execute_batch(BOTH).unwrap();
    assert_eq!((place.values("a"), place.values("b")), (vec![1], vec![100, 1]));
}
