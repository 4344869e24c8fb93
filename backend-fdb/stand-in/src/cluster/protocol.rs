//! What a client asks of the cluster. Everything that would be an exchange over the network is one request here, so that
//! counting requests counts exchanges, and so that the same requests can travel between processes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A point in the database's history; about a million a second.
pub(crate) type Version = i64;

/// Names a key relative to another: the `offset`-th key after the last one below (or at, when `or_equal`) `key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selector {
    pub(crate) key: Bytes,
    pub(crate) or_equal: bool,
    pub(crate) offset: i32,
}

impl Selector {
    /// The first key at or after this one.
    pub(crate) fn at(key: Bytes) -> Self {
        Self { key, or_equal: false, offset: 1 }
    }

    /// The same selector without `or_equal`: at or below k is below the key right after k.
    pub(crate) fn without_or_equal(self) -> Self {
        if !self.or_equal {
            return self;
        }
        Self { key: after(&self.key), or_equal: false, offset: self.offset }
    }

    /// True when the selector names "the first key at or after": then nothing needs to be read to cut a range there.
    pub(crate) fn is_plain(&self) -> bool {
        !self.or_equal && self.offset == 1
    }
}

/// The key right after this one.
pub(crate) fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// `begin` to before `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) begin: Bytes,
    pub(crate) end: Bytes,
}

/// One change, in the order in which it takes effect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Mutation {
    Set(Bytes, Bytes),
    Clear(Range),
    Atomic(Atomic, Bytes, Bytes),
    /// A key with a placeholder and the position of the placeholder in its last four bytes, and the value.
    StampedKey(Bytes, Bytes),
    /// A key, and a value with a placeholder and its position in the last four bytes.
    StampedValue(Bytes, Bytes),
}

/// The atomic operations that compute a value from the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Atomic {
    Add,
    And,
    Or,
    Xor,
    AppendIfFits,
    Max,
    Min,
    ByteMin,
    ByteMax,
    CompareAndClear,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct CommitRequest {
    pub(crate) read_version: Version,
    pub(crate) read_conflicts: Vec<Range>,
    pub(crate) write_conflicts: Vec<Range>,
    pub(crate) mutations: Vec<Mutation>,
    /// The transaction's size by the client's count, for the counters.
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RangeRequest {
    pub(crate) version: Version,
    pub(crate) begin: Selector,
    pub(crate) end: Selector,
    /// Keys at and above this one do not exist for this reader.
    pub(crate) bound: Bytes,
    /// 0: no bound.
    pub(crate) rows: usize,
    /// 0: no bound but the cluster's own.
    pub(crate) bytes: usize,
    pub(crate) reverse: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    ReadVersion {
        batch_priority: bool,
    },
    Get {
        version: Version,
        key: Bytes,
    },
    GetKey {
        version: Version,
        selector: Selector,
        bound: Bytes,
    },
    GetRange(RangeRequest),
    Commit(CommitRequest),
    /// Answers when the newest value of `key` differs from `value`.
    Watch {
        key: Bytes,
        value: Option<Bytes>,
    },
    RangeSize(Range),
    SplitPoints {
        range: Range,
        chunk: u64,
    },
    /// Says that a client refused something for its size; see [`super::counters`].
    Refused,
    /// Settings and faults of the stand-in: not part of FoundationDB.
    Command(String),
    Counter(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) pairs: Vec<(Bytes, Bytes)>,
    /// A bound ended the read, so there may be more.
    pub(crate) more: bool,
    /// A selector ran over the beginning, or over the end.
    pub(crate) over_begin: bool,
    pub(crate) over_end: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Version(Version),
    Value(Option<Bytes>),
    Key(Bytes),
    /// Where to go on looking for a key: one request looks no further.
    Further(Selector),
    Rows(Rows),
    Committed {
        version: Version,
        batch_index: u16,
    },
    Size(u64),
    Keys(Vec<Bytes>),
}
