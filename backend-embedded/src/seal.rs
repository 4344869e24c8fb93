//! Values carry a version, and a checksum that is bound to their key: moved bytes fail as flipped ones do.

use litefleet::store::RowKind;
use litefleet::{Error, Result, Txid};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// The version of every value.
const VERSION: u8 = 1;

/// Version, checksum, body.
pub(crate) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(9 + body.len());
    out.push(VERSION);
    out.extend_from_slice(&checksum(key, VERSION, body).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// The body, when version and checksum are right. `what` names the value.
pub(crate) fn unseal<'a>(what: &str, key: &[u8], value: &'a [u8]) -> Result<&'a [u8]> {
    let Some((version, rest)) = value.split_first() else {
        return Err(damaged(what));
    };
    if let Some((sum, body)) = rest.split_first_chunk::<8>()
        && u64::from_le_bytes(*sum) == checksum(key, *version, body)
    {
        if *version != VERSION {
            return Err(Error::invalid(format!("{what} has version {version}; this release reads version {VERSION}")));
        }
        return Ok(body);
    }
    Err(damaged(what))
}

fn checksum(key: &[u8], version: u8, body: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(xxh3_64(key));
    hash.update(&[version]);
    hash.update(body);
    hash.digest()
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("{what} fails its check"))
}

/// What stands before the bytes of a row: version and kind in one byte, a checksum of them, and the base of a delta.
/// The bytes that follow have their own checksum, by the engine above.
pub(crate) fn row_value(key: &[u8], kind: RowKind, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(13 + bytes.len());
    let (tag, base) = match kind {
        RowKind::Image => (0, None),
        RowKind::Delta { base } => (1, Some(base.get().to_le_bytes())),
        RowKind::Zero => (2, None),
    };
    let base = base.as_ref().map_or(&[][..], |base| base);
    let tag = VERSION << 4 | tag;
    out.push(tag);
    out.extend_from_slice(&row_checksum(key, tag, base));
    out.extend_from_slice(base);
    out.extend_from_slice(bytes);
    out
}

/// The kind of a row, and where its bytes begin.
pub(crate) fn row_kind(what: impl Fn() -> String, key: &[u8], value: &[u8]) -> Result<(RowKind, usize)> {
    let parse = || {
        let (tag, rest) = value.split_first()?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        let (base, kind) = match tag & 0x0f {
            0 => (&[][..], RowKind::Image),
            1 => {
                let base = rest.first_chunk::<8>()?;
                let kind = RowKind::Delta { base: Txid(u64::from_le_bytes(*base)) };
                (&base[..], kind)
            }
            2 => (&[][..], RowKind::Zero),
            _ => return None,
        };
        (*sum == row_checksum(key, *tag, base)).then_some((*tag >> 4, kind, 5 + base.len()))
    };
    match parse() {
        Some((VERSION, kind, start)) => Ok((kind, start)),
        Some((version, ..)) => {
            Err(Error::invalid(format!("{} has version {version}; this release reads version {VERSION}", what())))
        }
        None => Err(damaged(&what())),
    }
}

fn row_checksum(key: &[u8], tag: u8, base: &[u8]) -> [u8; 4] {
    let mut hash = Xxh3::with_seed(xxh3_64_with_seed(key, 1));
    hash.update(&[tag]);
    hash.update(base);
    let [a, b, c, d, ..] = hash.digest().to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use litefleet::ErrorKind;

    #[test]
    fn flipped_or_moved_values_fail_their_check() {
        let sealed = seal(b"here", b"body");
        assert_eq!(unseal("it", b"here", &sealed).unwrap(), b"body");
        assert!(unseal("it", b"there", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = unseal("it", b"here", &flipped).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(unseal("it", b"here", &sealed[..cut]).is_err());
        }
    }

    #[test]
    fn a_row_keeps_its_kind() {
        let kinds = [RowKind::Image, RowKind::Zero, RowKind::Delta { base: Txid(7) }];
        for kind in kinds {
            let value = row_value(b"here", kind, b"bytes");
            let (read, start) = row_kind(String::new, b"here", &value).unwrap();
            assert_eq!((read, &value[start..]), (kind, &b"bytes"[..]));
            assert!(row_kind(String::new, b"there", &value).is_err());
            for bit in 0..start * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(row_kind(String::new, b"here", &flipped).is_err(), "bit {bit}");
            }
        }
    }
}
