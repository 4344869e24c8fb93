//! What can go wrong below the contract, and the one conversion into the contract's errors.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::time::Duration;

use litefleet::{Error, ErrorKind};
use tokio_postgres::error::{DbError, Severity};

/// A result of the layers below the contract.
pub(crate) type Outcome<T> = Result<T, Fault>;

/// Why a call could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The contract says no. Nothing was changed.
    #[error("{0}")]
    Refused(Error),
    /// No connection could be had. Nothing was sent.
    #[error("{message}")]
    Connect {
        /// What became of it at each server that was tried.
        message: String,
        /// Whether it can ever succeed as it is.
        kind: ErrorKind,
    },
    /// The server takes no more connections. Nothing was sent.
    #[error("{0}")]
    Crowded(String),
    /// All connections were in use for too long. Nothing was sent.
    #[error("{}", busy_message(*.size, *.limit, *.unanswered))]
    Busy {
        /// How many there are.
        size: usize,
        /// For how long.
        limit: Duration,
        /// How many wait for the answer to a call that was given up.
        unanswered: usize,
    },
    /// The server says no.
    #[error("{}", server_message(.0))]
    Server(Box<DbError>),
    /// The connection broke while an answer was awaited.
    #[error("{}", lost_message(.0))]
    Lost(#[source] tokio_postgres::Error),
    /// No answer came in time.
    #[error("Postgres did not answer within {0:?}")]
    Silent(Duration),
    /// An answer that cannot be read.
    #[error("an answer of Postgres cannot be read: {}", chain(.0))]
    Answer(#[source] tokio_postgres::Error),
    /// An answer that does not make sense.
    #[error("an answer of Postgres makes no sense: {0}")]
    Malformed(&'static str),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(server) => Self::Server(Box::new(server.clone())),
            None => Self::Lost(error),
        }
    }
}

impl Fault {
    /// Whether the connection cannot be used any more.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Silent(_) | Self::Answer(_) | Self::Malformed(_) => true,
            // A standby that was a primary, or a plan whose tables have changed under it.
            Self::Server(error) => is_fatal(error) || matches!(error.code().code(), "25006" | "0A000" | "26000"),
            Self::Refused(_) | Self::Connect { .. } | Self::Crowded(_) | Self::Busy { .. } => false,
        }
    }

    /// Whether the server does not take writes: it is a standby, perhaps since a moment ago.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::Server(error) if error.code().code() == "25006")
    }

    /// Whether the call may have taken effect all the same. An error that ends the connection may come after the commit;
    /// any other error of the server means that the transaction was rolled back.
    pub(crate) fn leaves_doubt(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Silent(_) | Self::Answer(_) | Self::Malformed(_) => true,
            Self::Server(error) => is_fatal(error),
            Self::Refused(_) | Self::Connect { .. } | Self::Crowded(_) | Self::Busy { .. } => false,
        }
    }

    /// Whether it took no effect and may go well at once: two transactions were in each other's way.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Server(error) => {
                !is_fatal(error) && matches!(error.code().code(), "40001" | "40P01" | "0A000" | "26000")
            }
            _ => false,
        }
    }
}

/// Whether it ends the connection, or may be a pooler's word on one that has ended behind it: then what was sent there may
/// still take effect. PgBouncer up to 1.15 calls that a mere error, of class 08 as others do, and without the severity that is
/// not translated, which every server names.
fn is_fatal(error: &DbError) -> bool {
    let survived = error.parsed_severity().is_some_and(|it| !matches!(it, Severity::Fatal | Severity::Panic));
    !survived || error.code().code().starts_with("08")
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let message = fault.to_string();
        match fault {
            Fault::Refused(error) => error,
            Fault::Connect { kind, .. } => Error::new(kind, message),
            Fault::Crowded(_) | Fault::Busy { .. } | Fault::Silent(_) => Error::unavailable(message),
            Fault::Server(error) => Error::new(server_kind(error.code().code()), message).with_source(*error),
            Fault::Lost(error) => Error::unavailable(message).with_source(error),
            Fault::Answer(error) => Error::internal(message).with_source(error),
            Fault::Malformed(_) => Error::internal(message),
        }
    }
}

/// What to do about an error of the server, by its SQLSTATE. The first two characters are its class.
pub(crate) fn server_kind(code: &str) -> ErrorKind {
    match code {
        // Our own functions raise these.
        "LF002" => ErrorKind::NotFound,
        "LF009" => ErrorKind::SnapshotTooOld,
        // Disk full, and a quota on temporary files.
        "53100" | "53400" => ErrorKind::Full,
        // A page or an index fails its check; a row of ours is missing.
        "XX001" | "XX002" | "LF010" => ErrorKind::Corrupt,
        // Wrong password or user; no such database; rights are missing; the schema is not what it must be.
        "28000" | "28P01" | "3D000" | "3F000" | "42501" | "42P01" | "42883" | "42703" => ErrorKind::Invalid,
        _ => match code.get(..2).unwrap_or_default() {
            // Connection, read-only or failed transaction, resources, lock or state, operator, system, rollback,
            // cached plan or statement that is gone.
            "08" | "25" | "53" | "55" | "57" | "58" | "40" | "0A" | "26" => ErrorKind::Unavailable,
            // Limits of the server: too large, too many.
            "54" => ErrorKind::Invalid,
            _ => ErrorKind::Internal,
        },
    }
}

/// What tokio-postgres says of a handshake that failed.
pub(crate) const TLS_FAILED: &str = "error performing TLS handshake";

fn busy_message(size: usize, limit: Duration, unanswered: usize) -> String {
    if unanswered == 0 {
        return format!(
            "all {size} connections of the pool were busy for {limit:?}: raise pool_size, or find what keeps the server busy"
        );
    }
    let calls = match unanswered {
        1 => "1 call that was given up still waits".to_owned(),
        more => format!("{more} calls that were given up still wait"),
    };
    format!(
        "no connection of the pool was free for {limit:?}: {calls} for the server's answer, each on a connection. Usually its \
         synchronous standby is away (wait_event SyncRep in pg_stat_activity): bring that back, or change \
         synchronous_standby_names"
    )
}

fn lost_message(error: &tokio_postgres::Error) -> String {
    let said = chain(error);
    if said == format!("{TLS_FAILED}: server does not support TLS") {
        return "the server has no TLS: turn its setting ssl on, or connect with sslmode=prefer or sslmode=disable"
            .into();
    }
    // A server that does not like the client's certificate says so when for us the handshake is over.
    if said.starts_with(TLS_FAILED) || said.contains("received fatal alert") {
        return format!(
            "{said}: check sslmode, that sslrootcert names the authority of the server's certificate, that the URL's host is \
             a name in it, and, if the server asks for a certificate of the client, sslcert and sslkey"
        );
    }
    if said.starts_with("invalid configuration") || said.starts_with("authentication error") {
        return format!("{said}: check the password of the URL, or PGPASSWORD, and the server's pg_hba.conf");
    }
    format!("the connection to Postgres was lost: {said}")
}

/// What people can do about the errors that they meet.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" | "28000" => "check user and password of the URL, and the server's pg_hba.conf",
        "3D000" => "create that database on the server, or name another in the URL",
        "42501" => "grant the rights that docs/operations.md lists for a role that serves",
        "42P01" | "42883" | "3F000" | "42703" => {
            "the schema is missing or of another version: connect once with a role that may migrate it"
        }
        "40001" | "40P01" => {
            "it was tried several times: look in pg_stat_activity for transactions that change the schema's rows, or have \
             another isolation level"
        }
        "55P03" => {
            "another session holds a lock for longer than lock_timeout: pg_blocking_pids() and pg_stat_activity name it"
        }
        "0A000" | "26000" => "behind a pooler in transaction mode, connect with prepared_statements=off",
        "53100" => "make room on the server's disk",
        "53200" => {
            "the server is out of memory: give it more, or lower its max_connections, work_mem or shared_buffers"
        }
        "53400" => "raise that limit in the server's configuration (temp_file_limit, for example)",
        "57P05" => "raise the server's idle_session_timeout, or set it to 0 for this role",
        "53300" => "raise the server's max_connections, lower pool_size, or put PgBouncer in between",
        "25006" => "this server is a read-only standby: list the primary too, with target_session_attrs=read-write",
        "57014" => "the server's statement_timeout or an operator cancelled the statement",
        "57P01" | "57P02" => "the server is shutting down or failing over",
        "57P03" => "the server is starting up, or recovering",
        "XX001" | "XX002" => "restore the server from a backup, or a replica",
        _ => return None,
    })
}

fn server_message(error: &DbError) -> String {
    let code = error.code().code();
    // Our own functions say it all.
    if code.starts_with("LF") {
        return error.message().to_owned();
    }
    let mut out = format!("Postgres says: {} (SQLSTATE {code})", error.message());
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        let _written = write!(out, "; {more}");
    }
    if let Some(advice) = advice(code) {
        let _written = write!(out, "; {advice}");
    }
    out
}

/// An error with all that caused it. Neither tokio-postgres nor rustls put a password into theirs.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !out.contains(&text) {
            let _written = write!(out, ": {text}");
        }
        next = cause.source();
    }
    out
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
