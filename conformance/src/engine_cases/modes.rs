//! Locking modes, journal modes, `synchronous`, and what the cache does under them.

use litefleet::vfs::LockLevel;
use rusqlite::Connection;

use super::bench::{Bench, EngineHarness, code, dump, fill, number, run, text, try_run};

/// Every journal mode under every `synchronous` commits and rolls back, small and spilled.
pub fn every_journal_mode_commits_and_rolls_back(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let setup = bench.open("a");
    fill(&setup, "t", 40, 1000);
    let mut rows = 40;
    for mode in ["delete", "truncate", "persist", "memory", "off"] {
        for synchronous in ["OFF", "NORMAL", "FULL", "EXTRA"] {
            let what = format!("{mode}, synchronous {synchronous}");
            let connection = bench.open("a");
            run(&connection, &format!("PRAGMA cache_size=3; PRAGMA synchronous={synchronous}"));
            assert_eq!(text(&connection, &format!("PRAGMA journal_mode={mode}")), mode);
            run(&connection, "INSERT INTO t(v) VALUES('small')");
            run(&connection, "BEGIN; INSERT INTO t(v) SELECT zeroblob(3000) FROM t LIMIT 20; COMMIT");
            rows += 21;
            // With the journal off SQLite promises nothing about a rollback that it has to do itself.
            if mode != "off" {
                run(&connection, "BEGIN; UPDATE t SET v = zeroblob(1500); DELETE FROM t WHERE k % 2; ROLLBACK");
                run(&connection, "BEGIN; INSERT INTO t(v) VALUES('not'); ROLLBACK");
            }
            assert_eq!(number(&connection, "SELECT count(*) FROM t"), rows, "{what}");
            assert_eq!(number(&setup, "SELECT count(*) FROM t"), rows, "{what}, another connection");
            drop(connection);
        }
        run(&setup, "DELETE FROM t WHERE k > 40");
        rows = 40;
        bench.check("a");
    }
}

/// There is no WAL: the pragma says so, and nothing is changed.
pub fn wal_is_answered_delete(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), "delete", "of an empty database");
    run(&connection, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), "delete");
    run(&connection, "INSERT INTO t VALUES(2)");
    assert_eq!(number(&bench.open("a"), "SELECT count(*) FROM t"), 2);
    bench.check("a");
}

/// Under `locking_mode=EXCLUSIVE` SQLite would go on with a WAL file, and find that there is none: the pragma answers the mode
/// that stays, as without EXCLUSIVE.
pub fn wal_under_exclusive_locking_is_answered(harness: &dyn EngineHarness) {
    let bench = Bench::keeping(harness);
    for (first, mode) in
        [("", "delete"), ("PRAGMA journal_mode=PERSIST;", "persist"), ("PRAGMA journal_mode=t;", "truncate")]
    {
        let connection = bench.open("a");
        run(&connection, &format!("{first} PRAGMA locking_mode=EXCLUSIVE"));
        assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), mode);
        run(&connection, "CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)");
        assert_eq!(text(&connection, "PRAGMA main.journal_mode='wal'"), mode);
        assert_eq!(text(&connection, "PRAGMA journal_mode"), mode);
        run(&connection, "PRAGMA locking_mode=NORMAL; INSERT INTO t VALUES(1)");
        assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), mode);
    }
    assert_eq!(number(&bench.open("a"), "SELECT count(*) FROM t"), 6);
    bench.check("a");
}

/// With `mmap_size` SQLite reads pages in place, and sees what it would without: pages of every size, before and in a
/// transaction, after a spill, a rollback and a vacuum, and beside another connection that writes.
pub fn pages_that_are_read_in_place_are_those_of_the_snapshot(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    for page_size in [512, 4096, 65536] {
        let name = format!("a{page_size}");
        let writer = bench.open(&name);
        run(&writer, &format!("PRAGMA page_size={page_size}; PRAGMA cache_size=3"));
        fill(&writer, "t", 60, 900);
        let lent = bench.open(&name);
        assert_eq!(number(&lent, "PRAGMA mmap_size=100000000"), 100_000_000);
        run(&lent, "PRAGMA cache_size=3");
        let same = |what: &str| assert_eq!(dump(&lent), dump(&writer), "{page_size}, {what}");
        same("at first");
        run(&writer, "UPDATE t SET v = zeroblob(1500) WHERE k % 3 = 0; DELETE FROM t WHERE k % 7 = 0");
        same("after another's commit");
        run(&lent, "BEGIN; SELECT count(*) FROM t; UPDATE t SET v = randomblob(2000) WHERE k % 2");
        assert_eq!(text(&lent, "PRAGMA integrity_check"), "ok");
        let inside = dump(&lent);
        run(&lent, "SAVEPOINT s; DELETE FROM t; ROLLBACK TO s");
        assert_eq!(dump(&lent), inside, "{page_size}, in a transaction that has spilled");
        run(&lent, "ROLLBACK");
        same("after a rollback");
        run(&lent, "DELETE FROM t WHERE k > 20; VACUUM");
        same("after a vacuum");
        drop((lent, writer));
        bench.check(&name);
    }
}

/// Where EXCLUSIVE came to an attached database with its connection, SQLite goes on with a WAL file, whose commits would never
/// reach the store: it is refused, and nothing is lost.
pub fn wal_under_exclusive_locking_is_refused(harness: &dyn EngineHarness) {
    let bench = Bench::keeping(harness);
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    drop(connection);
    let connection = bench.open("main");
    run(
        &connection,
        "PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE m(x); ATTACH 'a' AS aux; INSERT INTO aux.t VALUES(2)",
    );
    let outcome = try_run(&connection, "PRAGMA aux.journal_mode=WAL; INSERT INTO aux.t VALUES(3)");
    assert!(outcome.is_err(), "a commit into a WAL file would be lost");
    drop(connection);
    let again = bench.open("a");
    assert_eq!(number(&again, "SELECT count(*) FROM t"), 2);
    run(&again, "INSERT INTO t VALUES(3)");
    bench.check("a");
}

/// `locking_mode=EXCLUSIVE` keeps the write lock, and leaving it shows others all that was committed meanwhile. SQLite
/// raises the change counter only once under it: a reader must not be deceived by that.
pub fn exclusive_locking_keeps_others_caches_honest(harness: &dyn EngineHarness) {
    let bench = Bench::keeping(harness);
    let (one, two) = (bench.open("a"), bench.open("a"));
    run(&one, "PRAGMA busy_timeout=0");
    run(&two, "PRAGMA busy_timeout=0");
    fill(&one, "t", 20, 500);
    run(&one, "PRAGMA locking_mode=EXCLUSIVE");
    for round in 0..6 {
        run(&one, &format!("UPDATE t SET v = 'round {round}' WHERE k = 7"));
        // It reads, and keeps the pages in its cache.
        assert_eq!(text(&two, "SELECT v FROM t WHERE k = 7"), format!("round {round}"));
        assert_eq!(code(&two, "DELETE FROM t"), 5, "the lock is kept");
    }
    run(&one, "PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t");
    run(&two, "UPDATE t SET v = 'two' WHERE k = 7");
    assert_eq!(text(&one, "SELECT v FROM t WHERE k = 7"), "two");
    run(&one, "UPDATE t SET v = 'one' WHERE k = 7");
    assert_eq!(text(&two, "SELECT v FROM t WHERE k = 7"), "one");
    bench.check("a");
}

/// Under `locking_mode=EXCLUSIVE` SQLite keeps the lock of a read, and never looks at the change counter again: what others
/// committed was not seen for ever, and writing answered 517 for ever. As with SQLite's own lock, they are kept out.
pub fn exclusive_locking_that_has_only_read_keeps_writers_out(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let (one, two) = (bench.open("a"), bench.open("a"));
    for connection in [&one, &two] {
        run(connection, "PRAGMA busy_timeout=0");
    }
    run(&two, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    for round in 0..2 {
        let before = 1 + round * 3;
        run(&one, "PRAGMA locking_mode=EXCLUSIVE");
        assert_eq!(number(&one, "SELECT count(*) FROM t"), before);
        assert_eq!(code(&two, "INSERT INTO t VALUES(2)"), 5, "SQLITE_BUSY");
        assert_eq!(number(&two, "SELECT count(*) FROM t"), before, "reading goes on");
        run(&one, "INSERT INTO t VALUES(3); INSERT INTO t VALUES(3)");
        assert_eq!(code(&two, "INSERT INTO t VALUES(2)"), 5, "SQLITE_BUSY");
        run(&one, "PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t");
        run(&two, "INSERT INTO t VALUES(2)");
        assert_eq!(number(&one, "SELECT count(*) FROM t"), before + 3);
    }
    // Closed in that mode, it stands in nobody's way.
    run(&one, "PRAGMA locking_mode=EXCLUSIVE; SELECT count(*) FROM t");
    drop(one);
    run(&two, "INSERT INTO t VALUES(4)");
    bench.check("a");
}

/// Each name of a fleet had locks of its own: with `locking=sqlite` readers through one did not keep out who wrote through
/// another, and one that locked exclusively read an old state for ever.
pub fn locks_hold_whatever_name_of_the_vfs_is_used(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let second = format!("{}-too", bench.vfs);
    bench.fleet.register(&second, false).unwrap();
    let one = bench.open_with("a", "locking=sqlite");
    let two = Connection::open(format!("file:a?vfs={second}&locking=sqlite")).unwrap();
    for connection in [&one, &two] {
        run(connection, "PRAGMA busy_timeout=0");
    }
    run(&one, "CREATE TABLE t(x); BEGIN; SELECT * FROM t");
    assert_eq!(code(&two, "INSERT INTO t VALUES(1)"), 5, "SQLITE_BUSY");
    run(&one, "COMMIT; PRAGMA locking_mode=EXCLUSIVE; SELECT * FROM t");
    assert_eq!(code(&two, "INSERT INTO t VALUES(1)"), 5, "SQLITE_BUSY");
    run(&one, "PRAGMA locking_mode=NORMAL; SELECT * FROM t");
    run(&two, "INSERT INTO t VALUES(1)");
    assert_eq!(number(&one, "SELECT count(*) FROM t"), 1);
    drop(two);
    bench.fleet.unregister(&second).unwrap();
}

/// With `locking=sqlite` a follower that had been opened without kept the writer from its commit for as long as it read, while
/// nothing kept the next follower out.
pub fn followers_take_part_in_locks_where_they_say_so(harness: &dyn EngineHarness) {
    let bench = Bench::keeping(harness);
    let open = |parameters: &str| {
        let connection = bench.open_with("a", parameters);
        run(&connection, "PRAGMA busy_timeout=0");
        connection
    };
    let read = "BEGIN; SELECT count(*) FROM t";
    let writer = open("locking=sqlite");
    run(&writer, "CREATE TABLE t(x)");
    {
        let [one, two] = [(); 2].map(|()| open("mode=ro&locking=snapshot"));
        run(&one, read);
        run(&writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
        run(&two, read);
        run(&writer, "COMMIT");
        assert_eq!(number(&one, "SELECT count(*) FROM t"), 0, "its snapshot");
    }
    let [one, two] = [(); 2].map(|()| open("mode=ro&locking=sqlite"));
    run(&one, read);
    run(&writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2)");
    assert_eq!(code(&writer, "COMMIT"), 5, "SQLITE_BUSY");
    assert_eq!(code(&two, read), 5, "the writer is waiting");
    run(&one, "COMMIT");
    run(&writer, "COMMIT");
    assert_eq!(number(&one, "SELECT count(*) FROM t"), 2);
}

/// The writer's own cache does not look stale to itself after a commit: it reads nothing again.
pub fn own_commit_leaves_the_cache_warm(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    fill(&connection, "t", 30, 1000);
    assert_eq!(number(&connection, "SELECT sum(length(v)) FROM t"), 30_000);
    for _ in 0..5 {
        run(&connection, "UPDATE t SET v = v || 'x' WHERE k = 3");
        let before = bench.fleet.cache();
        assert!(number(&connection, "SELECT sum(length(v)) FROM t") > 29_000);
        let after = bench.fleet.cache();
        let pages = after.hits + after.misses - before.hits - before.misses;
        assert!(pages <= 1, "the change counter, and nothing else: {pages} pages");
    }
}

/// One page that is asked for is one hit or one miss.
pub fn page_that_is_missed_counts_once(harness: &dyn EngineHarness) {
    let bench = Bench::plain(harness);
    let connection = bench.open("a");
    fill(&connection, "t", 300, 3000);
    run(&connection, "PRAGMA litefleet_release");
    let other = bench.another();
    let mut file = other.raw("a");
    file.lock(LockLevel::Shared).unwrap();
    let mut page = [0; 4096];
    // The sixtieth did not come along with anything: neither with the open nor with a page before it.
    for (count, expected) in [(1, (0, 1)), (2, (1, 1)), (3, (2, 1))] {
        assert_eq!(file.read(59 * 4096, &mut page).unwrap(), 4096);
        let counters = other.fleet.cache();
        assert_eq!((counters.hits, counters.misses), expected, "read {count}");
    }
    // Two pages at once.
    let mut two = [0; 8192];
    assert_eq!(file.read(70 * 4096, &mut two).unwrap(), 8192);
    let counters = other.fleet.cache();
    assert_eq!((counters.hits, counters.misses), (2, 3));
}

/// A transaction that fails with the journal off under EXCLUSIVE is neither played back nor unlocked: its spilled pages
/// must not join the next commit.
pub fn failed_transaction_without_journal_leaves_nothing(harness: &dyn EngineHarness) {
    let bench = Bench::keeping(harness);
    let connection = bench.open("a");
    fill(&connection, "t", 100, 2000);
    run(&connection, "CREATE TABLE other(x)");
    let before = {
        let reader = bench.open("a");
        dump(&reader)
    };
    run(&connection, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF; PRAGMA cache_size=3");
    run(&connection, "BEGIN; UPDATE t SET v = zeroblob(2000); ROLLBACK");
    run(&connection, "INSERT INTO other VALUES(1)");
    drop(connection);
    let again = bench.open("a");
    assert_eq!(number(&again, "SELECT count(*) FROM other"), 1);
    run(&again, "DELETE FROM other");
    assert!(dump(&again) == before, "nothing of the failed transaction is there");
    bench.check("a");
}

/// The same in a transaction over several databases: its rows were read as if committed, and the next commit stored nothing, and
/// was told as done.
pub fn failed_transaction_of_several_without_journal_leaves_nothing(harness: &dyn EngineHarness) {
    use litefleet::store::{Effect, Operation};
    let bench = Bench::keeping(harness);
    for name in ["b", "c"] {
        run(&bench.open(name), "CREATE TABLE t(v)");
    }
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(v); PRAGMA main.locking_mode=EXCLUSIVE; PRAGMA main.journal_mode=OFF");
    for name in ["b", "c"] {
        run(&connection, &format!("ATTACH '{}' AS {name}", bench.uri(name, "")));
    }
    run(&connection, "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1); INSERT INTO c.t VALUES(1)");
    bench.arm(Operation::Commit, 0, 1, Effect::Full);
    assert_ne!(code(&connection, "COMMIT"), 0);
    bench.faults.disarm();
    assert_eq!(number(&connection, "SELECT count(*) FROM main.t"), 0);
    run(&connection, "INSERT INTO main.t VALUES(2)");
    drop(connection);
    assert_eq!(number(&bench.open("a"), "SELECT sum(v) FROM t"), 2);
    for name in ["b", "c"] {
        assert_eq!(number(&bench.open(name), "SELECT count(*) FROM t"), 0);
    }
    bench.check("a");
}

/// What stays of such a transaction was taken for a commit that may yet be undone: when a later one failed, which had nothing to
/// do with it, the database stopped.
pub fn commit_that_fails_after_one_of_several_without_journal_is_only_that(harness: &dyn EngineHarness) {
    use litefleet::store::{Effect, Operation};
    let bench = Bench::keeping(harness);
    run(&bench.open("b"), "CREATE TABLE t(v)");
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(v); PRAGMA main.locking_mode=EXCLUSIVE; PRAGMA main.journal_mode=OFF");
    run(&connection, &format!("ATTACH '{}' AS b", bench.uri("b", "")));
    run(&connection, "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1)");
    // That of `a` is stored: there is nothing to undo it by.
    bench.arm(Operation::Commit, 1, 1, Effect::Full);
    assert_eq!(code(&connection, "COMMIT"), 13, "SQLITE_FULL");
    bench.faults.disarm();
    assert_eq!(number(&connection, "SELECT sum(v) FROM main.t"), 1);
    bench.arm(Operation::Commit, 0, 1, Effect::Full);
    assert_eq!(code(&connection, "INSERT INTO main.t VALUES(2)"), 13, "SQLITE_FULL");
    bench.faults.disarm();
    run(&connection, "INSERT INTO main.t VALUES(4)");
    assert_eq!(number(&connection, "SELECT sum(v) FROM main.t"), 5);
    assert_eq!(number(&connection, "SELECT count(*) FROM b.t"), 0);
    drop(connection);
    bench.check("a");
}

/// SQLite cuts the file only when its journal is gone, and so has not journaled what is beyond the new end: undoing a commit that had
/// made the file smaller, it left zeros there. SQLite's own pagerfault.test found it.
pub fn undone_commit_that_made_the_file_smaller_loses_nothing(harness: &dyn EngineHarness) {
    use litefleet::store::{Effect, Operation};
    let bench = Bench::keeping(harness);
    run(&bench.open("b"), "CREATE TABLE t(v)");
    for (name, vacuum, shrink) in [
        ("full", "FULL", "DELETE FROM main.t WHERE k > 30"),
        ("incremental", "INCREMENTAL", "DELETE FROM main.t WHERE k > 30; PRAGMA main.incremental_vacuum"),
        ("most", "FULL", "DELETE FROM main.t"),
    ] {
        for journal in ["MEMORY", "DELETE"] {
            let name = format!("{name}-{journal}");
            let connection = bench.open(&name);
            run(&connection, &format!("PRAGMA auto_vacuum={vacuum}"));
            fill(&connection, "t", 100, 3000);
            // Without a super-journal each commits by itself, and SQLite undoes the first when the second fails.
            run(&connection, &format!("ATTACH '{}' AS b; PRAGMA main.synchronous=OFF", bench.uri("b", "")));
            run(&connection, &format!("PRAGMA main.journal_mode={journal}; PRAGMA b.journal_mode=MEMORY"));
            let before = dump(&connection);
            run(&connection, &format!("BEGIN; INSERT INTO b.t VALUES(1); {shrink}"));
            bench.arm(Operation::Commit, 1, 1, Effect::Full);
            assert_eq!(code(&connection, "COMMIT"), 13, "{name}: SQLITE_FULL");
            bench.faults.disarm();
            assert_eq!(text(&connection, "PRAGMA main.integrity_check"), "ok", "{name}");
            assert!(dump(&connection) == before, "{name}");
            run(&connection, &format!("BEGIN; INSERT INTO b.t VALUES(1); {shrink}; COMMIT"));
            assert_eq!(text(&connection, "PRAGMA main.integrity_check"), "ok", "{name}");
            // What was kept for that is given up, also where SQLite keeps its lock.
            assert!(text(&connection, "PRAGMA litefleet_status").contains("snapshots: 0"), "{name}");
            run(
                &connection,
                "PRAGMA main.locking_mode=EXCLUSIVE; INSERT INTO main.t(k, v) VALUES(1000, zeroblob(90000))",
            );
            run(&connection, "DELETE FROM main.t WHERE k = 1000; PRAGMA main.incremental_vacuum");
            assert!(text(&connection, "PRAGMA litefleet_status").contains("snapshots: 1"), "{name}");
            drop(connection);
            bench.check(&name);
        }
    }
}

/// A commit under EXCLUSIVE that fails at its commit point is rolled back by SQLite itself, and what a shrinking file
/// would have lost is still there.
pub fn failed_shrinking_commit_under_exclusive_loses_nothing(harness: &dyn EngineHarness) {
    use litefleet::store::{Effect, Operation};
    let bench = Bench::keeping(harness);
    for journal in ["DELETE", "MEMORY", "PERSIST"] {
        let name = format!("a-{journal}");
        let connection = bench.open(&name);
        run(&connection, "PRAGMA auto_vacuum=INCREMENTAL");
        fill(&connection, "t", 100, 3000);
        run(&connection, "DELETE FROM t WHERE k % 2 = 0");
        let before = dump(&connection);
        run(&connection, &format!("PRAGMA journal_mode={journal}; PRAGMA locking_mode=EXCLUSIVE"));
        run(&connection, "UPDATE t SET v = v WHERE k = 1");
        for statement in ["PRAGMA incremental_vacuum", "VACUUM"] {
            bench.arm(Operation::Commit, 0, 1, Effect::Full);
            assert_eq!(code(&connection, statement), 13, "{statement} in journal mode {journal}: SQLITE_FULL");
            bench.faults.disarm();
            assert!(dump(&connection) == before, "{statement} in journal mode {journal}");
            run(&connection, "UPDATE t SET v = v WHERE k = 1");
            assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok", "{statement} in journal mode {journal}");
            bench.check(&name);
        }
        run(&connection, "PRAGMA incremental_vacuum");
        assert!(dump(&connection) == before);
        drop(connection);
        bench.check(&name);
    }
}
