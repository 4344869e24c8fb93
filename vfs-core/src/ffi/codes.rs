//! One function turns an error into a SQLite result code.

use std::ffi::{CString, c_int};

use libsqlite3_sys as sqlite;

use crate::error::{Error, ErrorKind};

pub(super) const OK: c_int = sqlite::SQLITE_OK;
pub(super) const IOERR: c_int = sqlite::SQLITE_IOERR;
pub(super) const NOTFOUND: c_int = sqlite::SQLITE_NOTFOUND;
pub(super) const SHORT_READ: c_int = IOERR | (2 << 8);

/// Which call failed: it decides which I/O error the caller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Write,
    Commit,
    Truncate,
    Delete,
    Access,
    Lock,
    Open,
}

impl Step {
    /// The extended code of an I/O error, from SQLite's list of result codes.
    pub(super) const fn io_error(self) -> c_int {
        let detail = match self {
            Self::Open => return sqlite::SQLITE_CANTOPEN,
            Self::Read => 1,
            Self::Write => 3,
            Self::Commit => 4,
            Self::Truncate => 6,
            Self::Delete => 10,
            Self::Access => 13,
            Self::Lock => 15,
        };
        IOERR | (detail << 8)
    }
}

/// The result code of an error.
pub(super) fn code(error: &Error, step: Step) -> c_int {
    match error.kind() {
        ErrorKind::Full => sqlite::SQLITE_FULL,
        // Only after these two does SQLite's pager forget what it has cached. A rollback that any other error of a write
        // interrupts would leave half of the transaction in the cache, and the next commit would store it.
        _ if matches!(step, Step::Write | Step::Truncate) => step.io_error(),
        ErrorKind::LeaseHeld if matches!(step, Step::Lock | Step::Open) => sqlite::SQLITE_BUSY,
        // SQLITE_BUSY_SNAPSHOT: the transaction must begin again. At the commit point plain SQLITE_BUSY would let it go on.
        ErrorKind::LeaseHeld | ErrorKind::Conflict | ErrorKind::SnapshotTooOld => sqlite::SQLITE_BUSY | (2 << 8),
        ErrorKind::NotFound => sqlite::SQLITE_CANTOPEN,
        ErrorKind::Corrupt => sqlite::SQLITE_CORRUPT,
        ErrorKind::Invalid => match step {
            Step::Open | Step::Access => sqlite::SQLITE_CANTOPEN,
            Step::Lock => sqlite::SQLITE_READONLY,
            _ => step.io_error(),
        },
        ErrorKind::Fenced | ErrorKind::CommitUnknown | ErrorKind::Unavailable | ErrorKind::Internal => step.io_error(),
    }
}

/// Writes an error to SQLite's error log, where the words of an error go that has only a code.
pub(super) fn log(error: &Error, code: c_int) {
    // Busy is how SQLite waits: nobody wants to read of it.
    if code & 0xff == sqlite::SQLITE_BUSY {
        tracing::debug!(%error, code, "sqlite call");
        return;
    }
    tracing::warn!(%error, code, "sqlite call failed");
    let Ok(text) = CString::new(format!("litefleet: {error}").replace('\0', " ")) else { return };
    // SAFETY: both strings end with NUL and outlive the call, and the format has one %s for the one argument.
    unsafe { sqlite::sqlite3_log(code, c"%s".as_ptr(), text.as_ptr()) };
}
