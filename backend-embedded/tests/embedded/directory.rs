//! Which directories are opened, and which are not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use litefleet::{Error, ErrorKind};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};

use crate::{child, open};

fn refused(path: &Path) -> Error {
    EmbeddedStore::open(EmbeddedConfig::new(path)).expect_err("it must not open")
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut holder = child::command("hold", directory.path(), 0, 0).spawn().unwrap();
    let out = BufReader::new(holder.stdout.take().unwrap());
    assert!(out.lines().map_while(Result::ok).any(|line| line.contains("holding")), "the child opens the store");
    let error = refused(directory.path());
    let pid = holder.id();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let path = directory.path().canonicalize().unwrap();
    assert!(error.message().contains(&format!("process {pid}")), "{error}");
    assert!(error.message().contains(path.to_str().unwrap()), "{error}");
    // The lock went with the process.
    drop(open(directory.path()));
}

#[test]
fn a_second_open_in_the_same_process_is_refused_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert!(refused(directory.path()).message().contains("open in another place already"));
    drop(store);
    drop(open(directory.path()));
}

#[test]
fn a_foreign_directory_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), "text").unwrap();
    let error = refused(directory.path());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("thesis.txt"), "{error}");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["thesis.txt"]);

    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("FORMAT"), "of something else\n").unwrap();
    assert_eq!(refused(directory.path()).kind(), ErrorKind::Invalid);
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let format = directory.path().join("FORMAT");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, text.replace("format 1", "format 2")).unwrap();
    let error = refused(directory.path());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("format 2") && error.message().contains("newer release"), "{error}");
    fs::write(&format, &text[..30]).unwrap();
    assert_eq!(refused(directory.path()).kind(), ErrorKind::Corrupt);
    fs::write(&format, text).unwrap();
    drop(open(directory.path()));
}

#[test]
fn an_interrupted_making_is_made_again_and_a_damaged_store_is_not() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let data = directory.path().join("data");
    let version = data.join("version");
    let bytes = fs::read(&version).unwrap();
    fs::remove_file(&version).unwrap();
    assert_eq!(refused(directory.path()).kind(), ErrorKind::Corrupt, "it has tables");
    fs::write(&version, bytes).unwrap();
    drop(open(directory.path()));

    // As the engine leaves it when it is killed early.
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir_all(data.join("keyspaces")).unwrap();
    fs::write(data.join("lock"), "").unwrap();
    fs::File::create(data.join("0.jnl")).unwrap().set_len(64 << 20).unwrap();
    drop(open(directory.path()));
}
