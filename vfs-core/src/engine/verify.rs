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
            if self.verify_rows(database, PageNo(last), &mut state.report, &mut tell).await?.is_break() {
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
            state.report.pages += self.verify_pages(snapshot, &pages, &mut state.report.problems).await?;
            state.page = end;
            if progress(Progress { done: u64::from(last) + u64::from(end), total }).is_break() {
                return Ok(());
            }
        }
        state.report.complete = true;
        Ok(())
    }

    /// Reads pages, and returns how many of them could be read.
    async fn verify_pages(&self, snapshot: Snapshot, pages: &[PageNo], problems: &mut Vec<String>) -> Result<u64> {
        match self.load_pages(snapshot.txid, pages).await {
            Ok(_) => return Ok(pages.len() as u64),
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error.context(self.words("verify"))),
        }
        let mut readable = 0;
        for page in pages {
            match self.load_pages(snapshot.txid, std::slice::from_ref(page)).await {
                Ok(_) => readable += 1,
                Err(error) if error.kind() == ErrorKind::Corrupt => problems.push(error.to_string()),
                Err(error) => return Err(error.context(self.words("verify"))),
            }
        }
        Ok(readable)
    }

    async fn verify_rows(
        &self,
        database: DatabaseId,
        last_page: PageNo,
        report: &mut VerifyReport,
        progress: &mut (dyn FnMut(u32) -> ControlFlow<()> + Send),
    ) -> Result<ControlFlow<()>> {
        let mut after: Option<(PageNo, Txid)> = None;
        let mut bases: Vec<(PageNo, Txid, Bytes)> = Vec::new();
        let mut step = STEP;
        loop {
            let scan = self.retry(|| self.fleet.store.scan(database, after, step)).await;
            let rows = match scan {
                // One of them: those before it can be read.
                Err(error) if error.kind() == ErrorKind::Corrupt && step > 1 => {
                    step /= 2;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    report.problems.push(error.context(self.words("verify rows")).to_string());
                    let from = after.map_or(PageNo(0), |(page, _)| page);
                    match self.readable_after(database, from, last_page).await? {
                        Some(page) => after = Some((page, Txid::MAX)),
                        None => return Ok(ControlFlow::Continue(())),
                    }
                    continue;
                }
                rows => rows.context(self.words("verify rows"))?,
            };
            step = (step * 2).min(STEP);
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

    /// The first page from `from` to `last` behind which there are rows that can be read, or none at all.
    async fn readable_after(&self, database: DatabaseId, from: PageNo, last: PageNo) -> Result<Option<PageNo>> {
        let is_readable = async |page: u32| {
            let after = Some((PageNo(page), Txid::MAX));
            match self.retry(|| self.fleet.store.scan(database, after, 1)).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::Corrupt => Ok(false),
                Err(error) => Err(error.context(self.words("verify rows"))),
            }
        };
        if is_readable(from.get()).await? {
            return Ok(Some(from));
        }
        // Ever further, and then back to where it begins.
        let (mut damaged, mut step) = (from.get(), 1_u32);
        let mut readable = loop {
            if damaged >= last.get() {
                return Ok(None);
            }
            let page = damaged.saturating_add(step).min(last.get());
            if is_readable(page).await? {
                break page;
            }
            damaged = page;
            step = step.saturating_mul(2);
        };
        while readable - damaged > 1 {
            let page = damaged + (readable - damaged) / 2;
            if is_readable(page).await? {
                readable = page;
            } else {
                damaged = page;
            }
        }
        Ok(Some(PageNo(readable)))
    }

    async fn verify_log(&self, database: DatabaseId, head: Txid, state: &mut Verification) -> Result<()> {
        let limit = self.settings().store_timeout;
        // What was collected meanwhile is gone.
        let mut after = state.log.unwrap_or_default().max(self.core().horizon);
        let mut step = u64::MAX;
        while after < head {
            let to = Txid(after.get().saturating_add(step)).min(head);
            let rows = match self.fleet.read_log(limit, database, after, to).await {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld && after < self.core().checkpoint => {
                    // Collected meanwhile: what is needed begins at the checkpoint.
                    after = self.core().checkpoint;
                    continue;
                }
                // One of them: those before it can be read, and those behind it.
                Err(error) if error.kind() == ErrorKind::Corrupt && to > after.next() => {
                    step = (to.get() - after.get()) / 2;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    let words = self.words(&format!("verify log after txid {after}"));
                    state.report.problems.push(error.context(words).to_string());
                    after = to;
                    state.log = Some(after);
                    continue;
                }
                rows => rows.context(self.words("verify log"))?,
            };
            step = step.saturating_mul(2);
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
            if rows.is_empty() {
                let problem = format!("the log has no record after txid {after} up to {to}, the head is {head}");
                state.report.problems.push(problem);
                after = to;
            }
            state.log = Some(after);
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
