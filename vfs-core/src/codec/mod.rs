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

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// The image of a page of zeros.
pub fn zero_image() -> Bytes {
    Bytes::from_static(&ZEROS)
}
