//! ls, info, verify, rm, mv, gc, completions.

use serde_json::Value;

use crate::setup::{Place, bare, finish};

fn place() -> Place {
    let place = Place::new();
    for name in ["a/1", "a/2", "b"] {
        place.create(name, "CREATE TABLE t (v); INSERT INTO t VALUES (1)");
    }
    place
}

fn names(json_lines: &str) -> Vec<String> {
    let name = |line: &str| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().to_owned();
    json_lines.lines().map(name).collect()
}

#[test]
fn ls() {
    let place = place();
    assert_eq!(names(&place.run(["ls", "--json"]).ok()), ["a/1", "a/2", "b"]);
    assert_eq!(names(&place.run(["ls", "a/", "--json"]).ok()), ["a/1", "a/2"]);
    assert_eq!(names(&place.run(["ls", "--json", "--limit", "1"]).ok()), ["a/1"]);
    assert_eq!(place.run(["ls", "zzz", "--json"]).ok(), "");
    let table = place.run(["ls"]).ok();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.starts_with("        SIZE") && table.ends_with(" b\n"), "{table}");
    let entry: Value = serde_json::from_str(place.run(["ls", "b", "--json"]).ok().trim()).unwrap();
    assert!(entry["txid"].as_u64().unwrap() > 0 && entry["size"].as_u64().unwrap() >= 8192, "{entry}");
    assert!(entry["holder"].is_null(), "the session was ended: {entry}");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let place = Place::new();
    place.create("a\u{1b}[2J\nb", "CREATE TABLE t (v)");
    let table = place.run(["ls"]).ok();
    assert!(table.contains("a\\u{1b}[2J\\nb"), "{table:?}");
}

#[test]
fn info() {
    let place = place();
    let text = place.run(["info", "b"]).ok();
    for word in ["name        b", "txid", "checkpoint", "nobody", "log tail"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let object: Value = serde_json::from_str(&place.run(["info", "b", "--json"]).ok()).unwrap();
    assert_eq!(object["name"], "b");
    for field in ["id", "txid", "size", "checkpoint", "horizon", "epoch", "tail_records", "tail_bytes"] {
        assert!(object[field].is_u64(), "{field}: {object}");
    }
    place.run(["info", "nobody"]).fails(3, "not found");
}

#[test]
fn watch() {
    let place = place();
    let text = place.run(["watch", "b", "--after", "0", "--timeout", "0"]).ok();
    let first: Vec<&str> = text.lines().next().unwrap().split('\t').collect();
    assert!(first[0] == "1" && first[1].ends_with('Z') && first[2].parse::<u64>().unwrap() >= 4096, "{text}");
    let count = text.lines().count();
    let one = place.run(["watch", "b", "--after", "0", "--count", "1", "--json"]).ok();
    let object: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((object["name"].as_str(), object["txid"].as_u64()), (Some("b"), Some(1)));
    assert_eq!(place.run(["watch", "b", "--timeout", "0.1"]).ok(), "", "nobody commits");
    let most = (count + 1).to_string();
    place.run(["watch", "b", "--after", "0", "--count", &most, "--timeout", "0.1"]).fails(1, "1 commits fewer");
    place.run(["watch", "nobody"]).fails(3, "not found");
}

#[test]
fn verify() {
    let place = place();
    let lines = place.run(["verify", "--json"]).ok();
    assert_eq!(names(&lines), ["a/1", "a/2", "b"]);
    assert!(lines.lines().all(|line| line.contains("\"ok\":true")), "{lines}");
    assert!(place.run(["verify", "b"]).ok().contains("'b': ok"));
    place.run(["verify", "b", "nobody"]).fails(3, "not found");
}

#[test]
fn verify_finds_what_sqlite_finds() {
    let place = Place::new();
    // A damaged schema is as wrong as damaged bytes, and needs no store to be opened behind its back.
    place.create(
        "a",
        "CREATE TABLE t (v); CREATE INDEX i ON t (v); INSERT INTO t VALUES (1), (2);
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'i';",
    );
    let ran = place.run(["verify"]);
    assert!(ran.out.contains("DAMAGED"), "{ran:?}");
    ran.fails(5, "1 of 1 databases are damaged");
    let ran = place.run(["verify", "--json"]);
    assert!(ran.out.contains("\"ok\":false"), "{ran:?}");
    ran.fails(5, "damaged");
}

/// It gave up, without a word of the damage, and looked at no database after that one.
#[test]
fn verify_finds_what_is_wrong_with_a_name_that_is_not_utf8() {
    let place = Place::new();
    let file = place.file("source.db");
    let source = rusqlite::Connection::open(&file).unwrap();
    // An index that was of no rows, and is to be of all.
    source
        .execute_batch(
            "CREATE TABLE t (v); CREATE INDEX i ON t (v) WHERE v IS NULL; INSERT INTO t VALUES (1);
             PRAGMA writable_schema = ON; UPDATE sqlite_schema SET name = CAST(x'69ff' AS TEXT),
                 sql = 'CREATE INDEX i' || CAST(x'ff' AS TEXT) || ' ON t (v)' WHERE name = 'i';",
        )
        .unwrap();
    drop(source);
    place.import(&file, "a");
    place.create("b", "CREATE TABLE t (v)");
    let ran = place.run(["verify"]);
    assert!(ran.out.contains("row 1 missing from index i\u{fffd}\n") && ran.out.contains("'b': ok"), "{ran:?}");
    ran.fails(5, "1 of 2 databases are damaged");
}

#[test]
fn rm() {
    let place = place();
    place.run(["rm", "b"]).ok();
    place.run(["info", "b"]).fails(3, "not found");
    place.run(["rm", "b"]).fails(3, "not found");
    place.run(["rm", "a/1", "--force"]).ok();
    assert_eq!(names(&place.run(["ls", "--json"]).ok()), ["a/2"]);
}

#[test]
fn mv() {
    let place = place();
    place.run(["mv", "b", "c"]).ok();
    assert_eq!(place.value("c", "SELECT v FROM t"), "1");
    place.run(["info", "b"]).fails(3, "not found");
    place.run(["mv", "b", "d"]).fails(3, "not found");
    place.run(["mv", "c", "a/1"]).fails(1, "a/1");
    assert_eq!(names(&place.run(["ls", "--json"]).ok()), ["a/1", "a/2", "c"]);
}

#[test]
fn gc() {
    let place = place();
    place.run(["sql", "b", "UPDATE t SET v = 2; UPDATE t SET v = 3"]).ok();
    assert!(place.run(["gc", "b"]).ok().contains("'b': "));
    place.run(["rm", "a/1"]).ok();
    assert!(place.run(["gc"]).ok().contains("removed databases"));
    assert_eq!(place.value("b", "SELECT v FROM t"), "3");
    place.run(["gc", "nobody"]).fails(3, "not found");
}

#[test]
fn completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = finish(bare().args(["completions", shell]), "").ok();
        assert!(script.contains("litefleet") && script.contains("import"), "{shell}");
    }
    finish(bare().args(["completions", "tcsh"]), "").fails(2, "tcsh");
}
