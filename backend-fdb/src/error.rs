//! What can go wrong below the contract, and the one conversion into the contract's errors.

use foundationdb::FdbError;
use litefleet::{Error, ErrorKind};

/// A result of the layers below the contract.
pub(crate) type Outcome<T> = Result<T, Fault>;

/// Codes of FoundationDB that are named here. The rest is judged by the client library's own predicates.
pub(crate) mod code {
    pub(crate) const TRANSACTION_TOO_OLD: i32 = 1007;
    pub(crate) const FUTURE_VERSION: i32 = 1009;
    pub(crate) const NOT_COMMITTED: i32 = 1020;
    pub(crate) const TRANSACTION_CANCELLED: i32 = 1025;
    pub(crate) const TRANSACTION_TIMED_OUT: i32 = 1031;
    pub(crate) const TOO_MANY_WATCHES: i32 = 1032;
    pub(crate) const PROCESS_BEHIND: i32 = 1037;
    pub(crate) const DATABASE_LOCKED: i32 = 1038;
    pub(crate) const INVALID_OPTION_VALUE: i32 = 2006;
    pub(crate) const KEY_TOO_LARGE: i32 = 2102;
    pub(crate) const VALUE_TOO_LARGE: i32 = 2103;
    pub(crate) const TRANSACTION_TOO_LARGE: i32 = 2101;
    pub(crate) const API_VERSION_ALREADY_SET: i32 = 2201;
    pub(crate) const API_VERSION_NOT_SUPPORTED: i32 = 2203;
    pub(crate) const NO_CLUSTER_FILE_FOUND: i32 = 1515;
    pub(crate) const CONNECTION_STRING_INVALID: i32 = 2104;
}

/// Why a call could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The contract says no. Nothing was written.
    #[error("{0}")]
    Refused(#[from] Error),
    /// FoundationDB could not do it, and nothing was written.
    #[error("FoundationDB: {} (code {})", .0.message(), .0.code())]
    Client(FdbError),
    /// A commit was sent, and its reply was lost.
    #[error("the reply to a commit was lost: {} (code {})", .0.message(), .0.code())]
    Unknown(FdbError),
}

impl From<FdbError> for Fault {
    fn from(error: FdbError) -> Self {
        Self::Client(error)
    }
}

impl Fault {
    /// A commit that failed with this error.
    pub(crate) fn of_commit(error: FdbError) -> Self {
        if commit_is_undone(error) { Self::Client(error) } else { Self::Unknown(error) }
    }

    /// Whether something that was read is damaged.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Refused(error) if error.kind() == ErrorKind::Corrupt)
    }

    /// Whether the same again, on fresh reads, may succeed.
    pub(crate) fn may_be_tried_again(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            // Within its time, a call is made again whatever took the reply away: every call does what it says once.
            Self::Unknown(error) => error.code() != code::TRANSACTION_CANCELLED,
            Self::Client(error) => error.is_retryable(),
        }
    }
}

/// Whether a commit that fails with this error has certainly not happened, and will not. Everything that is not known
/// to be so counts as unknown.
fn commit_is_undone(error: FdbError) -> bool {
    // 2000 to 2999 are the caller's mistakes, found before anything is sent.
    let refused_by_client = (2000..3000).contains(&error.code());
    error.is_retryable_not_committed() || refused_by_client || error.code() == code::DATABASE_LOCKED
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let message = fault.to_string();
        match fault {
            Fault::Refused(error) => error,
            Fault::Client(error) => Error::new(kind(error), advice(error, message)).with_source(error),
            // Who can say more than "maybe" has said so before this conversion.
            Fault::Unknown(error) => Error::unavailable(message).with_source(error),
        }
    }
}

fn kind(error: FdbError) -> ErrorKind {
    match error.code() {
        code::TRANSACTION_TOO_LARGE | code::KEY_TOO_LARGE | code::VALUE_TOO_LARGE => ErrorKind::Internal,
        code::API_VERSION_NOT_SUPPORTED | code::NO_CLUSTER_FILE_FOUND | code::CONNECTION_STRING_INVALID => {
            ErrorKind::Invalid
        }
        // The others of these are wrong uses of the client library.
        code if (2000..3000).contains(&code) => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}

fn advice(error: FdbError, message: String) -> String {
    match error.code() {
        code::TRANSACTION_TIMED_OUT => {
            format!(
                "{message}: is the cluster up (fdbcli --exec status), is the cluster file the right one, and, where it says \
                 tls, does each side trust the other's certificate?"
            )
        }
        code::DATABASE_LOCKED => format!("{message}: an operator has locked the cluster (fdbcli: unlock)"),
        code::NO_CLUSTER_FILE_FOUND | code::CONNECTION_STRING_INVALID => {
            format!("{message}: name one in the store's URL, as in fdb:/etc/foundationdb/fdb.cluster")
        }
        _ => message,
    }
}
