//! Reading page rows: alone by a backward range read of the newest, in runs by a range read of all that there are.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use litefleet::store::{Lineage, PageRow, PagesReply, ReadRow, RowKind};
use litefleet::{DatabaseId, Error, PageNo, PageRange, PageSet, Result, Txid};

use super::FdbStore;
use super::read::missing;
use crate::error::{Fault, Outcome};
use crate::keys::Kind;
use crate::knowledge::{Reached, View};
use crate::transact::{Cluster, Pair, Priority, Step, Tx};
use crate::values::{ProgressValue, decode_row};

/// From how many neighbouring pages on they are read as one range.
const RUN: u64 = 4;
/// How many pages one range read is asked for: with one row each, about as much as one reply of FoundationDB holds.
const RUN_PAGES: u32 = 18;
/// A page's newest row and, more often than not when that is a delta, the row it is based on.
const NEWEST: usize = 2;
/// More bytes than a delta has: a row with as many is an image, whose base nobody wants.
const DELTA_BYTES: usize = 1_200;

/// The rows of one page that were read.
pub(super) type Rows = BTreeMap<Txid, (RowKind, Bytes)>;

/// A page's newest row, and its base.
pub(super) struct Found {
    newest: PageRow,
    base: Option<PageRow>,
}

impl FdbStore {
    pub(super) async fn pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply> {
        let wanted = self.limits.check_read(pages)?;
        // Where nothing newer can be missed, the newest version need not be asked for.
        let assumed = match lineage {
            [only] => self.knowledge.version_for_reading(only.database, self.cluster.now()),
            _ => None,
        };
        let wanted = &wanted;
        let deadline = self.cluster.deadline(Priority::Normal);
        let mut assumed = match assumed {
            // All that is left to read are rows.
            Some((version, at, Some(reached))) => {
                match self.pages_in_common(lineage, wanted, snapshot, (version, at, reached), deadline).await {
                    Ok(Step::Return(rows) | Step::Commit(rows)) => return Ok(rows),
                    Err(Fault::Refused(error)) => return Err(error),
                    Err(fault) => {
                        tracing::debug!(%fault, "pages are read again, by a transaction of the call's own");
                        None
                    }
                }
            }
            assumed => assumed.map(|(version, at, _)| (version, at)),
        };
        let body = |tx: Tx, _| {
            let assumed = assumed.take();
            async move {
                let at = match assumed {
                    Some((version, at)) => {
                        tx.read_at(version);
                        at
                    }
                    None => self.cluster.now(),
                };
                self.try_pages(tx, lineage, wanted, snapshot, at, None).await
            }
        };
        let attempts = self.cluster.attempts_until("read pages", Priority::Normal, deadline);
        Ok(Cluster::run_with(attempts, body).await?.value)
    }

    /// Reads by the transaction that all calls share which read at this version.
    async fn pages_in_common(
        &self,
        lineage: &[Lineage],
        wanted: &PageSet,
        snapshot: Txid,
        (version, at, reached): (i64, Duration, Reached),
        deadline: Duration,
    ) -> Outcome<Step<PagesReply>> {
        let tx = self.readers.at(version, &self.cluster)?;
        let reading = self.try_pages(tx, lineage, wanted, snapshot, at, Some(reached));
        let left = deadline.saturating_sub(self.cluster.now());
        let found = tokio::time::timeout(left, reading).await;
        if !matches!(found, Ok(Ok(_) | Err(Fault::Refused(_)))) {
            self.readers.forget(version);
        }
        found.map_err(|_| Fault::Refused(Error::unavailable("read pages: the time is over; is the cluster up?")))?
    }

    /// What a database has reached, unless this snapshot is below its horizon.
    async fn reached(&self, tx: &Tx, database: DatabaseId, at: Txid, known: Option<Reached>) -> Outcome<Reached> {
        let reached = if let Some(reached) = known {
            reached
        } else {
            let progress = tx.peek::<ProgressValue>(&self.keys.of(database, Kind::Progress)).await?;
            let ProgressValue { checkpoint, horizon, .. } = progress.ok_or_else(|| missing(database))?;
            Reached { checkpoint, horizon }
        };
        let horizon = reached.horizon;
        if at < horizon {
            return Err(Error::snapshot_too_old(format!("snapshot {at} is below the horizon {horizon}")).into());
        }
        Ok(reached)
    }

    pub(super) async fn try_pages(
        &self,
        tx: Tx,
        lineage: &[Lineage],
        wanted: &PageSet,
        snapshot: Txid,
        asked: Duration,
        known: Option<Reached>,
    ) -> Outcome<Step<PagesReply>> {
        let mut left = wanted.clone();
        let (mut largest, mut checkpoint) = (Txid(0), None);
        let mut found: BTreeMap<PageNo, (DatabaseId, Found)> = BTreeMap::new();
        for (index, entry) in lineage.iter().enumerate() {
            let at = snapshot.min(entry.max_txid);
            // All databases are checked, also those that no page is left for.
            let reached = self.reached(&tx, entry.database, at, known);
            let (reached, rows) = futures_util::try_join!(reached, self.newest(&tx, entry.database, &left, at))?;
            if known.is_none() {
                let version = tx.read_version().await?;
                self.knowledge.viewed(entry.database, View { version, at: asked, reached });
            }
            largest = largest.max(reached.horizon);
            checkpoint.get_or_insert(reached.checkpoint);
            let last = index + 1 == lineage.len();
            for (page, row) in rows {
                if !last {
                    left.remove(page);
                }
                found.entry(page).or_insert((entry.database, row));
            }
        }
        let rows = found.into_values().flat_map(|(database, found)| found.rows(database)).collect();
        let checkpoint = checkpoint.unwrap_or_default();
        // The version that is read at is no older than what was told: the head's own key need not be read.
        Ok(Step::Return(PagesReply { rows, horizon: largest, checkpoint, head: None }))
    }

    /// The newest rows of pages at or below a txid, with their bases.
    pub(super) async fn newest(
        &self,
        tx: &Tx,
        database: DatabaseId,
        pages: &PageSet,
        at: Txid,
    ) -> Outcome<Vec<(PageNo, Found)>> {
        let mut runs = Vec::new();
        let mut singles = Vec::new();
        for range in pages.ranges() {
            if range.count() < RUN {
                singles.extend(range.pages());
                continue;
            }
            let mut first = range.first.get();
            loop {
                let last = range.last.get().min(first.saturating_add(RUN_PAGES - 1));
                runs.push(PageRange::new(PageNo(first), PageNo(last)));
                match last.checked_add(1).filter(|next| *next <= range.last.get()) {
                    Some(next) => first = next,
                    None => break,
                }
            }
        }
        let runs = try_join_all(runs.into_iter().map(|run| self.run_of_pages(tx, database, run, at)));
        let singles = try_join_all(singles.into_iter().map(|page| self.one_page(tx, database, page, at)));
        let (runs, singles) = futures_util::try_join!(runs, singles)?;
        let rows = runs.into_iter().flatten().chain(singles);
        try_join_all(rows.map(|(page, rows)| self.with_base(tx, database, page, rows, at)))
            .await
            .map(|found| found.into_iter().flatten().map(|found| (found.newest.page, found)).collect())
    }

    /// The last rows of a page up to a txid.
    async fn one_page(&self, tx: &Tx, database: DatabaseId, page: PageNo, at: Txid) -> Outcome<(PageNo, Rows)> {
        let enough = self.keys.key_bytes() + DELTA_BYTES;
        let piece = tx.peek_back_until(&self.keys.rows_up_to(database, page, at), NEWEST, enough).await?;
        let mut rows = Rows::new();
        for pair in piece.pairs() {
            let row = self.row(database, pair)?;
            rows.insert(row.txid, (row.kind, row.bytes));
        }
        Ok((page, rows))
    }

    /// The rows of neighbouring pages. When one reply does not hold them all, the page that it ends in may have any number
    /// of versions: it is read alone, and beside it the rest, as a run again where that is the smaller half, else one by one.
    async fn run_of_pages(
        &self,
        tx: &Tx,
        database: DatabaseId,
        mut run: PageRange,
        at: Txid,
    ) -> Outcome<Vec<(PageNo, Rows)>> {
        let mut rows: BTreeMap<PageNo, Rows> = BTreeMap::new();
        let mut alone = None;
        loop {
            let range = self.keys.rows(database, run.first, run.last);
            let found = try_join_all(alone.take().map(|page| self.one_page(tx, database, page, at)));
            let (piece, found) = futures_util::try_join!(tx.peek_range(&range, 0), found)?;
            rows.extend(found);
            let mut reached = run.first;
            for pair in piece.pairs() {
                let row = self.row(database, pair)?;
                reached = row.page;
                if row.txid <= at {
                    rows.entry(row.page).or_default().insert(row.txid, (row.kind, row.bytes));
                }
            }
            if !piece.more {
                break;
            }
            rows.remove(&reached);
            let done = u64::from(reached.get() - run.first.get());
            if reached < run.last && done * 2 >= run.count() {
                alone = Some(reached);
                run.first = PageNo(reached.get() + 1);
                continue;
            }
            let rest = (reached.get()..=run.last.get()).map(PageNo);
            let rest = try_join_all(rest.map(|page| self.one_page(tx, database, page, at))).await?;
            rows.extend(rest);
            break;
        }
        Ok(rows.into_iter().collect())
    }

    /// Picks the newest row, and sees that its base is there.
    async fn with_base(
        &self,
        tx: &Tx,
        database: DatabaseId,
        page: PageNo,
        mut rows: Rows,
        at: Txid,
    ) -> Outcome<Option<Found>> {
        let Some((txid, (kind, bytes))) = rows.pop_last() else { return Ok(None) };
        debug_assert!(txid <= at);
        let newest = PageRow { page, txid, kind, bytes };
        let RowKind::Delta { base } = kind else { return Ok(Some(Found { newest, base: None })) };
        let base = match rows.remove(&base) {
            Some((kind, bytes)) => Some(PageRow { page, txid: base, kind, bytes }),
            None => self.exactly(tx, database, page, base).await?,
        };
        Ok(Some(Found { newest, base }))
    }

    async fn exactly(&self, tx: &Tx, database: DatabaseId, page: PageNo, txid: Txid) -> Outcome<Option<PageRow>> {
        let Some(value) = tx.peek_bytes(&self.keys.row(database, page, txid)).await? else { return Ok(None) };
        let (kind, bytes) = decode_row(&value)?;
        Ok(Some(PageRow { page, txid, kind, bytes: Bytes::copy_from_slice(bytes) }))
    }

    /// A row as it is stored.
    pub(super) fn row(&self, database: DatabaseId, pair: &Pair) -> Result<PageRow> {
        let (page, txid) = self.keys.row_in(database, pair.key())?;
        let (kind, bytes) = decode_row(pair.value())?;
        Ok(PageRow { page, txid, kind, bytes: pair.value().slice_ref(bytes) })
    }

    pub(super) async fn scan_rows(
        &self,
        database: DatabaseId,
        after: Option<(PageNo, Txid)>,
        limit: usize,
    ) -> Result<Vec<PageRow>> {
        let mut rows: Vec<PageRow> = Vec::new();
        // A scan may be longer than a transaction: each piece is one.
        loop {
            let after = rows.last().map(|row| (row.page, row.txid)).or(after);
            let left = limit - rows.len();
            let body = |tx, _| self.try_scan(tx, database, after, left);
            let (more, done) = self.cluster.run("scan", Priority::Normal, body).await?.value;
            rows.extend(more);
            if done || rows.len() >= limit {
                return Ok(rows);
            }
        }
    }

    async fn try_scan(
        &self,
        tx: Tx,
        database: DatabaseId,
        after: Option<(PageNo, Txid)>,
        limit: usize,
    ) -> Outcome<Step<(Vec<PageRow>, bool)>> {
        let (progress, range) = (self.keys.of(database, Kind::Progress), self.keys.rows_after(database, after));
        let rows = async { if limit == 0 { Ok(None) } else { tx.peek_range(&range, limit).await.map(Some) } };
        let (progress, piece) = futures_util::try_join!(tx.peek::<ProgressValue>(&progress), rows)?;
        if progress.is_none() {
            return Err(missing(database).into());
        }
        let Some(piece) = piece else { return Ok(Step::Return((Vec::new(), true))) };
        let rows = piece.pairs().iter().map(|pair| self.row(database, pair)).collect::<Result<_>>()?;
        Ok(Step::Return((rows, !piece.more)))
    }
}

impl Found {
    /// The rows as they are given to the caller.
    pub(super) fn rows(self, database: DatabaseId) -> impl Iterator<Item = ReadRow> {
        [Some(self.newest), self.base].into_iter().flatten().map(move |row| ReadRow { database, row })
    }
}
