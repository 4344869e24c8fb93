//! LEB128 numbers and a reader that cannot run past its end.

use bytes::Bytes;

use crate::error::{Error, Result};

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// Reads from the front of a byte string; every read checks the bounds.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or_else(short)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(short)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| short())
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::corrupt("a number of more than 64 bits"))
    }

    pub(super) fn small(&mut self) -> Result<usize> {
        usize::try_from(self.number()?).map_err(|_| short())
    }

    pub(super) fn page(&mut self, before: u32) -> Result<u32> {
        let delta = u32::try_from(self.number()?).map_err(|_| Error::corrupt("a page number of more than 32 bits"))?;
        before.checked_add(delta).ok_or_else(|| Error::corrupt("a page number of more than 32 bits"))
    }
}

fn short() -> Error {
    Error::corrupt("the bytes end too early")
}
