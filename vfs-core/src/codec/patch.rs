//! Patches: the bytes of a page that changed, as runs.

use bytes::Bytes;

use super::varint::{self, Reader};
use crate::error::{Error, Result};
use crate::types::PAGE_SIZE;

/// Runs nearer than this are joined: a run costs two bytes.
const JOIN: usize = 4;

/// What a patch applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchBase {
    /// The image before the transaction.
    Previous,
    /// A page of zeros: the patch alone gives the image.
    Zeros,
}

/// The encoded runs of one page: skip, length, bytes; skip, length, bytes; …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// What it applies to.
    pub base: PatchBase,
    /// The runs.
    pub runs: Bytes,
    /// The checksum of the image that results.
    pub checksum: u32,
}

impl Patch {
    /// Applies the runs to an image. The caller checks the checksum of the result.
    pub fn apply(&self, image: &mut [u8]) -> Result<()> {
        if self.base == PatchBase::Zeros {
            image.fill(0);
        }
        apply_runs(&self.runs, image)
    }
}

pub(super) fn apply_runs(runs: &Bytes, image: &mut [u8]) -> Result<()> {
    let mut reader = Reader::new(runs);
    let mut at = 0usize;
    while !reader.is_empty() {
        let start = at.checked_add(reader.small()?).ok_or_else(outside)?;
        let len = reader.small()?;
        let bytes = reader.take(len)?;
        at = start.checked_add(len).ok_or_else(outside)?;
        image.get_mut(start..at).ok_or_else(outside)?.copy_from_slice(bytes);
    }
    Ok(())
}

fn outside() -> Error {
    Error::corrupt("a patch reaches past the end of the page")
}

/// The runs that turn `old` into `new`, both one page long. Empty when they are equal.
pub fn diff(old: &[u8], new: &[u8]) -> Vec<u8> {
    debug_assert!(old.len() == PAGE_SIZE && new.len() == PAGE_SIZE);
    let mut out = Vec::new();
    let mut done = 0;
    let mut at = next_difference(old, new, 0);
    while at < new.len() {
        let start = at;
        let mut end = start + 1;
        loop {
            while end < new.len() && old[end] != new[end] {
                end += 1;
            }
            at = next_difference(old, new, end);
            if at >= new.len() || at - end > JOIN {
                break;
            }
            end = at + 1;
        }
        varint::put(&mut out, (start - done) as u64);
        varint::put(&mut out, (end - start) as u64);
        out.extend_from_slice(&new[start..end]);
        done = end;
    }
    out
}

fn next_difference(old: &[u8], new: &[u8], from: usize) -> usize {
    let mut at = from;
    while at + 16 <= new.len() && old[at..at + 16] == new[at..at + 16] {
        at += 16;
    }
    while at < new.len() && old[at] == new[at] {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_patch_turns_one_image_into_the_other(
            seed in any::<u8>(),
            edits in prop::collection::vec((0usize..PAGE_SIZE, 1usize..90, any::<u8>()), 0..12),
        ) {
            let old = vec![seed; PAGE_SIZE];
            let mut new = old.clone();
            for (start, len, byte) in edits {
                let end = (start + len).min(PAGE_SIZE);
                new[start..end].fill(byte);
            }
            let runs = Bytes::from(diff(&old, &new));
            prop_assert_eq!(runs.is_empty(), old == new);
            let mut image = old;
            apply_runs(&runs, &mut image)?;
            prop_assert_eq!(image, new);
        }

        #[test]
        fn any_bytes_are_a_patch_or_an_error(runs in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut image = vec![0; PAGE_SIZE];
            let _either = apply_runs(&Bytes::from(runs), &mut image);
        }
    }
}
