//! Page rows as columns, and back.

use bytes::Bytes;
use litefleet::store::{PageRow, ReadRow, RowKind};
use litefleet::{DatabaseId, PageNo, Txid};

use crate::error::{Fault, Outcome};
use crate::wire::{Param, bigints, blobs, int, maybe_bigints, smallints};

const ZERO: i16 = 0;
const IMAGE: i16 = 1;
const DELTA: i16 = 2;

pub(super) fn kind_code(kind: RowKind) -> i16 {
    match kind {
        RowKind::Zero => ZERO,
        RowKind::Image => IMAGE,
        RowKind::Delta { .. } => DELTA,
    }
}

fn base(kind: RowKind) -> Option<u64> {
    match kind {
        RowKind::Delta { base } => Some(base.get()),
        RowKind::Image | RowKind::Zero => None,
    }
}

/// The rows as four columns: pages, kinds, bases, bytes. In order of page, so that two writers of the same rows wait for
/// each other in one order.
pub(super) fn columns(mut rows: Vec<PageRow>) -> [Param; 4] {
    rows.sort_unstable_by_key(|row| row.page);
    [
        bigints(rows.iter().map(|row| row.page.get().into())),
        smallints(rows.iter().map(|row| kind_code(row.kind))),
        maybe_bigints(rows.iter().map(|row| base(row.kind))),
        blobs(rows.into_iter().map(|row| row.bytes)),
    ]
}

/// A stored row as it comes.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) page: u64,
    pub(super) txid: u64,
    pub(super) kind: i16,
    pub(super) base: Option<u64>,
    pub(super) bytes: Bytes,
}

impl Stored {
    pub(super) fn row(self) -> Outcome<PageRow> {
        let kind = match (self.kind, self.base) {
            (ZERO, None) => RowKind::Zero,
            (IMAGE, None) => RowKind::Image,
            (DELTA, Some(base)) => RowKind::Delta { base: Txid(base) },
            _ => return Err(litefleet::Error::corrupt("a page row is of no known kind").into()),
        };
        let page = u32::try_from(self.page).map_err(|_| Fault::Malformed("a page number past the largest"))?;
        Ok(PageRow { page: PageNo(page), txid: Txid(self.txid), kind, bytes: self.bytes })
    }
}

/// A row, and the image that it is based on when it is a delta.
pub(super) fn push(
    database: DatabaseId,
    stored: Stored,
    base_bytes: Option<Bytes>,
    out: &mut Vec<ReadRow>,
) -> Outcome<()> {
    let row = stored.row()?;
    let base = match (row.kind, base_bytes) {
        (RowKind::Delta { base }, Some(bytes)) => {
            Some(PageRow { page: row.page, txid: base, kind: RowKind::Image, bytes })
        }
        _ => None,
    };
    out.push(ReadRow { database, row });
    out.extend(base.map(|row| ReadRow { database, row }));
    Ok(())
}

/// For ranges as two columns.
pub(super) fn ranges(pages: &litefleet::PageSet) -> [Param; 2] {
    let runs: Vec<_> = pages.ranges().collect();
    [bigints(runs.iter().map(|run| run.first.get().into())), bigints(runs.iter().map(|run| run.last.get().into()))]
}

/// The snapshot at which each database of a lineage counts.
pub(super) fn at(snapshot: Txid, most: Txid) -> u64 {
    u64::try_from(int(snapshot.min(most).get())).unwrap_or_default()
}
