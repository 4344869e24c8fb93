use crate::setup::{Place, bare, finish};

const ROWS: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
    INSERT INTO t (v) VALUES (NULL), (-5), (1.0), ('a,\"b\"'), (x'00ff'), ('two
lines'), (9e999);";

fn place() -> Place {
    let place = Place::new();
    place.create("a", ROWS);
    place
}

#[test]
fn a_database_is_made_only_when_asked() {
    let place = place();
    place.run(["sql", "b", "SELECT 1"]).fails(3, "--create");
    place.run(["info", "b"]).fails(3, "not found");
    place.run(["sql", "b", "--create", "CREATE TABLE t (v)"]).ok();
    place.run(["sql", "b", ".tables"]).ok();
}

#[test]
fn table() {
    let out = place().run(["sql", "a", "SELECT * FROM t"]).ok();
    let expected = "\
id | v
---+-----------
 1 | NULL
 2 |         -5
 3 |        1.0
 4 | a,\"b\"
 5 | x'00ff'
 6 | two\\nlines
 7 |      9e999
";
    assert_eq!(out, expected);
}

#[test]
fn csv() {
    let out = place().run(["sql", "a", "SELECT * FROM t", "--format", "csv"]).ok();
    assert_eq!(out, "id,v\n1,\n2,-5\n3,1.0\n4,\"a,\"\"b\"\"\"\n5,x'00ff'\n6,\"two\nlines\"\n7,9e999\n");
}

#[test]
fn json() {
    let place = place();
    let out = place.run(["sql", "a", "SELECT * FROM t WHERE id < 7", "--format", "json"]).ok();
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    let expected = serde_json::json!([
        {"id": 1, "v": null}, {"id": 2, "v": -5}, {"id": 3, "v": 1.0}, {"id": 4, "v": "a,\"b\""},
        {"id": 5, "v": {"hex": "00ff"}}, {"id": 6, "v": "two\nlines"}
    ]);
    assert_eq!(rows, expected);
    let none = place.run(["sql", "a", "SELECT 1 AS one WHERE 0", "--format", "json"]).ok();
    assert_eq!(none, "[]\n");
}

#[test]
fn results_longer_than_what_is_measured_are_complete() {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n";
    let out = place().run(["sql", "a", sql]).ok();
    assert_eq!(out.lines().count(), 5002);
    assert!(out.ends_with("\n5000\n"));
}

#[test]
fn parameters() {
    let place = place();
    let sql = "SELECT :a, @b, $c, ?4, typeof(:a), typeof(@b), typeof($c), typeof(?4)";
    let out = place
        .run([
            "sql", "a", sql, "--format", "csv", "--param", "a=7", "--param", "b=x=y", "--param", "$c=null", "--param",
            "4=x'61'",
        ])
        .ok();
    assert!(out.ends_with("\n7,x=y,,x'61',integer,text,null,blob\n"), "{out}");
    place.run(["sql", "a", "SELECT ?", "--param", "1=1"]).ok();
    place.run(["sql", "a", "SELECT :missing"]).fails(2, "--param missing=VALUE");
    place.run(["sql", "a", "SELECT 1", "--param", "novalue"]).fails(2, "NAME=VALUE");
}

#[test]
fn a_script_from_a_pipe() {
    let place = place();
    let script = "-- a comment; with a semicolon
CREATE TRIGGER r AFTER INSERT ON t BEGIN
  UPDATE t SET v = ';' WHERE id = new.id;
END;

BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT;
.mode csv
SELECT count(*), max(v)
  FROM t WHERE v = ';'; SELECT 2 AS two;
.tables
SELECT 3 AS three";
    let out = place.run_with_input(&["sql", "a"], script).ok();
    assert_eq!(out, "count(*),max(v)\n1,;\ntwo\n2\nt\nthree\n3\n");
    assert_eq!(place.run_with_input(&["sql", "a"], "").ok(), "");
    assert_eq!(place.run_with_input(&["sql", "a"], "\n-- nothing\n").ok(), "");
    assert_eq!(place.run_with_input(&["sql", "a"], ".quit\nnonsense;\n").ok(), "");
    assert!(place.run_with_input(&["sql", "a"], ".help\n").ok().contains(".schema"));
}

#[test]
fn a_script_stops_at_its_first_error() {
    let place = place();
    let script = "INSERT INTO t (v) VALUES ('kept');\nSELECT *\n FROM missing;\nINSERT INTO t (v) VALUES ('never');\n";
    let line = place.run_with_input(&["sql", "a"], script).fails(1, "no such table: missing");
    assert!(line.contains("line 2"), "{line}");
    assert_eq!(place.value("a", "SELECT group_concat(v) FROM t WHERE v IN ('kept', 'never')"), "kept");
    place.run(["sql", "a", "SELECT nonsense FROM t"]).fails(1, "no such column: nonsense\n");
    place.run_with_input(&["sql", "a"], "SELECT 'open;\n").fails(1, "line 1");
    place.run_with_input(&["sql", "a"], b"SELECT 1;\nSELECT '\xff';\n").fails(1, "line 2 of the script is not UTF-8");
    place.run_with_input(&["sql", "a"], ".nonsense\n").fails(2, ".help");
    place.run_with_input(&["sql", "a"], ".mode xml\n").fails(2, "table, csv or json");
}

/// SQLite read no further than to the NUL: every row was deleted, and what came behind was dropped without a word.
#[test]
fn a_nul_in_a_script_runs_nothing_of_its_statement() {
    let place = place();
    for script in
        ["DELETE FROM t\0 WHERE id = 1;\n", "DELETE FROM t;\0SELECT 1;\n", "DELETE FROM t;\0", "SELECT '\0';\n"]
    {
        place.run_with_input(&["sql", "a"], script).fails(1, "NUL");
    }
    place.run_with_input(&["sql", "a"], "SELECT 1;\nDELETE FROM t\n\0 WHERE id = 1;").fails(1, "line 3");
    place.run_with_input(&["sql", "a"], ".tables \0\n").fails(1, "NUL");
    assert_eq!(place.value("a", "SELECT count(*) FROM t"), "7");
}

/// The command ended with a panic.
#[test]
fn names_that_are_not_utf8_are_shown_as_far_as_they_go() {
    let place = Place::new();
    let file = place.file("source.db");
    let source = rusqlite::Connection::open(&file).unwrap();
    source
        .execute_batch(
            "CREATE TABLE tX (cX, n); INSERT INTO tX VALUES (1, 2); PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET name = CAST(x'74ff' AS TEXT), tbl_name = CAST(x'74ff' AS TEXT),
                 sql = CAST(replace(CAST(sql AS BLOB), x'58', x'ff') AS TEXT);",
        )
        .unwrap();
    drop(source);
    place.import(&file, "a");
    let shown = place.run(["sql", "a", ".tables"]).ok();
    assert_eq!(shown, "t\u{fffd}\n");
    assert!(place.run(["sql", "a", ".schema"]).ok().contains("(c\u{fffd}, n)"));
    // The table's name cannot be written in a script.
    let view = rusqlite::Connection::open(&file).unwrap();
    view.execute_batch(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET name = 't', tbl_name = 't',
         sql = CAST(replace(CAST(sql AS BLOB), x'74ff', x'74') AS TEXT);",
    )
    .unwrap();
    drop(view);
    place.import(&file, "b");
    for (format, expected) in [
        ("table", "c\u{fffd} | n\n---+--\n 1 | 2\n"),
        ("csv", "c\u{fffd},n\n1,2\n"),
        ("json", "[{\"c\u{fffd}\":1,\"n\":2}]\n"),
    ] {
        assert_eq!(place.run(["sql", "b", "SELECT * FROM t", "--format", format]).ok(), expected);
    }
}

/// Carriage returns before the end of a line were taken away, also where they stood in a literal.
#[test]
fn text_is_stored_as_it_is_written() {
    let place = place();
    let script = "INSERT INTO t (id, v) VALUES (10, 'a\r\nb\r\r\n\r\nc\rd\n');\r\n.tables\r\n\r\nSELECT 1 AS one;\r\n";
    assert_eq!(place.run_with_input(&["sql", "a", "--format", "csv"], script).ok(), "t\none\n1\n");
    place.run(["sql", "a", &script.replace("10", "11")]).ok();
    let stored = "610D0A620D0D0A0D0A630D640A";
    assert_eq!(place.value("a", "SELECT group_concat(hex(v), ' ') FROM t WHERE id > 9"), format!("{stored} {stored}"));
}

/// A line with a comment alone began a statement, and the dot-command after it was taken for its end.
#[test]
fn a_comment_stands_before_a_dot_command() {
    let place = place();
    for comment in ["-- a comment; one", "/* two\nlines */ -- and more", "/*/ .tables */", "\t/**/\n\n--"] {
        assert_eq!(place.run_with_input(&["sql", "a"], format!("{comment}\n.tables\n")).ok(), "t\n", "{comment}");
    }
    let inside = "/* a comment\n.nonsense\n*/ SELECT 1 AS one;\nSELECT 2 -- two\n/* .tables */ AS two;\n";
    assert_eq!(place.run_with_input(&["sql", "a", "--format", "csv"], inside).ok(), "one\n1\ntwo\n2\n");
    place.run_with_input(&["sql", "a"], "SELECT 1 -- one\n.tables\n").fails(1, "line 1");
    place.run_with_input(&["sql", "a"], "-- one\nnonsense;\n").fails(1, "line 2");
}

#[test]
fn an_open_transaction_at_the_end_is_an_error() {
    let place = place();
    place.run(["sql", "a", "BEGIN; INSERT INTO t (v) VALUES ('lost')"]).fails(1, "COMMIT");
    assert_eq!(place.value("a", "SELECT count(*) FROM t WHERE v = 'lost'"), "0");
}

#[test]
fn schema() {
    let place = place();
    place.run(["sql", "a", "CREATE VIEW w AS SELECT 1; CREATE INDEX i ON t (v)"]).ok();
    assert_eq!(place.run(["sql", "a", ".tables"]).ok(), "t\nw\n");
    assert_eq!(place.run(["sql", "a", ".tables w%"]).ok(), "w\n");
    let schema = place.run(["sql", "a", ".schema"]).ok();
    assert_eq!(schema.matches(';').count(), 3, "{schema}");
    let schema = place.run(["sql", "a", ".schema T"]).ok();
    assert!(
        schema.contains("CREATE TABLE t") && schema.contains("CREATE INDEX") && !schema.contains("VIEW"),
        "{schema}"
    );
}

#[test]
fn a_follower_reads_and_does_not_write() {
    let place = place();
    let count = place.run(["sql", "a", "SELECT count(*) AS n FROM t", "--read-only", "--format", "csv"]).ok();
    assert_eq!(count, "n\n7\n");
    place.run(["sql", "a", "DELETE FROM t", "--read-only"]).fails(1, "readonly");
    place.run(["sql", "b", "SELECT 1", "--read-only"]).fails(3, "not found");
    place.run(["sql", "b", "SELECT 1", "--read-only", "--create"]).fails(2, "--create");
}

#[test]
fn constraint_errors_are_sqlites_own() {
    place().run(["sql", "a", "INSERT INTO t (id) VALUES (1)"]).fails(1, "UNIQUE constraint failed: t.id");
}

#[test]
fn a_store_in_memory() {
    let ran = finish(
        bare().args([
            "--store",
            "memory:",
            "sql",
            "x",
            "--create",
            "CREATE TABLE t (v); SELECT count(*) AS n FROM t",
            "--format",
            "csv",
        ]),
        "",
    );
    assert_eq!(ran.ok(), "n\n0\n");
}
