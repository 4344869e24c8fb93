//! What the options of a transaction come to.

use std::time::Duration;

use bytes::Bytes;

use super::options::{self, number};
use super::size::TRANSACTION_LIMIT;
use crate::code::{self, Code};

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Settings {
    pub(crate) read_your_writes: bool,
    /// Snapshot reads see the transaction's writes while this is above zero.
    pub(crate) snapshot_sees_writes: i32,
    pub(crate) next_write_without_conflict: bool,
    pub(crate) reads_system_keys: bool,
    pub(crate) writes_system_keys: bool,
    pub(crate) bypass_unreadable: bool,
    pub(crate) protects_commit: bool,
    pub(crate) batch_priority: bool,
    pub(crate) read_only: bool,
    /// Zero: none.
    pub(crate) timeout: Duration,
    /// Below zero: none.
    pub(crate) retry_limit: i64,
    pub(crate) max_retry_delay: Duration,
    pub(crate) size_limit: u64,
    tags: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            read_your_writes: true,
            snapshot_sees_writes: 1,
            next_write_without_conflict: false,
            reads_system_keys: false,
            writes_system_keys: false,
            bypass_unreadable: false,
            protects_commit: true,
            batch_priority: false,
            read_only: false,
            timeout: Duration::ZERO,
            retry_limit: -1,
            max_retry_delay: Duration::from_secs(1),
            size_limit: TRANSACTION_LIMIT,
            tags: 0,
        }
    }
}

/// The most tags of a transaction, and the most bytes of one. Source: "Transaction Tagging" (5 tags; 16 bytes).
const TAGS: usize = 5;
const TAG_BYTES: usize = 16;

impl Settings {
    /// Source: the options file's `persistent` mark: a retry keeps these, everything else is to be set again.
    pub(crate) fn is_persistent(option: i32) -> bool {
        matches!(option, options::TIMEOUT | options::RETRY_LIMIT | options::MAX_RETRY_DELAY | 2000)
    }

    /// Applies an option whose form has been checked.
    pub(crate) fn set(&mut self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        let most = i64::from(i32::MAX);
        match option {
            options::READ_YOUR_WRITES_DISABLE => self.read_your_writes = false,
            options::SNAPSHOT_RYW_ENABLE => self.snapshot_sees_writes += 1,
            options::SNAPSHOT_RYW_DISABLE => self.snapshot_sees_writes -= 1,
            options::NEXT_WRITE_NO_WRITE_CONFLICT_RANGE => self.next_write_without_conflict = true,
            options::ACCESS_SYSTEM_KEYS => (self.reads_system_keys, self.writes_system_keys) = (true, true),
            options::READ_SYSTEM_KEYS => self.reads_system_keys = true,
            options::BYPASS_UNREADABLE => self.bypass_unreadable = true,
            options::USED_DURING_COMMIT_PROTECTION_DISABLE => self.protects_commit = false,
            options::PRIORITY_BATCH => self.batch_priority = true,
            options::PRIORITY_SYSTEM_IMMEDIATE => self.batch_priority = false,
            options::READ_LOCK_AWARE => self.read_only = true,
            options::TIMEOUT => self.timeout = Duration::from_millis(number(value, 0, most)?.unsigned_abs()),
            options::RETRY_LIMIT => self.retry_limit = number(value, -1, most)?,
            options::MAX_RETRY_DELAY => {
                self.max_retry_delay = Duration::from_millis(number(value, 0, most)?.unsigned_abs());
            }
            options::SIZE_LIMIT => {
                let limit = i64::try_from(TRANSACTION_LIMIT).unwrap_or(i64::MAX);
                self.size_limit = number(value, 32, limit)?.unsigned_abs();
            }
            options::TAG | options::AUTO_THROTTLE_TAG => {
                self.tags += 1;
                if self.tags > TAGS {
                    return Err(code::TOO_MANY_TAGS);
                }
                if value.is_none_or(|tag| tag.len() > TAG_BYTES) {
                    return Err(code::TAG_TOO_LONG);
                }
            }
            // Priorities, tracing, caching: nothing that a caller could see.
            _ => {}
        }
        Ok(())
    }

    /// Keys from here on cannot be read. Source: "Developer Guide", system keys: they begin with \xff; special keys,
    /// from \xff\xff on, are not here.
    pub(crate) fn read_bound(&self) -> Bytes {
        Bytes::from_static(if self.reads_system_keys { b"\xff\xff" } else { b"\xff" })
    }

    pub(crate) fn write_bound(&self) -> Bytes {
        Bytes::from_static(if self.writes_system_keys { b"\xff\xff" } else { b"\xff" })
    }
}
