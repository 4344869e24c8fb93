use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::setup::{Place, Ran, crash_image, dump_file, sample};

fn export(place: &Place, file: &Path, more: &[&str]) -> Ran {
    let mut arguments = vec![OsStr::new("export"), OsStr::new("a"), file.as_os_str()];
    arguments.extend(more.iter().map(OsStr::new));
    place.run(arguments)
}

fn place() -> Place {
    let place = Place::new();
    drop(sample(&place.file("source.db")));
    place.import(&place.file("source.db"), "a");
    place
}

#[test]
fn a_file_appears_under_its_name_alone() {
    let place = place();
    fs::create_dir(place.file("out")).unwrap();
    let file = place.file("out/a.db");
    let said = export(&place, &file, &[]).ok();
    assert!(said.contains("exported 'a'"), "{said}");
    assert_eq!(dump_file(&file), dump_file(&place.file("source.db")));
    let names: Vec<_> = fs::read_dir(place.file("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.db"]);
}

#[test]
fn an_existing_file_is_replaced_only_when_asked() {
    let place = place();
    let file = place.file("a.db");
    fs::write(&file, "mine").unwrap();
    export(&place, &file, &[]).fails(1, "--force");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    export(&place, &file, &["--force"]).ok();
    assert_eq!(dump_file(&file), dump_file(&place.file("source.db")));
}

#[test]
fn another_export_is_not_disturbed() {
    let place = place();
    let (file, partial) = (place.file("a.db"), place.file("a.db.partial"));
    fs::write(&partial, "somebody's").unwrap();
    export(&place, &file, &[]).fails(1, "another export is running");
    assert_eq!(fs::read(&partial).unwrap(), b"somebody's");
    export(&place, &file, &["--force"]).ok();
    assert!(!partial.exists());
}

#[test]
fn bad_targets() {
    let place = place();
    export(&place, &place.file("missing/a.db"), &[]).fails(3, "no such file");
    export(&place, &place.file(""), &["--force"]).fails(1, "is a folder");
    let file = place.file("b.db");
    place.run([OsStr::new("export"), OsStr::new("b"), file.as_os_str()]).fails(3, "not found");
    assert!(!file.exists() && !place.file("b.db.partial").exists());
}

/// A SQLite file as a crash left it, with what its next opening would play back.
fn crashed(place: &Place, side: &str, begin: &str) -> PathBuf {
    let file = place.file("other.db");
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("CREATE TABLE other (v); INSERT INTO other VALUES (1)").unwrap();
    other.execute_batch(begin).unwrap();
    crash_image(place, &file, &["", side])
}

/// The old file stayed, without its last commit, and the new one was removed as well.
#[test]
fn a_file_whose_log_is_gone_does_not_stay() {
    let place = place();
    let file = crashed(&place, "-wal", "PRAGMA journal_mode = WAL; UPDATE other SET v = 2");
    let in_the_way = PathBuf::from(format!("{}-shm", file.display()));
    fs::create_dir_all(in_the_way.join("folder")).unwrap();
    let line = export(&place, &file, &["--force"]).fails(1, "-shm");
    assert!(!file.exists());
    let partial = PathBuf::from(format!("{}.partial", file.display()));
    assert!(line.contains("complete") && line.contains(partial.to_str().unwrap()), "{line}");
    assert_eq!(dump_file(&partial), dump_file(&place.file("source.db")));

    fs::remove_dir_all(&in_the_way).unwrap();
    export(&place, &file, &["--force"]).ok();
    assert_eq!(dump_file(&file), dump_file(&place.file("source.db")));
    assert!(!partial.exists());
}

/// The old database's log was played back into the new file, of which export had said that it was done.
#[test]
fn what_a_crash_left_beside_a_file_is_not_played_back_into_the_new_one() {
    let in_wal = "PRAGMA journal_mode = WAL; UPDATE other SET v = 2";
    let in_journal = "PRAGMA cache_spill = 1; PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE other SET v = 2;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
        INSERT INTO other SELECT zeroblob(900) FROM n";
    for (side, begin) in [("-wal", in_wal), ("-journal", in_journal)] {
        let place = place();
        let file = crashed(&place, side, begin);
        let beside = PathBuf::from(format!("{}{side}", file.display()));
        assert!(fs::metadata(&beside).unwrap().len() > 0);
        fs::remove_file(&file).unwrap();
        export(&place, &file, &[]).fails(1, side);
        assert!(beside.exists() && !file.exists());
        fs::write(&file, "").unwrap();
        export(&place, &file, &["--force"]).ok();
        assert!(!beside.exists());
        assert_eq!(dump_file(&file), dump_file(&place.file("source.db")));
    }
}
