//! Transactions over several databases.

use litefleet::DatabaseName;
use litefleet::store::{Effect, Operation};
use rusqlite::Connection;

use super::bench::{Bench, EngineHarness, code, number, run, text};

/// A connection with three databases, each with a table of one row.
fn three(bench: &Bench) -> Connection {
    let connection = bench.open("a");
    run(&connection, "ATTACH 'b' AS b; ATTACH 'c' AS c");
    for schema in ["main", "b", "c"] {
        run(&connection, &format!("CREATE TABLE {schema}.t(x); INSERT INTO {schema}.t VALUES(0)"));
    }
    connection
}

const ALL: &str = "UPDATE main.t SET x = x + 1; UPDATE b.t SET x = x + 1; UPDATE c.t SET x = x + 1";

fn values(connection: &Connection) -> [i64; 3] {
    ["main", "b", "c"].map(|schema| number(connection, &format!("SELECT x FROM {schema}.t")))
}

/// The values as another process sees them.
fn seen(bench: &Bench) -> [i64; 3] {
    let other = bench.another();
    ["a", "b", "c"].map(|name| number(&other.open_with(name, "mode=ro"), "SELECT x FROM t"))
}

fn commits(bench: &Bench) -> u64 {
    bench.fleet.counters().get(Operation::Commit).calls
}

/// One call to the store commits all of them.
pub fn several_databases_commit_in_one_call(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = three(&bench);
    for round in 1..=5 {
        let before = commits(&bench);
        run(&connection, &format!("BEGIN; {ALL}; COMMIT"));
        assert_eq!(commits(&bench) - before, 1, "commit calls");
        assert_eq!(values(&connection), [round; 3]);
        assert_eq!(seen(&bench), [round; 3]);
    }
    run(&connection, "BEGIN; UPDATE b.t SET x = 100; COMMIT");
    assert_eq!(seen(&bench), [5, 100, 5], "one of them alone");
    for name in ["a", "b", "c"] {
        bench.check(name);
    }
}

/// `BEGIN IMMEDIATE` locks all of them; one in which nothing is written is no obstacle.
pub fn databases_that_were_only_locked_do_not_matter(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = three(&bench);
    run(&connection, "BEGIN IMMEDIATE; UPDATE main.t SET x = 7; COMMIT");
    assert_eq!(seen(&bench), [7, 0, 0]);
    run(&connection, "BEGIN IMMEDIATE; UPDATE main.t SET x = 8; UPDATE c.t SET x = 9; COMMIT");
    assert_eq!(seen(&bench), [8, 0, 9]);
    run(&connection, "BEGIN IMMEDIATE; COMMIT");
    assert_eq!(seen(&bench), [8, 0, 9]);
}

/// Whatever fails on the way, none of them is committed, and the next transaction works.
pub fn failed_transaction_over_several_leaves_none(harness: &dyn EngineHarness) {
    for (locking, journal) in [("NORMAL", "DELETE"), ("EXCLUSIVE", "DELETE"), ("NORMAL", "PERSIST")] {
        let bench = Bench::keeping(harness);
        let connection = three(&bench);
        run(&connection, &format!("PRAGMA locking_mode={locking}; PRAGMA journal_mode={journal}; PRAGMA cache_size=2"));
        let mut expected = 0;
        for spilled in [false, true] {
            let more = if spilled {
                "CREATE TABLE main.big AS SELECT zeroblob(3000) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12]'); \
                 CREATE TABLE b.big AS SELECT * FROM main.big; DROP TABLE main.big; DROP TABLE b.big;"
            } else {
                ""
            };
            let what = format!("locking {locking}, journal {journal}, spilled {spilled}");
            run(&connection, &format!("BEGIN; {more} {ALL}; ROLLBACK"));
            assert_eq!(values(&connection), [expected; 3], "rolled back by hand: {what}");
            bench.arm(Operation::Commit, 0, 1, Effect::Full);
            run(&connection, &format!("BEGIN; {more} {ALL}"));
            assert_ne!(code(&connection, "COMMIT"), 0, "{what}");
            if !connection.is_autocommit() {
                run(&connection, "ROLLBACK");
            }
            bench.faults.disarm();
            assert_eq!(values(&connection), [expected; 3], "{what}");
            assert_eq!(seen(&bench), [expected; 3], "{what}");
            run(&connection, &format!("BEGIN; {more} {ALL}; COMMIT"));
            expected += 1;
            assert_eq!(seen(&bench), [expected; 3], "{what}");
        }
        for name in ["a", "b", "c"] {
            bench.check(name);
        }
    }
}

/// A participant that cannot reach its commit point takes the others with it: those before and those after.
pub fn participant_that_cannot_prepare_aborts_all(harness: &dyn EngineHarness) {
    let bench = Bench::with(harness, |settings| settings.database.transaction_bytes = 64 << 10);
    let connection = three(&bench);
    for schema in ["main", "b", "c"] {
        run(&connection, &format!("CREATE TABLE {schema}.big(v)"));
    }
    for schema in ["main", "b", "c"] {
        // It is large, so that its pages are staged at its commit point: and there the store has no room.
        let rows = "SELECT randomblob(3000) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]')";
        run(&connection, &format!("BEGIN; {ALL}; INSERT INTO {schema}.big {rows}; INSERT INTO {schema}.big {rows}"));
        bench.arm(Operation::Stage, 0, 1000, Effect::Full);
        assert_eq!(code(&connection, "COMMIT"), 13, "SQLITE_FULL of {schema}");
        bench.faults.disarm();
        if !connection.is_autocommit() {
            run(&connection, "ROLLBACK");
        }
        assert_eq!(values(&connection), [0; 3], "{schema}");
        assert_eq!(seen(&bench), [0; 3], "{schema}");
    }
    run(&connection, &format!("BEGIN; {ALL}; COMMIT"));
    assert_eq!(seen(&bench), [1; 3]);
    for name in ["a", "b", "c"] {
        bench.check(name);
    }
}

/// A lost reply is resolved: done is done for all.
pub fn lost_reply_of_several_is_resolved(harness: &dyn EngineHarness) {
    for effect in [Effect::LoseReply, Effect::LoseRequest] {
        let bench = Bench::new(harness);
        let connection = three(&bench);
        bench.arm(Operation::Commit, 0, 1, effect);
        let committed = code(&connection, &format!("BEGIN; {ALL}; COMMIT")) == 0;
        bench.faults.disarm();
        if !connection.is_autocommit() {
            run(&connection, "ROLLBACK");
        }
        let expected = i64::from(committed);
        assert_eq!(seen(&bench), [expected; 3], "{effect:?}: what is reported is what is there");
        assert!(committed || effect == Effect::LoseRequest, "{effect:?}");
        run(&connection, &format!("BEGIN; {ALL}; COMMIT"));
        assert_eq!(seen(&bench), [expected + 1; 3], "{effect:?}");
    }
}

/// A transaction over a database of ours and a foreign file cannot be atomic: it is refused, and neither is changed.
pub fn foreign_participant_is_refused(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let path = bench.path("foreign.db");
    run(&Connection::open(&path).unwrap(), "CREATE TABLE f(x)");
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(x)");
    run(&connection, &format!("ATTACH 'file:{}?vfs=unix' AS f", path.display()));
    run(&connection, "INSERT INTO t VALUES(1); INSERT INTO f.f VALUES(1)");
    run(&connection, "BEGIN; INSERT INTO t VALUES(2); INSERT INTO f.f VALUES(2)");
    assert_ne!(code(&connection, "COMMIT"), 0);
    assert!(text(&connection, "PRAGMA litefleet_error").contains("cannot be atomic"));
    if !connection.is_autocommit() {
        run(&connection, "ROLLBACK");
    }
    assert_eq!(number(&connection, "SELECT count(*) FROM t"), 1);
    assert_eq!(number(&connection, "SELECT count(*) FROM f.f"), 1);
    // So it is where the super-journal is opened through another VFS.
    let plain = Connection::open(&path).unwrap();
    run(&plain, &format!("ATTACH '{}' AS one; ATTACH '{}' AS two", bench.uri("a", ""), bench.uri("b", "")));
    run(&plain, "CREATE TABLE two.t(x)");
    run(&plain, "BEGIN; INSERT INTO one.t VALUES(2); INSERT INTO two.t VALUES(2)");
    assert_ne!(code(&plain, "COMMIT"), 0);
    if !plain.is_autocommit() {
        run(&plain, "ROLLBACK");
    }
    assert_eq!(number(&plain, "SELECT count(*) FROM one.t"), 1);
    assert_eq!(number(&plain, "SELECT count(*) FROM two.t"), 0);
}

/// The foreign file came to its commit point first. When ours was then refused, its rollback looked for the super-journal,
/// which is none of its own VFS's, and took itself for committed.
pub fn foreign_participant_before_ours_is_refused(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let path = bench.path("foreign.db");
    run(&Connection::open(&path).unwrap(), "CREATE TABLE f(x)");
    let connection = bench.open("a");
    run(&connection, &format!("ATTACH 'file:{}?vfs=unix' AS f; ATTACH 'b' AS b", path.display()));
    run(&connection, "CREATE TABLE b.t(x)");
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        run(&connection, &format!("PRAGMA f.journal_mode={mode}; INSERT INTO f.f VALUES(1)"));
        let there = number(&connection, "SELECT count(*) FROM f.f");
        run(&connection, "BEGIN; INSERT INTO f.f VALUES(2); INSERT INTO b.t VALUES(2)");
        assert_ne!(code(&connection, "COMMIT"), 0, "{mode}");
        assert!(text(&connection, "PRAGMA litefleet_error").contains("cannot be atomic"), "{mode}");
        if !connection.is_autocommit() {
            run(&connection, "ROLLBACK");
        }
        assert_eq!(number(&connection, "SELECT count(*) FROM f.f"), there, "{mode}");
        assert_eq!(number(&connection, "SELECT count(*) FROM b.t"), 0, "{mode}");
    }
}

/// `BEGIN IMMEDIATE` locks every attached database, and SQLite lists all of them. One that was not written stands in
/// nobody's way, wherever it is.
pub fn foreign_participant_that_was_only_locked_does_not_matter(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let path = bench.path("foreign.db");
    run(&Connection::open(&path).unwrap(), "CREATE TABLE f(x)");
    let connection = bench.open("a");
    run(&connection, &format!("ATTACH 'file:{}?vfs=unix' AS f; ATTACH 'b' AS b", path.display()));
    run(&connection, "CREATE TABLE main.t(x); CREATE TABLE b.t(x)");
    let mut rows = 0;
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        run(&connection, &format!("PRAGMA f.journal_mode={mode}; INSERT INTO f.f VALUES(1)"));
        for both in ["INSERT INTO main.t VALUES(1)", "INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1)"] {
            run(&connection, &format!("BEGIN IMMEDIATE; {both}; COMMIT"));
            rows += 1;
        }
        assert_ne!(code(&connection, "BEGIN IMMEDIATE; INSERT INTO main.t VALUES(1); DELETE FROM f.f; COMMIT"), 0);
        if !connection.is_autocommit() {
            run(&connection, "ROLLBACK");
        }
        assert_eq!(number(&connection, "SELECT count(*) FROM main.t"), rows, "{mode}");
    }
    assert_eq!(number(&connection, "SELECT count(*) FROM f.f"), 3);
    assert_eq!(number(&connection, "SELECT count(*) FROM b.t"), 3);
    drop(connection);
    assert_eq!(number(&Connection::open(&path).unwrap(), "SELECT count(*) FROM f"), 3);
}

/// A database had the path of a file for its name, as after an import, and the file passed for it. When the commit failed, the
/// file's rollback took itself for committed: rows that were moved were in neither.
pub fn foreign_participant_with_the_name_of_a_database_is_refused(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let path = bench.path("imported.db");
    let name = path.display().to_string();
    run(&Connection::open(&path).unwrap(), "CREATE TABLE f(x); INSERT INTO f VALUES(1)");
    let other = bench.open(&name);
    // It takes part itself, or somebody else has it open.
    for main in [name.as_str(), "a"] {
        let connection = bench.open(main);
        run(&connection, &format!("ATTACH 'file:{name}?vfs=unix' AS f; CREATE TABLE main.t(x)"));
        for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
            run(&connection, &format!("PRAGMA f.journal_mode={mode}; UPDATE f.f SET x = x + 1"));
            run(&connection, "BEGIN; INSERT INTO main.t SELECT x FROM f.f; DELETE FROM f.f");
            bench.arm(Operation::Commit, 0, 1, Effect::Full);
            assert_ne!(code(&connection, "COMMIT"), 0, "{main}, {mode}");
            bench.faults.disarm();
            if !connection.is_autocommit() {
                run(&connection, "ROLLBACK");
            }
            assert_eq!(number(&Connection::open(&path).unwrap(), "SELECT count(*) FROM f"), 1, "{main}, {mode}");
            assert_eq!(number(&connection, "SELECT count(*) FROM main.t"), 0, "{main}, {mode}");
            let words = text(&connection, "PRAGMA litefleet_error");
            assert!(words.contains("cannot be atomic"), "{main}, {mode}: {words}");
        }
    }
    drop(other);
}

/// Its name alone makes no file of a database, whether there is such a file or not.
pub fn databases_with_the_names_of_files_take_part(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let [path, missing] = ["idle.db", "missing.db"].map(|file| bench.path(file).display().to_string());
    run(&Connection::open(&path).unwrap(), "CREATE TABLE f(x)");
    let connection = bench.open(&path);
    run(&connection, &format!("ATTACH '{missing}' AS b; ATTACH 'file:{path}?vfs=unix' AS f"));
    run(&connection, "CREATE TABLE main.t(x); CREATE TABLE b.t(x)");
    for mode in ["DELETE", "TRUNCATE", "PERSIST"] {
        run(&connection, &format!("PRAGMA f.journal_mode={mode}; INSERT INTO f.f VALUES(1)"));
        for begin in ["BEGIN", "BEGIN IMMEDIATE"] {
            run(&connection, &format!("{begin}; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT"));
        }
    }
    drop(connection);
    for name in [path, missing] {
        assert_eq!(number(&bench.open(&name), "SELECT count(*) FROM t"), 6, "{name}");
    }
}

/// The commit of several is the deletion of a file, whose error SQLite does not tell in words.
pub fn failure_of_several_is_told_in_words(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = three(&bench);
    bench.arm(Operation::Commit, 0, 1, Effect::Full);
    assert_ne!(code(&connection, &format!("BEGIN; {ALL}; COMMIT")), 0);
    for schema in ["main", "b", "c"] {
        let words = text(&connection, &format!("PRAGMA {schema}.litefleet_error"));
        assert!(words.contains("commit of several databases") && words.contains("no room"), "{schema}: {words}");
    }
    assert_eq!(values(&connection), [0; 3]);
    run(&connection, &format!("BEGIN; {ALL}; COMMIT"));
    assert_eq!(seen(&bench), [1; 3]);
}

/// Another connection to one of the databases got the words, when it next gave a lock back, and they were gone.
pub fn failure_of_several_is_told_to_its_own_connection(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let path = bench.path("foreign.db");
    run(&Connection::open(&path).unwrap(), "CREATE TABLE f(x)");
    let connection = three(&bench);
    run(&connection, &format!("ATTACH 'file:{}?vfs=unix' AS f", path.display()));
    let other = bench.open("a");
    run(&connection, "BEGIN; INSERT INTO f.f VALUES(2); UPDATE b.t SET x = 9");
    assert_ne!(code(&connection, "COMMIT"), 0);
    // The transaction may be open still.
    run(&other, "SELECT * FROM t");
    assert_eq!(text(&other, "PRAGMA litefleet_error"), "");
    assert!(text(&connection, "PRAGMA b.litefleet_error").contains("cannot be atomic"));
}

/// Another connection of the process sees all of the transaction or nothing of it, and its caches are not deceived.
pub fn readers_see_all_of_several_or_nothing(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = three(&bench);
    let reader = bench.open("a");
    run(&reader, "ATTACH 'b' AS b; ATTACH 'c' AS c");
    for round in 1..=4 {
        run(&connection, &format!("BEGIN; {ALL}"));
        assert_eq!(values(&reader), [round - 1; 3]);
        run(&connection, "COMMIT");
        assert_eq!(values(&reader), [round; 3]);
    }
    let heads = ["a", "b", "c"].map(|name| bench.fleet.info(&DatabaseName::new(name).unwrap()).unwrap().head.txid);
    assert!(heads.iter().all(|txid| *txid == heads[0]), "{heads:?}");
}

/// The super-journal was made at one name of the fleet, and the databases of another were refused.
pub fn names_of_one_fleet_share_a_transaction(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let second = format!("{}-too", bench.vfs);
    bench.fleet.register(&second, false).unwrap();
    let connection = bench.open("a");
    run(&connection, &format!("ATTACH 'file:b?vfs={second}' AS b; CREATE TABLE main.t(x); CREATE TABLE b.t(x)"));
    let both = "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1)";
    run(&connection, &format!("{both}; COMMIT; {both}"));
    bench.arm(Operation::Commit, 0, 1, Effect::Full);
    assert_ne!(code(&connection, "COMMIT"), 0);
    bench.faults.disarm();
    if !connection.is_autocommit() {
        run(&connection, "ROLLBACK");
    }
    drop(connection);
    for name in ["a", "b"] {
        assert_eq!(number(&bench.open(name), "SELECT count(*) FROM t"), 1, "{name}");
    }
    bench.fleet.unregister(&second).unwrap();
}
