//! Damage to the files of the embedded store, as SQLite and its user see it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Operation};
use litefleet::{DatabaseName, ErrorKind, FleetSettings, Txid};
use litefleet_conformance::faults::{Process, code};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rusqlite::{Connection, ErrorCode};
use tempfile::TempDir;

fn files(path: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else {
            out.push(path);
        }
    }
}

/// Flips a bit in the middle of these bytes, wherever the engine's tables have them, and not in its journal: that is checked
/// when the store opens. Returns in how many places.
fn flip(folder: &Path, wanted: &[u8]) -> usize {
    let mut flipped = 0;
    let mut all = Vec::new();
    files(folder, &mut all);
    all.retain(|path| path.extension().is_none_or(|extension| extension != "jnl"));
    for path in all {
        let mut bytes = fs::read(&path).unwrap();
        let places: Vec<usize> =
            bytes.windows(wanted.len()).enumerate().filter(|(_, part)| *part == wanted).map(|(at, _)| at).collect();
        for at in &places {
            bytes[at + wanted.len() / 2] ^= 4;
        }
        if !places.is_empty() {
            fs::write(&path, bytes).unwrap();
        }
        flipped += places.len();
    }
    flipped
}

fn sum(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT sum(length(v)) FROM t", [], |row| row.get(0))
}

fn config(folder: &TempDir) -> EmbeddedConfig {
    EmbeddedConfig::new(folder.path()).memtable_bytes(64 << 10)
}

fn start(folder: &TempDir) -> Process {
    Process::new(Arc::new(EmbeddedStore::open(config(folder)).unwrap()), FleetSettings::default())
}

/// The databases `a` and `b` as after a crash, without a checkpoint of `a`. Returns its blobs.
fn crashed(folder: &TempDir, random: &mut StdRng) -> Vec<Vec<u8>> {
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(EmbeddedStore::open(config(folder)).unwrap()), Arc::clone(&plan));
    let process = Process::new(Arc::new(store), FleetSettings::default());
    plan.arm(Fault { operation: Some(Operation::Checkpoint), after: 0, times: u64::MAX, effect: Effect::Refuse });
    let blobs = fill(&process, "a", random);
    plan.disarm();
    fill(&process, "b", random);
    blobs
}

fn name(text: &str) -> DatabaseName {
    DatabaseName::new(text).unwrap()
}

/// A database of 200 blobs, each on a page of its own. Returns them.
fn fill(process: &Process, name: &str, random: &mut StdRng) -> Vec<Vec<u8>> {
    let connection = process.open(name, "");
    connection.execute_batch("CREATE TABLE t (v)").unwrap();
    let mut blobs = Vec::new();
    for _ in 0..20 {
        connection.execute_batch("BEGIN").unwrap();
        for _ in 0..10 {
            let mut blob = vec![0; 3000];
            random.fill_bytes(&mut blob);
            connection.execute("INSERT INTO t VALUES (?1)", [&blob]).unwrap();
            blobs.push(blob);
        }
        connection.execute_batch("COMMIT").unwrap();
    }
    blobs
}

/// The engine notices it by a checksum of its own, and knows nothing of pages: neither the database nor the page was named.
#[test]
fn damage_is_named_by_database_page_and_txid() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(17);
    let process = start(&folder);
    let blobs = fill(&process, "a", &mut random);
    fill(&process, "b", &mut random);
    drop(process);
    // More than the engine keeps in memory came after it.
    assert!(flip(folder.path(), &blobs[50][1000..1100]) > 0);
    let process = start(&folder);
    let (damaged, whole) = (process.open("a", ""), process.open("b", ""));
    let error = sum(&damaged).unwrap_err();
    assert!(matches!(code(&error), Some(ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure)), "{error}");
    let words: String = damaged.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
    let page =
        words.split("page ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|page| page.parse::<u32>().ok());
    assert!(page.is_some_and(|page| (50..60).contains(&page)), "the blob is on page 53 or so: {words}");
    assert!(words.starts_with("database a: ") && words.contains("at or below txid "), "{words}");
    // What is not damaged is read, of this one and of the other.
    let first: Vec<u8> = damaged.query_row("SELECT v FROM t LIMIT 1", [], |row| row.get(0)).unwrap();
    assert!(first == blobs[0]);
    assert_eq!(sum(&whole).unwrap(), 600_000);
    whole.execute_batch("INSERT INTO t VALUES (zeroblob(1000))").unwrap();
    assert_eq!(sum(&whole).unwrap(), 601_000);
    drop((damaged, whole));
    let problems = process.problems("a");
    let named = format!("page {} at or below txid ", page.unwrap_or_default());
    assert!(problems.iter().any(|problem| problem.contains(&named)), "{problems:?}");
    assert_eq!(process.problems("b"), Vec::<String>::new());
}

/// A database whose open brought along a page that was damaged could not be opened any more, nor removed or renamed.
#[test]
fn damaged_warm_page_keeps_nothing_else_from_being_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(18);
    let process = start(&folder);
    let blobs = fill(&process, "a", &mut random);
    fill(&process, "b", &mut random);
    drop(process);
    // The pages that were written last are the warm ones.
    assert!(flip(folder.path(), &blobs[185][1000..1100]) > 0);
    let process = start(&folder);
    for parameters in ["", "&mode=ro"] {
        let connection = process.open("a", parameters);
        let first: Vec<u8> = connection.query_row("SELECT v FROM t LIMIT 1", [], |row| row.get(0)).unwrap();
        assert!(first == blobs[0]);
        let last: Vec<u8> =
            connection.query_row("SELECT v FROM t ORDER BY rowid DESC LIMIT 1", [], |row| row.get(0)).unwrap();
        assert!(last == blobs[199]);
        let error = sum(&connection).unwrap_err();
        assert_eq!(code(&error), Some(ErrorCode::DatabaseCorrupt));
    }
    process.fleet().rename(&name("a"), &name("c"), false).unwrap();
    process.fleet().remove(&name("c"), true).unwrap();
    assert!(!process.fleet().exists(&name("c")).unwrap());
}

/// The same with a record of the log that an open needs: then it cannot be opened, but all else works.
#[test]
fn database_with_a_damaged_log_can_be_renamed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = crashed(&folder, &mut StdRng::seed_from_u64(19));
    assert!(flip(folder.path(), &blobs[15][1000..1100]) > 0);
    let process = start(&folder);
    let error = sum(&process.open("a", "")).unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::DatabaseCorrupt));
    let info = process.fleet().info(&name("a")).unwrap();
    assert!(info.head.txid > info.head.checkpoint && info.tail_records.is_none(), "{info:?}");
    process.fleet().rename(&name("a"), &name("c"), false).unwrap();
    assert!(process.fleet().exists(&name("c")).unwrap());
    process.fleet().remove(&name("c"), false).unwrap();
    assert_eq!(process.fleet().info(&name("c")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sum(&process.open("b", "")).unwrap(), 600_000);
}

/// What was damaged of one removed database kept the bytes of all of them for ever.
#[test]
fn removed_databases_are_purged_beside_a_damaged_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(20);
    let process = start(&folder);
    let blobs = fill(&process, "a", &mut random);
    fill(&process, "b", &mut random);
    let report = process.fleet().verify(&name("b"), &mut |_| ControlFlow::Continue(())).unwrap();
    fill(&process, "c", &mut random);
    drop(process);
    assert!(flip(folder.path(), &blobs[100][1000..1100]) > 0);
    let process = start(&folder);
    for database in ["a", "b"] {
        process.fleet().remove(&name(database), false).unwrap();
    }
    let removed = process.fleet().purge(&mut |_| ControlFlow::Continue(())).unwrap();
    // All of the one, and the most of the other, from both ends.
    assert!(removed > report.rows + report.records + 150, "{removed}: {report:?}");
    assert_eq!(process.fleet().purge(&mut |_| ControlFlow::Continue(())).unwrap(), 0);
    assert_eq!(sum(&process.open("c", "")).unwrap(), 600_000);
}

/// A scan of rows ended where the engine could not read one.
#[test]
fn verification_goes_on_behind_what_the_engine_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(21);
    let process = start(&folder);
    let blobs = fill(&process, "a", &mut random);
    fill(&process, "b", &mut random);
    let verify = |process: &Process| process.fleet().verify(&name("a"), &mut |_| ControlFlow::Continue(())).unwrap();
    let before = verify(&process);
    drop(process);
    for blob in [60, 100] {
        assert!(flip(folder.path(), &blobs[blob][1000..1100]) > 0);
    }
    let after = verify(&start(&folder));
    assert!(after.rows < before.rows && after.rows > before.rows - 20, "{} of {}", after.rows, before.rows);
    assert!(after.pages < before.pages && after.pages > before.pages - 20, "{} of {}", after.pages, before.pages);
    let of = |words: &str| after.problems.iter().filter(|problem| problem.contains(words)).count();
    assert!(of("the row after that of page ") >= 2, "{:?}", after.problems);
    assert!(of(" at or below txid ") >= 2, "{:?}", after.problems);
}

/// A record that the engine cannot read kept those before it from being told, which came in the same reading of the log.
#[test]
fn watch_tells_of_the_commits_before_a_damaged_record() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = crashed(&folder, &mut StdRng::seed_from_u64(22));
    assert!(flip(folder.path(), &blobs[150][1000..1100]) > 0);
    let process = start(&folder);
    let mut watch = process.fleet().watch(&name("a"), Some(Txid(0))).unwrap();
    let mut told = Vec::new();
    let error = loop {
        match watch.next(Duration::from_secs(60)) {
            Ok(commits) => told.extend(commits.iter().map(|commit| commit.txid.get())),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // Ten blobs each, after the one that made the table.
    let damaged = 17;
    assert_eq!(told, (1..damaged).collect::<Vec<u64>>());
}
