//! The keys: which table, and which bytes. Numbers are big-endian, so that byte order is numeric order.

use litefleet::{DatabaseId, DatabaseName, Epoch, PageNo, Txid, UnixMillis};

/// A table of the engine. Each has its own memory and files; all share one journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Heads, names, and everything else that is small.
    Heads,
    /// Commit records.
    Log,
    /// Page rows.
    Pages,
}

impl Table {
    /// All tables, in the order of [`index`](Self::index).
    pub(crate) const ALL: [Self; 3] = [Self::Heads, Self::Log, Self::Pages];

    /// Its name in the engine.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Heads => "heads",
            Self::Log => "log",
            Self::Pages => "pages",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Heads => 0,
            Self::Log => 1,
            Self::Pages => 2,
        }
    }
}

/// The first byte of a key of [`Table::Heads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Checkpoint (database, txid): when it was completed.
    Checkpoint = b'c',
    /// Deleted database (database), whose bytes are not all removed yet.
    Condemned = b'd',
    /// End of an epoch (database, epoch).
    EpochEnd = b'e',
    /// Head (database).
    Head = b'h',
    /// The largest database id that may have been given out.
    LastId = b'i',
    /// The number of the newest durable write.
    Sync = b'j',
    /// Name (database).
    NameOf = b'm',
    /// Database (name).
    Named = b'n',
    /// The pieces of a checkpoint that is not completed (database).
    Pieces = b'p',
    /// Staged pages (database, generation, number).
    Staging = b's',
    /// End of an epoch by time (milliseconds, database, epoch).
    EpochEndTime = b't',
    /// Warm pages (database).
    Warm = b'w',
}

fn key(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![kind as u8];
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// The key of a kind that has one per database. Also the beginning of those that have several.
pub(crate) fn of_database(kind: Kind, database: DatabaseId) -> Vec<u8> {
    key(kind, &[&database.get().to_be_bytes()])
}

/// The key of something that there is one of.
pub(crate) fn singleton(kind: Kind) -> Vec<u8> {
    match kind {
        // Long enough to be found in a damaged journal.
        Kind::Sync => key(kind, &[b"litefleet-synced"]),
        _ => key(kind, &[]),
    }
}

pub(crate) fn named(name: &DatabaseName) -> Vec<u8> {
    key(Kind::Named, &[name.as_str().as_bytes()])
}

pub(crate) fn checkpoint(database: DatabaseId, txid: Txid) -> Vec<u8> {
    key(Kind::Checkpoint, &[&database.get().to_be_bytes(), &txid.get().to_be_bytes()])
}

pub(crate) fn epoch_end(database: DatabaseId, epoch: Epoch) -> Vec<u8> {
    key(Kind::EpochEnd, &[&database.get().to_be_bytes(), &epoch.get().to_be_bytes()])
}

pub(crate) fn epoch_end_time(at: UnixMillis, database: DatabaseId, epoch: Epoch) -> Vec<u8> {
    key(Kind::EpochEndTime, &[&at.get().to_be_bytes(), &database.get().to_be_bytes(), &epoch.get().to_be_bytes()])
}

pub(crate) fn staging(database: DatabaseId, generation: u64, number: u64) -> Vec<u8> {
    key(Kind::Staging, &[&database.get().to_be_bytes(), &generation.to_be_bytes(), &number.to_be_bytes()])
}

/// The number at the end of a key.
pub(crate) fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The number of a key that begins after its kind.
pub(crate) fn database_of(key: &[u8]) -> Option<DatabaseId> {
    key.get(1..)?.first_chunk::<8>().map(|bytes| DatabaseId(u64::from_be_bytes(*bytes)))
}

/// The key of a commit record in [`Table::Log`].
pub(crate) fn log(database: DatabaseId, txid: Txid) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&database.get().to_be_bytes());
    out[8..].copy_from_slice(&txid.get().to_be_bytes());
    out
}

/// The key of a row in [`Table::Pages`].
pub(crate) fn page(database: DatabaseId, page: PageNo, txid: Txid) -> [u8; 20] {
    let mut out = [0; 20];
    out[..8].copy_from_slice(&database.get().to_be_bytes());
    out[8..12].copy_from_slice(&page.get().to_be_bytes());
    out[12..].copy_from_slice(&txid.get().to_be_bytes());
    out
}

/// The page and txid of a key of [`Table::Pages`].
pub(crate) fn page_and_txid(key: &[u8]) -> Option<(PageNo, Txid)> {
    let page = key.get(8..12)?.first_chunk::<4>()?;
    let txid = key.get(12..20)?.first_chunk::<8>()?;
    Some((PageNo(u32::from_be_bytes(*page)), Txid(u64::from_be_bytes(*txid))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_do() {
        let db = DatabaseId(7);
        assert!(page(db, PageNo(1), Txid::MAX) < page(db, PageNo(2), Txid(0)));
        assert!(page(db, PageNo(255), Txid(3)) < page(db, PageNo(256), Txid(3)));
        assert!(log(db, Txid(255)) < log(db, Txid(256)));
        assert!(log(db, Txid::MAX) < log(DatabaseId(8), Txid(0)));
        let row = page(db, PageNo(9), Txid(12));
        assert_eq!(page_and_txid(&row), Some((PageNo(9), Txid(12))));
        let entry = staging(db, 3, 44);
        assert_eq!(last_number(&entry), Some(44));
        assert_eq!(database_of(&entry), Some(db));
    }
}
