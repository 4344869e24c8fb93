//! Verification: every stored row and record against its checksum, every delta against its base, every page readable.

use bytes::Bytes;

use super::database::{Database, Snapshot};
use crate::codec::{Record, decode_row};
use crate::error::{Context, ErrorKind, Result};
use crate::store::{PageRow, RowKind};
use crate::types::{DatabaseId, PageNo, PageRange, Txid, pages_for_size};

/// Rows or pages in one step.
const STEP: usize = 512;

/// How far a long operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pages done.
    pub done: u64,
    /// Pages in all, as far as is known.
    pub total: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Rows checked.
    pub rows: u64,
    /// Records checked.
    pub records: u64,
    /// Pages that were read as of the head.
    pub pages: u64,
    /// What is wrong, in words. Empty: nothing.
    pub problems: Vec<String>,
}

impl Database {
    /// Checks all that the store has of the database, at the given snapshot.
    pub(super) async fn verify(
        &self,
        snapshot: Snapshot,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<VerifyReport> {
        let database = self.id()?;
        let mut report = VerifyReport::default();
        let total = u64::from(pages_for_size(snapshot.size)) * 2;
        self.verify_rows(database, &mut report, &mut |page| progress(Progress { done: page.into(), total })).await?;
        self.verify_log(database, snapshot.txid, &mut report).await?;
        let half = total / 2;
        let last = pages_for_size(snapshot.size);
        let mut first = 1;
        while first <= last {
            let end = last.min(first.saturating_add(255));
            let pages: Vec<PageNo> = PageRange::new(PageNo(first), PageNo(end)).pages().collect();
            match self.load_pages(snapshot.txid, &pages).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => report.problems.push(error.to_string()),
                Err(error) => return Err(error.context(self.words("verify"))),
            }
            report.pages += pages.len() as u64;
            progress(Progress { done: half + u64::from(end), total });
            first = end.saturating_add(1);
        }
        Ok(report)
    }

    async fn verify_rows(
        &self,
        database: DatabaseId,
        report: &mut VerifyReport,
        progress: &mut (dyn FnMut(u32) + Send),
    ) -> Result<()> {
        let mut after: Option<(PageNo, Txid)> = None;
        let mut bases: Vec<(PageNo, Txid, Bytes)> = Vec::new();
        loop {
            let scan = self.retry(|| self.fleet.store.scan(database, after, STEP)).await;
            let rows = scan.context(self.words("verify rows"))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some((last.page, last.txid));
            progress(last.page.get());
            for row in &rows {
                bases.retain(|(page, _, _)| *page == row.page);
                if let Err(error) = check_row(database, row, &mut bases) {
                    report.problems.push(error.to_string());
                }
                report.rows += 1;
            }
        }
    }

    async fn verify_log(&self, database: DatabaseId, to: Txid, report: &mut VerifyReport) -> Result<()> {
        let mut after = self.core().horizon;
        let lineage = self.lineage()?;
        while after < to {
            let rows = match self.retry(|| self.fleet.store.read_log(&lineage, after, to)).await {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld && after < self.core().checkpoint => {
                    // Collected meanwhile: what is needed begins at the checkpoint.
                    after = self.core().checkpoint;
                    continue;
                }
                rows => rows.context(self.words("verify log"))?,
            };
            for row in &rows {
                if row.txid != after.next() {
                    report.problems.push(format!("the log has no record after txid {after} (next is {})", row.txid));
                }
                after = row.txid;
                if let Err(error) = Record::decode(database, row.txid, &row.record) {
                    report.problems.push(error.to_string());
                }
                report.records += 1;
            }
            if rows.is_empty() {
                report.problems.push(format!("the log ends at txid {after}, the head is {to}"));
                return Ok(());
            }
        }
        Ok(())
    }
}

fn check_row(database: DatabaseId, row: &PageRow, bases: &mut Vec<(PageNo, Txid, Bytes)>) -> Result<()> {
    let content = decode_row(database, row)?;
    let base = match row.kind {
        RowKind::Delta { base } => bases.iter().find(|(_, txid, _)| *txid == base).map(|(_, _, image)| image),
        RowKind::Image | RowKind::Zero => None,
    };
    let image = content.image(database, row.page, row.txid, base)?;
    if row.kind == RowKind::Image {
        bases.push((row.page, row.txid, image));
    }
    Ok(())
}
