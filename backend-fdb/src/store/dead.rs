//! Which rows of a page nobody can read any more. Most pages have few rows, and neighbours share a reply; where there are
//! many versions, each page is looked at alone, as far as one transaction gets in its time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use litefleet::store::RowKind;
use litefleet::{DatabaseId, PageNo, PageRange, Result, Txid};

use super::FdbStore;
use crate::error::Outcome;
use crate::keys::{Range, after_key};
use crate::transact::{Piece, Tx};
use crate::values::decode_row;

/// How many pages are looked at alone at once.
const AT_ONCE: usize = 16;
/// From then on no page is begun that would be looked at alone.
const BEGIN: Duration = Duration::from_secs(1);
/// From then on what is below the horizon is not read any further: what was read can be deleted first.
const TURN: Duration = Duration::from_millis(1_500);
/// From then on nothing is: FoundationDB allows five seconds, and the commit is still to come.
const STOP: Duration = Duration::from_millis(2_500);

/// What the rows of a page are, oldest first.
type Kinds = Vec<(Txid, RowKind)>;

/// Dead rows of a page that no other row stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) page: PageNo,
    pub(super) first: Txid,
    pub(super) last: Txid,
    pub(super) rows: u64,
}

/// What was found of some pages.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) dead: Vec<Dead>,
    /// Pages that another transaction must look at.
    pub(super) left: BTreeSet<PageNo>,
}

/// The rows of neighbouring pages, as many as one reply holds.
pub(super) struct Run {
    whole: BTreeMap<PageNo, Kinds>,
    /// Pages with more rows than that.
    others: Option<PageRange>,
}

/// The rows of one page, as far as they were read.
#[derive(Debug, Default)]
struct Rows {
    /// Up to the horizon, oldest first.
    below: Kinds,
    /// Whether these are all of them.
    all_below: bool,
    /// What those above it are based on. `None` when not all of them were read.
    bases: Option<BTreeSet<Txid>>,
}

impl FdbStore {
    /// The rows of a run of pages, those above the horizon included. Their bytes come along: FoundationDB cannot leave
    /// them out.
    pub(super) async fn run_of_kinds(&self, tx: &Tx, database: DatabaseId, pages: PageRange) -> Outcome<Run> {
        let piece = tx.peek_range(&self.keys.rows(database, pages.first, pages.last), 0).await?;
        let mut whole: BTreeMap<PageNo, Kinds> = BTreeMap::new();
        for (page, row) in self.kinds(database, &piece)? {
            whole.entry(page).or_default().push(row);
        }
        let cut = piece.more.then(|| whole.pop_last().map_or(pages.first, |(page, _)| page));
        Ok(Run { whole, others: cut.map(|first| PageRange::new(first, pages.last)) })
    }

    fn kinds(&self, database: DatabaseId, piece: &Piece) -> Result<Vec<(PageNo, (Txid, RowKind))>> {
        let kind = |pair: &crate::transact::Pair| {
            let (page, txid) = self.keys.row_in(database, pair.key())?;
            Ok((page, (txid, decode_row(pair.value())?.0)))
        };
        piece.pairs().iter().map(kind).collect()
    }

    /// The dead rows of the pages of some runs. `begun` is when the transaction was.
    pub(super) async fn dead_rows(
        &self,
        tx: &Tx,
        database: DatabaseId,
        runs: Vec<Run>,
        horizon: Txid,
        begun: Duration,
    ) -> Outcome<Looked> {
        let mut looked = Looked::default();
        let mut alone = Vec::new();
        for run in runs {
            for (page, kinds) in run.whole {
                looked.dead.extend(dead(page, &Rows::of(kinds, horizon)));
            }
            alone.extend(run.others.into_iter().flat_map(PageRange::pages));
        }
        let look = |(index, page): (usize, PageNo)| async move {
            // The first is looked at in any case: so there is no transaction that gets nowhere.
            if index > 0 && self.cluster.now() >= begun + BEGIN {
                return Ok((page, None));
            }
            self.rows_of(tx, database, page, horizon, begun).await.map(|rows| (page, Some(rows)))
        };
        let found = stream::iter(alone.into_iter().enumerate().map(look)).buffered(AT_ONCE);
        let found: Vec<(PageNo, Option<Rows>)> = found.try_collect().await?;
        for (page, rows) in found {
            let Some(rows) = rows else {
                looked.left.insert(page);
                continue;
            };
            let dead = dead(page, &rows);
            if !rows.all_below && !dead.is_empty() {
                looked.left.insert(page);
            }
            if rows.bases.is_none() {
                tracing::debug!(%database, %page, "more versions than one transaction can look at: some garbage stays");
            }
            looked.dead.extend(dead);
        }
        Ok(looked)
    }

    /// The rows of a page that has many. Those above the horizon are read only when one below may be garbage, unless it
    /// is what one of them is based on.
    async fn rows_of(
        &self,
        tx: &Tx,
        database: DatabaseId,
        page: PageNo,
        horizon: Txid,
        begun: Duration,
    ) -> Outcome<Rows> {
        let mut rows = Rows::default();
        let mut range = self.keys.rows_up_to(database, page, horizon);
        loop {
            let piece = tx.peek_back(&range, 0).await?;
            rows.below.extend(self.kinds(database, &piece)?.into_iter().map(|(_, row)| row));
            rows.all_below = !piece.more;
            match piece.pairs().last() {
                Some(last) if piece.more && self.cluster.now() < begun + TURN => range.1 = last.key().to_vec(),
                _ => break,
            }
        }
        rows.below.reverse();
        if rows.all_below && !rows.may_have_dead() {
            rows.bases = Some(BTreeSet::new());
            return Ok(rows);
        }
        let mut range = self.above(database, page, horizon);
        let mut bases = BTreeSet::new();
        loop {
            if self.cluster.now() >= begun + STOP {
                return Ok(rows);
            }
            let piece = tx.peek_range(&range, 0).await?;
            bases.extend(self.kinds(database, &piece)?.into_iter().filter_map(|(_, (_, kind))| base(kind)));
            match piece.pairs().last() {
                Some(last) if piece.more => range.0 = after_key(last.key().to_vec()),
                _ => break,
            }
        }
        rows.bases = Some(bases);
        Ok(rows)
    }

    fn above(&self, database: DatabaseId, page: PageNo, horizon: Txid) -> Range {
        let (_, end) = self.keys.rows(database, page, page);
        (after_key(self.keys.row(database, page, horizon)), end)
    }

    /// The keys of dead rows.
    pub(super) fn range_of(&self, database: DatabaseId, dead: &Dead) -> Range {
        let last = self.keys.row(database, dead.page, dead.last);
        (self.keys.row(database, dead.page, dead.first), after_key(last))
    }
}

impl Rows {
    /// All rows of a page.
    fn of(mut below: Kinds, horizon: Txid) -> Self {
        let above = below.split_off(below.partition_point(|(txid, _)| *txid <= horizon));
        let bases = above.into_iter().filter_map(|(_, kind)| base(kind)).collect();
        Self { below, all_below: true, bases: Some(bases) }
    }

    /// Whether any of these may be dead, when all up to the horizon were read.
    fn may_have_dead(&self) -> bool {
        let Some(((_, newest), older)) = self.below.split_last() else { return false };
        *newest == RowKind::Zero || older.iter().any(|(txid, _)| base(*newest) != Some(*txid))
    }
}

fn base(kind: RowKind) -> Option<Txid> {
    match kind {
        RowKind::Delta { base } => Some(base),
        RowKind::Image | RowKind::Zero => None,
    }
}

/// The rows of a page that nobody can read any more, as far as that can be told.
fn dead(page: PageNo, rows: &Rows) -> Vec<Dead> {
    let Some(((txid, newest), older)) = rows.below.split_last() else { return Vec::new() };
    let based_on = |txid: &Txid| rows.bases.as_ref().is_none_or(|bases| bases.contains(txid));
    let needed = |(txid, kind): &(Txid, RowKind)| {
        // Only images are bases.
        base(*newest) == Some(*txid) || *kind == RowKind::Image && based_on(txid)
    };
    // A zero row must stay while an older row does: without it that one would be read in its place.
    let hides = *newest != RowKind::Zero || !rows.all_below || older.iter().any(needed);
    let mut dead: Vec<Dead> = Vec::new();
    let mut joins = false;
    for row in older.iter().chain((!hides).then_some(&(*txid, *newest))) {
        if row.0 < *txid && needed(row) {
            joins = false;
            continue;
        }
        match dead.last_mut().filter(|_| joins) {
            Some(last) => (last.last, last.rows) = (row.0, last.rows + 1),
            None => dead.push(Dead { page, first: row.0, last: row.0, rows: 1 }),
        }
        joins = true;
    }
    dead
}

/// Reads some runs.
pub(super) async fn read_runs(store: &FdbStore, tx: &Tx, id: DatabaseId, pages: &[PageRange]) -> Outcome<Vec<Run>> {
    try_join_all(pages.iter().map(|range| store.run_of_kinds(tx, id, *range))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: RowKind = RowKind::Image;
    const ZERO: RowKind = RowKind::Zero;

    fn delta(base: u64) -> RowKind {
        RowKind::Delta { base: Txid(base) }
    }

    fn rows(rows: &[(u64, RowKind)], horizon: u64) -> Rows {
        Rows::of(rows.iter().map(|(txid, kind)| (Txid(*txid), *kind)).collect(), Txid(horizon))
    }

    /// The first and last txid of what is dead, with how many rows that are.
    fn found(rows: &Rows) -> Vec<(u64, u64, u64)> {
        dead(PageNo(1), rows).into_iter().map(|dead| (dead.first.get(), dead.last.get(), dead.rows)).collect()
    }

    #[test]
    fn dead_rows_are_joined_around_those_that_are_needed() {
        let history =
            [(1, IMAGE), (2, delta(1)), (3, IMAGE), (4, delta(3)), (5, IMAGE), (6, delta(5)), (8, delta(3)), (9, ZERO)];
        assert_eq!(found(&rows(&history, 0)), []);
        assert_eq!(found(&rows(&history, 2)), []);
        assert_eq!(found(&rows(&history, 3)), [(1, 2, 2)]);
        assert_eq!(found(&rows(&history, 6)), [(1, 2, 2), (4, 4, 1)], "3 and 5 are bases");
        assert_eq!(found(&rows(&history, 8)), [(1, 2, 2), (4, 6, 3)]);
        assert_eq!(found(&rows(&history, 9)), [(1, 9, 8)]);
        assert_eq!(found(&rows(&[(1, IMAGE), (3, ZERO), (5, delta(1))], 3)), []);
        assert_eq!(found(&rows(&[(3, ZERO)], 3)), [(3, 3, 1)]);
    }

    #[test]
    fn what_was_not_read_is_not_taken_for_dead() {
        let history = [(1, IMAGE), (2, delta(1)), (3, ZERO), (4, delta(1)), (5, ZERO)];
        let mut cut = rows(&history, 5);
        assert_eq!(found(&cut), [(1, 5, 5)]);
        cut.all_below = false;
        assert_eq!(found(&cut), [(1, 4, 4)], "the last hides what may still be below");
        cut.bases = None;
        assert_eq!(found(&cut), [(2, 4, 3)], "an image may be a base");
    }
}
