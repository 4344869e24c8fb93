//! Reading page rows.

use litefleet::store::{Lineage, PageRow, PagesReply, ReadRow, RowKind};
use litefleet::{DatabaseId, Error, PageNo, PageRange, Result, Txid};

use super::{EmbeddedStore, stored};
use crate::error::{Fault, Outcome};
use crate::keys::{self, Table};
use crate::view::View;

/// From so many neighbouring pages on they are read by one walk instead of one search each.
const WALK_PAGES: u64 = 3;
/// A walk that has met so many rows per page of its range is given up for searches: it mostly meets old versions.
const WALK_ROWS_PER_PAGE: u64 = 4;

/// Says where it was that something could not be read: the engine knows only its own files.
fn name_place<T>(outcome: Outcome<T>, place: impl FnOnce() -> String) -> Outcome<T> {
    outcome.map_err(|fault| match fault {
        Fault::Read(_) => Fault::Refused(Error::from(fault).context(place())),
        fault => fault,
    })
}

fn name_page<T>(outcome: Outcome<T>, page: PageNo, at: Txid) -> Outcome<T> {
    name_place(outcome, || format!("page {page} at or below txid {at}"))
}

/// The newest row of a page at or below `at`.
fn newest(view: &View<'_>, id: DatabaseId, page: PageNo, at: Txid) -> Outcome<Option<PageRow>> {
    let first = keys::page(id, page, Txid(0));
    let last = keys::page(id, page, at);
    match view.range(Table::Pages, &first, &last).next_back() {
        Some(entry) => {
            let (key, value) = name_page(entry, page, at)?;
            Ok(Some(stored::row(id, &key, &value)?))
        }
        None => Ok(None),
    }
}

/// The row, and the base that it needs.
fn push(view: &View<'_>, id: DatabaseId, row: PageRow, out: &mut Vec<ReadRow>) -> Outcome<()> {
    let base = match row.kind {
        RowKind::Delta { base } => {
            let key = keys::page(id, row.page, base);
            match name_page(view.get(Table::Pages, &key), row.page, base)? {
                Some(value) => Some(stored::row(id, &key, &value)?),
                None => None,
            }
        }
        RowKind::Image | RowKind::Zero => None,
    };
    out.push(ReadRow { database: id, row });
    out.extend(base.map(|row| ReadRow { database: id, row }));
    Ok(())
}

/// The newest row of a page at or below `at`, and its base. False when there is none.
pub(super) fn read_row(
    view: &View<'_>,
    id: DatabaseId,
    page: PageNo,
    at: Txid,
    out: &mut Vec<ReadRow>,
) -> Outcome<bool> {
    match newest(view, id, page, at)? {
        Some(row) => push(view, id, row, out).map(|()| true),
        None => Ok(false),
    }
}

/// The same for all pages of a range, in one walk. A page when the walk was given up: from that one on, the pages are still
/// to be read. So it is where something cannot be read: the search for each page tells which.
fn walk(
    view: &View<'_>,
    id: DatabaseId,
    range: PageRange,
    at: Txid,
    out: &mut Vec<ReadRow>,
) -> Outcome<Option<PageNo>> {
    let bound = range.count().saturating_mul(WALK_ROWS_PER_PAGE);
    let first = keys::page(id, range.first, Txid(0));
    let last = keys::page(id, range.last, at);
    let mut found: Option<PageRow> = None;
    let mut unread = range.first;
    for (met, entry) in (0..).zip(view.range(Table::Pages, &first, &last)) {
        let Ok((key, value)) = entry else { return Ok(Some(unread)) };
        let (page, txid) = stored::page_and_txid(id, &key)?;
        if found.as_ref().is_some_and(|row| row.page != page)
            && let Some(row) = found.take()
        {
            push(view, id, row, out)?;
        }
        unread = page;
        if met >= bound {
            return Ok(Some(page));
        }
        if txid <= at {
            found = Some(stored::row(id, &key, &value)?);
        }
    }
    if let Some(row) = found {
        push(view, id, row, out)?;
    }
    Ok(None)
}

fn read_range(view: &View<'_>, id: DatabaseId, range: PageRange, at: Txid, out: &mut Vec<ReadRow>) -> Outcome<()> {
    let mut rest = Some(range.first);
    if range.count() >= WALK_PAGES {
        rest = walk(view, id, range, at, out)?;
    }
    if let Some(first) = rest {
        for page in PageRange::new(first, range.last).pages() {
            read_row(view, id, page, at, out)?;
        }
    }
    Ok(())
}

impl EmbeddedStore {
    pub(super) fn read_page_rows(
        &self,
        lineage: &[Lineage],
        ranges: &[PageRange],
        snapshot: Txid,
    ) -> Result<PagesReply> {
        let wanted = self.limits().check_read(ranges)?;
        self.read(|engine| {
            let view = engine.view();
            let mut databases = Vec::with_capacity(lineage.len());
            let (mut horizon, mut own) = (Txid(0), None);
            for entry in lineage {
                let at = snapshot.min(entry.max_txid);
                let head = stored::head(&view, entry.database)?;
                if at < head.horizon {
                    return Err(Error::snapshot_too_old(format!(
                        "snapshot {at} is below the horizon {}",
                        head.horizon
                    ))
                    .into());
                }
                horizon = horizon.max(head.horizon);
                own.get_or_insert((head.checkpoint, head.txid));
                databases.push((entry.database, at));
            }
            let (checkpoint, head) = own.unwrap_or_default();
            let reply = |rows| PagesReply { rows, horizon, checkpoint, head: Some(head) };
            let mut rows = Vec::new();
            if let [(id, at)] = databases[..] {
                for range in wanted.ranges() {
                    read_range(&view, id, range, at, &mut rows)?;
                }
                return Ok(reply(rows));
            }
            for page in wanted.pages() {
                for (id, at) in &databases {
                    if read_row(&view, *id, page, *at, &mut rows)? {
                        break;
                    }
                }
            }
            Ok(reply(rows))
        })
    }

    pub(super) fn scan_rows(
        &self,
        id: DatabaseId,
        after: Option<(PageNo, Txid)>,
        limit: usize,
    ) -> Result<Vec<PageRow>> {
        self.read(|engine| {
            let view = engine.view();
            stored::head(&view, id)?;
            let first = match after {
                Some((page, txid)) => keys::page(id, page, txid),
                None => keys::page(id, PageNo(0), Txid(0)),
            };
            let last = keys::page(id, PageNo(u32::MAX), Txid::MAX);
            let skipped = after.map(|_| first);
            let mut rows = Vec::new();
            for entry in view.range(Table::Pages, &first, &last) {
                if rows.len() >= limit {
                    break;
                }
                let last = rows.last().map(|row: &PageRow| (row.page, row.txid)).or(after);
                let place = || match last {
                    Some((page, txid)) => format!("the row after that of page {page} as of txid {txid}"),
                    None => "the first row".to_owned(),
                };
                let (key, value) = name_place(entry, place)?;
                if skipped.is_none_or(|skipped| key[..] != skipped) {
                    rows.push(stored::row(id, &key, &value)?);
                }
            }
            Ok(rows)
        })
    }
}
