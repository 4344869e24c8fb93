//! Verification: every stored row and record against its checksum, every delta against its base, every page readable.

use std::ops::ControlFlow;

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
    /// Whether all was looked at: false when the caller wanted it to end before.
    pub complete: bool,
}

/// How far a verification has come. It goes on from there with another snapshot when its own was collected.
#[derive(Debug, Default)]
pub(super) struct Verification {
    pub(super) report: VerifyReport,
    rows_done: bool,
    /// The log was checked up to here.
    log: Option<Txid>,
    log_done: bool,
    /// The pages were read up to here.
    page: u32,
}

impl Verification {
    /// A number that grows with each step.
    pub(super) fn done(&self) -> u64 {
        self.report.rows + self.report.records + self.report.pages
    }
}

type Tell<'a> = &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send);

impl Database {
    /// Checks all that the store has of the database, the pages at the given snapshot.
    pub(super) async fn verify(&self, snapshot: Snapshot, state: &mut Verification, progress: Tell<'_>) -> Result<()> {
        let database = self.id()?;
        let last = pages_for_size(snapshot.size);
        let total = u64::from(last) * 2;
        if !state.rows_done {
            let mut tell = |page: u32| progress(Progress { done: page.into(), total });
            if self.verify_rows(database, &mut state.report, &mut tell).await?.is_break() {
                return Ok(());
            }
            state.rows_done = true;
        }
        if !state.log_done {
            self.verify_log(database, snapshot.txid, state).await?;
            state.log_done = true;
        }
        while state.page < last {
            let end = last.min(state.page.saturating_add(256));
            let range = PageRange::new(PageNo(state.page.saturating_add(1)), PageNo(end));
            let pages: Vec<PageNo> = range.pages().collect();
            match self.load_pages(snapshot.txid, &pages).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => state.report.problems.push(error.to_string()),
                Err(error) => return Err(error.context(self.words("verify"))),
            }
            state.report.pages += pages.len() as u64;
            state.page = end;
            if progress(Progress { done: u64::from(last) + u64::from(end), total }).is_break() {
                return Ok(());
            }
        }
        state.report.complete = true;
        Ok(())
    }

    async fn verify_rows(
        &self,
        database: DatabaseId,
        report: &mut VerifyReport,
        progress: &mut (dyn FnMut(u32) -> ControlFlow<()> + Send),
    ) -> Result<ControlFlow<()>> {
        let mut after: Option<(PageNo, Txid)> = None;
        let mut bases: Vec<(PageNo, Txid, Bytes)> = Vec::new();
        loop {
            let scan = self.retry(|| self.fleet.store.scan(database, after, STEP)).await;
            let rows = match scan {
                // There is no way past it; but what the pages are as of the head is still to be seen.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    report.problems.push(error.context(self.words("verify rows")).to_string());
                    return Ok(ControlFlow::Continue(()));
                }
                rows => rows.context(self.words("verify rows"))?,
            };
            let Some(last) = rows.last() else { return Ok(ControlFlow::Continue(())) };
            after = Some((last.page, last.txid));
            for row in &rows {
                bases.retain(|(page, _, _)| *page == row.page);
                if let Err(error) = check_row(database, row, &mut bases) {
                    report.problems.push(error.to_string());
                }
                report.rows += 1;
            }
            if progress(last.page.get()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    async fn verify_log(&self, database: DatabaseId, to: Txid, state: &mut Verification) -> Result<()> {
        let lineage = self.lineage()?;
        // What was collected meanwhile is gone.
        let mut after = state.log.unwrap_or_default().max(self.core().horizon);
        while after < to {
            let rows = match self.retry(|| self.fleet.store.read_log(&lineage, after, to)).await {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld && after < self.core().checkpoint => {
                    // Collected meanwhile: what is needed begins at the checkpoint.
                    after = self.core().checkpoint;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    let words = self.words(&format!("verify log after txid {after}"));
                    state.report.problems.push(error.context(words).to_string());
                    return Ok(());
                }
                rows => rows.context(self.words("verify log"))?,
            };
            for row in &rows {
                if row.txid != after.next() {
                    let problem = format!("the log has no record after txid {after} (next is {})", row.txid);
                    state.report.problems.push(problem);
                }
                after = row.txid;
                if let Err(error) = Record::decode(database, row.txid, &row.record) {
                    state.report.problems.push(error.to_string());
                }
                state.report.records += 1;
            }
            state.log = Some(after);
            if rows.is_empty() {
                state.report.problems.push(format!("the log ends at txid {after}, the head is {to}"));
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
