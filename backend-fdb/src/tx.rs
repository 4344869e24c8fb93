//! One transaction: what is read in it, what it conflicts on, and what it writes, with FoundationDB's limits kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use foundationdb::future::FdbSlice;
use foundationdb::options::{ConflictRangeType, StreamingMode, TransactionOption};
use foundationdb::{KeySelector, RangeOption, Transaction};
use litefleet::Error;

use crate::config::TRANSACTION_BYTES;
use crate::error::Outcome;
use crate::keys::{Key, Range, after_key};
use crate::values::Value;

/// The bytes of a value that FoundationDB allows.
const VALUE_BYTES: usize = 100_000;
/// The bytes of a key that FoundationDB allows.
const KEY_BYTES: usize = 10_000;
/// What a mutation costs of a transaction's size besides its bytes, and a conflict range besides its two keys: no client
/// version counts more.
const MUTATION: usize = 48;
const RANGE: usize = 25;

struct Inner {
    trx: Transaction,
    /// As of which version it reads, once that is known: to ask the client library, even for what it was told, is a trip
    /// to its network thread and back.
    version: OnceLock<i64>,
    /// About what FoundationDB will count as its size.
    bytes: AtomicUsize,
    /// The keys that are written, and their bytes with their values'.
    keys_written: AtomicUsize,
    bytes_written: AtomicUsize,
}

/// One transaction. Cheap to clone, so that the parts of a call can share it.
#[derive(Clone)]
pub(crate) struct Tx(Arc<Inner>);

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    key: Bytes,
    value: Bytes,
}

impl Pair {
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn value(&self) -> &Bytes {
        &self.value
    }
}

/// A piece of a range.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pairs: Vec<Pair>,
    /// Whether there may be more after it. Then it has at least one pair, and says nothing of what is missing in it.
    pub(crate) more: bool,
}

impl Piece {
    /// Copies a reply: the keys, which nobody keeps, into one piece of memory, and each value into its own. A page cache
    /// may keep one row of a reply for long, and must not keep all of it.
    fn copy<'r>(pairs: impl Iterator<Item = (&'r [u8], &'r [u8])> + Clone, more: bool) -> Self {
        let mut keys = BytesMut::with_capacity(pairs.clone().map(|(key, _)| key.len()).sum());
        for (key, _) in pairs.clone() {
            keys.extend_from_slice(key);
        }
        let mut keys = keys.freeze();
        let pairs =
            pairs.map(|(key, value)| Pair { key: keys.split_to(key.len()), value: Bytes::copy_from_slice(value) });
        Self { pairs: pairs.collect(), more }
    }

    /// The keys and values.
    pub(crate) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }
}

impl Tx {
    pub(crate) fn new(trx: Transaction) -> Self {
        let none = AtomicUsize::default;
        let version = OnceLock::new();
        Self(Arc::new(Inner { trx, version, bytes: none(), keys_written: none(), bytes_written: none() }))
    }

    /// The client library's transaction, when this is the only handle to it.
    pub(crate) fn into_inner(self) -> Option<Transaction> {
        Arc::into_inner(self.0).map(|inner| inner.trx)
    }

    fn count(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many keys are written, and how many bytes with their values.
    pub(crate) fn written(&self) -> (usize, usize) {
        (self.0.keys_written.load(Ordering::Relaxed), self.0.bytes_written.load(Ordering::Relaxed))
    }

    /// Whether it is within the bound on its size.
    pub(crate) fn check_size(&self, what: &str) -> Outcome<()> {
        let bytes = self.0.bytes.load(Ordering::Relaxed);
        if bytes <= TRANSACTION_BYTES {
            return Ok(());
        }
        Err(Error::internal(format!("{what}: a transaction of {bytes} bytes; {TRANSACTION_BYTES} is the most")).into())
    }

    /// Reads as of a version that is known already, instead of asking for the newest.
    pub(crate) fn read_at(&self, version: i64) {
        self.0.trx.set_read_version(version);
        self.0.version.get_or_init(|| version);
    }

    /// As of which version it reads.
    pub(crate) async fn read_version(&self) -> Outcome<i64> {
        if let Some(version) = self.0.version.get() {
            return Ok(*version);
        }
        let version = self.0.trx.get_read_version().await?;
        Ok(*self.0.version.get_or_init(|| version))
    }

    /// Reads a value, and conflicts with whoever changes it before the commit.
    pub(crate) async fn get<T: Value>(&self, key: &[u8]) -> Outcome<Option<T>> {
        self.count(2 * key.len() + RANGE);
        self.value(key, false).await
    }

    /// Reads a value without a conflict.
    pub(crate) async fn peek<T: Value>(&self, key: &[u8]) -> Outcome<Option<T>> {
        self.value(key, true).await
    }

    async fn value<T: Value>(&self, key: &[u8], snapshot: bool) -> Outcome<Option<T>> {
        match self.0.trx.get(key, snapshot).await? {
            Some(value) => Ok(Some(T::decode(key, &value)?)),
            None => Ok(None),
        }
    }

    /// Reads a raw value without a conflict.
    pub(crate) async fn peek_bytes(&self, key: &[u8]) -> Outcome<Option<FdbSlice>> {
        Ok(self.0.trx.get(key, true).await?)
    }

    /// Reads a range that is not large, all of it, without a conflict.
    pub(crate) async fn peek_all(&self, range: &Range) -> Outcome<Vec<Pair>> {
        self.peek_first(range, 0).await
    }

    /// Reads the first `limit` keys of a range, or with 0 and where there are fewer all of them, without a conflict.
    pub(crate) async fn peek_first(&self, range: &Range, limit: usize) -> Outcome<Vec<Pair>> {
        let mut range = range.clone();
        let mut pairs = Vec::new();
        loop {
            let piece = self.peek_range(&range, limit.saturating_sub(pairs.len())).await?;
            pairs.extend(piece.pairs);
            match pairs.last() {
                Some(last) if piece.more => range.0 = after_key(last.key().to_vec()),
                _ => return Ok(pairs),
            }
        }
    }

    /// Reads the beginning of a range without a conflict: `limit` keys at the most when it is not 0, and what one reply
    /// holds, which may be as little as one key. A reply ends with its bytes, and may end where a shard does.
    pub(crate) async fn peek_range(&self, range: &Range, limit: usize) -> Outcome<Piece> {
        self.range(range, limit, 0, false).await
    }

    /// Reads the end of a range, backwards, without a conflict: as much as [`peek_range`](Self::peek_range).
    pub(crate) async fn peek_back(&self, range: &Range, limit: usize) -> Outcome<Piece> {
        self.range(range, limit, 0, true).await
    }

    /// As [`peek_back`](Self::peek_back), and nothing more once there are so many bytes of keys and values.
    pub(crate) async fn peek_back_until(&self, range: &Range, limit: usize, bytes: usize) -> Outcome<Piece> {
        self.range(range, limit, bytes, true).await
    }

    async fn range(&self, range: &Range, limit: usize, bytes: usize, reverse: bool) -> Outcome<Piece> {
        if range.0 >= range.1 {
            return Ok(Piece::default());
        }
        let option = RangeOption {
            limit: (limit > 0).then_some(limit),
            target_bytes: bytes,
            mode: StreamingMode::WantAll,
            reverse,
            ..RangeOption::from((range.0.as_slice(), range.1.as_slice()))
        };
        let values = self.0.trx.get_range(&option, 1, true).await?;
        // With a limit, `more` is also said when the limit was reached: then the caller has all that it asked for.
        let more = values.more() && (limit == 0 || values.len() < limit);
        Ok(Piece::copy(values.iter().map(|pair| (pair.key(), pair.value())), more))
    }

    /// The key that comes `place` keys after the first one of a range, without its value, and without a conflict.
    pub(crate) async fn peek_key(&self, range: &Range, place: usize) -> Outcome<Option<Key>> {
        let offset = i32::try_from(place).ok().and_then(|place| place.checked_add(1));
        let offset = offset.ok_or_else(|| Error::internal(format!("the key {place} of a range")))?;
        let selector = KeySelector::new(range.0.as_slice().into(), false, offset);
        let key = self.0.trx.get_key(&selector, true).await?;
        // Past the end of the range it is somebody else's.
        Ok(Some(key.to_vec()).filter(|key| *key < range.1))
    }

    /// Conflicts with whoever writes in the range before the commit.
    pub(crate) fn conflict_with_writers(&self, range: &Range) -> Outcome<()> {
        self.count(range.0.len() + range.1.len() + RANGE);
        Ok(self.0.trx.add_conflict_range(&range.0, &range.1, ConflictRangeType::Read)?)
    }

    /// Whoever has read this key before the commit conflicts, as if it were written.
    pub(crate) fn conflict_with_readers(&self, key: &[u8]) -> Outcome<()> {
        let end = after_key(key.to_vec());
        self.count(key.len() + end.len() + RANGE);
        Ok(self.0.trx.add_conflict_range(key, &end, ConflictRangeType::Write)?)
    }

    /// Writes a value.
    pub(crate) fn put<T: Value>(&self, key: &[u8], value: &T) -> Outcome<()> {
        self.put_bytes(key, &value.encode(key))
    }

    /// Writes a value that nobody's commit depends on, as [`put_row`](Self::put_row) does.
    pub(crate) fn put_quietly<T: Value>(&self, key: &[u8], value: &T) -> Outcome<()> {
        self.put_row(key, &value.encode(key))
    }

    /// Writes a raw value that nobody's commit depends on: nobody who has read it conflicts, and the cluster need not
    /// remember for five seconds that it was written.
    pub(crate) fn put_row(&self, key: &[u8], value: &[u8]) -> Outcome<()> {
        self.0.trx.set_option(TransactionOption::NextWriteNoWriteConflictRange)?;
        self.put_bytes(key, value)
    }

    /// Writes a raw value.
    pub(crate) fn put_bytes(&self, key: &[u8], value: &[u8]) -> Outcome<()> {
        if value.len() > VALUE_BYTES || key.len() > KEY_BYTES {
            return Err(Error::internal(format!("a key of {} and a value of {} bytes", key.len(), value.len())).into());
        }
        // The mutation and the conflict range: the key three times.
        self.count(3 * key.len() + value.len() + MUTATION + RANGE);
        self.0.keys_written.fetch_add(1, Ordering::Relaxed);
        self.0.bytes_written.fetch_add(key.len() + value.len(), Ordering::Relaxed);
        self.0.trx.set(key, value);
        Ok(())
    }

    /// What removing a key of so many bytes costs of a transaction's size.
    pub(crate) fn size_of_clearing_one(key_bytes: usize) -> usize {
        4 * key_bytes + MUTATION + 2 * RANGE
    }

    /// Removes a key.
    pub(crate) fn clear(&self, key: &[u8]) {
        self.count(Self::size_of_clearing_one(key.len()));
        self.0.trx.clear(key);
    }

    /// What removing a range costs of a transaction's size: the mutation, and its conflict range.
    pub(crate) fn size_of_clearing(range: &Range) -> usize {
        2 * (range.0.len() + range.1.len()) + MUTATION + RANGE
    }

    /// Removes a range.
    pub(crate) fn clear_range(&self, range: &Range) {
        if range.0 < range.1 {
            self.count(Self::size_of_clearing(range));
            self.0.trx.clear_range(&range.0, &range.1);
        }
    }
}

/// The range of one key.
pub(crate) fn only(key: Key) -> Range {
    let end = after_key(key.clone());
    (key, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_reply_share_no_memory() {
        let reply = [(b"a".as_slice(), [1; 100].as_slice()), (b"bc", &[2; 4_000]), (b"d", b"")];
        let piece = Piece::copy(reply.iter().copied(), false);
        for (pair, (key, value)) in piece.pairs().iter().zip(reply) {
            assert_eq!((pair.key(), pair.value().as_ref()), (key, value));
            assert!(value.is_empty() || pair.value().is_unique(), "another row is in the same piece of memory");
        }
    }
}
