//! Error codes, their texts, and which of them a caller may retry.
//!
//! Source: FoundationDB documentation, "Error Codes", and "C API" (`fdb_error_predicate`); the options file's
//! `ErrorPredicate` section for the numbers of the predicates.

use std::ffi::CStr;

/// A FoundationDB error code; 0 is success.
pub(crate) type Code = i32;

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal;)+) => {
        $(pub(crate) const $name: Code = $number;)+

        /// The text for a code, as `fdb_get_error` gives it.
        pub(crate) fn text(code: Code) -> &'static CStr {
            match code {
                $($number => $text,)+
                _ => c"Unknown error code",
            }
        }

        /// The number of a code's name in lower case, for fault settings.
        pub(crate) fn named(name: &str) -> Option<Code> {
            $(if name.eq_ignore_ascii_case(stringify!($name)) {
                return Some($number);
            })+
            name.parse().ok()
        }
    };
}

codes! {
    SUCCESS = 0, c"Success";
    OPERATION_FAILED = 1000, c"The operation failed";
    TRANSACTION_TOO_OLD = 1007, c"The transaction's read version is too old to read or commit";
    FUTURE_VERSION = 1009, c"The requested version has not been reached yet";
    NOT_COMMITTED = 1020, c"Not committed: another transaction conflicts";
    COMMIT_UNKNOWN_RESULT = 1021, c"The transaction may or may not have been committed";
    TRANSACTION_CANCELLED = 1025, c"The transaction was cancelled";
    TRANSACTION_TIMED_OUT = 1031, c"The transaction timed out";
    TOO_MANY_WATCHES = 1032, c"Too many watches are set";
    WATCHES_DISABLED = 1034, c"No watch without read-your-writes";
    ACCESSED_UNREADABLE = 1036, c"An unreadable key was read";
    PROCESS_BEHIND = 1037, c"A storage process lacks recent mutations";
    DATABASE_LOCKED = 1038, c"The database is locked";
    CLUSTER_VERSION_CHANGED = 1039, c"The cluster's protocol version changed";
    COMMIT_PROXY_MEMORY_LIMIT_EXCEEDED = 1042, c"A commit proxy is out of memory";
    BATCH_TRANSACTION_THROTTLED = 1051, c"Batch priority is throttled";
    GRV_PROXY_MEMORY_LIMIT_EXCEEDED = 1078, c"A read version proxy is out of memory";
    OPERATION_CANCELLED = 1101, c"The operation was cancelled";
    FUTURE_RELEASED = 1102, c"The future's memory has been released";
    TAG_THROTTLED = 1213, c"The transaction's tag is throttled";
    TRANSACTION_THROTTLED_HOT_SHARD = 1235, c"Throttled because of a hot shard";
    TRANSACTION_REJECTED_RANGE_LOCKED = 1242, c"Rejected: the range is locked";
    NO_CLUSTER_FILE_FOUND = 1515, c"There is no cluster file";
    CLIENT_INVALID_OPERATION = 2000, c"Invalid API call";
    KEY_OUTSIDE_LEGAL_RANGE = 2004, c"The key is outside the legal range";
    INVERTED_RANGE = 2005, c"The range's begin is above its end";
    INVALID_OPTION_VALUE = 2006, c"The option's value is invalid";
    INVALID_OPTION = 2007, c"The option is not valid here";
    NETWORK_NOT_SETUP = 2008, c"The network has not been set up";
    NETWORK_ALREADY_SETUP = 2009, c"The network can be set up only once";
    READ_VERSION_ALREADY_SET = 2010, c"The transaction has a read version already";
    VERSION_INVALID = 2011, c"The version is not valid";
    RANGE_LIMITS_INVALID = 2012, c"The range's limits are not valid";
    FUTURE_NOT_SET = 2015, c"The future is not ready";
    USED_DURING_COMMIT = 2017, c"The transaction was used while it committed";
    INVALID_MUTATION_TYPE = 2018, c"Unknown type of atomic operation";
    TRANSACTION_INVALID_VERSION = 2020, c"The transaction has no commit version";
    NO_COMMIT_VERSION = 2021, c"A read-only transaction has no commit version";
    TRANSACTION_READ_ONLY = 2023, c"The transaction was declared read-only";
    NETWORK_CANNOT_BE_RESTARTED = 2025, c"The network can be started only once";
    BLOCKED_FROM_NETWORK_THREAD = 2026, c"Waiting on the network thread would never end";
    TRANSACTION_TOO_LARGE = 2101, c"The transaction exceeds its byte limit";
    KEY_TOO_LARGE = 2102, c"The key exceeds its byte limit";
    VALUE_TOO_LARGE = 2103, c"The value exceeds its byte limit";
    CONNECTION_STRING_INVALID = 2104, c"The cluster file's connection string is invalid";
    UNSUPPORTED_OPERATION = 2108, c"Not supported (the stand-in library has a part of FoundationDB only)";
    EXACT_MODE_WITHOUT_LIMITS = 2210, c"Exact mode needs a limit";
    TOO_MANY_TAGS = 2109, c"Too many tags on the transaction";
    TAG_TOO_LONG = 2110, c"The tag is too long";
    API_VERSION_UNSET = 2200, c"No API version has been selected";
    API_VERSION_ALREADY_SET = 2201, c"The API version can be selected only once";
    API_VERSION_INVALID = 2202, c"The API version is not valid";
    API_VERSION_NOT_SUPPORTED = 2203, c"The API version is not supported";
}

/// `fdb_error_predicate`: an unknown predicate answers no.
pub(crate) fn predicate(predicate: i32, code: Code) -> bool {
    let maybe_committed = matches!(code, COMMIT_UNKNOWN_RESULT | CLUSTER_VERSION_CHANGED);
    let retryable_not_committed = matches!(
        code,
        NOT_COMMITTED
            | TRANSACTION_TOO_OLD
            | FUTURE_VERSION
            | DATABASE_LOCKED
            | GRV_PROXY_MEMORY_LIMIT_EXCEEDED
            | COMMIT_PROXY_MEMORY_LIMIT_EXCEEDED
            | TRANSACTION_THROTTLED_HOT_SHARD
            | BATCH_TRANSACTION_THROTTLED
            | PROCESS_BEHIND
            | TAG_THROTTLED
            | TRANSACTION_REJECTED_RANGE_LOCKED
    );
    match predicate {
        50_000 => maybe_committed || retryable_not_committed,
        50_001 => maybe_committed,
        50_002 => retryable_not_committed,
        _ => false,
    }
}

/// True for errors after which a commit may have taken effect, or may still. Source: "Developer Guide", transactions with
/// unknown results, and non-retryable errors there.
pub(crate) fn says_nothing_of_commit(code: Code) -> bool {
    matches!(
        code,
        COMMIT_UNKNOWN_RESULT
            | CLUSTER_VERSION_CHANGED
            | TRANSACTION_TIMED_OUT
            | TRANSACTION_CANCELLED
            | OPERATION_CANCELLED
    )
}
