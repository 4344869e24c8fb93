//! The values that this back end makes itself, byte by byte as `docs/format-fdb.md` gives them. Each is sealed: a format
//! version before it, and after it a checksum over its key and itself, so that a value that stands in the wrong place
//! is found out. Rows and records are sealed by the engine.

use std::time::Duration;

use litefleet::store::{EpochEnd, Pieces, RowKind};
use litefleet::{CommitId, Epoch, Error, PageNo, PageRange, PageSet, Result, SessionId, Txid, UnixMillis};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) use self::lease::{HolderValue, LeaseValue, Tenure};
use crate::keys::{put_number, take_number};

mod lease;

/// The version of this format, in every sealed value.
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;

/// What a commit changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadValue {
    pub(crate) txid: Txid,
    pub(crate) commit_id: CommitId,
    pub(crate) size: u64,
}

/// What is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing.
    None,
    /// An open transaction. `last` is the sequence of the last request that was applied.
    Open { last: u64 },
    /// A transaction that is being discarded.
    Discarding,
}

/// The staging generation and entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StagingValue {
    pub(crate) generation: u64,
    pub(crate) entry: Entry,
}

impl Default for StagingValue {
    fn default() -> Self {
        Self { generation: 0, entry: Entry::None }
    }
}

/// How far checkpoints and collections have got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgressValue {
    pub(crate) checkpoint: Txid,
    pub(crate) horizon: Txid,
    /// All records after it are there.
    pub(crate) log_start: Txid,
    /// Of the last checkpoint that came in several, if there was one.
    pub(crate) pieces: Pieces,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionValue {
    pub(crate) lifetime: Duration,
    /// Grows with each renewal, so that one can be seen.
    pub(crate) renewals: u64,
    /// When it has ended: FoundationDB's version then.
    pub(crate) ended: Option<u64>,
    pub(crate) label: String,
}

impl SessionValue {
    /// In place of a record that cannot be read: good for nothing but to be ended.
    pub(crate) fn unreadable() -> Self {
        Self { lifetime: Duration::ZERO, renewals: 0, ended: None, label: String::new() }
    }
}

/// What the commits of a session conflict on. It never has the same value twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FenceValue {
    /// The store instance whose knowledge of the session's databases may be relied on; zeros when none may.
    pub(crate) owner: [u8; 8],
    /// New each time.
    pub(crate) nonce: [u8; 8],
}

fn check(key: &[u8], content: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = xxh3_64_with_seed(content, xxh3_64(key)).to_be_bytes();
    [a, b, c, d]
}

fn seal(key: &[u8], body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(VERSION);
    body(&mut out);
    let check = check(key, &out);
    out.extend_from_slice(&check);
    out
}

/// Opens a sealed value and reads all of it.
fn unseal<T>(what: &str, key: &[u8], value: &[u8], read: impl FnOnce(&mut &[u8]) -> Result<T>) -> Result<T> {
    let corrupt = |why: &str| Error::corrupt(format!("{what}: {why}; restore the database from a backup"));
    let (content, found) = value.split_last_chunk::<CHECK_BYTES>().ok_or_else(|| corrupt("the value is cut off"))?;
    let (version, mut body) = content.split_first().ok_or_else(|| corrupt("the value is cut off"))?;
    if check(key, content) != *found {
        return Err(corrupt("the checksum does not fit the value and its key"));
    }
    if *version != VERSION {
        return Err(Error::invalid(format!("{what}: format version {version} is newer than this program")));
    }
    let read = read(&mut body)?;
    if body.is_empty() { Ok(read) } else { Err(corrupt("there is more than there should be")) }
}

fn array<const N: usize>(body: &mut &[u8]) -> Result<[u8; N]> {
    let (array, rest) = body.split_first_chunk::<N>().ok_or_else(|| Error::corrupt("a stored value is cut off"))?;
    *body = rest;
    Ok(*array)
}

fn text(body: &mut &[u8]) -> Result<String> {
    let text = std::str::from_utf8(body).map_err(|_| Error::corrupt("a stored text is not UTF-8"))?.to_owned();
    *body = &[];
    Ok(text)
}

/// A value of one kind.
pub(crate) trait Value: Sized {
    /// What it is, for messages.
    const WHAT: &'static str;

    /// Writes the body.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads the body.
    fn read(body: &mut &[u8]) -> Result<Self>;

    /// The value as it is stored under a key.
    fn encode(&self, key: &[u8]) -> Vec<u8> {
        seal(key, |out| self.write(out))
    }

    /// The value that is stored under a key.
    fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        unseal(Self::WHAT, key, value, Self::read)
    }
}

impl Value for u64 {
    const WHAT: &'static str = "a stored number";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, *self);
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        take_number(body)
    }
}

impl Value for String {
    const WHAT: &'static str = "a stored name";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        text(body)
    }
}

impl Value for HeadValue {
    const WHAT: &'static str = "the head of a database";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.txid.get());
        out.extend_from_slice(&self.commit_id.bytes());
        put_number(out, self.size);
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let txid = Txid(take_number(body)?);
        let commit_id = CommitId(array(body)?);
        Ok(Self { txid, commit_id, size: take_number(body)? })
    }
}

impl Value for StagingValue {
    const WHAT: &'static str = "the staging entry of a database";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.generation);
        match self.entry {
            Entry::None => out.push(0),
            Entry::Open { last } => {
                out.push(1);
                put_number(out, last);
            }
            Entry::Discarding => out.push(2),
        }
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let generation = take_number(body)?;
        let entry = match array::<1>(body)? {
            [0] => Entry::None,
            [1] => Entry::Open { last: take_number(body)? },
            [2] => Entry::Discarding,
            [other] => return Err(Error::corrupt(format!("a staging entry of the kind {other}"))),
        };
        Ok(Self { generation, entry })
    }
}

impl Value for ProgressValue {
    const WHAT: &'static str = "the checkpoint and horizon of a database";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.checkpoint.get());
        put_number(out, self.horizon.get());
        put_number(out, self.log_start.get());
        if self.pieces != Pieces::default() {
            let Pieces { epoch, attempt, txid, count } = self.pieces;
            for number in [epoch.get(), attempt, txid.get(), count] {
                put_number(out, number);
            }
        }
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let checkpoint = Txid(take_number(body)?);
        let horizon = Txid(take_number(body)?);
        let log_start = Txid(take_number(body)?);
        let pieces = if body.is_empty() {
            Pieces::default()
        } else {
            let (epoch, attempt) = (Epoch(take_number(body)?), take_number(body)?);
            let (txid, count) = (Txid(take_number(body)?), take_number(body)?);
            Pieces { epoch, attempt, txid, count }
        };
        Ok(Self { checkpoint, horizon, log_start, pieces })
    }
}

impl Value for SessionValue {
    const WHAT: &'static str = "a session";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX));
        put_number(out, self.renewals);
        match self.ended {
            None => out.push(0),
            Some(version) => {
                out.push(1);
                put_number(out, version);
            }
        }
        out.extend_from_slice(self.label.as_bytes());
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let lifetime = Duration::from_millis(take_number(body)?);
        let renewals = take_number(body)?;
        let ended = match array::<1>(body)? {
            [0] => None,
            [1] => Some(take_number(body)?),
            [other] => return Err(Error::corrupt(format!("a session in the state {other}"))),
        };
        Ok(Self { lifetime, renewals, ended, label: text(body)? })
    }
}

impl Value for FenceValue {
    const WHAT: &'static str = "the fence of a session";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.owner);
        out.extend_from_slice(&self.nonce);
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let owner = array(body)?;
        Ok(Self { owner, nonce: array(body)? })
    }
}

/// The end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochEndValue {
    pub(crate) end: EpochEnd,
    /// FoundationDB's version when it ended.
    pub(crate) version: u64,
    /// Who had it, unless it was given back.
    pub(crate) holder: Option<SessionId>,
}

impl Value for EpochEndValue {
    const WHAT: &'static str = "the end of an epoch";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.end.epoch.get());
        put_number(out, self.end.txid.get());
        out.extend_from_slice(&self.end.commit_id.bytes());
        put_number(out, self.version);
        if let Some(session) = self.holder {
            out.extend_from_slice(&session.bytes());
        }
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let epoch = Epoch(take_number(body)?);
        let txid = Txid(take_number(body)?);
        let end = EpochEnd { epoch, txid, commit_id: CommitId(array(body)?) };
        let version = take_number(body)?;
        let holder = if body.is_empty() { None } else { Some(SessionId(array(body)?)) };
        Ok(Self { end, version, holder })
    }
}

impl Value for Epoch {
    const WHAT: &'static str = "the exclusive lock of a database";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.get());
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        take_number(body).map(Self)
    }
}

impl Value for UnixMillis {
    const WHAT: &'static str = "the time of a checkpoint";

    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.get());
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        take_number(body).map(Self)
    }
}

impl Value for PageSet {
    const WHAT: &'static str = "a list of pages";

    fn write(&self, out: &mut Vec<u8>) {
        let mut last = 0;
        for range in self.ranges() {
            put_number(out, u64::from(range.first.get() - last));
            put_number(out, u64::from(range.last.get() - range.first.get()));
            last = range.last.get();
        }
    }

    fn read(body: &mut &[u8]) -> Result<Self> {
        let mut set = Self::new();
        let mut last: u64 = 0;
        while !body.is_empty() {
            let first = last.saturating_add(take_number(body)?);
            last = first.saturating_add(take_number(body)?);
            let page = |number: u64| {
                u32::try_from(number)
                    .map(PageNo)
                    .map_err(|_| Error::corrupt("a list of pages has one that is too large"))
            };
            set.insert_range(PageRange::new(page(first)?, page(last)?));
        }
        Ok(set)
    }
}

const IMAGE: u8 = 1;
const DELTA: u8 = 2;
const ZERO: u8 = 3;

/// A page row's value: what it is, then the engine's bytes.
pub(crate) fn encode_row(kind: RowKind, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 10);
    match kind {
        RowKind::Image => out.push(IMAGE),
        RowKind::Delta { base } => {
            out.push(DELTA);
            put_number(&mut out, base.get());
        }
        RowKind::Zero => out.push(ZERO),
    }
    out.extend_from_slice(bytes);
    out
}

/// Reads what [`encode_row`] wrote.
pub(crate) fn decode_row(value: &[u8]) -> Result<(RowKind, &[u8])> {
    let (kind, mut rest) = value.split_first().ok_or_else(|| Error::corrupt("a page row is empty"))?;
    let kind = match *kind {
        IMAGE => RowKind::Image,
        DELTA => RowKind::Delta { base: Txid(take_number(&mut rest)?) },
        ZERO => RowKind::Zero,
        other => return Err(Error::corrupt(format!("a page row of the kind {other}"))),
    };
    Ok((kind, rest))
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
