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

/// Killed at any moment while it makes a store, a process leaves what the next one finishes.
#[test]
fn an_interrupted_making_is_made_again_and_a_damaged_store_is_not() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let (data, format) = (directory.path().join("data"), directory.path().join("FORMAT"));
    fs::rename(&data, directory.path().join("away")).unwrap();
    assert_eq!(refused(directory.path()).kind(), ErrorKind::Corrupt, "its data is gone");
    fs::rename(directory.path().join("away"), &data).unwrap();
    drop(open(directory.path()));

    // As an engine leaves it that is killed early: it could not be opened again.
    fs::rename(&format, directory.path().join("FORMAT.new")).unwrap();
    fs::remove_file(data.join("version")).unwrap();
    drop(open(directory.path()));
    assert!(format.exists() && !directory.path().join("FORMAT.new").exists());

    // Without either file it is no store, and nothing in it is touched.
    fs::remove_file(&format).unwrap();
    assert_eq!(refused(directory.path()).kind(), ErrorKind::Invalid);
    assert!(data.join("version").exists());
}
