//! Many at once: processes that share a database, databases that share a call, and calls that panic.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use litefleet::clock::ManualClock;
use litefleet::store::{
    Effect, Fault, FaultLayer, FaultPlan, Latency, LatencyLayer, Layer, MemoryStore, OpenRequest, Operation, PageStore,
};
use litefleet::{DatabaseName, PageNo};
use litefleet_conformance::faults::{Process, Watch, block_on, code, pause};
use rusqlite::{Connection, ErrorCode};

fn memory() -> Arc<dyn PageStore> {
    Arc::new(MemoryStore::default())
}

/// A process whose store calls can be watched and spoiled.
fn watched(inner: &Arc<dyn PageStore>) -> (Process, Arc<Watch>, Arc<FaultPlan>) {
    let (plan, watch) = (Arc::new(FaultPlan::default()), Arc::new(Watch::default()));
    let faulty = Arc::new(FaultLayer::new(Arc::clone(inner), Arc::clone(&plan)));
    (Process::new(Arc::new(Layer::new(faulty, Arc::clone(&watch))), Process::small()), watch, plan)
}

fn value(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn insert(connection: &Connection, value: i64) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t VALUES (?1)", [value])
}

/// Adds one to the counter, as often as it takes.
fn count_up(connection: &Connection) {
    for _ in 0..10_000 {
        match connection.execute_batch("BEGIN IMMEDIATE; UPDATE c SET v = v + 1; COMMIT") {
            Ok(()) => return,
            Err(error) if code(&error) == Some(ErrorCode::DatabaseBusy) => {
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK").unwrap();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("busy for ever");
}

/// `locking_mode=EXCLUSIVE` keeps the lock between transactions: with `lease=transaction` the lease was given back with each
/// commit, so the pragma had to be refused.
#[test]
fn exclusive_locking_keeps_the_lease_between_transactions() {
    let store = memory();
    let [one, other] = [(); 2].map(|()| Process::new(Arc::clone(&store), Process::small()));
    let parameters = "&lease=transaction";
    let (first, second) = (one.open("a", parameters), other.open("a", parameters));
    // A checkpoint in the background keeps the lease for a moment longer than the transaction before it.
    let patient = Duration::from_secs(20);
    first.execute_batch("CREATE TABLE t (v)").unwrap();
    second.busy_timeout(patient).unwrap();
    insert(&second, 1).unwrap();
    for ending in ["PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t", "drop"] {
        let keeper = one.open("a", parameters);
        keeper.busy_timeout(patient).unwrap();
        keeper.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
        second.busy_timeout(Duration::ZERO).unwrap();
        for _ in 0..3 {
            insert(&keeper, 2).unwrap();
            assert_eq!(code(&insert(&second, 3).unwrap_err()), Some(ErrorCode::DatabaseBusy));
        }
        match ending {
            "drop" => drop(keeper),
            _ => keeper.execute_batch(ending).unwrap(),
        }
        second.busy_timeout(patient).unwrap();
        insert(&second, 4).unwrap();
    }
    assert_eq!(value(&first, "SELECT CAST(group_concat(v, '') AS INTEGER) FROM t"), 122_242_224);
}

#[test]
fn processes_that_share_a_database_by_transaction_lose_no_update() {
    const EACH: i64 = 60;
    let store = memory();
    let processes: Vec<Process> = (0..2).map(|_| Process::new(Arc::clone(&store), Process::small())).collect();
    let parameters = "&lease=transaction&busy=50";
    processes[0].open("a", parameters).execute_batch("CREATE TABLE c (v); INSERT INTO c VALUES (0)").unwrap();
    std::thread::scope(|scope| {
        for process in &processes {
            // Two connections each: a process also competes with itself.
            for _ in 0..2 {
                scope.spawn(move || {
                    let connection = process.open("a", parameters);
                    connection.busy_timeout(Duration::from_secs(20)).unwrap();
                    for _ in 0..EACH / 2 {
                        count_up(&connection);
                    }
                });
            }
        }
    });
    for process in &processes {
        assert_eq!(value(&process.follow("a"), "SELECT v FROM c"), 2 * EACH);
        assert_eq!(process.problems("a"), Vec::<String>::new());
    }
}

/// A reader found it when the session had to be begun again: it was taken for somebody else's, and the database stopped.
#[test]
fn a_commit_that_another_connection_sees_first_is_no_error() {
    let clock = Arc::new(ManualClock::default());
    let (plan, watch) = (Arc::new(FaultPlan::default()), Arc::new(Watch::default()));
    let memory = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let faulty = Arc::new(FaultLayer::new(memory, Arc::clone(&plan)));
    let store = Arc::new(Layer::new(faulty, Arc::clone(&watch)));
    let process = Process::with_clock(store, Process::small(), Arc::<ManualClock>::clone(&clock));
    let writer = process.open("a", "");
    writer.execute_batch("CREATE TABLE t (v)").unwrap();
    let reader = process.open("a", "");
    // The reply is lost, and before the writer asks what became of its commit a reader looks: it may have to wait.
    plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::LoseReply });
    let (sender, looking) = std::sync::mpsc::channel();
    watch.trigger(Operation::Head, 0, move || {
        clock.advance(Duration::from_secs(60));
        let look = std::thread::spawn(move || value(&reader, "SELECT count(*) FROM t"));
        pause(Duration::from_millis(20));
        sender.send(look).expect("the test waits");
    });
    insert(&writer, 1).unwrap();
    assert_eq!(looking.recv().unwrap().join().unwrap(), 1);
    insert(&writer, 3).unwrap();
    assert_eq!(value(&writer, "SELECT sum(v) FROM t"), 4);
}

/// The request to give it back came too late, and was taken for one whose lease nobody here knew of: the lease was given
/// back behind the back of the reader that had it by then, who showed old states from then on.
#[test]
fn a_lease_that_is_taken_anew_while_it_is_given_back_is_kept() {
    let store = memory();
    let (process, watch, _) = watched(&store);
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    let reader = process.open("a", "");
    let (sender, looked) = std::sync::mpsc::channel();
    watch.trigger(Operation::Release, 0, move || {
        // SQLite is in the middle of a call on this thread.
        let look = std::thread::spawn(move || (value(&reader, "SELECT count(*) FROM t"), reader));
        sender.send(look.join().expect("it looks")).expect("the test waits");
    });
    connection.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap();
    let (count, reader) = looked.recv().unwrap();
    assert_eq!(count, 1);
    let other = Process::new(store, Process::small());
    let refused = insert(&other.open("a", ""), 2).unwrap_err();
    assert_eq!(code(&refused), Some(ErrorCode::DatabaseBusy), "the reader's process holds the lease");
    insert(&connection, 3).unwrap();
    assert_eq!(value(&reader, "SELECT sum(v) FROM t"), 4);
}

/// Where transactions share a database, the commit of another connection gave the lease back in the middle of a checkpoint
/// that somebody had asked for: it failed.
#[test]
fn a_checkpoint_that_is_asked_for_keeps_the_lease_until_it_is_done() {
    let store = memory();
    let (process, watch, _) = watched(&store);
    let connection = process.open("a", "&lease=transaction");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    let writer = process.open("a", "&lease=transaction");
    watch.trigger(Operation::Checkpoint, 0, move || {
        let write = std::thread::spawn(move || insert(&writer, 2).map(|_| ()));
        write.join().expect("it does not panic").expect("it writes");
    });
    connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
    assert!(!watch.is_waiting());
    // In the end it is given back.
    let other = Process::new(store, Process::small());
    insert(&other.open("a", ""), 3).unwrap();
}

/// The lease that was taken for it was kept while the database stayed open.
#[test]
fn a_collection_of_a_database_that_is_shared_gives_the_lease_back() {
    let store = memory();
    let process = Process::new(Arc::clone(&store), Process::small());
    let connection = process.open("a", "&lease=transaction");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    process.fleet().collect(&DatabaseName::new("a").unwrap(), false).unwrap();
    let other = Process::new(store, Process::small());
    insert(&other.open("a", ""), 2).unwrap();
}

/// Its lock was never lowered, also when it was closed, and no other connection could write any more.
#[test]
fn a_connection_whose_lock_panicked_stands_in_nobodys_way() {
    let (process, watch, _) = watched(&memory());
    let parameters = "&locking=sqlite";
    let other = process.open("a", parameters);
    let connection = process.open("a", parameters);
    watch.trigger(Operation::Open, 0, || panic!("a panic in the store (injected fault)"));
    connection.execute_batch("CREATE TABLE t (v)").unwrap_err();
    drop(connection);
    other.execute_batch("CREATE TABLE t (v)").unwrap();
}

#[test]
fn commits_of_many_databases_share_calls_and_fail_alone() {
    const MANY: usize = 64;
    let store = memory();
    let slow = LatencyLayer::new(Arc::clone(&store), Arc::new(Latency(Duration::from_millis(5))));
    let process = Process::new(Arc::new(slow), Process::small());
    let names: Vec<String> = (0..MANY).map(|index| format!("db-{index}")).collect();
    let connections: Vec<Connection> = std::thread::scope(|scope| {
        let opened = names.iter().map(|name| {
            let process = &process;
            scope.spawn(move || {
                let connection = process.open(name, "");
                connection.execute_batch("CREATE TABLE t (v)").unwrap();
                connection
            })
        });
        let opened: Vec<_> = opened.collect();
        opened.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let other = Process::new(Arc::clone(&store), Process::small());
    insert(&other.open("db-17", "&takeover=1"), 100).unwrap();
    let before = process.fleet().counters().get(Operation::Commit).calls;
    let start = Barrier::new(MANY);
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let threads = connections.into_iter().map(|connection| {
            let start = &start;
            scope.spawn(move || {
                connection.execute_batch("BEGIN; INSERT INTO t VALUES (1)").unwrap();
                start.wait();
                connection.execute_batch("COMMIT").is_ok()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let calls = process.fleet().counters().get(Operation::Commit).calls - before;
    assert!(calls <= MANY as u64 / 4, "{MANY} commits took {calls} calls");
    for (index, (name, committed)) in names.iter().zip(outcomes).enumerate() {
        assert_eq!(committed, index != 17, "{name}");
        let expected = if committed { 1 } else { 100 };
        assert_eq!(value(&other.follow(name), "SELECT sum(v) FROM t"), expected, "{name}");
    }
}

/// A panic below a callback of SQLite.
#[test]
fn a_panic_is_an_error_of_one_connection() {
    for operation in [Operation::ReadPages, Operation::Stage, Operation::Commit] {
        let store = memory();
        let (process, watch, _) = watched(&store);
        let first = process.open("a", "");
        first.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1); PRAGMA cache_size = 4").unwrap();
        let second = process.open("a", "");
        let elsewhere = process.open("b", "");
        elsewhere.execute_batch("CREATE TABLE t (v)").unwrap();
        if operation == Operation::ReadPages {
            // Nothing is cached after another process's commit.
            first.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap();
            let other = Process::new(Arc::clone(&store), Process::small());
            let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)";
            let large = format!("PRAGMA cache_size = 4; INSERT INTO t {rows} SELECT zeroblob(1000) FROM n");
            other.open("a", "").execute_batch(&large).unwrap();
        }
        watch.trigger(operation, 0, move || panic!("injected: {}", operation.as_str()));
        let sql = "BEGIN; INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
            SELECT randomblob(1000) FROM n; UPDATE t SET v = 2; COMMIT";
        let error = first.execute_batch(sql).unwrap_err();
        assert_eq!(code(&error), Some(ErrorCode::SystemIoFailure), "{}", operation.as_str());
        assert!(!watch.is_waiting());
        // Whatever its state is now, it does no more harm.
        first.execute_batch("SELECT count(*) FROM t; DELETE FROM t").unwrap_err();
        insert(&elsewhere, 1).unwrap();
        drop(first);
        // A commit that was torn off is one of an unknown outcome.
        let stopped = insert(&second, 3).is_err();
        assert_eq!(stopped, operation == Operation::Commit, "{}", operation.as_str());
        drop(second);
        let again = process.open("a", "");
        insert(&again, 4).unwrap();
        let there = value(&again, "SELECT count(*) FROM t WHERE v = 2");
        assert_eq!(there, 0, "the panic came before the call");
        assert_eq!(process.problems("a"), Vec::<String>::new());
    }
}

/// It left the writer's place taken, so that the database was busy for as long as the process had it open.
#[test]
fn a_panic_while_the_lease_is_taken_leaves_room_for_the_next_writer() {
    let store = memory();
    let (process, watch, _) = watched(&store);
    let parameters = "&lease=transaction";
    let first = process.open("a", parameters);
    first.execute_batch("CREATE TABLE t (v)").unwrap();
    let second = process.open("a", parameters);
    assert_eq!(value(&second, "SELECT count(*) FROM t"), 0);
    watch.trigger(Operation::Open, 0, || panic!("injected"));
    insert(&first, 1).unwrap_err();
    insert(&second, 2).unwrap();
    drop(first);
    assert_eq!(value(&second, "SELECT sum(v) FROM t"), 2);
}

/// One that panicked was the last one: the log grew, and in the lease mode `transaction` the lease stayed.
#[test]
fn a_checkpoint_that_panics_is_made_again() {
    let store = memory();
    let (process, watch, _) = watched(&store);
    let connection = process.open("a", "&lease=transaction");
    connection.execute_batch("CREATE TABLE t (v)").unwrap();
    watch.trigger(Operation::Checkpoint, 0, || panic!("injected"));
    for round in 0..200 {
        insert(&connection, round).unwrap();
        let calls = watch.counts().get(&Operation::Checkpoint).copied().unwrap_or_default();
        if calls >= 3 {
            return;
        }
        pause(Duration::from_millis(2));
    }
    panic!("no checkpoint after the one that panicked: {:?}", watch.counts());
}

/// The collection that follows a checkpoint in the background took the lease again after the last connection had given it
/// back, and fenced the next one of the same process.
#[test]
fn work_in_the_background_of_a_closed_database_takes_no_lease() {
    let (process, watch, _) = watched(&memory());
    process.open("a", "").execute_batch("CREATE TABLE t (v)").unwrap();
    for _ in 0..30 {
        let connection = process.open("a", "");
        watch.trigger(Operation::Checkpoint, 0, || pause(Duration::from_millis(5)));
        while watch.is_waiting() {
            insert(&connection, 1).unwrap();
        }
        drop(connection);
        let connection = process.open("a", "");
        for _ in 0..3 {
            insert(&connection, 1).unwrap();
        }
    }
}

/// The warm pages of every state that was loaded anew were added to those before, without a bound, and came along with each
/// open.
#[test]
fn warm_pages_of_a_shared_database_stay_few() {
    let store = memory();
    let processes = [(); 2].map(|()| Process::new(Arc::clone(&store), Process::small()));
    let connections = processes.each_ref().map(|process| process.open("a", "&lease=transaction&busy=5000"));
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)";
    for (index, connection) in connections.iter().enumerate() {
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        let fill = format!("CREATE TABLE t{index} (v); INSERT INTO t{index} {rows} SELECT zeroblob(3000) FROM n");
        connection.execute_batch(&fill).unwrap();
    }
    for round in 0..50 {
        for (index, connection) in connections.iter().enumerate() {
            let write = format!("UPDATE t{index} SET v = zeroblob(3000 + {round}) WHERE rowid % 50 = {round}");
            connection.execute_batch(&write).unwrap();
            connection.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
            connection.execute_batch(&format!("PRAGMA shrink_memory; SELECT sum(length(v)) FROM t{index}")).unwrap();
        }
        let name = DatabaseName::new("a").unwrap();
        let request = OpenRequest { name, create: false, lease: None, known: None, tail_bytes: 0 };
        let looked = Arc::clone(&store);
        let opened = block_on(async move { looked.open(request).await }).unwrap();
        // A page may come as two rows, a delta and its base.
        let pages: BTreeSet<PageNo> = opened.warm.iter().map(|read| read.row.page).collect();
        assert!(pages.len() <= 32, "{} warm pages in round {round}", pages.len());
    }
}
