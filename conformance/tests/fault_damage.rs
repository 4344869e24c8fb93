//! Damage to the files of the embedded store, as SQLite and its user see it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use litefleet::FleetSettings;
use litefleet_conformance::faults::{Process, code};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rusqlite::{Connection, ErrorCode};

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

/// The engine notices it by a checksum of its own, and knows nothing of pages: neither the database nor the page was named.
#[test]
fn damage_is_named_by_database_page_and_txid() {
    let folder = tempfile::tempdir().unwrap();
    let config = || EmbeddedConfig::new(folder.path()).memtable_bytes(64 << 10);
    let start = || Process::new(Arc::new(EmbeddedStore::open(config()).unwrap()), FleetSettings::default());
    let mut random = StdRng::seed_from_u64(17);
    let mut blobs = Vec::new();
    let process = start();
    for name in ["a", "b"] {
        let connection = process.open(name, "");
        connection.execute_batch("CREATE TABLE t (v)").unwrap();
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
    }
    drop(process);
    // More than the engine keeps in memory came after it.
    assert!(flip(folder.path(), &blobs[50][1000..1100]) > 0);
    let process = start();
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
