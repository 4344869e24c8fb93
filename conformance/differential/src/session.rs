//! One connection, and its answers as text that says type and value.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// What a statement answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Rows, each value as text.
    Rows(Vec<Vec<String>>),
    /// No columns; how many rows were changed.
    Changed(u64),
}

/// An error as SQLite tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The extended result code; 0 where the error is not SQLite's.
    pub code: i32,
    /// Its words, in one line.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let code = match &error {
            rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
                error.extended_code
            }
            _ => 0,
        };
        let words = match &error {
            rusqlite::Error::SqliteFailure(_, Some(words)) => words.clone(),
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        Self { code, message: words.split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

/// A connection that never waits for locks.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// Thousands of steps that a statement may take, and that the present one may still take.
    steps: u32,
    left: Arc<AtomicU32>,
    /// Whether `SQLITE_BUSY_SNAPSHOT` is told as `SQLITE_BUSY`.
    plainly_busy: bool,
}

impl Session {
    /// Opens a file or a database of ours: a path, or a URI.
    pub fn open(place: &str) -> Result<Self, Failure> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(place, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(std::time::Duration::ZERO)?;
        Ok(Self { connection, steps: 0, left: Arc::default(), plainly_busy: false })
    }

    /// Gives each statement up after so many thousand steps of SQLite's machine: as many on any VFS.
    pub fn limit_steps(&mut self, thousands: u32) -> Result<(), Failure> {
        self.steps = thousands;
        let left = Arc::clone(&self.left);
        let over = move || left.fetch_sub(1, Ordering::Relaxed) <= 1;
        Ok(self.connection.progress_handler(1000, Some(over))?)
    }

    /// From now on `SQLITE_BUSY_SNAPSHOT` is told as `SQLITE_BUSY`. Where a snapshot is old and somebody is writing as well,
    /// SQLite's log tells the second, as it looks at the lock first, and ours the first, as waiting would be of no use.
    pub(crate) fn tell_plainly_busy(&mut self) {
        self.plainly_busy = true;
    }

    /// The connection, to be set up.
    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Whether no transaction is open.
    pub fn is_autocommit(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// Whether it is a statement that changes nothing.
    pub(crate) fn is_query(&self, sql: &str) -> bool {
        self.connection.prepare(sql).is_ok_and(|statement| statement.readonly())
    }

    /// Runs one statement to its end.
    pub fn run(&self, sql: &str) -> Result<Answer, Failure> {
        self.answer(sql).map_err(|failure| match failure.code {
            rusqlite::ffi::SQLITE_BUSY_SNAPSHOT if self.plainly_busy => {
                Failure { code: rusqlite::ffi::SQLITE_BUSY, ..failure }
            }
            _ => failure,
        })
    }

    fn answer(&self, sql: &str) -> Result<Answer, Failure> {
        self.left.store(self.steps, Ordering::Relaxed);
        let mut statement = self.connection.prepare(sql)?;
        let columns = statement.column_count();
        if columns == 0 {
            return Ok(Answer::Changed(statement.raw_execute()? as u64));
        }
        let mut rows = statement.raw_query();
        let mut answer = Vec::new();
        while let Some(row) = rows.next()? {
            let values: Result<Vec<String>, rusqlite::Error> =
                (0..columns).map(|column| row.get_ref(column).map(text)).collect();
            answer.push(values?);
        }
        if answer.len() > MOST_ROWS {
            let mut hasher = Xxh3::new();
            answer.iter().flatten().for_each(|value| hasher.update(format!("{value} ").as_bytes()));
            answer = vec![vec![format!("{}-rows", answer.len()), format!("{:032x}", hasher.digest128())]];
        }
        Ok(Answer::Rows(answer))
    }
}

/// More rows, and more bytes of a value, are told as how many there are and a hash of them.
const MOST_ROWS: usize = 100;
const MOST_BYTES: usize = 200;

/// Type and value, without white space.
pub(crate) fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(bytes) if bytes.len() > MOST_BYTES => format!("t{}-{:032x}", bytes.len(), xxh3_128(bytes)),
        ValueRef::Blob(bytes) if bytes.len() > MOST_BYTES => format!("x{}-{:032x}", bytes.len(), xxh3_128(bytes)),
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}r"),
        ValueRef::Text(bytes) => {
            let mut out = String::from("'");
            for byte in bytes {
                if byte.is_ascii_graphic() && *byte != b'\\' && *byte != b'<' {
                    out.push(char::from(*byte));
                } else {
                    // Writing to a string cannot fail.
                    let _written = write!(out, "\\{byte:02x}");
                }
            }
            out.push('\'');
            out
        }
        ValueRef::Blob(bytes) => {
            let mut out = String::from("x'");
            for byte in bytes {
                let _written = write!(out, "{byte:02x}");
            }
            out.push('\'');
            out
        }
    }
}
