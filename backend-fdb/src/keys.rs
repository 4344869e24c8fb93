//! The keys, byte by byte as `docs/format-fdb.md` gives them. All numbers in keys are written so that their bytes sort
//! as the numbers do, and small numbers are short.

use litefleet::store::SharedLock;
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, PageNo, Result, SessionId, Txid};

/// The bytes of one key.
pub(crate) type Key = Vec<u8>;

/// The longest prefix that is accepted. The longest key is about 600 bytes more; FoundationDB allows 10,000.
pub(crate) const MAX_PREFIX_BYTES: usize = 1_000;

/// What a key has after the prefix at the most, unless it is a name's: a row's with all numbers large, and a slot's.
const REST_BYTES: usize = 48;

/// The most bytes of a key that is not a name's.
pub(crate) fn key_bytes(prefix: usize) -> usize {
    prefix + REST_BYTES
}

const STORE: u8 = 0x01;
const NAMES: u8 = 0x02;
const SESSIONS: u8 = 0x03;
const DELETED: u8 = 0x04;
const DATABASES: u8 = 0x05;
const END: u8 = 0x06;

const FORMAT: u8 = 0x00;
const COUNTER: u8 = 0x01;

const RECORD: u8 = 0x00;
const FENCE: u8 = 0x01;

/// What is kept of a database. The order matters: `Head`, `Staging` and `Lease` are one range, everything up to `Warm`
/// another, and everything below `Log` a third. A `Slot` is never written: it is only conflicted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    Head = 0x00,
    Staging = 0x01,
    Lease = 0x02,
    Progress = 0x03,
    Name = 0x04,
    Warm = 0x05,
    Checkpoint = 0x10,
    EpochEnd = 0x11,
    Staged = 0x12,
    Slot = 0x13,
    Exclusive = 0x14,
    Shared = 0x15,
    Log = 0x20,
    Rows = 0x30,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00 => Self::Head,
            0x01 => Self::Staging,
            0x02 => Self::Lease,
            0x03 => Self::Progress,
            0x04 => Self::Name,
            0x05 => Self::Warm,
            _ => return None,
        })
    }
}

/// The bytes that all keys of a store begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    prefix: Vec<u8>,
}

/// A range of keys: the first, and the one after the last.
pub(crate) type Range = (Key, Key);

impl Keys {
    /// Keys under a prefix.
    pub(crate) fn new(prefix: Vec<u8>) -> Self {
        Self { prefix }
    }

    fn key(&self, parts: &[u8], room: usize) -> Key {
        let mut key = Vec::with_capacity(self.prefix.len() + parts.len() + room);
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(parts);
        key
    }

    /// The most bytes of a key, unless it is a name's.
    pub(crate) fn key_bytes(&self) -> usize {
        key_bytes(self.prefix.len())
    }

    /// Everything of the store.
    pub(crate) fn all(&self) -> Range {
        (self.key(&[STORE], 0), self.key(&[END], 0))
    }

    pub(crate) fn format(&self) -> Key {
        self.key(&[STORE, FORMAT], 0)
    }

    /// The largest database id that may have been given out.
    pub(crate) fn counter(&self) -> Key {
        self.key(&[STORE, COUNTER], 0)
    }

    pub(crate) fn name(&self, name: &DatabaseName) -> Key {
        let mut key = self.key(&[NAMES], name.as_str().len() + 1);
        key.extend_from_slice(name.as_str().as_bytes());
        key
    }

    /// The names that begin with `prefix` and come after `after`.
    pub(crate) fn names(&self, prefix: &str, after: Option<&DatabaseName>) -> Range {
        let mut first = self.key(&[NAMES], prefix.len());
        first.extend_from_slice(prefix.as_bytes());
        // A name is UTF-8, so no byte of it is 0xff.
        let mut last = first.clone();
        last.push(0xff);
        if let Some(after) = after {
            first = first.max(after_key(self.name(after)));
        }
        (first, last)
    }

    /// The name in a key of [`names`](Self::names).
    pub(crate) fn name_in(&self, key: &[u8]) -> Result<DatabaseName> {
        let name = key.get(self.prefix.len() + 1..).unwrap_or_default();
        DatabaseName::from_bytes(name).map_err(|error| Error::corrupt(format!("a stored name: {error}")))
    }

    fn session(&self, session: SessionId, part: u8) -> Key {
        let mut key = self.key(&[SESSIONS], 17);
        key.extend_from_slice(&session.bytes());
        key.push(part);
        key
    }

    /// A session's record.
    pub(crate) fn session_record(&self, session: SessionId) -> Key {
        self.session(session, RECORD)
    }

    /// What the commits of a session conflict on.
    pub(crate) fn session_fence(&self, session: SessionId) -> Key {
        self.session(session, FENCE)
    }

    /// All that is kept of a session.
    pub(crate) fn session_all(&self, session: SessionId) -> Range {
        (self.session(session, RECORD), self.session(session, 0xff))
    }

    /// All sessions after one.
    pub(crate) fn sessions(&self, after: Option<SessionId>) -> Range {
        let first = after.map_or_else(|| self.key(&[SESSIONS], 0), |session| self.session(session, 0xff));
        (first, self.key(&[SESSIONS + 1], 0))
    }

    /// The session in a key of [`sessions`](Self::sessions), and whether the key is its record.
    pub(crate) fn session_in(&self, key: &[u8]) -> Option<(SessionId, bool)> {
        let rest = key.get(self.prefix.len() + 1..)?;
        let (id, part) = rest.split_first_chunk::<16>()?;
        Some((SessionId(*id), part == [RECORD]))
    }

    /// Marks a database whose rows and records are still there.
    pub(crate) fn deleted(&self, database: DatabaseId) -> Key {
        let mut key = self.key(&[DELETED], 9);
        put_number(&mut key, database.get());
        key
    }

    /// All deleted databases.
    pub(crate) fn all_deleted(&self) -> Range {
        (self.key(&[DELETED], 0), self.key(&[DELETED + 1], 0))
    }

    /// The database in a key of [`all_deleted`](Self::all_deleted).
    pub(crate) fn deleted_in(&self, key: &[u8]) -> Result<DatabaseId> {
        let mut rest = key.get(self.prefix.len() + 1..).unwrap_or_default();
        take_number(&mut rest).map(DatabaseId)
    }

    fn database(&self, database: DatabaseId, room: usize) -> Key {
        let mut key = self.key(&[DATABASES], 10 + room);
        put_number(&mut key, database.get());
        key
    }

    /// A key of which a database has one.
    pub(crate) fn of(&self, database: DatabaseId, kind: Kind) -> Key {
        let mut key = self.database(database, 1);
        key.push(kind as u8);
        key
    }

    fn numbered(&self, database: DatabaseId, kind: Kind, number: u64) -> Key {
        let mut key = self.database(database, 20);
        key.push(kind as u8);
        put_number(&mut key, number);
        key
    }

    fn between(&self, database: DatabaseId, first: u8, end: u8) -> Range {
        let mut from = self.database(database, 1);
        let mut to = from.clone();
        from.push(first);
        to.push(end);
        (from, to)
    }

    /// Head, staging and lease: what every write is conditional on.
    pub(crate) fn core(&self, database: DatabaseId) -> Range {
        self.between(database, Kind::Head as u8, Kind::Progress as u8)
    }

    /// Everything of a database.
    pub(crate) fn all_of(&self, database: DatabaseId) -> Range {
        self.between(database, Kind::Head as u8, 0xff)
    }

    /// Everything of which there is one.
    pub(crate) fn singles(&self, database: DatabaseId) -> Range {
        self.between(database, Kind::Head as u8, Kind::Checkpoint as u8)
    }

    /// Everything but the log and the rows.
    pub(crate) fn small(&self, database: DatabaseId) -> Range {
        self.between(database, Kind::Head as u8, Kind::Log as u8)
    }

    /// The log and the rows.
    pub(crate) fn bulk(&self, database: DatabaseId) -> Range {
        self.between(database, Kind::Log as u8, 0xff)
    }

    /// Which single a key of [`singles`](Self::singles) is.
    pub(crate) fn kind_in(&self, database: DatabaseId, key: &[u8]) -> Option<Kind> {
        let rest = key.strip_prefix(self.database(database, 0).as_slice())?;
        let [kind] = rest else { return None };
        Kind::of(*kind)
    }

    /// A completed checkpoint.
    pub(crate) fn checkpoint(&self, database: DatabaseId, txid: Txid) -> Key {
        self.numbered(database, Kind::Checkpoint, txid.get())
    }

    /// The completed checkpoints from `first` to `last`.
    pub(crate) fn checkpoints(&self, database: DatabaseId, first: Txid, last: Txid) -> Range {
        (self.checkpoint(database, first), after_key(self.checkpoint(database, last)))
    }

    /// The txid in a key of [`checkpoints`](Self::checkpoints).
    pub(crate) fn checkpoint_in(&self, database: DatabaseId, key: &[u8]) -> Result<Txid> {
        let mut rest = self.numbers_in(database, Kind::Checkpoint, key)?;
        take_number(&mut rest).map(Txid)
    }

    pub(crate) fn epoch_end(&self, database: DatabaseId, epoch: Epoch) -> Key {
        self.numbered(database, Kind::EpochEnd, epoch.get())
    }

    /// The ends of all epochs below one.
    pub(crate) fn epoch_ends(&self, database: DatabaseId, below: Epoch) -> Range {
        (self.epoch_end(database, Epoch(0)), self.epoch_end(database, below))
    }

    /// The list of the pages that one request has staged.
    pub(crate) fn staged(&self, database: DatabaseId, generation: u64, sequence: u64) -> Key {
        let mut key = self.numbered(database, Kind::Staged, generation);
        put_number(&mut key, sequence);
        key
    }

    /// All lists of staged pages.
    pub(crate) fn all_staged(&self, database: DatabaseId) -> Range {
        self.between(database, Kind::Staged as u8, Kind::Staged as u8 + 1)
    }

    /// What every change from one state of head, staging entry and lease on conflicts on, and has in its write conflict
    /// set. `state` are bytes that no other state of the database has.
    pub(crate) fn slot(&self, database: DatabaseId, state: &[u8]) -> Key {
        let mut key = self.database(database, 1 + state.len());
        key.push(Kind::Slot as u8);
        key.extend_from_slice(state);
        key
    }

    fn lockers(&self, database: DatabaseId, session: SessionId, room: usize) -> Key {
        let mut key = self.database(database, 17 + room);
        key.push(Kind::Shared as u8);
        key.extend_from_slice(&session.bytes());
        key
    }

    /// A shared lock.
    pub(crate) fn shared(&self, database: DatabaseId, lock: SharedLock) -> Key {
        let mut key = self.lockers(database, lock.session, 9);
        put_number(&mut key, lock.number);
        key
    }

    /// The shared locks of a session.
    pub(crate) fn shared_of(&self, database: DatabaseId, session: SessionId) -> Range {
        let first = self.lockers(database, session, 0);
        // A number begins with how many bytes it has.
        let mut end = self.lockers(database, session, 1);
        end.push(0xff);
        (first, end)
    }

    /// The shared locks of all other sessions: those before it, and those after it.
    pub(crate) fn shared_but_of(&self, database: DatabaseId, session: SessionId) -> [Range; 2] {
        let (first, end) = self.between(database, Kind::Shared as u8, Kind::Shared as u8 + 1);
        let (own, after) = self.shared_of(database, session);
        [(first, own), (after, end)]
    }

    /// The session in a key of a shared lock.
    pub(crate) fn locker_in(&self, database: DatabaseId, key: &[u8]) -> Result<SessionId> {
        let rest = self.numbers_in(database, Kind::Shared, key)?;
        let (session, _) =
            rest.split_first_chunk().ok_or_else(|| Error::corrupt("a key of a shared lock is cut off"))?;
        Ok(SessionId(*session))
    }

    /// A piece of a commit record; the first is number 0.
    pub(crate) fn log(&self, database: DatabaseId, txid: Txid, piece: u8) -> Key {
        let mut key = self.numbered(database, Kind::Log, txid.get());
        if piece > 0 {
            key.push(piece);
        }
        key
    }

    /// The records after `after`, up to `to`.
    pub(crate) fn log_range(&self, database: DatabaseId, after: Txid, to: Txid) -> Range {
        let (first, end) = (after.get().checked_add(1), to.get().checked_add(1));
        let end_of_log = || self.between(database, Kind::Log as u8, Kind::Log as u8 + 1).1;
        let key = |txid: Option<u64>| txid.map_or_else(end_of_log, |txid| self.log(database, Txid(txid), 0));
        (key(first), key(end))
    }

    /// The txid and piece in a key of the log.
    pub(crate) fn log_in(&self, database: DatabaseId, key: &[u8]) -> Result<(Txid, u8)> {
        let mut rest = self.numbers_in(database, Kind::Log, key)?;
        let txid = Txid(take_number(&mut rest)?);
        match rest {
            [] => Ok((txid, 0)),
            [piece] => Ok((txid, *piece)),
            _ => Err(Error::corrupt("a key of the log has bytes after its piece")),
        }
    }

    /// A row.
    pub(crate) fn row(&self, database: DatabaseId, page: PageNo, txid: Txid) -> Key {
        let mut key = self.numbered(database, Kind::Rows, u64::from(page.get()));
        put_number(&mut key, txid.get());
        key
    }

    /// All rows of these pages.
    pub(crate) fn rows(&self, database: DatabaseId, first: PageNo, last: PageNo) -> Range {
        let from = self.numbered(database, Kind::Rows, u64::from(first.get()));
        (from, self.numbered(database, Kind::Rows, u64::from(last.get()) + 1))
    }

    /// All rows after one.
    pub(crate) fn rows_after(&self, database: DatabaseId, after: Option<(PageNo, Txid)>) -> Range {
        let (first, last) = self.between(database, Kind::Rows as u8, Kind::Rows as u8 + 1);
        (after.map_or(first, |(page, txid)| after_key(self.row(database, page, txid))), last)
    }

    /// The rows of a page up to a txid.
    pub(crate) fn rows_up_to(&self, database: DatabaseId, page: PageNo, txid: Txid) -> Range {
        (self.row(database, page, Txid(0)), after_key(self.row(database, page, txid)))
    }

    /// The page and txid in a key of a row.
    pub(crate) fn row_in(&self, database: DatabaseId, key: &[u8]) -> Result<(PageNo, Txid)> {
        let mut rest = self.numbers_in(database, Kind::Rows, key)?;
        let page = u32::try_from(take_number(&mut rest)?).map_err(|_| Error::corrupt("a row's page is too large"))?;
        let txid = Txid(take_number(&mut rest)?);
        if rest.is_empty() { Ok((PageNo(page), txid)) } else { Err(Error::corrupt("a row's key is too long")) }
    }

    fn numbers_in<'k>(&self, database: DatabaseId, kind: Kind, key: &'k [u8]) -> Result<&'k [u8]> {
        let mut start = self.database(database, 1);
        start.push(kind as u8);
        key.strip_prefix(start.as_slice())
            .ok_or_else(|| Error::corrupt(format!("a key of database {database} is not of the kind {kind:?}")))
    }
}

/// The first key after one.
pub(crate) fn after_key(mut key: Key) -> Key {
    key.push(0);
    key
}

/// Writes a number: how many bytes, then the bytes, the most significant first, without leading zeros.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    let skip = bytes.iter().take_while(|byte| **byte == 0).count();
    out.push(8_u8.saturating_sub(u8::try_from(skip).unwrap_or(8)));
    out.extend(bytes.iter().skip(skip));
}

/// Reads what [`put_number`] wrote, and moves on.
pub(crate) fn take_number(bytes: &mut &[u8]) -> Result<u64> {
    let cut = || Error::corrupt("a stored number is cut off or too long");
    let (length, rest) = bytes.split_first().ok_or_else(cut)?;
    if *length > 8 {
        return Err(cut());
    }
    let (number, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(cut)?;
    *bytes = rest;
    Ok(number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
