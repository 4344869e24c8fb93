//! The keys and values at every version that may still be read.
//!
//! Source: FoundationDB documentation, "Developer Guide" (transactions, snapshot reads, key selectors) and "Technical
//! Overview": a storage server keeps about five seconds of versions in memory.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::atomic;
use super::protocol::{Mutation, Range, RangeRequest, Rows, Selector, Version, after};

/// The most bytes that one reply carries. Source: the client's constant of the same meaning; the documentation only
/// says that a range read may return less than asked for.
const REPLY_BYTES: usize = 80_000;
/// How many bytes of keys and values one request for a key walks over. Source: seen in the storage server's code, 7.3.79:
/// it says how much of the offset is left, and the client asks on.
const SELECTOR_BYTES: usize = 500_000;
/// What a row costs besides its key and value, for bounds in bytes.
const ROW_OVERHEAD: usize = 8;

/// The values of one key, oldest first; `None` where it was cleared.
type History = Vec<(Version, Option<Bytes>)>;

#[derive(Debug)]
pub(crate) struct Store {
    keys: BTreeMap<Bytes, History>,
    /// What was changed, in order of version, to find what can be forgotten.
    changed: VecDeque<(Version, Bytes)>,
    reply_bytes: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), changed: VecDeque::new(), reply_bytes: REPLY_BYTES }
    }
}

/// Where a selector leads.
struct Resolved {
    key: Bytes,
    over_begin: bool,
    over_end: bool,
}

impl Store {
    /// Smaller replies from now on, or with `None` those of FoundationDB.
    pub(crate) fn set_reply_bytes(&mut self, bytes: Option<usize>) {
        self.reply_bytes = bytes.unwrap_or(REPLY_BYTES);
    }

    pub(crate) fn get(&self, key: &[u8], version: Version) -> Option<&Bytes> {
        value_at(self.keys.get(key)?, version)
    }

    /// Applies one change as of `version`; adds the keys that it changed to `touched`.
    pub(crate) fn apply(&mut self, version: Version, mutation: &Mutation, stamp: &[u8; 10], touched: &mut Vec<Bytes>) {
        match mutation {
            Mutation::Set(key, value) => self.put(version, key, Some(value.clone()), touched),
            Mutation::Clear(range) => {
                let keys: Vec<Bytes> =
                    self.present(&range.begin, &range.end, version).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    self.put(version, &key, None, touched);
                }
            }
            Mutation::Atomic(operation, key, operand) => {
                let value = atomic::apply(*operation, self.get(key, version), operand);
                self.put(version, key, value, touched);
            }
            Mutation::StampedKey(key, value) => {
                self.put(version, &stamped(key, stamp), Some(value.clone()), touched);
            }
            Mutation::StampedValue(key, value) => self.put(version, key, Some(stamped(value, stamp)), touched),
        }
    }

    fn put(&mut self, version: Version, key: &Bytes, value: Option<Bytes>, touched: &mut Vec<Bytes>) {
        let history = self.keys.entry(key.clone()).or_default();
        match history.last_mut() {
            Some((at, last)) if *at == version => *last = value,
            _ => history.push((version, value)),
        }
        self.changed.push_back((version, key.clone()));
        touched.push(key.clone());
    }

    /// Forgets what only versions below `oldest` could read.
    pub(crate) fn forget(&mut self, oldest: Version) {
        while self.changed.front().is_some_and(|(version, _)| *version < oldest) {
            let Some((_, key)) = self.changed.pop_front() else { return };
            let Some(history) = self.keys.get_mut(&key) else { continue };
            let keep = history.iter().rposition(|(version, _)| *version <= oldest).unwrap_or(0);
            history.drain(..keep);
            if matches!(history.as_slice(), [(version, None)] if *version <= oldest) {
                self.keys.remove(&key);
            }
        }
    }

    /// The keys that exist at `version` from `begin` to before `end`.
    fn present<'a>(
        &'a self,
        begin: &[u8],
        end: &[u8],
        version: Version,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)> {
        // BTreeMap panics on an inverted range: an empty one stands in for it.
        let end = end.max(begin);
        self.keys
            .range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end)))
            .filter_map(move |(key, history)| value_at(history, version).map(|value| (key, value)))
    }

    /// The key that a selector names; the bound where there is none. Or from where the rest of the way is asked for, when it
    /// is longer than one request goes. (Backwards any way is gone at once: no user of this goes a long one.)
    pub(crate) fn resolve(&self, selector: &Selector, bound: &[u8], version: Version) -> Result<Bytes, Selector> {
        let forward = selector.clone().without_or_equal();
        if forward.offset > 1 {
            let (mut bytes, mut left) = (0, forward.offset);
            for (key, value) in self.present(&forward.key, bound, version) {
                left -= 1;
                bytes += key.len() + value.len() + ROW_OVERHEAD;
                if left == 0 {
                    break;
                }
                if bytes >= SELECTOR_BYTES {
                    return Err(Selector { key: after(key), or_equal: false, offset: left });
                }
            }
        }
        Ok(self.resolved(selector, bound, version).key)
    }

    fn resolved(&self, selector: &Selector, bound: &[u8], version: Version) -> Resolved {
        let selector = selector.clone().without_or_equal();
        let from = &selector.key[..];
        let at = |key: Bytes| Resolved { key, over_begin: false, over_end: false };
        if selector.offset >= 1 {
            let skip = usize::try_from(selector.offset - 1).unwrap_or(usize::MAX);
            match self.present(from, bound, version).nth(skip) {
                Some((key, _)) => at(key.clone()),
                None => Resolved { key: Bytes::copy_from_slice(bound), over_begin: false, over_end: true },
            }
        } else {
            let skip = usize::try_from(selector.offset.unsigned_abs()).unwrap_or(usize::MAX);
            match self.present(b"", from.min(bound), version).rev().nth(skip) {
                Some((key, _)) => at(key.clone()),
                None => Resolved { key: Bytes::new(), over_begin: true, over_end: false },
            }
        }
    }

    /// One reply to a range read. `shard_ends` says after each row whether the reply ends there, whatever was asked for.
    pub(crate) fn range(&self, request: &RangeRequest, shard_ends: impl FnMut() -> bool) -> Rows {
        let version = request.version;
        let mut over_begin = false;
        let mut over_end = false;
        let mut cut = |selector: &Selector| {
            if selector.is_plain() {
                return selector.key.clone();
            }
            let resolved = self.resolved(selector, &request.bound, version);
            over_begin |= resolved.over_begin;
            over_end |= resolved.over_end;
            resolved.key
        };
        let begin = cut(&request.begin);
        let end = cut(&request.end);
        let mut present = self.present(&begin, &end, version);
        let next = || if request.reverse { present.next_back() } else { present.next() };
        let (pairs, more) = bounded(next, shard_ends, request.rows, request.bytes, self.reply_bytes);
        Rows { pairs, more, over_begin, over_end }
    }

    /// The bytes of all keys and values in a range.
    pub(crate) fn size(&self, range: &Range, version: Version) -> u64 {
        self.present(&range.begin, &range.end, version).map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// Keys that cut a range into pieces of about `chunk` bytes, with both ends of the range.
    pub(crate) fn split_points(&self, range: &Range, chunk: u64, version: Version) -> Vec<Bytes> {
        let mut points = vec![range.begin.clone()];
        let mut size = 0;
        for (key, value) in self.present(&range.begin, &range.end, version) {
            if size >= chunk && points.last() != Some(key) {
                points.push(key.clone());
                size = 0;
            }
            size += (key.len() + value.len()) as u64;
        }
        points.push(range.end.clone());
        points
    }
}

fn value_at(history: &History, version: Version) -> Option<&Bytes> {
    let (_, value) = history.iter().rev().find(|(at, _)| *at <= version)?;
    value.as_ref()
}

/// Rows until a bound is reached, or the end of a shard; the row that reaches the bound in bytes is part of the reply. At
/// the end of a shard nobody knows whether there are more.
fn bounded<'a>(
    mut next: impl FnMut() -> Option<(&'a Bytes, &'a Bytes)>,
    mut shard_ends: impl FnMut() -> bool,
    most_rows: usize,
    most_bytes: usize,
    reply_bytes: usize,
) -> (Vec<(Bytes, Bytes)>, bool) {
    let most_rows = if most_rows == 0 { usize::MAX } else { most_rows };
    let most_bytes = if most_bytes == 0 { reply_bytes } else { most_bytes.min(reply_bytes) };
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some((key, value)) = next() {
        rows.push((key.clone(), value.clone()));
        bytes += key.len() + value.len() + ROW_OVERHEAD;
        if rows.len() >= most_rows || bytes >= most_bytes || shard_ends() {
            return (rows, true);
        }
    }
    (rows, false)
}

/// The bytes with the stamp at the position that their last four bytes give, without those four.
pub(crate) fn stamped(bytes: &[u8], stamp: &[u8; 10]) -> Bytes {
    let Some((body, position)) = bytes.split_last_chunk::<4>() else { return Bytes::copy_from_slice(bytes) };
    let mut body = body.to_vec();
    let position = usize::try_from(u32::from_le_bytes(*position)).unwrap_or(usize::MAX);
    if let Some(place) = position.checked_add(10).and_then(|end| body.get_mut(position..end)) {
        place.copy_from_slice(stamp);
    }
    body.into()
}

/// The smallest range that holds one key.
pub(crate) fn single(key: &Bytes) -> Range {
    Range { begin: key.clone(), end: after(key) }
}
