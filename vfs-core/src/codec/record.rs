//! Commit records: what one SQLite transaction changed.

use bytes::Bytes;

use super::checksum::sealed;
use super::patch::{Patch, PatchBase};
use super::varint::{self, Reader};
use super::{Compression, RECORD_VERSION, check_version};
use crate::error::{Context, Error, Result};
use crate::types::{CommitId, CommitLink, DatabaseId, PageNo, PageRange, PageSet, Txid, UnixMillis};

const FLAG_LZ4: u8 = 1;
const HEADER: usize = 10;
/// A record is decompressed only up to here, however large it says it is.
const MAX_BODY: usize = 256 << 20;

/// The pages whose images were staged as rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StagedPages {
    /// None: the record has everything.
    #[default]
    None,
    /// These.
    These(PageSet),
    /// Too many runs to name: any page may have a row.
    All,
}

impl StagedPages {
    /// Whether the page may have been staged.
    pub fn contains(&self, page: PageNo) -> bool {
        match self {
            Self::None => false,
            Self::These(set) => set.contains(page),
            Self::All => true,
        }
    }
}

/// A decoded commit record. Pages come in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordBody {
    /// The attempt that made it.
    pub commit_id: CommitId,
    /// The commit that it was made on, by a part of its id: one history of a database is told from another by it.
    pub follows: CommitLink,
    /// When, by the writer's wall clock.
    pub time: UnixMillis,
    /// Bytes of the file after it.
    pub size: u64,
    /// Bytes of the file before it, when it made the file shorter; else 0.
    pub shrunk_from: u64,
    /// Pages that are zeros from here on.
    pub zeroed: PageSet,
    /// Pages whose images are rows at this txid.
    pub staged: StagedPages,
    /// The patches.
    pub pages: Vec<(PageNo, Patch)>,
}

/// A record in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The transaction.
    pub txid: Txid,
    /// What it changed.
    pub body: RecordBody,
    /// About how many bytes it takes in memory.
    pub weight: usize,
}

impl RecordBody {
    /// The patch of a page, if the record has one.
    pub fn patch(&self, page: PageNo) -> Option<&Patch> {
        let index = self.pages.binary_search_by_key(&page, |(page, _)| *page).ok()?;
        self.pages.get(index).map(|(_, patch)| patch)
    }

    /// Encodes the record for its place.
    pub fn encode(&self, database: DatabaseId, txid: Txid, compression: Compression) -> Bytes {
        let body = self.encode_body();
        let mut out = vec![0; HEADER];
        out[0] = RECORD_VERSION;
        if compression == Compression::Lz4 && body.len() > 64 {
            let compressed = lz4_flex::block::compress(&body);
            if compressed.len() + 4 < body.len() {
                out[1] |= FLAG_LZ4;
                varint::put(&mut out, body.len() as u64);
                out.extend_from_slice(&compressed);
            }
        }
        if out[1] & FLAG_LZ4 == 0 {
            out.extend_from_slice(&body);
        }
        let check = sealed(database, 0, txid, &out[..2], &out[HEADER..]);
        out[2..HEADER].copy_from_slice(&check.to_le_bytes());
        Bytes::from(out)
    }

    fn encode_body(&self) -> Vec<u8> {
        let bytes: usize = self.pages.iter().map(|(_, patch)| patch.runs.len() + 12).sum();
        let mut out = Vec::with_capacity(bytes + 64);
        out.extend_from_slice(&self.commit_id.bytes());
        out.extend_from_slice(&self.follows.0);
        varint::put(&mut out, self.time.get());
        varint::put(&mut out, self.size);
        varint::put(&mut out, self.shrunk_from);
        put_set(&mut out, &self.zeroed);
        match &self.staged {
            StagedPages::None => out.push(0),
            StagedPages::All => out.push(1),
            StagedPages::These(set) => {
                out.push(2);
                put_set(&mut out, set);
            }
        }
        varint::put(&mut out, self.pages.len() as u64);
        let mut before = 0;
        for (page, patch) in &self.pages {
            varint::put(&mut out, u64::from(page.get() - before));
            before = page.get();
            // The lowest bit says what the patch applies to.
            let zeros = u64::from(patch.base == PatchBase::Zeros);
            varint::put(&mut out, (patch.runs.len() as u64) << 1 | zeros);
            out.extend_from_slice(&patch.runs);
            out.extend_from_slice(&patch.checksum.to_le_bytes());
        }
        out
    }
}

impl Record {
    /// Checks and decodes a record. `Corrupt` when it is not the one that was put there.
    pub fn decode(database: DatabaseId, txid: Txid, bytes: &Bytes) -> Result<Self> {
        Self::decode_checked(database, txid, bytes).context(format_args!("commit record at txid {txid}"))
    }

    fn decode_checked(database: DatabaseId, txid: Txid, bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let start = reader.take(2)?;
        let check = u64::from_le_bytes(reader.array()?);
        if check != sealed(database, 0, txid, start, &bytes[HEADER..]) {
            return Err(Error::corrupt("the checksum does not match"));
        }
        check_version(start[0], RECORD_VERSION)?;
        let body = if start[1] & FLAG_LZ4 == 0 {
            bytes.slice(HEADER..)
        } else {
            let len = reader.small()?;
            if len > MAX_BODY {
                return Err(Error::corrupt(format!("a record of {len} bytes")));
            }
            let body = lz4_flex::block::decompress(&bytes[reader.position()..], len)
                .map_err(|e| Error::corrupt("the compression is damaged").with_source(e))?;
            Bytes::from(body)
        };
        let body = decode_body(&body)?;
        Ok(Self::new(txid, body))
    }

    /// Puts a body in its place.
    pub fn new(txid: Txid, body: RecordBody) -> Self {
        let patches: usize = body.pages.iter().map(|(_, patch)| patch.runs.len() + 64).sum();
        let sets = body.zeroed.run_count() * 24;
        let staged = match &body.staged {
            StagedPages::These(set) => set.run_count() * 24,
            StagedPages::None | StagedPages::All => 0,
        };
        Self { txid, weight: patches + sets + staged + 128, body }
    }
}

fn put_set(out: &mut Vec<u8>, set: &PageSet) {
    varint::put(out, set.run_count() as u64);
    let mut before = 0;
    for range in set.ranges() {
        varint::put(out, u64::from(range.first.get() - before));
        varint::put(out, range.count() - 1);
        before = range.last.get();
    }
}

fn read_set(reader: &mut Reader<'_>) -> Result<PageSet> {
    let mut set = PageSet::new();
    let mut before = 0;
    for _ in 0..reader.small()? {
        let first = reader.page(before)?;
        let last = reader.page(first)?;
        if first == 0 {
            return Err(Error::corrupt("page number 0"));
        }
        set.insert_range(PageRange::new(PageNo(first), PageNo(last)));
        before = last;
    }
    Ok(set)
}

fn decode_body(bytes: &Bytes) -> Result<RecordBody> {
    let mut reader = Reader::new(bytes);
    let commit_id = CommitId(reader.array()?);
    let follows = CommitLink(reader.array()?);
    let time = UnixMillis(reader.number()?);
    let size = reader.number()?;
    let shrunk_from = reader.number()?;
    let zeroed = read_set(&mut reader)?;
    let staged = match reader.byte()? {
        0 => StagedPages::None,
        1 => StagedPages::All,
        2 => StagedPages::These(read_set(&mut reader)?),
        other => return Err(Error::corrupt(format!("staged pages of kind {other}"))),
    };
    let mut pages = Vec::new();
    let mut before = 0;
    for _ in 0..reader.small()? {
        let page = reader.page(before)?;
        if page <= before {
            return Err(Error::corrupt("pages out of order"));
        }
        before = page;
        let word = reader.small()?;
        let base = if word & 1 == 1 { PatchBase::Zeros } else { PatchBase::Previous };
        let start = reader.position();
        reader.take(word >> 1)?;
        let runs = bytes.slice(start..reader.position());
        let checksum = u32::from_le_bytes(reader.array()?);
        pages.push((PageNo(page), Patch { base, runs, checksum }));
    }
    if !reader.is_empty() {
        return Err(Error::corrupt("bytes after the end"));
    }
    Ok(RecordBody { commit_id, follows, time, size, shrunk_from, zeroed, staged, pages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bodies() -> impl Strategy<Value = RecordBody> {
        let sets = || {
            prop::collection::vec((1u32..1000, 0u32..50), 0..5).prop_map(|ranges| {
                let mut set = PageSet::new();
                for (first, more) in ranges {
                    set.insert_range(PageRange::new(PageNo(first), PageNo(first + more)));
                }
                set
            })
        };
        let staged = prop_oneof![Just(StagedPages::None), Just(StagedPages::All), sets().prop_map(StagedPages::These)];
        let patch = (any::<bool>(), prop::collection::vec(0u8..4, 0..300), any::<u32>());
        let pages = prop::collection::btree_map(1u32..9999, patch, 0..20);
        (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u64>(), any::<u64>(), sets(), staged, pages).prop_map(
            |(id, follows, time, size, zeroed, staged, pages)| RecordBody {
                commit_id: CommitId(id),
                follows: CommitLink(follows),
                time: UnixMillis(time),
                size,
                shrunk_from: size / 2,
                zeroed,
                staged,
                pages: pages
                    .into_iter()
                    .map(|(page, (zeros, runs, checksum))| {
                        let base = if zeros { PatchBase::Zeros } else { PatchBase::Previous };
                        (PageNo(page), Patch { base, runs: Bytes::from(runs), checksum })
                    })
                    .collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_comes_back(body in bodies(), lz4 in any::<bool>()) {
            let compression = if lz4 { Compression::Lz4 } else { Compression::None };
            let bytes = body.encode(DatabaseId(7), Txid(9), compression);
            prop_assert_eq!(Record::decode(DatabaseId(7), Txid(9), &bytes).unwrap().body, body);
        }

        #[test]
        fn a_changed_or_moved_record_is_refused(body in bodies(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let bytes = body.encode(DatabaseId(7), Txid(9), Compression::Lz4);
            prop_assert!(Record::decode(DatabaseId(8), Txid(9), &bytes).is_err());
            prop_assert!(Record::decode(DatabaseId(7), Txid(8), &bytes).is_err());
            let mut flipped = bytes.to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            prop_assert!(Record::decode(DatabaseId(7), Txid(9), &Bytes::from(flipped)).is_err());
            let cut = bytes.slice(..at);
            prop_assert!(Record::decode(DatabaseId(7), Txid(9), &cut).is_err());
        }

        #[test]
        fn any_bytes_are_a_body_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _either = decode_body(&Bytes::from(bytes));
        }
    }
}
