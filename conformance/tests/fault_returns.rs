//! Leases that are given back: by who has stopped, beside work in the background, to a store that is not reached. And the store
//! itself, when all are.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::{Arc, mpsc};
use std::time::Duration;

use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, Operation, PageStore};
use litefleet::{DatabaseName, Epoch, ErrorKind, FleetSettings};
use litefleet_conformance::faults::{Process, Watch, block_on, code, pause};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rusqlite::{Connection, ErrorCode};

/// So long another process waits for a lease that must come back: far longer than the sweep over idle databases takes.
const SWEEPS: Duration = Duration::from_secs(20);

fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY v").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn insert(connection: &Connection, value: i64) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t (v) VALUES (?1)", [value])
}

fn create(process: &Process, parameters: &str) -> Connection {
    let connection = process.open("a", parameters);
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t (v) VALUES (1)").unwrap();
    connection
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

fn name(text: &str) -> DatabaseName {
    DatabaseName::new(text).unwrap()
}

/// How often the lease of `a` was granted.
fn epoch(process: &Process) -> Epoch {
    process.fleet().info(&name("a")).unwrap().head.epoch
}

fn is_busy<T: std::fmt::Debug>(outcome: rusqlite::Result<T>) -> bool {
    code(&outcome.unwrap_err()) == Some(ErrorCode::DatabaseBusy)
}

/// Nothing is checkpointed but on request.
fn quiet() -> FleetSettings {
    let mut settings = Process::small();
    settings.database.checkpoint_records = 1000;
    settings
}

struct Place {
    store: Arc<dyn PageStore>,
    watch: Arc<Watch>,
    plan: Arc<FaultPlan>,
}

impl Place {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::default()), watch: Arc::default(), plan: Arc::default() }
    }

    /// A process whose calls can be looked at and made to fail.
    fn process(&self, settings: FleetSettings) -> Process {
        let faulty = FaultLayer::new(Arc::clone(&self.store), Arc::clone(&self.plan));
        Process::new(Arc::new(Layer::new(Arc::new(faulty), Arc::clone(&self.watch))), settings)
    }

    fn other(&self) -> Process {
        Process::new(Arc::clone(&self.store), quiet())
    }

    fn fail(&self, operation: Operation, after: u64, effect: Effect) {
        self.plan.arm(Fault { operation: Some(operation), after, times: u64::MAX, effect });
    }

    /// Another process gets the lease of `a` within some sweeps, and writes.
    fn is_free(&self, value: i64) {
        let other = self.other();
        let connection = other.open("a", "");
        connection.busy_timeout(SWEEPS).unwrap();
        insert(&connection, value).unwrap();
    }
}

/// Runs on a thread of its own: SQLite is in the middle of a call on this one.
fn aside<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(body).join()).unwrap()
}

/// A database that was renamed, and so stopped, while a call of it was under way took the lease once more: that of the
/// database which had its name by then. It gave that one's lease back, which went on to rely on it.
#[test]
fn who_has_stopped_takes_no_lease_from_who_has_its_name_now() {
    for operation in [Operation::Checkpoint, Operation::Commit] {
        let place = Place::new();
        let process = Arc::new(place.process(quiet()));
        let old = create(&process, "");
        let (sender, receiver) = mpsc::channel();
        let here = Arc::clone(&process);
        place.watch.trigger(operation, 0, move || {
            aside(|| {
                here.fleet().rename(&name("a"), &name("b"), true).unwrap();
                let new = here.open("a", "");
                // That takes the lease.
                new.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
                sender.send((new, epoch(&here))).unwrap();
            });
        });
        let outcome = match operation {
            Operation::Checkpoint => pragma(&old, "litefleet_checkpoint").map(|_| ()),
            _ => insert(&old, 2).map(|_| ()),
        };
        outcome.unwrap_err();
        let (new, granted) = receiver.recv().unwrap();
        assert_eq!(epoch(&process), granted, "nothing was granted since");
        let other = place.other();
        let is_held = || is_busy(other.open("a", "").execute_batch("CREATE TABLE other (v)"));
        assert!(is_held(), "{}", operation.as_str());
        new.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (4)").unwrap();
        drop(old);
        assert!(is_held(), "{}", operation.as_str());
        assert_eq!(values(&new), [4]);
        assert_eq!(values(&other.follow("b")), [1]);
    }
}

/// The lease of a database that goes by another name now was given back when the connection by the old name was closed.
#[test]
fn who_has_stopped_gives_no_lease_back_that_is_held_by_another_name() {
    let place = Place::new();
    let process = place.process(quiet());
    let old = create(&process, "");
    process.fleet().rename(&name("a"), &name("b"), true).unwrap();
    let new = process.open("b", "");
    insert(&new, 2).unwrap();
    drop(old);
    let other = place.other();
    assert!(is_busy(insert(&other.open("b", ""), 3)));
    assert_eq!(values(&new), [1, 2]);
}

/// What a grant was of no use for is not given back a second time when the connection is closed.
#[test]
fn a_lease_that_was_handed_back_is_not_held_any_more() {
    let place = Place::new();
    let (process, other) = (place.process(quiet()), place.other());
    let connection = create(&process, "");
    let taker = other.open("a", "&takeover=1");
    insert(&taker, 2).unwrap();
    drop(taker);
    insert(&connection, 3).unwrap_err();
    let status = pragma(&connection, "litefleet_status").unwrap();
    assert!(status.contains("stopped: ") && !status.contains("epoch: "), "{status}");
    let released = || place.watch.counts().get(&Operation::Release).copied();
    assert_eq!(released(), Some(1), "the lease that was granted when it was too late");
    drop(connection);
    assert_eq!(released(), Some(1));
    insert(&other.open("a", ""), 3).unwrap();
}

/// A checkpoint in the background had yet to collect when the lease was given back, and took it again for that.
#[test]
fn work_in_the_background_does_not_take_back_what_was_given_back() {
    for shutdown in [false, true] {
        let place = Place::new();
        let mut settings = quiet();
        settings.database.checkpoint_records = 3;
        let process = place.process(settings);
        let connection = create(&process, "");
        let (fleet, second) = (process.fleet().clone(), process.open("a", ""));
        let (reached, has_reached) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        place.watch.trigger(Operation::Checkpoint, 0, move || {
            reached.send(()).unwrap();
            may_go_on.recv().unwrap();
        });
        insert(&connection, 2).unwrap();
        insert(&connection, 3).unwrap();
        has_reached.recv().unwrap();
        let released = std::thread::spawn(move || {
            if shutdown {
                fleet.shutdown().unwrap();
            } else {
                assert_eq!(pragma(&second, "litefleet_release").unwrap(), "released");
            }
            second
        });
        // Until it stands behind the checkpoint.
        pause(Duration::from_millis(50));
        go_on.send(()).unwrap();
        let second = released.join().unwrap();
        // Until what stood behind it is done too.
        pause(Duration::from_millis(50));
        let other = place.other();
        insert(&other.open("a", ""), 4).unwrap();
        assert_eq!(values(&connection), [1, 2, 3, 4]);
        assert_eq!(values(&second), [1, 2, 3, 4]);
    }
}

/// What went on in the background held the store a moment longer: whoever opened the same directory then heard that it was open
/// elsewhere.
#[test]
fn a_store_can_be_opened_again_as_soon_as_its_fleet_was_shut_down() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quiet();
    settings.database.checkpoint_records = 2;
    settings.database.checkpoint_idle = Duration::from_millis(1);
    settings.database.store_timeout = SWEEPS;
    for round in 0..40 {
        let store = EmbeddedStore::open(EmbeddedConfig::new(folder.path().join("store"))).unwrap();
        let process = Process::new(Arc::new(store), settings.clone());
        let connection = process.open("a", "");
        connection.execute_batch("CREATE TABLE IF NOT EXISTS t (v)").unwrap();
        // The last ones have a checkpoint made in the background.
        for value in 0..4 {
            insert(&connection, round * 10 + value).unwrap();
        }
        drop(connection);
        process.fleet().shutdown().unwrap();
    }
}

/// It stayed with the process for as long as that lived and renewed its session.
#[test]
fn a_lease_that_could_not_be_given_back_is_given_back_later() {
    let place = Place::new();
    let process = place.process(quiet());
    let connection = create(&process, "");
    place.fail(Operation::Release, 0, Effect::Refuse);
    drop(connection);
    assert!(place.plan.hits() > 0);
    let other = place.other();
    assert!(is_busy(insert(&other.open("a", ""), 2)));
    place.plan.disarm();
    place.is_free(2);
    // And is none's that takes it meanwhile.
    place.fail(Operation::Release, 0, Effect::Refuse);
    let connection = process.open("a", "");
    insert(&connection, 3).unwrap();
    pragma(&connection, "litefleet_release").unwrap_err();
    insert(&connection, 4).unwrap();
    place.plan.disarm();
    pause(Duration::from_millis(2500));
    assert!(is_busy(insert(&other.open("a", ""), 5)), "it is in use again");
    assert_eq!(values(&connection), [1, 2, 3, 4]);
}

/// So did one whose grant was not heard of.
#[test]
fn a_lease_that_was_granted_without_an_answer_is_given_back() {
    let place = Place::new();
    let process = place.process(quiet());
    drop(create(&process, ""));
    place.fail(Operation::Open, 0, Effect::LoseReply);
    let connection = process.open("a", "");
    insert(&connection, 2).unwrap_err();
    drop(connection);
    assert!(is_busy(insert(&place.other().open("a", ""), 2)));
    place.plan.disarm();
    place.is_free(2);
}

/// And one that had to be asked for twice, the second time without an answer.
#[test]
fn a_lease_that_was_granted_for_a_state_that_is_gone_is_given_back() {
    let place = Place::new();
    let (process, other) = (place.process(quiet()), place.other());
    let connection = create(&process, "&lease=transaction");
    let reads = connection.prepare("SELECT v FROM t").map(drop);
    reads.unwrap();
    connection.execute_batch("BEGIN; SELECT v FROM t").unwrap();
    let writer = other.open("a", "");
    insert(&writer, 2).unwrap();
    pragma(&writer, "litefleet_checkpoint").unwrap();
    drop(writer);
    other.fleet().collect(&name("a"), false).unwrap();
    // The first says that the state here cannot be gone on from.
    place.fail(Operation::Open, 1, Effect::Refuse);
    insert(&connection, 3).unwrap_err();
    assert!(place.plan.hits() > 0);
    insert(&other.open("a", ""), 3).unwrap();
    place.plan.disarm();
    assert!(connection.is_autocommit(), "SQLite has rolled back");
    assert_eq!(values(&connection), [1, 2, 3]);
}

/// A commit that gives its lease back arrived while it was looked for, just before a new epoch was to rule it out: the grant of
/// that epoch was forgotten with the lease of the commit.
#[test]
fn a_lease_that_only_resolved_an_unknown_outcome_is_given_back() {
    let place = Place::new();
    let process = place.process(quiet());
    let connection = create(&process, "&lease=transaction");
    place.plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::Late });
    let plan = Arc::clone(&place.plan);
    // The first grant is for the transaction.
    place.watch.trigger(Operation::Open, 1, move || {
        assert_eq!(aside(|| block_on(async move { plan.deliver().await })), 1);
    });
    insert(&connection, 2).unwrap();
    assert!(!place.watch.is_waiting());
    place.is_free(3);
    assert_eq!(values(&connection), [1, 2, 3]);
}

/// The same where the grant came late and was this process's own, and the lease could not be given back at once.
#[test]
fn a_lease_that_a_late_open_has_taken_and_an_unknown_outcome_found_is_given_back() {
    let place = Place::new();
    let process = place.process(quiet());
    let connection = create(&process, "&lease=transaction");
    place.plan.arm(Fault { operation: Some(Operation::Open), after: 0, times: 1, effect: Effect::Late });
    connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (v) VALUES (2)").unwrap();
    place.plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::LoseReply });
    place.fail(Operation::Release, 0, Effect::Refuse);
    let plan = Arc::clone(&place.plan);
    place.watch.trigger(Operation::Head, 0, move || {
        assert_eq!(aside(|| block_on(async move { plan.deliver().await })), 1);
    });
    connection.execute_batch("COMMIT").unwrap();
    assert!(!place.watch.is_waiting());
    place.plan.disarm();
    place.is_free(3);
    assert_eq!(values(&connection), [1, 2, 3]);
}

/// The state here was too old to go on from, and before it was asked for anew the database was deleted: that question
/// created an empty one in its place.
#[test]
fn a_database_that_was_deleted_is_not_created_anew_by_who_had_it() {
    let place = Place::new();
    let (process, other) = (place.process(quiet()), Arc::new(place.other()));
    let connection = create(&process, "&lease=transaction");
    connection.execute_batch("BEGIN; SELECT v FROM t").unwrap();
    let writer = other.open("a", "");
    insert(&writer, 2).unwrap();
    pragma(&writer, "litefleet_checkpoint").unwrap();
    drop(writer);
    other.fleet().collect(&name("a"), false).unwrap();
    let there = Arc::clone(&other);
    place.watch.trigger(Operation::Open, 1, move || aside(|| there.fleet().remove(&name("a"), true).unwrap()));
    insert(&connection, 3).unwrap_err();
    assert!(!place.watch.is_waiting());
    assert_eq!(other.fleet().info(&name("a")).unwrap_err().kind(), ErrorKind::NotFound);
}

/// The commit gave the lease back under which the checkpoint was about to be written, which was an I/O error.
#[test]
fn a_checkpoint_on_request_waits_for_a_commit_that_gives_the_lease_back() {
    let place = Place::new();
    let process = place.process(quiet());
    let connection = create(&process, "&lease=transaction");
    let second = process.open("a", "&lease=transaction");
    let (committed, has_committed) = mpsc::channel();
    let (sender, receiver) = mpsc::channel();
    let watch = Arc::clone(&place.watch);
    place.watch.trigger(Operation::Commit, 0, move || {
        let (reached, has_reached) = mpsc::channel();
        watch.trigger(Operation::Checkpoint, 0, move || {
            let _nobody_waits = reached.send(());
            has_committed.recv().unwrap();
        });
        sender.send(std::thread::spawn(move || pragma(&second, "litefleet_checkpoint"))).unwrap();
        // Unless it waits for the commit.
        let _it_does = has_reached.recv_timeout(Duration::from_millis(100));
    });
    insert(&connection, 2).unwrap();
    committed.send(()).unwrap();
    let made = receiver.recv().unwrap().join().unwrap();
    assert_eq!(made.unwrap(), "checkpoint at txid 3");
    place.is_free(3);
}

/// Who was refused asked for the holder's name, and all others waited for the answer with it.
#[test]
fn nobody_waits_while_the_name_of_a_holder_is_asked_for() {
    let place = Place::new();
    let holder = place.other();
    let held = create(&holder, "");
    let process = place.process(quiet());
    let (first, second) = (process.open("a", ""), process.open("a", ""));
    let (sender, receiver) = mpsc::channel();
    // The first open is refused.
    place.watch.trigger(Operation::Open, 1, move || {
        let (told, is_told) = mpsc::channel();
        std::thread::spawn(move || told.send(is_busy(insert(&second, 2))));
        sender.send(is_told.recv_timeout(Duration::from_secs(20))).unwrap();
    });
    assert!(is_busy(insert(&first, 2)));
    assert_eq!(receiver.recv().unwrap(), Ok(true));
    assert!(pragma(&first, "litefleet_status").unwrap().contains("as last heard"));
    drop(held);
}
