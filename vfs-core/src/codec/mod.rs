//! The byte formats: commit records and page rows. `docs/format.md` gives them byte by byte.
//!
//! Every encoded byte string begins with a format version and a checksum that is bound to its database, page and txid:
//! bytes that were moved to another place fail the check as flipped ones do.

mod checksum;
mod patch;
mod record;
mod row;
mod varint;

pub use checksum::image_checksum;
pub use patch::{Patch, PatchBase, diff};
pub use record::{Record, RecordBody, StagedPages};
pub use row::{Content, decode_row, encode_delta, encode_image, encode_zero, row_kind};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::types::PAGE_SIZE;

/// How records and rows are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// LZ4 block format, where it makes them smaller.
    #[default]
    Lz4,
}

/// The version of records that is written here.
const RECORD_VERSION: u8 = 2;
/// The version of rows that is written here.
const ROW_VERSION: u8 = 1;

/// Bytes whose checksum is right and whose version is another are whole, and not for this release.
fn check_version(version: u8, ours: u8) -> Result<()> {
    if version == ours {
        return Ok(());
    }
    Err(Error::invalid(format!("it has format version {version}; this release reads version {ours}")))
}

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// The image of a page of zeros.
pub fn zero_image() -> Bytes {
    Bytes::from_static(&ZEROS)
}

#[cfg(test)]
mod tests {
    use super::checksum::sealed;
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::{PageRow, RowKind};
    use crate::types::{DatabaseId, PageNo, Txid};

    /// A version that is not known is one thing, damage another, in rows and in records.
    #[test]
    fn another_version_is_not_damage() {
        let (database, page, txid) = (DatabaseId(3), PageNo(5), Txid(7));
        let row = encode_image(database, page, txid, &[9; PAGE_SIZE], Compression::None);
        let body = RecordBody { size: 4096, ..RecordBody::default() };
        let record = body.encode(database, txid, Compression::None);
        let decode = |sealed_for: u32, bytes: Vec<u8>| {
            let bytes = Bytes::from(bytes);
            let decoded = if sealed_for == 0 {
                Record::decode(database, txid, &bytes).map(drop)
            } else {
                decode_row(database, &PageRow { page, txid, kind: RowKind::Image, bytes }).map(drop)
            };
            decoded.map_err(|error| error.kind())
        };
        for (sealed_for, bytes) in [(0, record), (page.get(), row.bytes)] {
            assert_eq!(decode(sealed_for, bytes.to_vec()), Ok(()));
            let mut newer = bytes.to_vec();
            newer[0] += 1;
            assert_eq!(decode(sealed_for, newer.clone()), Err(ErrorKind::Corrupt), "flipped");
            let check = sealed(database, sealed_for, txid, &newer[..2], &newer[10..]);
            newer[2..10].copy_from_slice(&check.to_le_bytes());
            assert_eq!(decode(sealed_for, newer), Err(ErrorKind::Invalid), "written by a newer release");
        }
    }
}
