//! Opens a SQLite file of the file system for reading.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ffi};

use crate::cancel;
use crate::failure::{Exit, Failure, Result};

/// Opens a SQLite file on SQLite's own VFS and begins a read transaction, so that the copy is of one moment.
///
/// The file is opened read-only. Only when a crash has left a hot journal beside it, which nobody can read past, is it
/// opened for writing, and SQLite rolls the unfinished transaction back as at any other opening.
pub(crate) fn open(file: &Path, wait: Duration) -> Result<Connection> {
    let path = file.canonicalize().map_err(|e| Failure::file(file, &e))?;
    if path.is_dir() {
        return Err(Failure::failed(format!("{} is a folder; expected a SQLite file", file.display())));
    }
    // SQLite would report a file that cannot be read only as "unable to open".
    std::fs::File::open(&path).map_err(|e| Failure::file(file, &e))?;
    match begin(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, wait) {
        Err(e) if needs_rollback(&e) => {
            let _ = writeln!(
                std::io::stderr().lock(),
                "litefleet: {}: a crash left a transaction unfinished; it is rolled back",
                file.display()
            );
            begin(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, wait).map_err(|e| {
                explain(file, &e).advice("its hot journal must be rolled back: copy the file and its -journal to a folder that you can write")
            })
        }
        other => other.map_err(|e| explain(file, &e)),
    }
}

fn begin(path: &PathBuf, flags: OpenFlags, wait: Duration) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    cancel::wait_for_locks(&mut connection, wait)?;
    cancel::stop_when_asked(&mut connection)?;
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn needs_rollback(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|e| matches!(e.extended_code, ffi::SQLITE_READONLY_ROLLBACK | ffi::SQLITE_READONLY_RECOVERY))
}

/// SQLite's error with a file, in words for whoever gave it.
fn explain(file: &Path, error: &rusqlite::Error) -> Failure {
    if cancel::requested() {
        return Failure::interrupted("nothing was imported");
    }
    let words = match error.sqlite_error().map(|e| e.extended_code & 0xff) {
        Some(ffi::SQLITE_NOTADB) => {
            return Failure::new(
                Exit::Corrupt,
                format!("{} is not a SQLite database (or it is encrypted)", file.display()),
            );
        }
        Some(ffi::SQLITE_CORRUPT) => {
            "the file is damaged or truncated; nothing was imported, try 'sqlite3 FILE .recover'"
        }
        Some(ffi::SQLITE_BUSY) => "another process is writing to it; try again later, or wait longer with --wait",
        Some(ffi::SQLITE_CANTOPEN) => "a file in WAL mode needs a folder in which its -shm file can be made",
        _ => return Failure::sqlite(None, error).context(file.display()),
    };
    Failure::sqlite(None, error).context(file.display()).advice(words)
}
