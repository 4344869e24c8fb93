//! The bodies of the sealed values. Numbers are little-endian; `docs/format-embedded.md` gives them byte by byte.

use litefleet::store::{EpochEnd, Pieces};
use litefleet::{CommitId, Epoch, Error, PageNo, PageRange, PageSet, Result, SessionId, Txid, UnixMillis};

/// What is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Staging {
    /// Nothing.
    None,
    /// A transaction, under the head's generation.
    Open,
    /// A transaction that is being discarded; its entries stand under this generation.
    Discarding(u64),
}

/// A stored head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadValue {
    pub(crate) epoch: Epoch,
    pub(crate) holder: Option<SessionId>,
    pub(crate) txid: Txid,
    pub(crate) commit_id: CommitId,
    pub(crate) size: u64,
    pub(crate) checkpoint: Txid,
    pub(crate) horizon: Txid,
    /// All records after it are there.
    pub(crate) log_start: Txid,
    pub(crate) generation: u64,
    pub(crate) staging: Staging,
    /// Staging entries of finished transactions are left over, and only take room.
    pub(crate) stale_entries: bool,
}

impl HeadValue {
    pub(crate) fn empty() -> Self {
        Self {
            epoch: Epoch(0),
            holder: None,
            txid: Txid(0),
            commit_id: CommitId::default(),
            size: 0,
            checkpoint: Txid(0),
            horizon: Txid(0),
            log_start: Txid(0),
            generation: 0,
            staging: Staging::None,
            stale_entries: false,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (staging, discarding) = match self.staging {
            Staging::None => (0, 0),
            Staging::Open => (1, 0),
            Staging::Discarding(generation) => (2, generation),
        };
        let flags = u8::from(self.holder.is_some()) | u8::from(self.stale_entries) << 1;
        let mut out = Vec::with_capacity(106);
        out.extend([flags, staging]);
        for number in [
            self.epoch.get(),
            self.txid.get(),
            self.size,
            self.checkpoint.get(),
            self.horizon.get(),
            self.log_start.get(),
            self.generation,
            discarding,
        ] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.commit_id.bytes());
        if let Some(holder) = self.holder {
            out.extend(holder.bytes());
        }
        out
    }

    pub(crate) fn decode(what: &str, body: &[u8]) -> Result<Self> {
        let mut input = Input { what, rest: body };
        let [flags, staging] = input.take()?;
        let mut value = Self {
            epoch: Epoch(input.number()?),
            txid: Txid(input.number()?),
            size: input.number()?,
            checkpoint: Txid(input.number()?),
            horizon: Txid(input.number()?),
            log_start: Txid(input.number()?),
            generation: input.number()?,
            ..Self::empty()
        };
        let discarding = input.number()?;
        value.staging = match staging {
            0 => Staging::None,
            1 => Staging::Open,
            2 => Staging::Discarding(discarding),
            _ => return Err(input.malformed()),
        };
        value.commit_id = CommitId(input.take()?);
        if flags & 1 != 0 {
            value.holder = Some(SessionId(input.take()?));
        }
        value.stale_entries = flags & 2 != 0;
        input.end()?;
        Ok(value)
    }
}

/// The end of an epoch, and when it was.
pub(crate) fn encode_end(end: &EpochEnd, at: UnixMillis) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend(end.txid.get().to_le_bytes());
    out.extend(end.commit_id.bytes());
    out.extend(at.get().to_le_bytes());
    out
}

pub(crate) fn decode_end(what: &str, epoch: Epoch, body: &[u8]) -> Result<EpochEnd> {
    let mut input = Input { what, rest: body };
    let end = EpochEnd { epoch, txid: Txid(input.number()?), commit_id: CommitId(input.take()?) };
    input.number()?;
    input.end()?;
    Ok(end)
}

pub(crate) fn encode_number(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

pub(crate) fn decode_number(what: &str, body: &[u8]) -> Result<u64> {
    let mut input = Input { what, rest: body };
    let number = input.number()?;
    input.end()?;
    Ok(number)
}

pub(crate) fn encode_pieces(pieces: Pieces) -> Vec<u8> {
    let Pieces { epoch, attempt, txid, count } = pieces;
    [epoch.get(), attempt, txid.get(), count].into_iter().flat_map(u64::to_le_bytes).collect()
}

pub(crate) fn decode_pieces(what: &str, body: &[u8]) -> Result<Pieces> {
    let mut input = Input { what, rest: body };
    let (epoch, attempt) = (Epoch(input.number()?), input.number()?);
    let pieces = Pieces { epoch, attempt, txid: Txid(input.number()?), count: input.number()? };
    input.end()?;
    Ok(pieces)
}

/// The pages of a staging entry, or the warm ones, as runs.
pub(crate) fn encode_pages(pages: &PageSet) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 * pages.run_count());
    for range in pages.ranges() {
        out.extend(range.first.get().to_le_bytes());
        out.extend(range.last.get().to_le_bytes());
    }
    out
}

pub(crate) fn decode_pages(what: &str, body: &[u8]) -> Result<PageSet> {
    let mut input = Input { what, rest: body };
    let mut pages = PageSet::new();
    while !input.rest.is_empty() {
        let first = PageNo(u32::from_le_bytes(input.take()?));
        let last = PageNo(u32::from_le_bytes(input.take()?));
        if first > last {
            return Err(input.malformed());
        }
        pages.insert_range(PageRange::new(first, last));
    }
    Ok(pages)
}

struct Input<'a> {
    what: &'a str,
    rest: &'a [u8],
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.malformed());
        };
        self.rest = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    fn malformed(&self) -> Error {
        Error::corrupt(format!("{} is malformed", self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let mut head = HeadValue {
            epoch: Epoch(3),
            holder: Some(SessionId([7; 16])),
            txid: Txid(99),
            commit_id: CommitId([9; 16]),
            size: 8192,
            checkpoint: Txid(90),
            horizon: Txid(80),
            log_start: Txid(79),
            generation: 5,
            staging: Staging::Discarding(4),
            stale_entries: true,
        };
        for staging in [Staging::None, Staging::Open, Staging::Discarding(4)] {
            head.staging = staging;
            let body = head.encode();
            assert_eq!(HeadValue::decode("it", &body).unwrap(), head);
            assert!(HeadValue::decode("it", &body[1..]).is_err());
            assert!(HeadValue::decode("it", &body[..body.len() - 1]).is_err());
        }
        let pieces = Pieces { epoch: Epoch(3), attempt: 5, txid: Txid(99), count: 7 };
        assert_eq!(decode_pieces("it", &encode_pieces(pieces)).unwrap(), pieces);
        assert!(decode_pieces("it", &encode_pieces(pieces)[1..]).is_err());
        let pages: PageSet = [1, 2, 3, 9, 11, 12].into_iter().map(PageNo).collect();
        assert_eq!(decode_pages("it", &encode_pages(&pages)).unwrap(), pages);
    }
}
