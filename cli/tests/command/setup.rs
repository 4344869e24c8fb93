//! A store in a temporary folder, ways to run the command on it, and SQLite files to feed it.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// It succeeded: its output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// It failed with this code and one line that has these words: the line.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &str) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(words), "expected {words:?} in {self:?}");
        if code != 2 {
            assert_eq!(self.err.trim_end().lines().count(), 1, "one line: {self:?}");
        }
        self.err
    }
}

/// A store and a folder for files.
pub(crate) struct Place {
    folder: TempDir,
    store: OsString,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: folder.path().join("store").into(), folder }
    }

    /// With a store elsewhere.
    #[cfg(feature = "servers")]
    pub(crate) fn at(url: &str) -> Self {
        Self { store: url.into(), ..Self::new() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        PathBuf::from(&self.store)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = bare();
        command.arg("--store").arg(&self.store);
        command
    }

    pub(crate) fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        finish(self.command().args(arguments), "")
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Ran {
        finish(self.command().args(arguments), input)
    }

    /// Makes a database by SQL.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, sql: &str) {
        self.run(["sql", "--create", "--", name, sql]).ok();
    }

    /// The first value of the first row.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, sql: &str) -> String {
        let out = self.run(["sql", "--format", "csv", "--", name, sql]).ok();
        out.lines().nth(1).unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub(crate) fn import(&self, file: &Path, name: &str) {
        self.run([OsStr::new("import"), file.as_os_str(), OsStr::new("--"), OsStr::new(name)]).ok();
    }
}

/// The command without a store, and without the environment's.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litefleet"));
    command.env_remove("LITEFLEET_STORE").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn finish(command: &mut Command, input: impl AsRef<[u8]>) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // A command that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    wait(child)
}

pub(crate) fn wait(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Makes a SQLite file in which everything occurs that a copy could lose.
pub(crate) fn sample(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 1024; PRAGMA user_version = 77; PRAGMA application_id = 4711; PRAGMA auto_vacuum = FULL;
             CREATE TABLE kinds (id INTEGER PRIMARY KEY, v);
             INSERT INTO kinds (v) VALUES (NULL), (1), (-9223372036854775808), (1.5), ('é'), ('a''b'), (x'00ff'), (''), (x'');
             CREATE TABLE \"odd \"\"name\" (\"a b\" TEXT, generated AS (\"a b\" || '!'));
             INSERT INTO \"odd \"\"name\" VALUES ('x');
             CREATE TABLE without (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
             INSERT INTO without VALUES ('k', zeroblob(20000));
             CREATE TABLE many (i INTEGER PRIMARY KEY, t TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO many SELECT i, 'row ' || i FROM n;
             CREATE INDEX many_t ON many (t DESC) WHERE i % 2;
             CREATE VIEW view AS SELECT * FROM many;
             CREATE TRIGGER trigger AFTER DELETE ON many BEGIN INSERT INTO kinds (v) VALUES (old.i); END;
             DELETE FROM many WHERE i % 10 = 0;",
        )
        .unwrap();
    connection
}

/// Everything that a database says: pragmas, schema, every row of every table.
pub(crate) fn dump(connection: &Connection) -> Vec<Vec<Value>> {
    let mut dump = Vec::new();
    for pragma in ["page_size", "user_version", "application_id", "auto_vacuum", "encoding"] {
        dump.extend(rows(connection, &format!("PRAGMA {pragma}")));
    }
    let schema = rows(connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid");
    for entry in &schema {
        if let [Value::Text(kind), Value::Text(name), ..] = &entry[..]
            && kind == "table"
        {
            let mut table = rows(connection, &format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")));
            table.sort_by_key(|row| format!("{row:?}"));
            dump.extend(table);
        }
    }
    dump.extend(schema);
    dump
}

pub(crate) fn rows(connection: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    statement
        .query_map([], |row| (0..columns).map(|column| row.get(column)).collect())
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap()
}

pub(crate) fn dump_file(path: &Path) -> Vec<Vec<Value>> {
    let connection = Connection::open(path).unwrap();
    assert_eq!(rows(&connection, "PRAGMA integrity_check"), [[Value::Text("ok".to_owned())]]);
    dump(&connection)
}

/// Exports a database and dumps the file.
#[track_caller]
pub(crate) fn dump_of(place: &Place, name: &str) -> Vec<Vec<Value>> {
    let file = place.file("dumped.db");
    place.run([OsStr::new("export"), OsStr::new("--force"), OsStr::new("--"), OsStr::new(name), file.as_os_str()]).ok();
    dump_file(&file)
}

/// Copies files into a new folder, as a crash would leave them: a process that has them open does not matter.
pub(crate) fn crash_image(place: &Place, file: &Path, suffixes: &[&str]) -> PathBuf {
    let folder = place.file("crashed");
    std::fs::create_dir(&folder).unwrap();
    for suffix in suffixes {
        let name = format!("{}{suffix}", file.file_name().unwrap().to_str().unwrap());
        std::fs::copy(file.with_file_name(&name), folder.join(&name)).unwrap();
    }
    folder.join(file.file_name().unwrap())
}
