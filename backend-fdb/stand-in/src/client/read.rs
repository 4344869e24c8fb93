//! Reads: what the cluster has, with what the transaction wrote on top, and the conflict ranges that follow.
//!
//! Source: FoundationDB documentation, "Developer Guide" (key selectors, range reads, snapshot reads, conflict ranges)
//! and "C API" (`fdb_transaction_get`, `_get_key`, `_get_range`).

use std::sync::Arc;

use bytes::Bytes;

use super::attempt::Attempt;
use super::database::Link;
use super::size;
use super::writes::{Known, Writes};
use crate::cluster::protocol::{RangeRequest, Reply, Request, Rows, Selector, Version, after};
use crate::code::{self, Code};

/// A reader: everything that a read needs of its transaction, as it was when the read was asked for.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) link: Link,
    /// What the read sees of the transaction's own writes; `None` when it sees nothing of them.
    pub(crate) seen: Option<Arc<Writes>>,
    /// What the transaction decided itself, and which is therefore no conflict; `None` without read-your-writes.
    pub(crate) decided: Option<Arc<Writes>>,
    pub(crate) snapshot: bool,
    pub(crate) bypass_unreadable: bool,
    /// Keys at and above this one are out of sight.
    pub(crate) bound: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct RangeRead {
    pub(crate) begin: Selector,
    pub(crate) end: Selector,
    /// 0: no bound.
    pub(crate) rows: usize,
    /// 0: no bound.
    pub(crate) bytes: usize,
    pub(crate) reverse: bool,
}

impl Reader {
    async fn version(&self) -> Result<Version, Code> {
        self.attempt.version(&self.link).await
    }

    fn conflict(&self, begin: &Bytes, end: &Bytes) {
        if self.snapshot || begin >= end {
            return;
        }
        self.attempt.grow(size::RANGE + begin.len() + end.len());
        let mut conflicts = self.attempt.conflicts();
        match &self.decided {
            Some(writes) => writes.add_read_conflict(&mut conflicts, begin, end),
            None => conflicts.insert(begin, end),
        }
    }

    pub(crate) async fn get(&self, key: &Bytes) -> Result<Option<Bytes>, Code> {
        if let Some(writes) = &self.seen {
            match writes.known(key, self.bypass_unreadable) {
                Known::Unreadable => return Err(code::ACCESSED_UNREADABLE),
                Known::Value(value) => return Ok(value),
                Known::Dependent | Known::Unmodified => {}
            }
        }
        let request = Request::Get { version: self.version().await?, key: key.clone() };
        let Reply::Value(stored) = self.link.call(request).await? else { return Err(code::OPERATION_FAILED) };
        self.conflict(key, &after(key));
        Ok(match &self.seen {
            Some(writes) => writes.over(key, stored),
            None => stored,
        })
    }

    pub(crate) async fn get_key(&self, selector: &Selector) -> Result<Bytes, Code> {
        let key = if let Some(writes) = self.merging() {
            self.resolve(writes, selector).await?.0
        } else {
            let version = self.version().await?;
            let mut selector = selector.clone();
            loop {
                let request = Request::GetKey { version, selector, bound: self.bound.clone() };
                match self.link.call(request).await? {
                    Reply::Key(key) => break key,
                    Reply::Further(rest) => selector = rest,
                    _ => return Err(code::OPERATION_FAILED),
                }
            }
        };
        let plain = selector.clone().without_or_equal();
        if plain.offset <= 0 {
            self.conflict(&key, &plain.key);
        } else {
            self.conflict(&plain.key, &after(&key).min(self.bound.clone()));
        }
        Ok(key)
    }

    pub(crate) async fn get_range(&self, read: &RangeRead) -> Result<Rows, Code> {
        let rows = match self.merging() {
            Some(writes) => self.merged_range(writes, read).await?,
            None => self.plain_range(read).await?,
        };
        let (begin, end) = self.range_conflict(read, &rows);
        self.conflict(&begin, &end);
        Ok(rows)
    }

    /// The writes that a read has to be merged with.
    fn merging(&self) -> Option<&Writes> {
        self.seen.as_deref().filter(|writes| !writes.change_no_read())
    }

    /// The range that nobody else may change for the result to stay the same.
    fn range_conflict(&self, read: &RangeRead, result: &Rows) -> (Bytes, Bytes) {
        let (begin, end) = (read.begin.clone().without_or_equal(), read.end.clone().without_or_equal());
        let (mut low, mut high) = (begin.key.clone().min(end.key.clone()), begin.key.clone().max(end.key.clone()));
        let first = result.pairs.first().map(|(key, _)| key);
        let last = result.pairs.last().map(|(key, _)| key);
        // When a bound ended the read, what lies beyond the last row cannot change the result, unless the selector of
        // the other end counts from there.
        match last {
            Some(last) if result.more && !read.reverse && end.offset > 0 => high = after(last),
            Some(last) if result.more && read.reverse && begin.offset <= 1 => low = last.clone(),
            _ => {}
        }
        if result.over_begin {
            low = Bytes::new();
        }
        if result.over_end {
            high = self.bound.clone();
        }
        for key in [first, last].into_iter().flatten() {
            low = low.min(key.clone());
            high = high.max(after(key));
        }
        (low, high.min(self.bound.clone()))
    }

    /// A range read that the cluster can answer alone.
    async fn plain_range(&self, read: &RangeRead) -> Result<Rows, Code> {
        let version = self.version().await?;
        let mut result = Rows::default();
        let mut read = read.clone();
        loop {
            let wanted = read.rows;
            let request = RangeRequest {
                version,
                begin: read.begin.clone(),
                end: read.end.clone(),
                bound: self.bound.clone(),
                rows: wanted,
                bytes: read.bytes,
                reverse: read.reverse,
            };
            let reply = self.range_request(request).await?;
            result.more = reply.more;
            result.over_begin |= reply.over_begin;
            result.over_end |= reply.over_end;
            let got = reply.pairs.len();
            result.pairs.extend(reply.pairs);
            // With a bound in bytes the first reply is the result. Without one, every row that was asked for is.
            if !reply.more || read.bytes > 0 || got == wanted {
                return Ok(result);
            }
            read.rows = wanted.saturating_sub(got);
            match result.pairs.last() {
                Some((last, _)) if read.reverse => read.end = Selector::at(last.clone()),
                Some((last, _)) => read.begin = Selector::at(after(last)),
                None => return Ok(result),
            }
        }
    }

    async fn range_request(&self, request: RangeRequest) -> Result<Rows, Code> {
        match self.link.call(Request::GetRange(request)).await? {
            Reply::Rows(rows) => Ok(rows),
            _ => Err(code::OPERATION_FAILED),
        }
    }

    async fn merged_range(&self, writes: &Writes, read: &RangeRead) -> Result<Rows, Code> {
        let (begin, begin_over) = self.cut(writes, &read.begin).await?;
        let (end, end_over) = self.cut(writes, &read.end).await?;
        let end = end.min(self.bound.clone());
        let mut result = if begin < end {
            self.merged(writes, &begin, &end, (read.rows, read.bytes), read.reverse).await?
        } else {
            Rows::default()
        };
        for over in [begin_over, end_over] {
            result.over_begin |= over == Over::Begin;
            result.over_end |= over == Over::End;
        }
        Ok(result)
    }

    /// Where a range is cut: no need to look whether the key exists.
    async fn cut(&self, writes: &Writes, selector: &Selector) -> Result<(Bytes, Over), Code> {
        if selector.is_plain() {
            return Ok((selector.key.clone(), Over::Not));
        }
        self.resolve(writes, selector).await
    }

    async fn resolve(&self, writes: &Writes, selector: &Selector) -> Result<(Bytes, Over), Code> {
        let selector = selector.clone().without_or_equal();
        let forward = selector.offset >= 1;
        let count = if forward { i64::from(selector.offset) } else { 1 - i64::from(selector.offset) };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let bound = self.bound.clone();
        let rows = if forward && selector.key < bound {
            self.merged(writes, &selector.key, &bound, (count, 0), false).await?.pairs
        } else if !forward {
            self.merged(writes, &Bytes::new(), &selector.key.min(bound.clone()), (count, 0), true).await?.pairs
        } else {
            Vec::new()
        };
        Ok(match rows.get(count - 1) {
            Some((key, _)) => (key.clone(), Over::Not),
            None if forward => (bound, Over::End),
            None => (Bytes::new(), Over::Begin),
        })
    }

    /// Rows from `begin` to before `end` as the transaction sees them.
    async fn merged(
        &self,
        writes: &Writes,
        begin: &Bytes,
        end: &Bytes,
        (most_rows, most_bytes): (usize, usize),
        reverse: bool,
    ) -> Result<Rows, Code> {
        let most_rows = if most_rows == 0 { usize::MAX } else { most_rows };
        let most_bytes = if most_bytes == 0 { usize::MAX } else { most_bytes };
        let (mut begin, mut end) = (begin.clone(), end.clone());
        let mut result = Rows::default();
        let mut bytes = 0;
        while begin < end {
            // With a bound in bytes nobody waits for a second reply.
            if most_bytes != usize::MAX && !result.pairs.is_empty() {
                result.more = true;
                return Ok(result);
            }
            let (stored, from, to) = self.stored(&begin, &end, most_rows - result.pairs.len(), reverse).await?;
            let mut at = if reverse { to.clone() } else { from.clone() };
            for (key, value) in overlay(writes, stored, &from, &to, reverse) {
                let (low, high) = if reverse { (key.clone(), at) } else { (at, after(&key)) };
                self.check_readable(writes, &low, &high)?;
                at = if reverse { low } else { high };
                bytes += key.len() + value.len() + 8;
                result.pairs.push((key, value));
                if result.pairs.len() >= most_rows || bytes >= most_bytes {
                    result.more = true;
                    return Ok(result);
                }
            }
            if reverse {
                self.check_readable(writes, &from, &at)?;
                end = from;
            } else {
                self.check_readable(writes, &at, &to)?;
                begin = to;
            }
        }
        Ok(result)
    }

    /// What the cluster has at the near end of a range, and which part of the range that answer covers.
    async fn stored(
        &self,
        begin: &Bytes,
        end: &Bytes,
        wanted: usize,
        reverse: bool,
    ) -> Result<(Vec<(Bytes, Bytes)>, Bytes, Bytes), Code> {
        let request = RangeRequest {
            version: self.version().await?,
            begin: Selector::at(begin.clone()),
            end: Selector::at(end.clone()),
            bound: self.bound.clone(),
            // Rows that the transaction cleared do not count: a few more make a second exchange unlikely.
            rows: wanted.saturating_add(10),
            bytes: 0,
            reverse,
        };
        let reply = self.range_request(request).await?;
        let last = reply.pairs.last().filter(|_| reply.more).map(|(key, _)| key.clone());
        Ok(match last {
            Some(last) if reverse => (reply.pairs, last, end.clone()),
            Some(last) => (reply.pairs, begin.clone(), after(&last)),
            None => (reply.pairs, begin.clone(), end.clone()),
        })
    }

    fn check_readable(&self, writes: &Writes, begin: &Bytes, end: &Bytes) -> Result<(), Code> {
        if !self.bypass_unreadable && begin < end && writes.unreadable_between(begin, end) {
            return Err(code::ACCESSED_UNREADABLE);
        }
        Ok(())
    }
}

/// Whether a selector ran over an end of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Not,
    Begin,
    End,
}

/// Stored rows with the writes on top, in the order of reading.
fn overlay(
    writes: &Writes,
    stored: Vec<(Bytes, Bytes)>,
    begin: &Bytes,
    end: &Bytes,
    reverse: bool,
) -> Vec<(Bytes, Bytes)> {
    let mut rows: std::collections::BTreeMap<Bytes, Option<Bytes>> =
        stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
    for key in writes.keys_between(begin, end) {
        rows.entry(key).or_default();
    }
    let seen = rows.into_iter().filter_map(|(key, stored)| writes.over(&key, stored).map(|value| (key, value)));
    if reverse {
        let mut seen: Vec<_> = seen.collect();
        seen.reverse();
        seen
    } else {
        seen.collect()
    }
}
