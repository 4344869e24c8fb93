//! One error type. Its kind says what the caller should do; its message names the database, the operation and the way out.

use std::fmt;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The state is not the one that the request expected. Read the head again; nothing was changed.
    Conflict,
    /// The lease was lost to another holder. Re-open the database; nothing was changed.
    Fenced,
    /// Another process holds the lease. Wait, ask it to release, or take over by force.
    LeaseHeld,
    /// The reply was lost: the commit may be done, undone, or still on its way. Resolve it by its commit id.
    CommitUnknown,
    /// The store cannot be reached or is overloaded. The request took no effect; try again later.
    Unavailable,
    /// There is no such database.
    NotFound,
    /// The snapshot is below the horizon. Begin a new read transaction.
    SnapshotTooOld,
    /// Stored bytes fail their check. They were not used; restore the database.
    Corrupt,
    /// The request can never succeed as it is.
    Invalid,
    /// There is no room. Nothing was changed; make room and try again.
    Full,
    /// A defect of this library or of a back end.
    Internal,
}

impl ErrorKind {
    /// The kind in a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Fenced => "fenced",
            Self::LeaseHeld => "lease held",
            Self::CommitUnknown => "commit outcome unknown",
            Self::Unavailable => "store unavailable",
            Self::NotFound => "not found",
            Self::SnapshotTooOld => "snapshot too old",
            Self::Corrupt => "corrupt",
            Self::Invalid => "invalid",
            Self::Full => "full",
            Self::Internal => "internal error",
        }
    }
}

/// An error: a kind, a message, and what caused it.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)*) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        })*
    };
}

impl Error {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    constructors! {
        /// See [`ErrorKind::Conflict`].
        conflict => Conflict,
        /// See [`ErrorKind::Fenced`].
        fenced => Fenced,
        /// See [`ErrorKind::LeaseHeld`].
        lease_held => LeaseHeld,
        /// See [`ErrorKind::CommitUnknown`].
        commit_unknown => CommitUnknown,
        /// See [`ErrorKind::Unavailable`].
        unavailable => Unavailable,
        /// See [`ErrorKind::NotFound`].
        not_found => NotFound,
        /// See [`ErrorKind::SnapshotTooOld`].
        snapshot_too_old => SnapshotTooOld,
        /// See [`ErrorKind::Corrupt`].
        corrupt => Corrupt,
        /// See [`ErrorKind::Invalid`].
        invalid => Invalid,
        /// See [`ErrorKind::Full`].
        full => Full,
        /// See [`ErrorKind::Internal`].
        internal => Internal,
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(std::sync::Arc::new(source));
        self
    }

    /// Puts words before the message: which database, which operation.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message alone, without the kind.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.kind.as_str())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Adds words to the error of a result.
pub trait Context<T> {
    /// Puts words before the message: which database, which operation.
    fn context(self, words: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, words: impl fmt::Display) -> Self {
        self.map_err(|e| e.context(words))
    }
}
