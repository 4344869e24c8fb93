//! What can go wrong below the contract, and the one conversion into the contract's errors.

use std::io;

use litefleet::{Error, ErrorKind};

/// A result of the layers below the contract.
pub(crate) type Outcome<T> = Result<T, Fault>;

/// Why a call could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The contract says no. Nothing was written.
    #[error("{0}")]
    Refused(#[from] Error),
    /// The engine could not read.
    #[error("cannot read the store")]
    Read(#[source] fjall::Error),
    /// The engine had stopped taking writes, after an error of its own. Nothing was written, or what is not to be durable at
    /// once: the writer runs again.
    #[error("the storage engine stopped taking writes after an earlier error")]
    Stopped,
    /// Writing failed on the way: the change may be in the journal.
    #[error("cannot write to the store")]
    Write(#[source] fjall::Error),
    /// A panic in the engine. A change may be in the journal.
    #[error("the storage engine panicked: its files may be damaged")]
    Panicked,
    /// The engine is not open, and could not be opened again.
    #[error("the store could not be opened again after an error: {0}")]
    Closed(#[source] Error),
}

impl Fault {
    /// The kind of the error that it becomes.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(error) => error.kind(),
            Self::Read(error) | Self::Write(error) => engine_kind(error),
            Self::Closed(error) => closed_kind(error),
            Self::Stopped => ErrorKind::Unavailable,
            Self::Panicked => ErrorKind::Internal,
        }
    }

    /// Whether the engine must be opened again before it can write.
    pub(crate) fn needs_reopening(&self) -> bool {
        match self {
            Self::Stopped | Self::Write(_) | Self::Panicked => true,
            Self::Refused(_) | Self::Read(_) | Self::Closed(_) => false,
        }
    }
}

/// What was read, or nothing where it is damaged.
pub(crate) fn unless_damaged<T>(outcome: Outcome<T>) -> Outcome<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.kind() == ErrorKind::Corrupt => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Reading failed.
impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        Self::Read(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let message = fault.to_string();
        match fault {
            Fault::Refused(error) => error,
            Fault::Read(error) | Fault::Write(error) => engine_error(&message, error),
            Fault::Stopped => Error::unavailable(message),
            Fault::Panicked => Error::internal(message),
            Fault::Closed(error) => Error::new(closed_kind(&error), message).with_source(error),
        }
    }
}

/// An error of the engine as an error of the contract.
pub(crate) fn engine_error(what: &str, error: fjall::Error) -> Error {
    Error::new(engine_kind(&error), format!("{what}: {error}")).with_source(error)
}

/// `Full` promises that nothing was changed. That is not known after a write that failed on the way: who asks again learns it.
pub(crate) fn in_doubt(fault: Fault) -> Error {
    let is_write = matches!(fault, Fault::Write(_));
    let error = Error::from(fault);
    if is_write && error.kind() == ErrorKind::Full {
        return Error::unavailable("it may be done or not").with_source(error);
    }
    error
}

/// Nor is it while the store could not be opened again after such a write.
fn closed_kind(error: &Error) -> ErrorKind {
    match error.kind() {
        ErrorKind::Full => ErrorKind::Unavailable,
        kind => kind,
    }
}

fn engine_kind(error: &fjall::Error) -> ErrorKind {
    use fjall::Error as E;
    match error {
        E::Storage(error) => table_kind(error),
        E::Io(error) => io_kind(error),
        E::JournalRecovery(_) | E::Decompress(_) | E::InvalidTrailer | E::InvalidTag(_) | E::Unrecoverable => {
            ErrorKind::Corrupt
        }
        E::InvalidVersion(_) => ErrorKind::Invalid,
        E::Poisoned | E::Locked => ErrorKind::Unavailable,
        // A keyspace is never deleted; and the enum may grow.
        E::KeyspaceDeleted | _ => ErrorKind::Internal,
    }
}

fn table_kind(error: &fjall::LsmError) -> ErrorKind {
    match error {
        // A place that no file has, read from a damaged one.
        fjall::LsmError::Io(error) if error.kind() == io::ErrorKind::InvalidInput => ErrorKind::Corrupt,
        fjall::LsmError::Io(error) => io_kind(error),
        // All the others are about bytes that are not what was written.
        _ => ErrorKind::Corrupt,
    }
}

/// An error of the operating system as a kind.
pub(crate) fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::WriteZero => ErrorKind::Full,
        // A file or a part of one that must be there is not.
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}

/// An error of the operating system, with words.
pub(crate) fn io_error(what: &str, error: io::Error) -> Error {
    Error::new(io_kind(&error), format!("{what}: {error}")).with_source(error)
}
