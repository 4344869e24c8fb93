//! Reading pages and the log.

use std::cmp::Reverse;

use litefleet::store::{Lineage, LogRow, PageRow, PagesReply};
use litefleet::{DatabaseId, PageNo, PageRange, PageSet, Txid};

use super::Inner;
use super::rows::{Stored, at, push, ranges};
use crate::error::{Fault, Outcome};
use crate::statements::Call;
use crate::wire::{Blob, bigint, bigints, column, count, number};

/// From so many neighbouring pages on they are read by one walk instead of one search each.
const WALK: u64 = 4;
/// So many rows per page are what the walk of a range ends at (`sql/07_read.sql`).
const WALKED_ROWS: u64 = 8;

impl Inner {
    pub(super) async fn read_pages(
        &self,
        lineage: &[Lineage],
        wanted: &PageSet,
        snapshot: Txid,
    ) -> Outcome<PagesReply> {
        let (walked, searched): (Vec<PageRange>, Vec<PageRange>) =
            wanted.ranges().partition(|range| lineage.len() == 1 && range.count() >= WALK);
        if let Some(found) = self.find_pages(lineage, &searched, &walked, snapshot).await? {
            return Ok(found);
        }
        // More versions of a page than walking is good for.
        let all: Vec<PageRange> = wanted.ranges().collect();
        let found = self.find_pages(lineage, &all, &[], snapshot).await?;
        found.ok_or(Fault::Malformed("too many rows of pages that were searched"))
    }

    /// `None` when a range that was walked had too many rows to be sure that all came.
    async fn find_pages(
        &self,
        lineage: &[Lineage],
        searched: &[PageRange],
        walked: &[PageRange],
        snapshot: Txid,
    ) -> Outcome<Option<PagesReply>> {
        let [firsts, lasts] = ranges(searched);
        let [walked_firsts, walked_lasts] = ranges(walked);
        let params = [
            bigints(lineage.iter().map(|entry| entry.database.get())),
            bigints(lineage.iter().map(|entry| at(snapshot, entry.max_txid))),
            firsts,
            lasts,
            walked_firsts,
            walked_lasts,
        ];
        let rows = self.pool.call(Call::ReadPages, &params).await?;
        let (mut found, mut reached) = (Vec::with_capacity(rows.len()), None);
        for row in &rows {
            let Some(page) = column::<Option<i64>>(row, 1)? else {
                let txid = |place| Ok::<_, Fault>(Txid(number(column(row, place)?)?));
                reached = Some((txid(2)?, txid(4)?, txid(0)?));
                continue;
            };
            let stored = Stored {
                page: number(page)?,
                txid: number(column(row, 2)?)?,
                kind: column(row, 3)?,
                base: column::<Option<i64>>(row, 4)?.map(number).transpose()?,
                bytes: column::<Blob>(row, 5)?.0,
            };
            let base = column::<Option<Blob>>(row, 6)?.map(|Blob(bytes)| bytes);
            found.push((DatabaseId(number(column(row, 0)?)?), stored, base));
        }
        let overrun = walked.iter().any(|range| {
            let pages = u64::from(range.first.get())..=u64::from(range.last.get());
            let met = found.iter().filter(|(_, stored, _)| pages.contains(&stored.page)).count() as u64;
            met >= WALKED_ROWS * range.count()
        });
        if overrun {
            return Ok(None);
        }
        let (horizon, checkpoint, head) = reached.ok_or(Fault::Malformed("no horizon"))?;
        // The server goes through the ranges in order, but does not promise it. The newest first.
        found.sort_by_key(|(_, stored, _)| (stored.page, Reverse(stored.txid)));
        let mut rows = Vec::with_capacity(found.len());
        for versions in found.chunk_by(|one, other| one.1.page == other.1.page) {
            let Some((database, newest, base)) = versions.first() else { continue };
            let older = |txid| versions.iter().find(|(_, stored, _)| stored.txid == txid);
            let base = base.clone().or_else(|| newest.base.and_then(older).map(|(_, stored, _)| stored.bytes.clone()));
            push(*database, newest.clone(), base, &mut rows)?;
        }
        Ok(Some(PagesReply { rows, horizon, checkpoint, head: Some(head) }))
    }

    pub(super) async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Outcome<Vec<LogRow>> {
        let params = [
            bigints(lineage.iter().map(|entry| entry.database.get())),
            bigints(lineage.iter().map(|entry| entry.max_txid.get())),
            bigint(after.get()),
            bigint(to.get()),
            count(self.config.limits.log_bytes),
        ];
        let rows = self.pool.call(Call::ReadLog, &params).await?;
        let record = |row| Ok(LogRow { txid: Txid(number(column(row, 0)?)?), record: column::<Blob>(row, 1)?.0 });
        rows.iter().map(record).collect()
    }

    pub(super) async fn scan(
        &self,
        database: DatabaseId,
        after: Option<(PageNo, Txid)>,
        limit: usize,
    ) -> Outcome<Vec<PageRow>> {
        let (page, txid) = after.unwrap_or((PageNo(0), Txid(0)));
        let params = [bigint(database.get()), bigint(page.get().into()), bigint(txid.get()), count(limit)];
        let rows = self.pool.call(Call::Scan, &params).await?;
        let mut out = Vec::with_capacity(rows.len());
        for row in &rows {
            let stored = Stored {
                page: number(column(row, 0)?)?,
                txid: number(column(row, 1)?)?,
                kind: column(row, 2)?,
                base: column::<Option<i64>>(row, 3)?.map(number).transpose()?,
                bytes: column::<Blob>(row, 4)?.0,
            };
            out.push(stored.row()?);
        }
        Ok(out)
    }
}
