//! Ctrl-C leaves nothing half done.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rusqlite::Connection;

use crate::setup::{Place, sample, signal, wait};

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

#[test]
fn a_statement_is_interrupted_and_its_transaction_rolled_back() {
    for name in ["-INT", "-TERM"] {
        let place = Place::new();
        place.create("a", "CREATE TABLE t (v)");
        let script = format!("BEGIN; INSERT INTO t VALUES (1); SELECT 'begun'; {ENDLESS};");
        let mut child = place.command().args(["sql", "a", &script]).stdin(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        signal(&child, name);
        wait(child).fails(130, "interrupted");
        assert_eq!(place.value("a", "SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn an_import_that_waits_stops_at_once() {
    let place = Place::new();
    let file = place.file("source.db");
    let source = sample(&file);
    source.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let child = place
        .command()
        .args(["--wait", "600", "import", file.to_str().unwrap(), "a"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // The store is made after signals are listened to, and before the file is opened.
    while !place.store().exists() {
        std::thread::yield_now();
    }
    signal(&child, "-INT");
    wait(child).fails(130, "interrupted");
    place.run(["info", "a"]).fails(3, "not found");
}

/// It ended as if the store could not be reached.
#[cfg(target_os = "linux")]
#[test]
fn waiting_for_a_store_stops_at_once() {
    let place = Place::new();
    place.create("a", "CREATE TABLE t (v)");
    let mut holder = place.command().args(["sql", "a"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"SELECT 'open';\n").unwrap();
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let child = place.command().args(["--wait", "600", "ls"]).stdin(Stdio::null()).spawn().unwrap();
    while !listens(&child) {
        std::thread::yield_now();
    }
    signal(&child, "-INT");
    wait(child).fails(130, "interrupted");
    drop(input);
    std::io::Read::read_to_end(&mut output, &mut Vec::new()).unwrap();
    wait(holder).ok();
}

/// Whether a process handles SIGINT by itself, as the system tells it.
#[cfg(target_os = "linux")]
fn listens(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 0b10 != 0
}

/// A file that takes a while to copy.
fn large(place: &Place) -> PathBuf {
    let file = place.file("source.db");
    let sql = "PRAGMA synchronous = OFF; CREATE TABLE t (b);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
        INSERT INTO t SELECT randomblob(1000000) FROM n";
    Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    file
}

#[test]
fn a_killed_import_stands_in_nobodys_way() {
    let place = Place::new();
    let file = large(&place);
    place.create("other", "CREATE TABLE t (v)");
    for percent in [10, 60] {
        let mut child = place.command().args(["import", file.to_str().unwrap(), "a"]).spawn().unwrap();
        // There is nothing to wait for inside an import: any moment must do.
        std::thread::park_timeout(Duration::from_millis(10 * percent));
        child.kill().unwrap();
        child.wait().unwrap();
        let ran = place.run(["info", "a", "--json"]);
        if ran.code != Some(3) && !ran.out.contains("\"txid\":0") {
            // It had committed before: then all of it is there.
            assert_eq!(place.value("a", "SELECT count(*), sum(length(b)) FROM t"), "40,40000000");
            place.run(["rm", "a"]).ok();
        }
    }
    place.import(&file, "a");
    assert_eq!(place.value("a", "SELECT count(*), sum(length(b)) FROM t"), "40,40000000");
    assert_eq!(place.run(["verify"]).ok().matches(": ok").count(), 2);
}

#[test]
fn an_export_is_there_or_not() {
    let place = Place::new();
    let file = large(&place);
    place.import(&file, "a");
    let (target, partial) = (place.file("a.db"), place.file("a.db.partial"));
    let child = place.command().args(["export", "a", target.to_str().unwrap()]).stdin(Stdio::null()).spawn().unwrap();
    while !partial.exists() && !target.exists() {
        std::thread::yield_now();
    }
    signal(&child, "-INT");
    let ran = wait(child);
    // It may have come to its end before the signal.
    assert_eq!(target.exists(), ran.code == Some(0), "{ran:?}");
    assert!(ran.code == Some(0) || ran.code == Some(130), "{ran:?}");
    assert!(!partial.exists());
}
