//! Wrong command lines, stores that cannot be opened, exit codes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::setup::{Place, bare, finish, wait};

#[test]
fn bad_names() {
    let place = Place::new();
    place.create("a", "CREATE TABLE t (v)");
    place.run(["info", ""]).fails(2, "cannot be empty");
    place.run(["info", &"x".repeat(513)]).fails(2, "at most 512 bytes");
    place.run(["mv", "a", ""]).fails(2, "cannot be empty");
    place.run(["sql", ":memory:", "--create", "SELECT 1"]).fails(2, "not stored");
    let not_utf8 = std::ffi::OsStr::from_bytes(b"\xff");
    place.run([std::ffi::OsStr::new("info"), not_utf8]).fails(2, "UTF-8");
}

#[test]
fn bad_command_lines() {
    let place = Place::new();
    place.run(["nonsense"]).fails(2, "nonsense");
    place.run(["import", "file"]).fails(2, "NAME");
    place.run(["ls", "--limit", "many"]).fails(2, "many");
    place.run(["sql", "a", "--format", "xml"]).fails(2, "json");
    place.run(["ls", "--wait", "-1"]).fails(2, "seconds");
    finish(&mut bare(), "").fails(2, "Usage");
}

#[test]
fn help_has_exit_codes_and_every_command_has_an_example() {
    let help = finish(bare().arg("--help"), "").ok();
    assert!(help.contains("130") && help.contains("LITEFLEET_STORE"), "{help}");
    for command in ["import", "export", "sql", "ls", "info", "verify", "rm", "mv", "gc", "completions", "demo"] {
        assert!(help.contains(command), "{command}");
        let text = finish(bare().args([command, "--help"]), "").ok();
        assert!(text.contains(&format!("litefleet {command}")), "{text}");
    }
}

/// It named two of them.
#[test]
fn help_names_every_kind_of_store() {
    let help = finish(bare().arg("--help"), "").ok();
    let wrong = finish(bare().args(["--store", "mysql://host/db", "ls"]), "").fails(2, "mysql");
    for scheme in ["embedded:", "postgres:", "fdb:", "memory:"] {
        assert!(help.contains(scheme), "{scheme}: {help}");
        assert!(wrong.contains(scheme), "{scheme}: {wrong}");
    }
}

#[test]
fn bad_stores() {
    let place = Place::new();
    let run = |store: &str| finish(bare().args(["--store", store, "ls"]), "");
    let line = run("mysql://host/db").fails(2, "mysql");
    assert!(line.contains("embedded:/folder") && line.contains("memory:"), "{line}");
    run("").fails(2, "empty");
    run("embedded:").fails(2, "folder");
    run("memory:x").fails(2, "memory:");
    let missing = place.file("missing");
    run(missing.to_str().unwrap()).fails(3, "there is no store");
    assert!(!missing.exists(), "looking makes no store");
    let file = place.file("file");
    fs::write(&file, "x").unwrap();
    run(file.to_str().unwrap()).fails(1, "is a file");
}

#[test]
fn a_folder_of_something_else_is_no_store() {
    let place = Place::new();
    let folder = place.file("photos");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("holiday.jpg"), "x").unwrap();
    for arguments in [&["ls"][..], &["sql", "a", "--create", "CREATE TABLE t (v)"]] {
        let ran = finish(bare().arg("--store").arg(&folder).args(arguments), "");
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("photos"), "{ran:?}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing was added");
}

#[test]
fn the_environment_names_a_store_and_the_option_wins() {
    let place = Place::new();
    place.create("a", "CREATE TABLE t (v)");
    let from_environment = finish(bare().env("LITEFLEET_STORE", place.store()).args(["ls", "--json"]), "").ok();
    assert!(from_environment.contains("\"a\""));
    finish(bare().env("LITEFLEET_STORE", "mysql:x").arg("--store").arg(place.store()).arg("ls"), "").ok();
}

#[test]
fn the_default_store_is_in_the_users_data_folder() {
    let place = Place::new();
    let run = |arguments: &[&str]| finish(bare().env("XDG_DATA_HOME", place.file("data")).args(arguments), "");
    run(&["ls"]).fails(3, "data/litefleet");
    run(&["sql", "a", "--create", "CREATE TABLE t (v)"]).ok();
    assert!(place.file("data/litefleet").is_dir());
    assert!(run(&["ls"]).ok().contains(" a\n"));
}

#[test]
fn another_process_has_the_store_open() {
    let place = Place::new();
    place.create("a", "CREATE TABLE t (v)");
    let mut holder = place.command().args(["sql", "a"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    std::io::Write::write_all(&mut input, b"BEGIN IMMEDIATE; SELECT 'held' AS h;\n").unwrap();
    output.read_line(&mut String::new()).unwrap();
    place.run(["--wait", "0.1", "sql", "a", "INSERT INTO t VALUES (1)"]).fails(6, "open");
    std::io::Write::write_all(&mut input, b"COMMIT;\n").unwrap();
    drop(input);
    std::io::Read::read_to_end(&mut output, &mut Vec::new()).unwrap();
    wait(holder).ok();
    place.run(["sql", "a", "INSERT INTO t VALUES (1)"]).ok();
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let place = Place::new();
    place.create("a", "CREATE TABLE t (v)");
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    for format in ["table", "csv", "json"] {
        let mut child = place.command().args(["sql", "a", sql, "--format", format]).spawn().unwrap();
        drop(child.stdout.take());
        let ran = wait(child);
        assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""), "{format}");
    }
}
