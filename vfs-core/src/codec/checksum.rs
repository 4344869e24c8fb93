//! Checksums: XXH3, 64 bits, seeded with where the bytes belong.

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::types::{DatabaseId, PageNo, Txid};

/// Mixes the place into a seed: other places give unrelated checksums for the same bytes.
fn seed(database: DatabaseId, page: u32, txid: Txid) -> u64 {
    let mut place = [0; 20];
    place[..8].copy_from_slice(&database.get().to_le_bytes());
    place[8..12].copy_from_slice(&page.to_le_bytes());
    place[12..].copy_from_slice(&txid.get().to_le_bytes());
    xxh3_64_with_seed(&place, 0x6c69_7465_666c_6565)
}

/// The checksum of an encoded byte string: of its first bytes and of what follows the checksum.
pub(super) fn sealed(database: DatabaseId, page: u32, txid: Txid, before: &[u8], after: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(seed(database, page, txid));
    hash.update(before);
    hash.update(after);
    hash.digest()
}

/// The checksum of the image of a page, as patches and deltas carry it: 32 bits.
pub fn image_checksum(database: DatabaseId, page: PageNo, txid: Txid, image: &[u8]) -> u32 {
    let hash = xxh3_64_with_seed(image, seed(database, page.get(), txid));
    u32::try_from(hash >> 32).unwrap_or(0)
}
