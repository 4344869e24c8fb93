//! Reading pages and the log.

use litefleet::store::{Lineage, LogRow, PageRow, ReadRow};
use litefleet::{DatabaseId, PageNo, PageSet, Txid};

use super::rows::{Stored, at, push, ranges};
use super::Inner;
use crate::error::Outcome;
use crate::statements::Call;
use crate::wire::{Blob, bigint, bigints, column, count, number};

impl Inner {
    pub(super) async fn read_pages(
        &self,
        lineage: &[Lineage],
        wanted: &PageSet,
        snapshot: Txid,
    ) -> Outcome<Vec<ReadRow>> {
        let [firsts, lasts] = ranges(wanted);
        let params = [
            bigints(lineage.iter().map(|entry| entry.database.get())),
            bigints(lineage.iter().map(|entry| at(snapshot, entry.max_txid))),
            firsts,
            lasts,
        ];
        let rows = self.pool.call(Call::ReadPages, &params).await?;
        let mut out = Vec::with_capacity(rows.len());
        for row in &rows {
            let stored = Stored {
                page: number(column(row, 1)?)?,
                txid: number(column(row, 2)?)?,
                kind: column(row, 3)?,
                base: column::<Option<i64>>(row, 4)?.map(number).transpose()?,
                bytes: column::<Blob>(row, 5)?.0,
            };
            let base = column::<Option<Blob>>(row, 6)?.map(|Blob(bytes)| bytes);
            push(DatabaseId(number(column(row, 0)?)?), stored, base, &mut out)?;
        }
        // The server goes through the ranges in order, but does not promise it. Stable: a base stays behind its delta.
        out.sort_by_key(|read| read.row.page);
        Ok(out)
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
        let record = |row| {
            Ok(LogRow { txid: Txid(number(column(row, 0)?)?), record: column::<Blob>(row, 1)?.0 })
        };
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
