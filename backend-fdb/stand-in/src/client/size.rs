//! The size of a transaction, as its limit counts it.
//!
//! Source: FoundationDB documentation, "Known Limitations": keys, values and ranges written and ranges read count, up to
//! 10,000,000 bytes. The documentation does not give the overhead of each; the client's differs from version to version.
//! The figures here are at least as large as those of 7.1 to 7.4, so that what passes here passes there.

use crate::cluster::protocol::Mutation;

/// Source: "Known Limitations", large keys and values.
pub(crate) const KEY_LIMIT: usize = 10_000;
/// Keys of the system may be longer.
pub(crate) const SYSTEM_KEY_LIMIT: usize = 30_000;
pub(crate) const TRANSACTION_LIMIT: u64 = 10_000_000;

pub(crate) const MUTATION: usize = 48;
pub(crate) const RANGE: usize = 24;

/// Of one mutation, without its conflict range.
pub(crate) fn of(mutation: &Mutation) -> usize {
    MUTATION
        + match mutation {
            Mutation::Clear(range) => range.begin.len() + range.end.len(),
            Mutation::Set(key, value)
            | Mutation::Atomic(_, key, value)
            | Mutation::StampedKey(key, value)
            | Mutation::StampedValue(key, value) => key.len() + value.len(),
        }
}

/// Of the range that holds one key.
pub(crate) fn of_key_range(key: &[u8]) -> usize {
    RANGE + 2 * key.len() + 1
}

/// The longest that this key could be.
pub(crate) fn key_limit(key: &[u8]) -> usize {
    if key.starts_with(b"\xff") { SYSTEM_KEY_LIMIT } else { KEY_LIMIT }
}
