use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::setup::{Place, Ran, crash_image, dump, dump_file, dump_of, sample};

fn import(place: &Place, file: &Path, more: &[&str]) -> Ran {
    let mut arguments = vec![OsStr::new("import"), file.as_os_str(), OsStr::new("a")];
    arguments.extend(more.iter().map(OsStr::new));
    place.run(arguments)
}

fn no_database(place: &Place) {
    place.run(["info", "a"]).fails(3, "not found");
}

#[test]
fn round_trip() {
    let place = Place::new();
    let file = place.file("source.db");
    let expected = dump(&sample(&file));
    let before = fs::read(&file).unwrap();
    let said = import(&place, &file, &[]).ok();
    assert!(said.contains("imported") && said.contains("pages"), "{said}");
    assert_eq!(dump_of(&place, "a"), expected);
    assert_eq!(fs::read(&file).unwrap(), before, "the source is not touched");
}

/// SQLite's own `sqldiff` finds no difference between what went in, from a file in rollback or in WAL mode, and what came out.
#[test]
#[ignore = "needs SQLite's sqldiff (Debian's sqlite3-tools); ./test.sh runs it"]
fn sqldiff_finds_no_difference() {
    for mode in ["delete", "wal"] {
        let place = Place::new();
        let (file, copy) = (place.file("source.db"), place.file("copy.db"));
        let source = sample(&file);
        source.pragma_update(None, "journal_mode", mode).unwrap();
        source.execute("INSERT INTO many VALUES (-1, 'the last')", []).unwrap();
        place.import(&file, "a");
        place.run([OsStr::new("export"), OsStr::new("a"), copy.as_os_str()]).ok();
        let differences = || {
            let ran =
                std::process::Command::new("sqldiff").args([&file, &copy]).output().expect("sqldiff is installed");
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            String::from_utf8(ran.stdout).unwrap()
        };
        assert_eq!(differences(), "", "{mode}");
        Connection::open(&copy).unwrap().execute("DELETE FROM many WHERE rowid = -1", []).unwrap();
        assert_ne!(differences(), "", "it does compare");
    }
}

#[test]
fn every_page_size_and_an_empty_file() {
    for size in [512, 4096, 65536] {
        let place = Place::new();
        let file = place.file("source.db");
        Connection::open(&file)
            .unwrap()
            .execute_batch(&format!(
                "PRAGMA page_size = {size}; CREATE TABLE t (b); INSERT INTO t VALUES (randomblob(300000)), (1)"
            ))
            .unwrap();
        place.import(&file, "a");
        assert_eq!(dump_of(&place, "a"), dump_file(&file), "{size}");
    }
    let place = Place::new();
    let file = place.file("empty.db");
    fs::write(&file, "").unwrap();
    place.import(&file, "a");
    assert_eq!(place.value("a", "SELECT count(*) FROM sqlite_schema"), "0");
}

#[test]
fn every_name() {
    let place = Place::new();
    let file = place.file("source.db");
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE t (v)").unwrap();
    let long = "x".repeat(512);
    let names = [
        "?a=b&vfs=unix",
        "a#b",
        "a%41",
        "a%00b",
        "//host/a",
        "/a",
        "a/../b",
        "file:a",
        "é ü\u{1F600}",
        "a\nb",
        ":MEMORY:",
        "%3Amemory%3A",
        "-a",
        "a'b\"c\\",
        " ",
        ".",
        &long,
    ];
    for (number, name) in names.iter().enumerate() {
        place.import(&file, name);
        place.run(["sql", "--", name, &format!("INSERT INTO t VALUES ({number})")]).ok();
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(place.value(name, "SELECT group_concat(v) FROM t"), number.to_string(), "{name:?}");
    }
    let mut listed: Vec<String> = place
        .run(["ls", "--json"])
        .ok()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    listed.sort();
    let mut expected = names.map(str::to_owned);
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn an_existing_database_is_replaced_only_when_asked() {
    let place = Place::new();
    let (file, other) = (place.file("source.db"), place.file("other.db"));
    let expected = dump(&sample(&file));
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE other (v)").unwrap();
    place.import(&other, "a");
    import(&place, &file, &[]).fails(1, "--replace");
    assert_eq!(place.value("a", "SELECT name FROM sqlite_schema"), "other");
    import(&place, &file, &["--replace"]).ok();
    assert_eq!(dump_of(&place, "a"), expected);
    import(&place, &other, &["--replace"]).ok();
    assert_eq!(dump_of(&place, "a"), dump_file(&other));
}

#[test]
fn a_wal_that_was_not_checkpointed_counts() {
    let place = Place::new();
    let file = place.file("source.db");
    let source = sample(&file);
    source
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; INSERT INTO many VALUES (-1, 'in the WAL')",
        )
        .unwrap();
    let expected = dump(&source);
    import(&place, &file, &[]).ok();
    assert_eq!(dump_of(&place, "a"), expected);
    assert_eq!(place.value("a", "PRAGMA journal_mode").len(), "delete".len(), "no WAL in the store");

    let crashed = crash_image(&place, &file, &["", "-wal"]);
    import(&place, &crashed, &["--replace"]).ok();
    assert_eq!(dump_of(&place, "a"), expected);
}

#[test]
fn a_reader_and_an_open_writer_of_the_source_do_not_matter() {
    let place = Place::new();
    let file = place.file("source.db");
    let source = sample(&file);
    let expected = dump(&source);
    source.execute_batch("BEGIN IMMEDIATE; DELETE FROM many").unwrap();
    import(&place, &file, &[]).ok();
    source.execute_batch("ROLLBACK").unwrap();
    assert_eq!(dump_of(&place, "a"), expected);
}

#[test]
fn a_locked_source_is_busy() {
    let place = Place::new();
    let file = place.file("source.db");
    let source = sample(&file);
    source.execute_batch("BEGIN EXCLUSIVE").unwrap();
    import(&place, &file, &["--wait", "0.1"]).fails(4, "--wait");
    no_database(&place);
}

#[test]
fn a_hot_journal_is_rolled_back() {
    let place = Place::new();
    let file = place.file("source.db");
    let source = sample(&file);
    let expected = dump(&source);
    // A cache of a few pages makes SQLite write pages of the open transaction to the file.
    source
        .execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE many SET t = 'never committed ' || i; DELETE FROM kinds")
        .unwrap();
    let crashed = crash_image(&place, &file, &["", "-journal"]);
    let ran = import(&place, &crashed, &[]);
    assert!(ran.err.contains("rolled back"), "{ran:?}");
    ran.ok();
    assert_eq!(dump_of(&place, "a"), expected);
}

#[test]
fn bad_files() {
    let place = Place::new();
    let file = place.file("source.db");
    drop(sample(&file));
    let bytes = fs::read(&file).unwrap();
    let bad = |name: &str, content: &[u8]| {
        let path = place.file(name);
        fs::write(&path, content).unwrap();
        path
    };
    let text = bad("text", &b"This is no database. ".repeat(100));
    import(&place, &text, &[]).fails(5, "is not a SQLite database");
    import(&place, &bad("tiny", b"tiny"), &[]).fails(5, "is not a SQLite database");
    import(&place, &bad("half", &bytes[..bytes.len() / 2]), &[]).fails(5, "truncated");
    import(&place, &bad("header", &bytes[..50]), &[]).fails(5, "");
}

#[test]
fn files_that_are_not_there_or_no_files() {
    let place = Place::new();
    import(&place, &place.file("missing.db"), &[]).fails(3, "missing.db: no such file");
    import(&place, &place.file(""), &[]).fails(1, "is a folder");
    no_database(&place);
}

#[test]
fn a_failed_import_leaves_no_database() {
    let place = Place::new();
    place.create("b", "CREATE TABLE t (v)");
    let file = place.file("text");
    fs::write(&file, "no database").unwrap();
    import(&place, &file, &[]).fails(5, "not a SQLite database");
    no_database(&place);
}
