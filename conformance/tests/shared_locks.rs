//! `locking=sqlite` with `lease=transaction`: the locks of SQLite's rollback journal, between processes.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use litefleet::clock::ManualClock;
use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, OpenRequest, Operation, PageStore};
use litefleet::{DatabaseName, FleetSettings};
use litefleet_conformance::faults::{Process, Watch, block_on, code, pause};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::{Connection, ErrorCode, OpenFlags};

const LOCKS: &str = "&locking=sqlite&lease=transaction";

fn memory() -> Arc<dyn PageStore> {
    Arc::new(MemoryStore::default())
}

/// A process whose store calls can be watched and spoiled.
fn watched(inner: &Arc<dyn PageStore>) -> (Process, Arc<Watch>, Arc<FaultPlan>) {
    let (plan, watch) = (Arc::new(FaultPlan::default()), Arc::new(Watch::default()));
    let faulty = Arc::new(FaultLayer::new(Arc::clone(inner), Arc::clone(&plan)));
    (Process::new(Arc::new(Layer::new(faulty, Arc::clone(&watch))), Process::small()), watch, plan)
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

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// What is left of locks goes with the sweep, which comes once a second.
#[track_caller]
fn writes_in_time(writer: &Connection) {
    let mut written = writer.execute_batch("INSERT INTO t VALUES (1)");
    for _ in 0..600 {
        if written.is_ok() {
            break;
        }
        pause(Duration::from_millis(20));
        written = writer.execute_batch("INSERT INTO t VALUES (1)");
    }
    written.unwrap();
}

/// Of three processes one creates the table.
fn three(store: &Arc<dyn PageStore>) -> [(Process, Connection); 3] {
    let opened = [(); 3].map(|()| {
        let process = Process::new(Arc::clone(store), Process::small());
        let connection = process.open("a", LOCKS);
        (process, connection)
    });
    run(&opened[0].1, "CREATE TABLE t (v)");
    opened
}

/// A reader of another process let a writer commit, and read on in its snapshot.
#[test]
fn a_reader_of_another_process_keeps_the_writer_from_its_commit() {
    let store = memory();
    let [(_a, writer), (_b, reader), (_c, late)] = three(&store);
    run(&reader, "BEGIN; SELECT * FROM t");
    run(&writer, "BEGIN; INSERT INTO t VALUES (1)");
    run(&late, "SELECT * FROM t");
    busy(&writer, "COMMIT");
    // The writer waits: nobody new reads, and who reads goes on.
    busy(&late, "SELECT * FROM t");
    assert_eq!(count(&reader), 0);
    run(&reader, "COMMIT");
    busy(&reader, "SELECT * FROM t");
    run(&writer, "COMMIT");
    assert_eq!((count(&late), count(&reader)), (1, 1));
}

/// Who has given up lets others in.
#[test]
fn a_writer_that_rolls_back_lets_others_read_and_write() {
    let store = memory();
    let [(_a, writer), (_b, reader), (_c, late)] = three(&store);
    run(&reader, "BEGIN; SELECT * FROM t");
    run(&writer, "BEGIN; INSERT INTO t VALUES (1)");
    busy(&writer, "COMMIT");
    busy(&late, "SELECT * FROM t");
    run(&writer, "ROLLBACK");
    assert_eq!(count(&late), 0);
    run(&reader, "COMMIT");
    run(&late, "INSERT INTO t VALUES (2)");
    run(&writer, "BEGIN EXCLUSIVE");
    busy(&reader, "SELECT * FROM t");
    drop(writer);
    assert_eq!(count(&reader), 1);
}

/// A process that reads lets its other connections read too, as SQLite does, which has one lock of the file for all of them.
#[test]
fn connections_of_one_process_share_its_lock() {
    let store = memory();
    let [(_a, writer), (process, reader), _] = three(&store);
    let second = process.open("a", LOCKS);
    run(&reader, "BEGIN; SELECT * FROM t");
    run(&writer, "BEGIN; INSERT INTO t VALUES (1)");
    busy(&writer, "COMMIT");
    run(&second, "BEGIN; SELECT * FROM t");
    run(&reader, "COMMIT");
    busy(&writer, "COMMIT");
    run(&second, "COMMIT");
    run(&writer, "COMMIT");
    // Within the process of the writer they are those of its own table of locks.
    run(&second, "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)");
    run(&reader, "BEGIN; SELECT * FROM t");
    busy(&second, "COMMIT");
    busy(&writer, "SELECT * FROM t");
    run(&reader, "COMMIT");
    run(&second, "COMMIT");
    assert_eq!(count(&writer), 2);
}

/// A follower has its part in the locks where it says so; else, and where it may be behind, it disturbs nobody.
#[test]
fn followers_lock_where_they_say_so() {
    let store = memory();
    let [(_a, writer), (process, _reader), _] = three(&store);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let mut keeping = 0;
    for parameters in ["", "&locking=sqlite", LOCKS, "&locking=sqlite&lease=transaction&staleness=1000"] {
        let follower = Process::new(Arc::clone(&store), Process::small());
        let connection =
            Connection::open_with_flags(follower.uri("a", &format!("&mode=ro{parameters}")), flags).unwrap();
        run(&connection, "BEGIN; SELECT * FROM t");
        if parameters == LOCKS {
            busy(&writer, "INSERT INTO t VALUES (1)");
            keeping += 1;
        } else {
            run(&writer, "INSERT INTO t VALUES (1)");
        }
        run(&connection, "COMMIT");
        run(&writer, "INSERT INTO t VALUES (2)");
    }
    assert_eq!(keeping, 1);
    drop(process);
}

/// With either of the two settings alone nothing is asked of the store.
#[test]
fn only_both_settings_together_cost_anything() {
    let calls = |parameters: &str| {
        let (process, watch, _) = watched(&memory());
        let connection = process.open("a", parameters);
        run(&connection, "CREATE TABLE t (v); INSERT INTO t VALUES (1); SELECT * FROM t");
        let counts = watch.counts();
        let of = |operation| counts.get(&operation).copied().unwrap_or(0);
        [Operation::LockShared, Operation::UnlockShared, Operation::LockExclusive, Operation::UnlockExclusive].map(of)
    };
    assert_eq!(calls("&locking=sqlite"), [0; 4]);
    assert_eq!(calls("&lease=transaction"), [0; 4]);
    let [shared, unshared, exclusive, let_in] = calls(LOCKS);
    assert!(shared > 0 && shared == unshared && exclusive == 2, "{shared}, {unshared}, {exclusive}");
    // The lease goes back, unless a checkpoint keeps it.
    assert!(let_in <= 1, "{let_in}");
}

/// What a read transaction costs in this mode: the lock, which brings the head along, and the way back.
#[test]
fn a_read_transaction_is_two_round_trips_and_a_write_six() {
    let (process, watch, _) = watched(&memory());
    let connection = process.open("a", LOCKS);
    run(&connection, "CREATE TABLE t (v); INSERT INTO t VALUES (1); SELECT * FROM t");
    let total = || {
        let ours = [
            Operation::Open,
            Operation::Head,
            Operation::LockShared,
            Operation::UnlockShared,
            Operation::LockExclusive,
            Operation::UnlockExclusive,
            Operation::Commit,
            Operation::Release,
            Operation::ReadPages,
        ];
        watch.counts().iter().filter(|(operation, _)| ours.contains(operation)).map(|(_, count)| count).sum::<u64>()
    };
    let before = total();
    run(&connection, "SELECT * FROM t");
    assert_eq!(total() - before, 2, "{:?}", watch.counts());
    let before = total();
    run(&connection, "INSERT INTO t VALUES (2)");
    assert_eq!(total() - before, 6, "{:?}", watch.counts());
}

/// A reply that was lost left a lock that nobody here knew of, and nobody else could commit any more.
#[test]
fn a_lock_that_was_granted_without_an_answer_is_given_back() {
    for operation in [Operation::LockShared, Operation::UnlockShared] {
        let store = memory();
        let [(_a, writer), _, _] = three(&store);
        let (process, _, plan) = watched(&store);
        let reader = process.open("a", LOCKS);
        run(&reader, "SELECT * FROM t");
        // For as long as a call is tried.
        let effect = if operation == Operation::LockShared { Effect::LoseReply } else { Effect::Refuse };
        plan.arm(Fault { operation: Some(operation), after: 0, times: u64::MAX, effect });
        let read = reader.execute_batch("BEGIN; SELECT * FROM t; COMMIT");
        assert_eq!(read.is_err(), operation == Operation::LockShared);
        busy(&writer, "INSERT INTO t VALUES (1)");
        plan.disarm();
        writes_in_time(&writer);
    }
}

/// Its number was lost, and nobody else could commit any more.
#[test]
fn a_lock_whose_way_back_panicked_is_given_back() {
    let store = memory();
    let [(_a, writer), _, _] = three(&store);
    let (process, watch, _) = watched(&store);
    let reader = process.open("a", LOCKS);
    run(&reader, "BEGIN; SELECT * FROM t");
    watch.trigger(Operation::UnlockShared, 0, || panic!("a panic in the store (injected fault)"));
    // What SQLite says of it is another test's.
    let _ended = reader.execute_batch("COMMIT");
    assert!(!watch.is_waiting());
    drop(reader);
    writes_in_time(&writer);
}

/// A way back that arrives late takes nobody's lock.
#[test]
fn a_lock_that_is_given_back_late_is_not_the_next_one() {
    let store = memory();
    let [(_a, writer), _, _] = three(&store);
    let (process, _, plan) = watched(&store);
    let reader = process.open("a", LOCKS);
    plan.arm(Fault { operation: Some(Operation::UnlockShared), after: 0, times: u64::MAX, effect: Effect::Late });
    run(&reader, "SELECT * FROM t");
    plan.disarm();
    run(&reader, "BEGIN; SELECT * FROM t");
    assert!(block_on(async move { plan.deliver().await }) > 0);
    busy(&writer, "INSERT INTO t VALUES (1)");
    run(&reader, "COMMIT");
}

/// A process that is gone keeps nobody out for longer than its session lives, and one that comes back reads on, in the state
/// that it had, and cannot write on it.
#[test]
fn locks_end_with_the_session_of_a_process() {
    let clock = Arc::new(ManualClock::default());
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let [one, two] = [(); 2].map(|()| {
        let settings = Process::small();
        Process::with_clock(Arc::clone(&store), settings, Arc::<ManualClock>::clone(&clock))
    });
    let (writer, reader) = (one.open("a", LOCKS), two.open("a", LOCKS));
    run(&writer, "CREATE TABLE t (v)");
    run(&reader, "BEGIN; SELECT * FROM t");
    busy(&writer, "INSERT INTO t VALUES (1)");
    clock.advance(FleetSettings::default().session_lifetime * 2);
    run(&writer, "INSERT INTO t VALUES (1)");
    assert_eq!(count(&reader), 0);
    busy(&reader, "INSERT INTO t VALUES (2)");
    run(&reader, "ROLLBACK");
    assert_eq!(count(&reader), 1);
    // Its locks are those of another session now.
    run(&reader, "BEGIN; SELECT * FROM t");
    busy(&writer, "INSERT INTO t VALUES (3)");
    run(&reader, "COMMIT");
    run(&writer, "INSERT INTO t VALUES (3)");
}

/// The lease was lost between the lock and the commit, and had come back: another process may have begun to read meanwhile, and the
/// commit was made beside it.
#[test]
fn a_lease_that_was_taken_anew_asks_again_whether_others_read() {
    let store = memory();
    let [(_a, _first), (_b, reader), _] = three(&store);
    let (process, watch, _) = watched(&store);
    let writer = process.open("a", LOCKS);
    run(&writer, "BEGIN; INSERT INTO t VALUES (1)");
    let store = Arc::clone(&store);
    let (sender, began) = std::sync::mpsc::channel();
    // When the writer is alone and its commit on its way, its session ends. Another takes the lease, commits nothing, and begins
    // to read.
    watch.trigger(Operation::Commit, 0, move || {
        let open = OpenRequest {
            name: DatabaseName::new("a").unwrap(),
            create: false,
            lease: None,
            known: None,
            tail_bytes: 0,
        };
        block_on(async move {
            let holder = store.open(open).await.unwrap().head.holder.unwrap();
            store.end_session(holder.session).await.unwrap();
        });
        run(&reader, "BEGIN IMMEDIATE; ROLLBACK; BEGIN; SELECT * FROM t");
        sender.send(reader).expect("the test waits");
    });
    let error = writer.execute_batch("COMMIT").unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::DatabaseBusy), "{error}");
    assert!(writer.is_autocommit(), "it was rolled back");
    let reader = began.recv().unwrap();
    assert_eq!(count(&reader), 0);
    busy(&writer, "INSERT INTO t VALUES (2)");
    run(&reader, "COMMIT");
    run(&writer, "INSERT INTO t VALUES (2)");
    assert_eq!(count(&reader), 1);
}

/// A checkpoint in the background keeps the lease for longer than the transaction before it, and kept readers out for as long.
#[test]
fn a_checkpoint_keeps_no_reader_out() {
    let store = memory();
    let [(_a, _first), (_b, reader), _] = three(&store);
    let (process, watch, _) = watched(&store);
    let writer = process.open("a", LOCKS);
    let (written, committed) = std::sync::mpsc::channel();
    let (sender, looked) = std::sync::mpsc::channel();
    watch.trigger(Operation::Checkpoint, 0, move || {
        committed.recv().expect("the test commits");
        sender
            .send(reader.execute_batch("SELECT * FROM t").map_err(|error| error.to_string()))
            .expect("the test waits");
    });
    // Until a checkpoint is due.
    while watch.is_waiting() {
        run(&writer, "INSERT INTO t VALUES (1)");
        pause(Duration::from_millis(10));
    }
    written.send(()).unwrap();
    looked.recv().unwrap().unwrap();
}

/// The first database of a transaction over several was committed, the lease given back with it, and another process read what was
/// undone then, or had the lease, and the undoing failed: half of the transaction stayed.
#[test]
fn a_commit_that_may_be_undone_is_seen_by_nobody() {
    let store = memory();
    let [(_a, other), (_b, second), _] = three(&store);
    let (process, watch, plan) = watched(&store);
    let writer = process.open("a", LOCKS);
    run(&writer, &format!("ATTACH '{}' AS b; CREATE TABLE b.u (v)", process.uri("b", LOCKS)));
    // Without a super-journal each database commits by itself.
    run(&writer, "PRAGMA main.journal_mode = MEMORY; PRAGMA b.journal_mode = MEMORY");
    let (sender, seen) = std::sync::mpsc::channel();
    watch.trigger(Operation::Commit, 1, move || {
        let looked = [&other, &second].map(|other| code(&other.execute_batch("SELECT * FROM t").unwrap_err()));
        let wrote = code(&other.execute_batch("BEGIN IMMEDIATE").unwrap_err());
        plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::Full });
        sender.send((looked, wrote, other)).expect("the test waits");
    });
    let error = writer.execute_batch("BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); COMMIT").unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::DiskFull), "{error}");
    let (looked, wrote, other) = seen.recv().unwrap();
    assert_eq!((looked, wrote), ([Some(ErrorCode::DatabaseBusy); 2], Some(ErrorCode::DatabaseBusy)));
    assert_eq!(count(&other), 0);
    run(&writer, "BEGIN; INSERT INTO t VALUES (2); INSERT INTO u VALUES (2); COMMIT");
    assert_eq!(count(&other), 1);
}

/// A database that is deleted beneath its readers leaves no lock behind that somebody would wait for.
#[test]
fn a_lock_of_a_database_that_was_deleted_is_nobodys() {
    let store = memory();
    let [(process, writer), (_b, reader), _] = three(&store);
    run(&reader, "BEGIN; SELECT * FROM t");
    drop(writer);
    process.fleet().remove(&DatabaseName::new("a").unwrap(), true).unwrap();
    run(&reader, "COMMIT");
    drop(reader);
    let writer = process.open("a", LOCKS);
    run(&writer, "CREATE TABLE t (v); INSERT INTO t VALUES (1)");
}

/// What a connection answered, and what it sees.
fn answer(connection: &Connection, sql: &str) -> String {
    let mut said = String::new();
    let done = connection.prepare(sql).and_then(|mut statement| {
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            write!(said, "{:?} ", row.get::<_, Option<i64>>(0)?).unwrap();
        }
        Ok(())
    });
    if let Err(error) = done {
        write!(said, "{:?}", code(&error)).unwrap();
    }
    write!(said, " autocommit {}", connection.is_autocommit()).unwrap();
    said
}

/// What a random history asks of one connection.
fn statement(random: &mut StdRng, next: &mut i64) -> String {
    *next += 1;
    match random.random_range(0..14) {
        0 | 1 => "BEGIN".into(),
        2 => "BEGIN IMMEDIATE".into(),
        3 => "BEGIN EXCLUSIVE".into(),
        4..=6 => "COMMIT".into(),
        7 => "ROLLBACK".into(),
        8 | 9 => "SELECT count(*) + sum(v) FROM t".into(),
        // Larger than SQLite's cache: it writes into the file before the commit, where it may.
        10 => format!("INSERT INTO t SELECT {next}, randomblob(900) FROM generate LIMIT 60"),
        11 => format!("DELETE FROM t WHERE v % 7 = {}", *next % 7),
        _ => format!("INSERT INTO t VALUES ({next}, 'x')"),
    }
}

/// Connections of as many processes answer as connections to a file of SQLite's own VFS do: who is busy, when, and what each sees.
#[test]
fn processes_lock_as_sqlite_does() {
    const SEEDS: u64 = 30;
    const STATEMENTS: usize = 160;
    let first = std::env::var("LITEFLEET_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut seen: BTreeMap<bool, usize> = BTreeMap::new();
    for seed in first..first + SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stock.db");
        let store = memory();
        let processes: Vec<Process> =
            (0..4).map(|_| Process::light(Arc::clone(&store), FleetSettings::default())).collect();
        let ours: Vec<Connection> = processes.iter().map(|process| process.open("a", LOCKS)).collect();
        let stock: Vec<Connection> = (0..4).map(|_| Connection::open(&file).unwrap()).collect();
        for connection in ours.iter().chain(&stock) {
            connection.busy_timeout(Duration::ZERO).unwrap();
            run(connection, "PRAGMA synchronous = OFF; PRAGMA cache_size = 10");
        }
        let made = "CREATE TABLE t (v, w); CREATE TABLE generate (n);
            WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 60) INSERT INTO generate SELECT n FROM c";
        run(&ours[0], made);
        run(&stock[0], made);
        let (mut history, mut next) = (String::new(), 0);
        for _ in 0..STATEMENTS {
            let who = random.random_range(0..4);
            let sql = statement(&mut random, &mut next);
            let (got, expected) = (answer(&ours[who], &sql), answer(&stock[who], &sql));
            writeln!(history, "{who}: {sql}: {expected}").unwrap();
            assert_eq!(got, expected, "seed {seed}:\n{history}");
            *seen.entry(expected.contains("DatabaseBusy")).or_default() += 1;
        }
        for (ours, stock) in ours.iter().zip(&stock) {
            for connection in [ours, stock] {
                if !connection.is_autocommit() {
                    run(connection, "ROLLBACK");
                }
            }
        }
        let all = "SELECT count(*) + sum(v) FROM t";
        assert_eq!(answer(&ours[1], all), answer(&stock[2], all), "seed {seed}:\n{history}");
    }
    assert!(seen.values().all(|count| *count > 300), "both happen often: {seen:?}");
}
