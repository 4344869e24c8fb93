//! Commit records as they are stored: with the commit's id before them, so that a lost reply can be made up for, and cut
//! into pieces under successive keys where they are larger than one value.

use bytes::{Bytes, BytesMut};
use litefleet::store::LogRow;
use litefleet::{CommitId, Error, Result, Txid};

/// The most bytes of a record in one value. FoundationDB allows 100,000 bytes in all, and advises 10,000 for speed;
/// larger pieces make fewer keys, and only large records have more than one.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// The most bytes of a record that its pieces can be numbered for.
pub(crate) const MAX_RECORD_BYTES: usize = PIECE_BYTES * 255;

const WHOLE: u8 = 1;
const PIECES: u8 = 2;

/// The values of a record. The first says whose it is, and whether it is all, or how many bytes all pieces have.
pub(crate) fn cut(id: CommitId, record: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = record.chunks(PIECE_BYTES);
    let first = pieces.next().unwrap_or_default();
    let mut value = Vec::with_capacity(first.len() + 21);
    let whole = record.len() <= PIECE_BYTES;
    value.push(if whole { WHOLE } else { PIECES });
    value.extend_from_slice(&id.bytes());
    if !whole {
        value.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    value.extend_from_slice(first);
    let mut values = vec![value];
    values.extend(pieces.map(<[u8]>::to_vec));
    values
}

/// Whose a record is, by its first piece.
pub(crate) fn commit_of(value: &[u8]) -> Option<CommitId> {
    value.get(1..)?.first_chunk::<16>().map(|id| CommitId(*id))
}

/// Puts records together, from pieces in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    rows: Vec<LogRow>,
    bytes: usize,
    /// The record that lacks pieces: its txid, its bytes so far, its length, and the next piece's number.
    open: Option<(Txid, BytesMut, usize, u8)>,
}

impl Assembler {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, txid: Txid, piece: u8, value: &[u8]) -> Result<()> {
        let corrupt = |why: &str| Error::corrupt(format!("the record of txid {txid}: {why}"));
        if piece > 0 {
            let Some((of, record, length, next)) = &mut self.open else {
                return Err(corrupt("a piece without a beginning"));
            };
            if *of != txid || *next != piece || record.len() + value.len() > *length {
                return Err(corrupt("a piece in the wrong place"));
            }
            record.extend_from_slice(value);
            *next = next.saturating_add(1);
        } else {
            if self.open.is_some() {
                return Err(corrupt("the record before it lacks pieces"));
            }
            let (kind, rest) = value.split_first().ok_or_else(|| corrupt("it is cut off"))?;
            let rest = rest.get(16..).ok_or_else(|| corrupt("it is cut off"))?;
            match *kind {
                WHOLE => self.close(txid, Bytes::copy_from_slice(rest)),
                PIECES => {
                    let (length, first) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("it is cut off"))?;
                    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    if length > MAX_RECORD_BYTES || first.len() > length {
                        return Err(corrupt("its length cannot be"));
                    }
                    self.open = Some((txid, BytesMut::from(first), length, 1));
                }
                _ => return Err(corrupt("its format is unknown, or newer than this program")),
            }
        }
        if let Some((txid, record, length, _)) = self.open.take_if(|(_, record, length, _)| record.len() == *length) {
            debug_assert_eq!(record.len(), length);
            self.close(txid, record.freeze());
        }
        Ok(())
    }

    fn close(&mut self, txid: Txid, record: Bytes) {
        self.bytes += record.len();
        self.rows.push(LogRow { txid, record });
    }

    /// Takes the records of the next stretch of the log. Only the last may lack pieces.
    pub(crate) fn append(&mut self, next: Self) {
        debug_assert!(self.open.is_none());
        self.rows.extend(next.rows);
        self.bytes += next.bytes;
        self.open = next.open;
    }

    /// The last whole record.
    pub(crate) fn last(&self) -> Option<Txid> {
        self.rows.last().map(|row| row.txid)
    }

    /// Bytes of the whole records so far, and of the one that lacks pieces.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.open.as_ref().map_or(0, |(_, record, _, _)| record.len())
    }

    /// Whether a record lacks pieces.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// How many whole records there are.
    pub(crate) fn count(&self) -> usize {
        self.rows.len()
    }

    /// The whole records.
    pub(crate) fn rows(self) -> Vec<LogRow> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_pieces_below_the_limit() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 5 * PIECE_BYTES + 7] {
            let record: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let values = cut(CommitId([3; 16]), &record);
            assert_eq!(commit_of(values.first().unwrap()), Some(CommitId([3; 16])));
            assert!(values.iter().all(|value| value.len() < 100_000));
            let mut assembler = Assembler::default();
            for (piece, value) in (0..).zip(&values) {
                assembler.push(Txid(9), piece, value).unwrap();
                assert_eq!(assembler.is_open(), usize::from(piece) + 1 < values.len());
            }
            assert_eq!(assembler.bytes(), length);
            assert_eq!(assembler.rows(), [LogRow { txid: Txid(9), record: record.into() }]);
        }
    }

    #[test]
    fn pieces_out_of_place_are_found() {
        let large = cut(CommitId([3; 16]), &vec![7; 2 * PIECE_BYTES + 1]);
        let whole = cut(CommitId([3; 16]), b"x");
        let open = || {
            let mut assembler = Assembler::default();
            assembler.push(Txid(1), 0, large.first().unwrap()).unwrap();
            assembler
        };
        assert!(open().push(Txid(1), 2, b"x").is_err());
        assert!(open().push(Txid(2), 1, b"x").is_err());
        assert!(open().push(Txid(2), 0, whole.first().unwrap()).is_err());
        assert!(open().push(Txid(1), 1, &vec![0; 2 * PIECE_BYTES]).is_err());
        assert!(Assembler::default().push(Txid(1), 1, b"x").is_err());
        assert!(Assembler::default().push(Txid(1), 0, b"").is_err());
        for cut in 0..21 {
            let value = large.first().unwrap().get(..cut).unwrap();
            assert!(Assembler::default().push(Txid(1), 0, value).is_err());
        }
        let mut unknown = whole.first().unwrap().clone();
        *unknown.first_mut().unwrap() = 9;
        assert!(Assembler::default().push(Txid(1), 0, &unknown).is_err());
    }
}
