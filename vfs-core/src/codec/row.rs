//! Page rows: the image of one page as of one transaction, whole or as a delta to an older whole one.

use bytes::Bytes;

use super::checksum::{image_checksum, sealed};
use super::patch::apply_runs;
use super::varint::{self, Reader};
use super::{Compression, ROW_VERSION, check_version, zero_image};
use crate::error::{Context, Error, Result};
use crate::store::{PageRow, RowKind};
use crate::types::{DatabaseId, PAGE_SIZE, PageNo, Txid};

const HEADER: usize = 10;
const RAW: u8 = 0;
const LZ4: u8 = 1;
const DELTA: u8 = 2;
const ZERO: u8 = 3;

/// What a row says of its page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The image.
    Image(Bytes),
    /// The runs that make the image out of the base's, and the checksum of the result.
    Delta {
        /// The txid of the base.
        base: Txid,
        /// The runs.
        runs: Bytes,
        /// The checksum of the image that results.
        checksum: u32,
    },
}

fn seal(database: DatabaseId, page: PageNo, txid: Txid, kind: RowKind, mut out: Vec<u8>) -> PageRow {
    out[0] = ROW_VERSION;
    let check = sealed(database, page.get(), txid, &out[..2], &out[HEADER..]);
    out[2..HEADER].copy_from_slice(&check.to_le_bytes());
    PageRow { page, txid, kind, bytes: Bytes::from(out) }
}

/// Encodes a whole image.
pub fn encode_image(database: DatabaseId, page: PageNo, txid: Txid, image: &[u8], compression: Compression) -> PageRow {
    debug_assert_eq!(image.len(), PAGE_SIZE);
    let mut out = vec![0; HEADER];
    if compression == Compression::Lz4 {
        let compressed = lz4_flex::block::compress(image);
        if compressed.len() < image.len() {
            out[1] = LZ4;
            out.extend_from_slice(&compressed);
            return seal(database, page, txid, RowKind::Image, out);
        }
    }
    out[1] = RAW;
    out.extend_from_slice(image);
    seal(database, page, txid, RowKind::Image, out)
}

/// Encodes the difference to the image of the same page at `base`.
pub fn encode_delta(database: DatabaseId, page: PageNo, txid: Txid, base: Txid, runs: &[u8], image: &[u8]) -> PageRow {
    let mut out = vec![0; HEADER];
    out[1] = DELTA;
    varint::put(&mut out, base.get());
    out.extend_from_slice(&image_checksum(database, page, txid, image).to_le_bytes());
    out.extend_from_slice(runs);
    seal(database, page, txid, RowKind::Delta { base }, out)
}

/// Encodes a page of zeros.
pub fn encode_zero(database: DatabaseId, page: PageNo, txid: Txid) -> PageRow {
    let mut out = vec![0; HEADER];
    out[1] = ZERO;
    seal(database, page, txid, RowKind::Zero, out)
}

/// The kind that an encoded row says it is of, unchecked: for a store that keeps no column for it.
pub fn row_kind(bytes: &Bytes) -> Result<RowKind> {
    let mut reader = Reader::new(bytes);
    let start = reader.take(2)?;
    reader.take(HEADER - 2)?;
    match start[1] {
        RAW | LZ4 => Ok(RowKind::Image),
        DELTA => Ok(RowKind::Delta { base: Txid(reader.number()?) }),
        ZERO => Ok(RowKind::Zero),
        other => Err(Error::corrupt(format!("a row of kind {other}"))),
    }
}

/// Checks and decodes a row. `Corrupt` when it is not the one that was put there.
pub fn decode_row(database: DatabaseId, row: &PageRow) -> Result<Content> {
    decode_checked(database, row).context(format_args!("row of page {} at txid {}", row.page, row.txid))
}

fn decode_checked(database: DatabaseId, row: &PageRow) -> Result<Content> {
    let bytes = &row.bytes;
    let mut reader = Reader::new(bytes);
    let start = reader.take(2)?;
    let check = u64::from_le_bytes(reader.array()?);
    if check != sealed(database, row.page.get(), row.txid, start, &bytes[HEADER..]) {
        return Err(Error::corrupt("the checksum does not match"));
    }
    check_version(start[0], ROW_VERSION)?;
    if row_kind(bytes)? != row.kind {
        return Err(Error::corrupt("the store and the row disagree on its kind"));
    }
    match start[1] {
        RAW if bytes.len() == HEADER + PAGE_SIZE => Ok(Content::Image(bytes.slice(HEADER..))),
        LZ4 => {
            let image = lz4_flex::block::decompress(&bytes[HEADER..], PAGE_SIZE)
                .map_err(|e| Error::corrupt("the compression is damaged").with_source(e))?;
            if image.len() != PAGE_SIZE {
                return Err(Error::corrupt(format!("an image of {} bytes", image.len())));
            }
            Ok(Content::Image(Bytes::from(image)))
        }
        DELTA => {
            let base = Txid(reader.number()?);
            let checksum = u32::from_le_bytes(reader.array()?);
            Ok(Content::Delta { base, runs: bytes.slice(reader.position()..), checksum })
        }
        ZERO => Ok(Content::Image(zero_image())),
        other => Err(Error::corrupt(format!("a row of kind {other} and {} bytes", bytes.len()))),
    }
}

impl Content {
    /// The image, with the base's image where the row is a delta.
    pub fn image(self, database: DatabaseId, page: PageNo, txid: Txid, base: Option<&Bytes>) -> Result<Bytes> {
        match self {
            Self::Image(image) => Ok(image),
            Self::Delta { base: at, runs, checksum } => {
                let Some(base) = base else {
                    return Err(Error::corrupt(format!(
                        "page {page} at txid {txid}: its base at txid {at} is missing"
                    )));
                };
                let mut image = base.to_vec();
                apply_runs(&runs, &mut image)?;
                if image_checksum(database, page, txid, &image) != checksum {
                    return Err(Error::corrupt(format!("page {page} at txid {txid}: the delta does not fit its base")));
                }
                Ok(Bytes::from(image))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff;
    use super::*;
    use proptest::prelude::*;

    const PLACE: (DatabaseId, PageNo, Txid) = (DatabaseId(3), PageNo(5), Txid(11));

    proptest! {
        #[test]
        fn a_row_comes_back_and_a_changed_or_moved_one_does_not(
            seed in any::<[u8; 7]>(), noise in any::<bool>(), lz4 in any::<bool>(),
            at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut hash = u64::from_le_bytes([seed[0], seed[1], seed[2], seed[3], seed[4], seed[5], seed[6], 1]);
            let image: Vec<u8> = (0..PAGE_SIZE).map(|i| {
                hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if noise { hash.to_be_bytes()[0] } else { seed[i % 7] }
            }).collect();
            let mut old = image.clone();
            old[100..130].fill(9);
            let compression = if lz4 { Compression::Lz4 } else { Compression::None };
            let (db, page, txid) = PLACE;
            let whole = encode_image(db, page, txid, &image, compression);
            prop_assert_eq!(decode_row(db, &whole).unwrap(), Content::Image(Bytes::from(image.clone())));
            let delta = encode_delta(db, page, txid, Txid(4), &diff(&old, &image), &image);
            let base = Bytes::from(old);
            let content = decode_row(db, &delta).unwrap();
            prop_assert_eq!(content.clone().image(db, page, txid, Some(&base)).unwrap(), Bytes::from(image));
            if base[100..130] != whole.bytes[..30] {
                let wrong = Bytes::from(vec![77; PAGE_SIZE]);
                prop_assert!(content.clone().image(db, page, txid, Some(&wrong)).is_err());
            }
            prop_assert!(content.image(db, page, txid, None).is_err());
            let zero = encode_zero(db, page, txid);
            prop_assert_eq!(decode_row(db, &zero).unwrap(), Content::Image(zero_image()));
            for row in [whole, delta, zero] {
                prop_assert_eq!(row_kind(&row.bytes).unwrap(), row.kind);
                prop_assert!(decode_row(DatabaseId(4), &row).is_err());
                let elsewhere = PageRow { page: PageNo(6), ..row.clone() };
                prop_assert!(decode_row(db, &elsewhere).is_err());
                let later = PageRow { txid: Txid(12), ..row.clone() };
                prop_assert!(decode_row(db, &later).is_err());
                let mut flipped = row.bytes.to_vec();
                let at = at.index(flipped.len());
                flipped[at] ^= 1 << bit;
                let flipped = PageRow { bytes: Bytes::from(flipped), ..row };
                prop_assert!(decode_row(db, &flipped).is_err());
            }
        }
    }
}
