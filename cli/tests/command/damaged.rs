//! A store in which the head of a database is damaged: the commands name it, and go on past it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use litefleet::Fleet;
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::setup::Place;

const DATABASES: usize = 60;

/// Databases `00` to `59`, and `busy`, which has commits enough that the store writes its memory out to tables as it is closed. It does
/// so once: were there more of them, the engine would merge them by itself, meet the damage, and take no more writes.
fn fill(folder: &Path, vfs: &str) -> [u8; 16] {
    let store = EmbeddedStore::open(EmbeddedConfig::new(folder).memtable_bytes(1 << 20)).unwrap();
    let fleet = Fleet::builder(Arc::new(store)).build().unwrap();
    fleet.register(vfs, false).unwrap();
    let open =
        |name: &str| Connection::open_with_flags(format!("file:{name}?vfs={vfs}"), OpenFlags::default()).unwrap();
    for index in 0..DATABASES {
        open(&format!("{index:02}")).execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    }
    let busy = open("busy");
    busy.execute_batch("CREATE TABLE t (v)").unwrap();
    for _ in 0..1000 {
        busy.execute_batch("INSERT INTO t VALUES (zeroblob(1000))").unwrap();
    }
    drop(busy);
    let first = fleet.list("00", None, 1).unwrap().remove(0);
    fleet.shutdown().unwrap();
    fleet.unregister(vfs).unwrap();
    first.state.unwrap().head.commit_id.0
}

fn files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The store with the head of `00` damaged in the engine's tables, and with it those that stand in the same block. It was filled
/// through a VFS of this name.
fn place(vfs: &str) -> Place {
    let place = Place::new();
    let wanted = fill(&place.store(), vfs);
    let mut flipped = 0;
    // The keyspace of the heads: the log has the commits, too.
    for path in files(&place.store().join("data/keyspaces/1")) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(16).position(|part| part == wanted) {
            bytes[at] ^= 4;
            fs::write(&path, bytes).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 0, "the engine has it in its tables");
    place
}

/// The lines about databases: the names of those that are whole, and of the others, which say what is wrong.
fn told(json_lines: &str) -> (Vec<String>, Vec<String>) {
    let (mut whole, mut damaged) = (Vec::new(), Vec::new());
    for line in json_lines.lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        let Some(name) = object["name"].as_str() else { continue };
        if object["ok"].as_bool().unwrap() {
            whole.push(name.to_owned());
        } else {
            assert!(line.contains("fails its check") || line.contains("cannot read the store"), "{line}");
            damaged.push(name.to_owned());
        }
    }
    (whole, damaged)
}

/// It was told as damaged instead, with the advice to restore it from a copy.
#[test]
fn an_import_replaces_a_database_whose_head_is_damaged() {
    let place = place("replaced");
    let (whole, mut damaged) = told(&place.run(["ls", "--json"]).out);
    let file = place.file("source.db");
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES ('restored')").unwrap();
    let import = |more: &[&str]| {
        let arguments = [OsStr::new("import"), file.as_os_str(), OsStr::new("00")];
        place.run(arguments.into_iter().chain(more.iter().map(OsStr::new)))
    };
    import(&[]).fails(5, "00");
    import(&["--replace"]).ok();
    assert_eq!(place.value("00", "SELECT v FROM t"), "restored");
    let (now_whole, now_damaged) = told(&place.run(["ls", "--json"]).out);
    damaged.retain(|name| name != "00");
    assert_eq!(now_damaged, damaged);
    assert_eq!(now_whole, [vec!["00".to_owned()], whole].concat(), "no other is left");
}

/// One head that could not be read ended `ls`, and `verify` and `gc` of all, before they had begun.
#[test]
fn commands_go_on_past_a_damaged_head() {
    let place = place("removed");
    let listed = place.run(["ls", "--json"]);
    let (whole, damaged) = told(&listed.out);
    assert!(damaged.contains(&"00".to_owned()), "{damaged:?}");
    assert!(whole.contains(&"59".to_owned()) && whole.len() + damaged.len() == DATABASES + 1, "{whole:?} {damaged:?}");
    let count = format!("{} of {} databases", damaged.len(), DATABASES + 1);
    listed.fails(5, &count);

    let table = place.run(["ls"]);
    assert_eq!(table.out.lines().count(), DATABASES + 2, "{table:?}");
    assert_eq!(table.out.matches("DAMAGED").count(), damaged.len(), "{table:?}");
    table.fails(5, &count);
    // What is whole is no failure.
    place.run(["ls", "59"]).ok();

    for command in ["verify", "gc"] {
        let ran = place.run([command, "--json"]);
        assert_eq!(told(&ran.out), (whole.clone(), damaged.clone()), "{command}");
        ran.fails(5, &count);
    }
    place.run(["info", "00"]).fails(5, "00");

    // There is no other mend without a backup, and it failed as well.
    for name in &damaged {
        place.run(["rm", name]).ok();
    }
    let (left, none) = told(&place.run(["ls", "--json"]).ok());
    assert_eq!((left, none), (whole, Vec::new()));
    place.create("00", "CREATE TABLE t (v)");
}
