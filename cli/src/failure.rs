//! Why a command failed: an exit code for scripts, and one line for people.

use std::process::ExitCode;

use litefleet::{DatabaseName, ErrorKind};
use rusqlite::ffi;

use crate::cancel;

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The exit codes. `args::EXIT_CODES` describes them to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// The command line or a value in it is wrong. clap uses the same number.
    Usage = 2,
    /// There is no such database, file or store.
    NotFound = 3,
    /// Somebody else holds the lease or the lock.
    Busy = 4,
    /// Stored or given bytes are damaged.
    Corrupt = 5,
    /// The store cannot be reached.
    Unavailable = 6,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A failure without a code of its own.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Stopped by a signal, with what that left behind.
    pub(crate) fn interrupted(what_is_left: &str) -> Self {
        Self::new(Exit::Interrupted, format!("interrupted: {what_is_left}"))
    }

    /// An operating system's error with a file.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("{}: {}", path.display(), io_words(error)))
    }

    /// What went wrong, as SQLite and, where the connection goes through it, the VFS tell it.
    pub(crate) fn sqlite(connection: Option<&rusqlite::Connection>, error: &rusqlite::Error) -> Self {
        Self::sqlite_since(connection, "", error)
    }

    /// The same on a connection that has been in use: `before` is what the VFS [had said](said) then, which may be about another
    /// error.
    pub(crate) fn sqlite_since(
        connection: Option<&rusqlite::Connection>,
        before: &str,
        error: &rusqlite::Error,
    ) -> Self {
        let code = match error {
            rusqlite::Error::SqlInputError { error, .. } => Some(error),
            other => other.sqlite_error(),
        };
        let Some(code) = code else {
            return Self::failed(one_line(&error.to_string()));
        };
        let stopped = matches!(code.extended_code & 0xff, ffi::SQLITE_INTERRUPT | ffi::SQLITE_BUSY);
        if stopped && cancel::requested() {
            return Self::interrupted("the statement was rolled back");
        }
        // Every I/O error is the VFS's, also when it says the same again.
        let new = |words: &String| words != before || code.extended_code & 0xff == ffi::SQLITE_IOERR;
        let words = connection.and_then(|c| vfs_words(c, *code)).filter(new);
        let kind = words.as_deref().and_then(kind_of_words);
        let exit = match (kind, code.extended_code & 0xff) {
            (Some(kind), _) => exit_of(kind),
            (None, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => Exit::Busy,
            (None, ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB) => Exit::Corrupt,
            _ => Exit::Failed,
        };
        let message = sqlite_message(error);
        Self::new(
            exit,
            match words {
                Some(words) => format!("{message}: {words}"),
                None => message,
            },
        )
    }

    /// Puts words before the message.
    #[must_use]
    pub(crate) fn context(mut self, words: impl std::fmt::Display) -> Self {
        if !self.message.is_empty() {
            self.message = format!("{words}: {}", self.message);
        }
        self
    }

    /// Puts advice after the message.
    #[must_use]
    pub(crate) fn advice(mut self, words: &str) -> Self {
        self.message = format!("{}; {words}", self.message);
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The line to print; `None` when there is nobody to tell, as after a closed pipe.
    pub(crate) fn line(&self) -> Option<String> {
        (!self.message.is_empty()).then(|| one_line(&self.message))
    }
}

impl From<litefleet::Error> for Failure {
    fn from(error: litefleet::Error) -> Self {
        let advice = match error.kind() {
            ErrorKind::LeaseHeld => "; try again later",
            ErrorKind::Corrupt => "; 'litefleet verify' says what is damaged, restore the database from a copy",
            _ => "",
        };
        Self::new(exit_of(error.kind()), format!("{error}{advice}"))
    }
}

/// Errors of standard output. A closed pipe ends the command without a word.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::failed(""),
            _ => Self::failed(format!("cannot write the output: {}", io_words(&error))),
        }
    }
}

/// A name in quotes, control characters made visible.
pub(crate) fn quoted(name: &DatabaseName) -> String {
    format!("'{}'", visible(name.as_str()))
}

/// Text with its control characters escaped, so that it stays on one line and cannot steer a terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            escaped.chars().collect::<Vec<_>>()
        })
        .collect()
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::LeaseHeld | ErrorKind::Fenced => Exit::Busy,
        ErrorKind::Corrupt => Exit::Corrupt,
        ErrorKind::Unavailable => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

/// The kind that stands at the end of an error's text.
fn kind_of_words(words: &str) -> Option<ErrorKind> {
    [ErrorKind::NotFound, ErrorKind::LeaseHeld, ErrorKind::Fenced, ErrorKind::Corrupt, ErrorKind::Unavailable]
        .into_iter()
        .find(|kind| words.ends_with(&format!("({})", kind.as_str())))
}

/// The VFS's words for the last error, for the codes that can come from it.
fn vfs_words(connection: &rusqlite::Connection, code: ffi::Error) -> Option<String> {
    let own_error_of_sqlite = matches!(
        code.extended_code & 0xff,
        ffi::SQLITE_ERROR | ffi::SQLITE_CONSTRAINT | ffi::SQLITE_INTERRUPT | ffi::SQLITE_MISMATCH | ffi::SQLITE_RANGE
    );
    if own_error_of_sqlite {
        return None;
    }
    Some(said(connection)).filter(|words| !words.is_empty())
}

/// The VFS's words for the last error of a connection, if it is through ours.
pub(crate) fn said(connection: &rusqlite::Connection) -> String {
    connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap_or_default()
}

/// SQLite's message without the text of the statement, which rusqlite adds.
fn sqlite_message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

fn io_words(error: &std::io::Error) -> String {
    let words = error.to_string();
    match words.find(" (os error") {
        Some(end) => words[..end].to_lowercase(),
        None => words,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
