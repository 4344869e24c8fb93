//! Garbage collection.

use litefleet::store::{CollectRequest, Collected, RowKind};
use litefleet::{DatabaseId, PageNo, PageRange, PageSet, Result, Txid};

use super::{EmbeddedStore, stored};
use crate::engine::Engine;
use crate::error::Outcome;
use crate::keys::{self, Table};
use crate::seal::row_kind;
use crate::values::HeadValue;
use crate::view::{Changes, Durability, Purpose, View};

/// The most records that one call deletes; the next call goes on.
const RECORDS_PER_CALL: u64 = 1 << 16;

impl EmbeddedStore {
    pub(super) fn collect_garbage(&self, request: &CollectRequest) -> Result<Collected> {
        let pages = self.limits().check_collect(request)?;
        Ok(self.write_pages(|engine, _| collect(engine, request, &pages))?)
    }
}

fn collect(engine: &Engine, request: &CollectRequest, pages: &PageSet) -> Outcome<Collected> {
    let view = engine.view();
    let id = request.database;
    let before = stored::head(&view, id)?;
    stored::fence(&before, request.epoch)?;
    let mut head = before.clone();
    let mut changes = engine.changes();
    raise_horizon(&view, &mut changes, request, &mut head)?;
    let mut rows = 0;
    for range in pages.ranges() {
        rows += collect_range(&view, &mut changes, id, range, head.horizon)?;
    }
    let through = request.log_through.min(head.horizon).min(Txid(head.log_start.get() + RECORDS_PER_CALL));
    let mut records = 0;
    if through > head.log_start {
        for txid in head.log_start.get() + 1..=through.get() {
            changes.remove(Table::Log, &keys::log(id, Txid(txid)));
            records += 1;
        }
        head.log_start = through;
    }
    if head != before {
        stored::put_head(&mut changes, id, &head);
    }
    changes.apply(Purpose::Free, Durability::Ordered)?;
    Ok(Collected { horizon: head.horizon, log_start: head.log_start, rows, records })
}

/// To the largest checkpoint that is allowed; those below it are forgotten.
fn raise_horizon(
    view: &View<'_>,
    changes: &mut Changes<'_>,
    request: &CollectRequest,
    head: &mut HeadValue,
) -> Outcome<()> {
    let before = head.horizon;
    let Some(horizon) = allowed(view, request, head)? else { return Ok(()) };
    head.horizon = horizon;
    // Those below the horizon as it was are forgotten, and the engine would walk over what is left of each.
    let first = keys::checkpoint(request.database, before);
    let last = keys::checkpoint(request.database, Txid(horizon.get() - 1));
    for entry in view.range(Table::Heads, &first, &last) {
        changes.remove(Table::Heads, &entry?.0);
    }
    Ok(())
}

/// The largest checkpoint above the horizon within both bounds. Found by bisection, since a database that is opened and
/// closed often has thousands within its retention, and each close collects. Where clocks made times fall, it may be a
/// smaller one, or none, until more checkpoints are made.
fn allowed(view: &View<'_>, request: &CollectRequest, head: &HeadValue) -> Outcome<Option<Txid>> {
    let mut found = None;
    // What is larger than what was found is from `low` to `high`. The first look is at the newest.
    let mut low = head.horizon.next();
    let mut high = request.at_most.min(head.checkpoint);
    let mut at = high;
    while low <= at {
        match newest_checkpoint(view, request.database, low, at)? {
            Some((txid, time)) if time <= request.completed_before.get() => {
                found = Some(txid);
                low = at.next();
            }
            Some((txid, _)) => high = Txid(txid.get() - 1),
            None => low = at.next(),
        }
        at = Txid(u64::midpoint(low.get(), high.get()));
    }
    Ok(found)
}

/// The newest checkpoint between two txids, and when it was completed.
fn newest_checkpoint(view: &View<'_>, id: DatabaseId, low: Txid, at: Txid) -> Outcome<Option<(Txid, u64)>> {
    let (first, last) = (keys::checkpoint(id, low), keys::checkpoint(id, at));
    let Some(entry) = view.range(Table::Heads, &first, &last).next_back() else { return Ok(None) };
    let (key, value) = entry?;
    let what = format!("a checkpoint of database {id}");
    let time = stored::number(&what, &key, &value)?;
    Ok(Some((Txid(keys::last_number(&key).unwrap_or_default()), time)))
}

/// The rows of one page as they are met.
struct Page {
    number: PageNo,
    rows: Vec<(Txid, RowKind)>,
}

fn collect_range(
    view: &View<'_>,
    changes: &mut Changes<'_>,
    id: DatabaseId,
    range: PageRange,
    horizon: Txid,
) -> Outcome<u64> {
    let first = keys::page(id, range.first, Txid(0));
    let last = keys::page(id, range.last, Txid::MAX);
    let mut removed = 0;
    let mut page: Option<Page> = None;
    for entry in view.range(Table::Pages, &first, &last) {
        let (key, value) = entry?;
        let (number, txid) = stored::page_and_txid(id, &key)?;
        let what = || format!("the row of page {number} at txid {txid} of database {id}");
        let (kind, _) = row_kind(what, &key, &value)?;
        match &mut page {
            Some(page) if page.number == number => page.rows.push((txid, kind)),
            _ => {
                removed += page.map_or(0, |page| page.collect(changes, id, horizon));
                page = Some(Page { number, rows: vec![(txid, kind)] });
            }
        }
    }
    removed += page.map_or(0, |page| page.collect(changes, id, horizon));
    Ok(removed)
}

impl Page {
    /// Removes what is dead of it.
    fn collect(&self, changes: &mut Changes<'_>, id: DatabaseId, horizon: Txid) -> u64 {
        let below = self.rows.partition_point(|(txid, _)| *txid <= horizon);
        let (below, above) = self.rows.split_at(below);
        let Some(((newest, kind), older)) = below.split_last() else {
            return 0;
        };
        let base = |kind: &RowKind| match kind {
            RowKind::Delta { base } => Some(*base),
            RowKind::Image | RowKind::Zero => None,
        };
        // A row above the horizon may be based on any that is not.
        let kept: Vec<Txid> = above.iter().map(|(_, kind)| kind).chain([kind]).filter_map(base).collect();
        let mut dead: Vec<Txid> = older.iter().map(|(txid, _)| *txid).collect();
        dead.retain(|txid| !kept.contains(txid));
        // A zero row must stay while an older row does: without it that one would be read in its place.
        if *kind == RowKind::Zero && dead.len() == older.len() {
            dead.push(*newest);
        }
        for txid in &dead {
            changes.remove(Table::Pages, &keys::page(id, self.number, *txid));
        }
        dead.len() as u64
    }
}
