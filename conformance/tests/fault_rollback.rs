//! Transactions that end badly: over several databases, and those that cut the file.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;

use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, Operation, PageStore};
use litefleet_conformance::faults::{Process, Watch, block_on};
use rusqlite::Connection;

/// `BEGIN IMMEDIATE` locks every attached database for writing, and SQLite lists the journals of all of them in the
/// super-journal. Those that were not written never reach a commit point, and the commit was refused for it.
#[test]
fn attached_databases_that_were_only_locked_do_not_stop_a_commit() {
    let process = Process::new(Arc::new(MemoryStore::default()), Process::small());
    let connection = process.open("a", "");
    for name in ["b", "c"] {
        connection.execute(&format!("ATTACH '{}' AS {name}", process.uri(name, "")), []).unwrap();
    }
    connection.execute_batch("BEGIN IMMEDIATE; CREATE TABLE main.t (v); COMMIT").unwrap();
    connection.execute_batch("BEGIN IMMEDIATE; CREATE TABLE b.t (v); INSERT INTO main.t VALUES (1); COMMIT").unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
    let sql = "SELECT (SELECT count(*) FROM main.t) + (SELECT count(*) FROM b.sqlite_schema)";
    assert_eq!(connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// A process over a store that can be made to fail.
fn faulty() -> (Process, Arc<FaultPlan>) {
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::default()), Arc::clone(&plan));
    (Process::new(Arc::new(store), Process::small()), plan)
}

fn fail_next(plan: &FaultPlan, operation: Operation, effect: Effect) {
    plan.arm(Fault { operation: Some(operation), after: 0, times: 1, effect });
}

/// The rollback of the first participant deletes the super-journal, because it finds no journals on disk. The second one
/// then took itself for committed, played nothing back, and was committed: alone.
#[test]
fn a_failed_commit_of_several_databases_leaves_nothing_in_any() {
    for rows in [1, 200] {
        let (process, plan) = faulty();
        let connection = process.open("a", "");
        connection.execute(&format!("ATTACH '{}' AS b", process.uri("b", "")), []).unwrap();
        connection.execute_batch("CREATE TABLE main.t (v); CREATE TABLE b.t (v); PRAGMA cache_size = 8").unwrap();
        let fill = |schema| {
            format!(
                "INSERT INTO {schema}.t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                    SELECT randomblob(1000) FROM n;"
            )
        };
        for operation in [Operation::Commit, Operation::Stage] {
            plan.disarm();
            connection.execute_batch(&format!("BEGIN; {} {}", fill("main"), fill("b"))).unwrap();
            let hits = plan.hits();
            fail_next(&plan, operation, Effect::Full);
            let committed = connection.execute_batch("COMMIT");
            if plan.hits() == hits {
                // A small transaction stages nothing.
                committed.unwrap();
                connection.execute_batch("DELETE FROM main.t; DELETE FROM b.t").unwrap();
                continue;
            }
            assert!(committed.is_err() && connection.is_autocommit());
            for schema in ["main.t", "b.t"] {
                assert_eq!(count(&connection, schema), 0, "{schema}, {}", operation.as_str());
            }
        }
        drop(connection);
        for name in ["a", "b"] {
            assert_eq!(count(&process.follow(name), "t"), 0);
            assert_eq!(process.problems(name), Vec::<String>::new());
        }
    }
}

/// At its commit point the engine cuts the file to the size that page 1 names. When the commit failed the cut remained,
/// and the rollback, which writes back only what SQLite had overwritten, committed zeros in place of the pages beyond.
#[test]
fn a_vacuum_that_fails_to_commit_loses_no_pages() {
    // The commit itself fails, and what the rollback commits does not.
    for (effect, times) in [(Effect::Full, 1), (Effect::LoseRequest, 3)] {
        let (process, plan) = faulty();
        let connection = process.open("a", "");
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)";
        connection
            .execute_batch(&format!(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t {rows} SELECT i, randomblob(1000) FROM n;
                 DELETE FROM t WHERE id % 3 <> 0; PRAGMA cache_size = 8"
            ))
            .unwrap();
        plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times, effect });
        connection.execute_batch("VACUUM").unwrap_err();
        plan.disarm();
        connection.execute_batch("INSERT INTO t (v) VALUES (randomblob(1000))").unwrap();
        for reader in [&connection, &process.follow("a")] {
            assert_eq!(count(reader, "t"), 67);
            let integrity = reader.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap();
            assert_eq!(integrity, "ok", "{effect:?}");
        }
        assert_eq!(process.problems("a"), Vec::<String>::new());
    }
}

/// A checkpoint does not read the row of a page that the log starts from zeros; what the log says of the page before that
/// was applied to nothing, and every later checkpoint failed as corrupt.
#[test]
fn a_checkpoint_after_large_transactions_and_vacuum_is_whole() {
    let mut settings = Process::small();
    settings.database.checkpoint_records = 100;
    let process = Process::new(Arc::new(MemoryStore::default()), settings);
    let connection = process.open("a", "");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150)";
    let fill = format!("INSERT INTO t (v) {rows} SELECT randomblob(1000) FROM n");
    connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v); PRAGMA cache_size = 8").unwrap();
    for _ in 0..3 {
        connection.execute_batch(&format!("{fill}; DELETE FROM t WHERE id % 3 <> 0; VACUUM; {fill}")).unwrap();
        let done = connection.query_row("PRAGMA litefleet_checkpoint", [], |row| row.get::<_, String>(0)).unwrap();
        assert!(done.starts_with("checkpoint at"), "{done}");
    }
    assert_eq!(process.problems("a"), Vec::<String>::new());
}

/// The warm pages come as of the checkpoint. One that a large transaction had staged since, in the log that came along,
/// made the open fail as corrupt; past 4,096 runs of staged pages its old image was taken for the new one.
#[test]
fn warm_pages_that_were_staged_since_the_checkpoint_are_read_anew() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let mut settings = Process::small();
    settings.database.checkpoint_records = 100;
    let process = Process::new(Arc::clone(&store), settings.clone());
    let connection = process.open("a", "");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)";
    connection
        .execute_batch(&format!("CREATE TABLE t (v); INSERT INTO t {rows} SELECT randomblob(3000) FROM n"))
        .unwrap();
    connection.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap();
    // Without a cache every page is read and noted as warm.
    connection.execute_batch("PRAGMA cache_size = 0; SELECT sum(length(v)) FROM t").unwrap();
    connection.query_row("PRAGMA litefleet_release", [], |_| Ok(())).unwrap();
    connection.execute_batch("PRAGMA cache_size = 4; UPDATE t SET v = randomblob(3000)").unwrap();
    // As after a crash: without another checkpoint.
    let other = Process::new(store, settings);
    let taker = other.open("a", "&takeover=1");
    assert_eq!(count(&taker, "t"), 60);
    assert_eq!(other.problems("a"), Vec::<String>::new());
}

/// Without a super-journal a commit that SQLite then undoes is seen by others, and SQLite takes its change counter back: the
/// next commit would raise it to the same value again, and who has cached the state in between would go on with that.
/// Nor does SQLite know the counter that the undoing was stored with: while it keeps its lock, a commit raises it to one that
/// was used before.
#[test]
fn each_state_of_a_commit_that_is_undone_is_seen() {
    for (sees_undone, keeps_reading) in [(false, false), (true, false), (false, true), (true, true)] {
        let (plan, watch) = (Arc::new(FaultPlan::default()), Arc::new(Watch::default()));
        let store = FaultLayer::new(Arc::new(MemoryStore::default()), Arc::clone(&plan));
        let process = Process::new(Arc::new(Layer::new(Arc::new(store), Arc::clone(&watch))), Process::small());
        let writer = process.open("a", "");
        writer.execute(&format!("ATTACH '{}' AS b", process.uri("b", "")), []).unwrap();
        writer
            .execute_batch(
                "PRAGMA main.synchronous=OFF; PRAGMA b.synchronous=OFF; CREATE TABLE main.t (v); CREATE TABLE b.t (v);
                 INSERT INTO main.t VALUES (0), (0)",
            )
            .unwrap();
        let sum = |connection: &Connection| -> i64 {
            connection.query_row("SELECT sum(v) FROM main.t", [], |row| row.get(0)).unwrap()
        };
        let reader = process.open("a", "");
        assert_eq!(sum(&reader), 0);
        let mut statement = writer.prepare("SELECT v FROM main.t").unwrap();
        let mut reading = statement.query([]).unwrap();
        if keeps_reading {
            reading.next().unwrap();
        }
        let (sender, looking) = std::sync::mpsc::channel();
        watch.trigger(Operation::Commit, 1, move || {
            let look = std::thread::spawn(move || (sum(&reader), reader));
            sender.send(look.join().unwrap()).unwrap();
        });
        plan.arm(Fault { operation: Some(Operation::Commit), after: 1, times: 1, effect: Effect::Full });
        writer.execute_batch("BEGIN; UPDATE main.t SET v = 1; INSERT INTO b.t VALUES (1)").unwrap();
        writer.execute_batch("COMMIT").unwrap_err();
        plan.disarm();
        let (between, reader) = looking.recv().unwrap();
        assert_eq!(between, 2, "the first database has committed, the second one not yet");
        if sees_undone {
            assert_eq!(sum(&reader), 0);
        }
        for round in 1..4 {
            writer.execute_batch(&format!("UPDATE main.t SET v = {round} + 10")).unwrap();
            assert_eq!(sum(&reader), 2 * (round + 10), "undone was seen: {sees_undone}, reading: {keeps_reading}");
        }
        drop(reading);
        drop(statement);
        drop((writer, reader));
        assert_eq!(sum(&process.open("a", "")), 26);
        assert_eq!(process.problems("a"), Vec::<String>::new());
    }
}

/// The lease of each was lost to a process that has committed nothing, or something in one of them. A commit of one database
/// takes it anew; of several it failed, and those databases stopped.
#[test]
fn a_commit_of_several_databases_takes_lost_leases_anew() {
    for other_commits in [false, true] {
        let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
        let [process, other] = [(); 2].map(|()| Process::new(Arc::clone(&store), Process::small()));
        let connection = process.open("a", "");
        connection.execute(&format!("ATTACH '{}' AS b", process.uri("b", "")), []).unwrap();
        connection.execute_batch("CREATE TABLE main.t (v); CREATE TABLE b.t (v)").unwrap();
        {
            // This ends the session of the first process, and with it its lease of the other database.
            let taker = other.open("b", "&takeover=1");
            assert_eq!(count(&taker, "t"), 0);
            if other_commits {
                taker.execute_batch("INSERT INTO t VALUES (100)").unwrap();
            }
        }
        let both = "BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO b.t VALUES (1); COMMIT";
        let committed = connection.execute_batch(both);
        assert_eq!(committed.is_ok(), !other_commits, "{committed:?}");
        if other_commits {
            assert_eq!(count(&connection, "main.t"), 0, "the database that nobody wrote to goes on");
            let error: String = connection.query_row("PRAGMA b.litefleet_error", [], |row| row.get(0)).unwrap();
            assert!(error.contains("the lease was lost"), "{error}");
        } else {
            connection.execute_batch(both).unwrap();
        }
        drop(connection);
        let rows = if other_commits { [0, 1] } else { [2, 2] };
        for (name, rows) in ["a", "b"].into_iter().zip(rows) {
            assert_eq!(count(&process.open(name, ""), "t"), rows, "{name}");
            assert_eq!(process.problems(name), Vec::<String>::new());
        }
    }
}

/// A lost reply of several was told as a failed commit where it had not reached the store; a commit of one is sent again.
#[test]
fn a_commit_of_several_databases_that_was_lost_is_sent_again() {
    let (process, plan) = faulty();
    let connection = process.open("a", "");
    connection.execute(&format!("ATTACH '{}' AS b", process.uri("b", "")), []).unwrap();
    connection.execute_batch("CREATE TABLE main.t (v); CREATE TABLE b.t (v)").unwrap();
    for (rows, effect) in [(1, Effect::LoseRequest), (2, Effect::LoseReply), (3, Effect::Late)] {
        fail_next(&plan, Operation::Commit, effect);
        connection
            .execute_batch("BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO b.t VALUES (1); COMMIT")
            .unwrap_or_else(|error| panic!("{effect:?}: {error}"));
        for table in ["main.t", "b.t"] {
            assert_eq!(count(&connection, table), rows, "{effect:?}");
        }
    }
    // What comes late has no effect any more.
    assert_eq!(block_on(async move { plan.deliver().await }), 1);
    drop(connection);
    for name in ["a", "b"] {
        assert_eq!(count(&process.open(name, ""), "t"), 3);
        assert_eq!(process.problems(name), Vec::<String>::new());
    }
}
