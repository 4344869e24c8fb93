//! Several connections of one process, and transactions that are large or fail.

use litefleet::store::{Effect, Operation};
use rusqlite::Connection;

use super::bench::{Bench, EngineHarness, code, dump, fill, number, run, text};

const BUSY: i32 = 5;
const BUSY_SNAPSHOT: i32 = 517;

/// A reader keeps its snapshot while the writer commits, and neither waits for the other.
pub fn readers_and_the_writer_do_not_block_each_other(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let writer = bench.open("a");
    run(&writer, "PRAGMA busy_timeout=0");
    fill(&writer, "t", 50, 1000);
    let readers: Vec<_> = (0..6).map(|_| bench.open("a")).collect();
    let mut seen = Vec::new();
    for (index, reader) in readers.iter().enumerate() {
        run(reader, "PRAGMA busy_timeout=0; PRAGMA cache_size=1; BEGIN");
        seen.push((number(reader, "SELECT count(*) FROM t"), dump(reader)));
        run(&writer, "BEGIN IMMEDIATE; INSERT INTO t(v) SELECT v FROM t LIMIT 5");
        if index % 2 == 0 {
            run(&writer, "UPDATE t SET v = zeroblob(5000) WHERE k % 5 = 1");
        }
        assert_eq!(number(reader, "SELECT count(*) FROM t"), seen[index].0, "while the writer writes");
        run(&writer, "COMMIT");
    }
    run(&writer, "PRAGMA litefleet_checkpoint");
    run(&writer, "DELETE FROM t; VACUUM");
    for (reader, (_, expected)) in readers.iter().zip(&seen) {
        assert!(dump(reader) == *expected, "each reader sees the state it began with");
        run(reader, "COMMIT");
        assert_eq!(number(reader, "SELECT count(*) FROM t"), 0);
    }
    bench.check("a");
}

/// Who read before another wrote cannot write on top of what it read.
pub fn stale_snapshot_cannot_become_the_writer(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let (one, two) = (bench.open("a"), bench.open("a"));
    run(&one, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    run(&two, "BEGIN");
    assert_eq!(number(&two, "SELECT sum(x) FROM t"), 1);
    run(&one, "UPDATE t SET x = 2");
    assert_eq!(code(&two, "UPDATE t SET x = x + 10"), BUSY_SNAPSHOT);
    assert_eq!(number(&two, "SELECT sum(x) FROM t"), 1, "the snapshot is still there");
    run(&two, "ROLLBACK; UPDATE t SET x = x + 10");
    assert_eq!(number(&one, "SELECT sum(x) FROM t"), 12);
}

/// One writer at a time; the other waits by SQLite's own busy handler, or is told.
pub fn second_writer_is_busy(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let (one, two) = (bench.open("a"), bench.open("a"));
    run(&one, "CREATE TABLE t(x)");
    run(&two, "PRAGMA busy_timeout=0");
    run(&one, "BEGIN IMMEDIATE");
    assert_eq!(code(&two, "BEGIN IMMEDIATE"), BUSY);
    assert_eq!(code(&two, "INSERT INTO t VALUES(1)"), BUSY);
    run(&one, "INSERT INTO t VALUES(2); COMMIT");
    run(&two, "BEGIN IMMEDIATE; INSERT INTO t VALUES(3); COMMIT");
    assert_eq!(number(&one, "SELECT sum(x) FROM t"), 5);
}

/// A wait for another writer of the process ends with its commit, and where it cannot help there is none: SQLite has read
/// by then, and must begin again.
pub fn waiting_for_a_writer_ends_when_it_has_committed(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let (one, two) = (bench.open("a"), bench.open_with("a", "busy=300"));
    run(&one, "CREATE TABLE t(x)");
    run(&two, "PRAGMA busy_timeout=0; BEGIN; SELECT count(*) FROM t");
    run(&one, "INSERT INTO t VALUES(1); BEGIN IMMEDIATE");
    assert_eq!(code(&two, "INSERT INTO t VALUES(2)"), BUSY_SNAPSHOT, "whatever the other writer does");
    run(&two, "ROLLBACK");
    assert_eq!(code(&two, "BEGIN IMMEDIATE"), BUSY, "it waits, and the other one goes on");
    run(&one, "INSERT INTO t VALUES(3); COMMIT");
    run(&two, "BEGIN IMMEDIATE; INSERT INTO t VALUES(4); COMMIT");
    assert_eq!(number(&one, "SELECT sum(x) FROM t"), 8);
}

/// A rollback after a spill plays the journal back into the buffer, and nothing reaches the store.
pub fn spilled_transaction_rolls_back(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    fill(&connection, "t", 200, 2000);
    let before = dump(&connection);
    let reader = bench.open("a");
    for (round, mode) in ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"].into_iter().enumerate() {
        run(&connection, &format!("PRAGMA journal_mode={mode}; PRAGMA cache_size=5"));
        let txid = bench.fleet.info(&litefleet::DatabaseName::new("a").unwrap()).unwrap().head.txid;
        run(&connection, "BEGIN; UPDATE t SET v = zeroblob(2500); CREATE TABLE u AS SELECT * FROM t");
        fill(&connection, "w", 400, 1000);
        assert!(dump(&reader) == before, "nobody else sees it, in journal mode {mode}");
        run(&connection, "ROLLBACK");
        let after = bench.fleet.info(&litefleet::DatabaseName::new("a").unwrap()).unwrap().head.txid;
        assert_eq!(after, txid, "nothing was committed, in journal mode {mode}");
        assert!(dump(&connection) == before, "round {round}");
        bench.check("a");
    }
    run(&connection, "UPDATE t SET v = zeroblob(10) WHERE k = 1");
    bench.check("a");
}

/// SQLite does not write back what a transaction wrote early into free pages: that was stored as a commit, and whoever had
/// read before got 517 although nothing was committed.
pub fn rollback_over_free_pages_commits_nothing(harness: &dyn EngineHarness) {
    for (bytes, page_size) in [(64 << 10, 4096), (64 << 20, 4096), (64 << 20, 8192), (64 << 20, 1024)] {
        let bench = Bench::with(harness, |settings| settings.database.transaction_bytes = bytes);
        let writer = bench.open("a");
        run(&writer, &format!("PRAGMA page_size={page_size}"));
        fill(&writer, "t", 300, 3000);
        fill(&writer, "u", 1, 10);
        run(&writer, "DELETE FROM t WHERE k > 5");
        let before = dump(&writer);
        for mode in ["delete", "truncate", "persist", "memory"] {
            for synchronous in ["OFF", "FULL"] {
                let what = format!("{mode}, synchronous {synchronous}, {bytes} bytes, pages of {page_size}");
                run(&writer, &format!("PRAGMA cache_size=5; PRAGMA synchronous={synchronous}"));
                assert_eq!(text(&writer, &format!("PRAGMA journal_mode={mode}")), mode);
                let reader = bench.open("a");
                run(&reader, "BEGIN; SELECT count(*) FROM t");
                let txid = txid(&writer);
                for rollback in ["ROLLBACK", "SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; ROLLBACK"] {
                    run(&writer, "BEGIN; INSERT INTO t(v) SELECT randomblob(2900) FROM t, t, t LIMIT 120");
                    run(&writer, rollback);
                    assert!(dump(&writer) == before, "{what}");
                }
                assert_eq!(self::txid(&writer), txid, "{what}");
                run(&reader, "UPDATE u SET v = v WHERE k = 1; COMMIT");
                assert!(dump(&reader) == before, "{what}");
                drop(reader);
                assert_eq!(text(&writer, "PRAGMA integrity_check"), "ok", "{what}");
            }
        }
        // What was free is used, and read by others.
        run(&writer, "INSERT INTO t(v) SELECT zeroblob(2900) FROM t, t, t LIMIT 100");
        assert_eq!(number(&bench.open("a"), "SELECT sum(v = zeroblob(2900)) FROM t"), 100);
        bench.check("a");
    }
}

/// Under `locking_mode=EXCLUSIVE` what a rollback leaves in free pages stays beside the file until the next commit.
pub fn rollback_over_free_pages_under_exclusive_loses_nothing(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let writer = bench.open("a");
    fill(&writer, "t", 300, 3000);
    run(&writer, "DELETE FROM t WHERE k > 5");
    for mode in ["delete", "memory", "persist"] {
        let before = dump(&writer);
        let txid = txid(&writer);
        run(&writer, &format!("PRAGMA journal_mode={mode}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=5"));
        for _ in 0..2 {
            run(&writer, "BEGIN; INSERT INTO t(v) SELECT randomblob(2900) FROM t, t, t LIMIT 120; ROLLBACK");
            assert!(dump(&writer) == before, "{mode}");
        }
        assert_eq!(self::txid(&writer), txid, "{mode}");
        run(&writer, "INSERT INTO t(v) SELECT zeroblob(2900) FROM t LIMIT 5");
        run(&writer, "BEGIN; INSERT INTO t(v) SELECT randomblob(2900) FROM t, t, t LIMIT 120; ROLLBACK");
        let after = dump(&writer);
        assert_eq!(after.len(), before.len() + 5, "{mode}");
        run(&writer, "PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t");
        assert!(dump(&bench.open("a")) == after, "{mode}");
        bench.check("a");
    }
}

/// Where a rollback is stored, under `locking_mode=EXCLUSIVE`, the transaction ends with it. It was taken for a commit that may
/// yet be undone: the next commit that failed stopped the database, as the undoing that had failed.
pub fn commit_that_fails_after_a_stored_rollback_is_only_that(harness: &dyn EngineHarness) {
    let bench = Bench::keeping(harness);
    for mode in ["delete", "truncate", "persist"] {
        let writer = bench.open(mode);
        fill(&writer, "t", 300, 3000);
        run(&writer, "DELETE FROM t WHERE k > 5; CREATE TABLE u(x)");
        run(&writer, &format!("PRAGMA journal_mode={mode}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=5"));
        run(&writer, "INSERT INTO u VALUES(1)");
        let txid = txid(&writer);
        run(&writer, "BEGIN; INSERT INTO t(v) SELECT randomblob(2900) FROM t, t, t LIMIT 120; ROLLBACK");
        assert_ne!(self::txid(&writer), txid, "{mode}: it is stored");
        bench.arm(Operation::Commit, 0, 1, Effect::Full);
        assert_eq!(code(&writer, "INSERT INTO u VALUES(2)"), 13, "{mode}: SQLITE_FULL");
        bench.faults.disarm();
        run(&writer, "INSERT INTO u VALUES(4)");
        assert_eq!(number(&writer, "SELECT sum(x) FROM u"), 5, "{mode}");
        bench.check(mode);
    }
}

fn txid(connection: &Connection) -> String {
    let status = text(connection, "PRAGMA litefleet_status");
    status.lines().find(|line| line.starts_with("txid: ")).unwrap().to_owned()
}

/// A transaction commits as one whatever its size: larger than the buffer, the cache, a record, and a call of the store.
pub fn transaction_larger_than_every_bound_commits(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| {
        settings.cache_bytes = settings.cache_bytes.min(256 << 10);
        settings.database.transaction_bytes = 64 << 10;
        settings.database.checkpoint_pages = settings.database.checkpoint_pages.min(64);
    });
    let connection = bench.open("a");
    let reader = bench.open("a");
    run(&connection, "PRAGMA cache_size=10");
    let mut expected = 0;
    for round in 0_u32..4 {
        run(&connection, "BEGIN");
        fill(&connection, "t", 500, 3000);
        expected += 500;
        if round == 2 {
            run(&connection, "UPDATE t SET v = zeroblob(4000) WHERE k % 2 = 0");
        }
        let txid = bench.fleet.info(&litefleet::DatabaseName::new("a").unwrap()).unwrap().head.txid;
        run(&connection, "COMMIT");
        let after = bench.fleet.info(&litefleet::DatabaseName::new("a").unwrap()).unwrap().head.txid;
        assert_eq!(after, txid.next(), "one commit");
        assert_eq!(number(&reader, "SELECT count(*) FROM t"), expected);
        bench.check("a");
    }
    drop((connection, reader));
    let other = bench.another();
    let again = other.open("a");
    assert_eq!(number(&again, "SELECT count(*) FROM t"), expected);
}

/// A savepoint's rollback after a spill restores what was before it, and the transaction goes on.
pub fn savepoints_roll_back_to_themselves(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "PRAGMA cache_size=5");
    fill(&connection, "t", 100, 2000);
    run(&connection, "BEGIN; UPDATE t SET v = zeroblob(2100) WHERE k < 20; SAVEPOINT s");
    let at = dump(&connection);
    run(&connection, "UPDATE t SET v = zeroblob(6000); CREATE INDEX i ON t(v); DELETE FROM t WHERE k % 3 = 0");
    run(&connection, "SAVEPOINT s2; DROP TABLE t; ROLLBACK TO s2; RELEASE s2; ROLLBACK TO s");
    assert!(dump(&connection) == at);
    run(&connection, "INSERT INTO t(v) VALUES('more'); RELEASE s; COMMIT");
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 101);
    bench.check("a");
}
