//! What copies whole databases, and the parts of SQLite that write in ways of their own.

use std::time::Duration;

use litefleet::DatabaseName;
use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::bench::{Bench, EngineHarness, dump, fill, number, run, text};

fn sample(connection: &Connection) {
    fill(connection, "t", 120, 900);
    run(connection, "CREATE TABLE wide(a, b TEXT, c REAL); CREATE INDEX wide_a ON wide(a, b)");
    run(connection, "INSERT INTO wide SELECT k, hex(v), k / 3.0 FROM t; DELETE FROM t WHERE k % 4 = 0");
}

fn copy(from: &Connection, to: &mut Connection, step: i32) {
    let backup = Backup::new(from, to).unwrap();
    backup.run_to_completion(step, Duration::ZERO, None).unwrap();
}

/// `VACUUM INTO` an ordinary file, by a URI that names the ordinary VFS.
pub fn vacuum_into_an_ordinary_file(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    sample(&connection);
    let path = bench.path("copy.db");
    run(&connection, &format!("VACUUM INTO 'file:{}?vfs=unix'", path.display()));
    let copy = Connection::open(&path).unwrap();
    assert!(dump(&copy) == dump(&connection));
    assert_eq!(text(&copy, "PRAGMA integrity_check"), "ok");
    // Without one it becomes a database of the same store.
    run(&connection, "VACUUM INTO 'b'");
    assert!(dump(&bench.open("b")) == dump(&connection));
    bench.check("b");
}

/// The backup API, from an ordinary file and to one, in one step and in small ones, over an existing database.
pub fn backup_goes_both_ways(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    for size in [512, 4096, 65_536] {
        for step in [1_000_000, 7] {
            let name = format!("a-{size}-{step}");
            let path = bench.path(&format!("{name}.db"));
            let ordinary = Connection::open(&path).unwrap();
            run(&ordinary, &format!("PRAGMA page_size={size}"));
            sample(&ordinary);
            let mut ours = bench.open(&name);
            if step == 7 {
                // There is something else, larger and of another page size, that has to go.
                run(&ours, "PRAGMA page_size=8192");
                fill(&ours, "old", 400, 2000);
            }
            copy(&ordinary, &mut ours, step);
            assert!(dump(&ours) == dump(&ordinary), "{name}: into the store");
            bench.check(&name);
            run(&ours, "UPDATE wide SET c = c + 1");
            let mut back = Connection::open(bench.path(&format!("{name}-back.db"))).unwrap();
            copy(&ours, &mut back, step);
            assert!(dump(&ours) == dump(&back), "{name}: out of the store");
            assert_eq!(text(&back, "PRAGMA integrity_check"), "ok");
        }
    }
}

/// A backup that is dropped half-way leaves the database as it was.
pub fn unfinished_backup_changes_nothing(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let ordinary = Connection::open(bench.path("from.db")).unwrap();
    fill(&ordinary, "t", 400, 2000);
    let mut ours = bench.open("a");
    sample(&ours);
    let before = dump(&ours);
    {
        let backup = Backup::new(&ordinary, &mut ours).unwrap();
        assert_eq!(backup.step(50).unwrap(), rusqlite::backup::StepResult::More);
    }
    assert!(dump(&ours) == before);
    assert!(dump(&bench.open("a")) == before);
    bench.check("a");
}

/// A database whose header says WAL is kept as one in rollback mode, since there is no WAL here.
pub fn wal_mode_source_is_readable(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let ordinary = Connection::open(bench.path("wal.db")).unwrap();
    assert_eq!(text(&ordinary, "PRAGMA journal_mode=WAL"), "wal");
    sample(&ordinary);
    let mut ours = bench.open("a");
    run(&ours, "PRAGMA journal_mode=DELETE");
    copy(&ordinary, &mut ours, 1_000_000);
    assert!(dump(&ours) == dump(&ordinary));
    assert_eq!(text(&ours, "PRAGMA journal_mode"), "delete");
    run(&ours, "INSERT INTO wide VALUES(1, 2, 3)");
    drop(ours);
    let again = bench.open("a");
    assert_eq!(number(&again, "SELECT count(*) FROM wide"), 121);
    drop(again);
    bench.check("a");
    let mut header = [0; 100];
    bench.read("a", 0, &mut header);
    assert_eq!(header[18..20], [1, 1], "read and write version");
}

/// `sqlite3_serialize` reads the file as it is.
pub fn serialize_gives_the_file(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let mut connection = bench.open("a");
    run(&connection, "PRAGMA page_size=2048");
    sample(&connection);
    let expected = dump(&connection);
    let bytes = connection.serialize("main").unwrap().to_vec();
    let size = bench.fleet.info(&DatabaseName::new("a").unwrap()).unwrap().head.size;
    assert_eq!(bytes.len() as u64, size);
    let path = bench.path("serialized.db");
    std::fs::write(&path, bytes).unwrap();
    assert!(dump(&Connection::open(&path).unwrap()) == expected);
}

/// Incremental BLOB I/O writes into overflow pages without the rest of the row.
pub fn blobs_are_written_in_place(harness: &dyn EngineHarness) {
    use std::io::{Read, Seek, SeekFrom, Write};
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "CREATE TABLE t(b BLOB); INSERT INTO t VALUES(zeroblob(300000))");
    let mut model = vec![0; 300_000];
    for (round, at) in [0_u64, 4090, 100_000, 299_000].into_iter().enumerate() {
        let mut blob = connection.blob_open("main", "t", "b", 1, false).unwrap();
        let bytes = vec![u8::try_from(round + 1).unwrap(); 1000];
        blob.seek(SeekFrom::Start(at)).unwrap();
        blob.write_all(&bytes).unwrap();
        blob.close().unwrap();
        let at = usize::try_from(at).unwrap();
        model[at..at + 1000].copy_from_slice(&bytes);
    }
    let other = bench.another();
    let follower = other.open_with("a", "mode=ro");
    let mut read = Vec::new();
    follower.blob_open("main", "t", "b", 1, true).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == model);
    bench.check("a");
}

/// FTS5 writes through tables of its own, with incremental merges.
pub fn full_text_search_works(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "CREATE VIRTUAL TABLE f USING fts5(body)");
    for round in 0..20 {
        run(
            &connection,
            &format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) \
                 INSERT INTO f SELECT 'common word' || i || ' round{round} ' || hex(i * {round}) FROM n"
            ),
        );
        run(
            &connection,
            "BEGIN; DELETE FROM f WHERE rowid % 10 = 0; SAVEPOINT s; DELETE FROM f; ROLLBACK TO s; COMMIT",
        );
    }
    run(&connection, "INSERT INTO f(f) VALUES('optimize'); INSERT INTO f(f) VALUES('integrity-check')");
    let other = bench.open("a");
    assert_eq!(number(&other, "SELECT count(*) FROM f WHERE f MATCH 'common'"), 720);
    assert_eq!(number(&other, "SELECT count(*) FROM f WHERE f MATCH 'round7'"), 36);
    bench.check("a");
}

/// R-trees too.
pub fn rtree_works(harness: &dyn EngineHarness) {
    let bench = Bench::new(harness);
    let connection = bench.open("a");
    run(&connection, "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1)");
    run(
        &connection,
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
         INSERT INTO r SELECT i + 1, i % 32, i % 32 + 1, i / 32, i / 32 + 1 FROM n",
    );
    run(&connection, "DELETE FROM r WHERE id % 5 = 0");
    let other = bench.open("a");
    assert_eq!(number(&other, "SELECT count(*) FROM r"), 800);
    assert_eq!(text(&other, "SELECT rtreecheck('r')"), "ok");
    bench.check("a");
}
