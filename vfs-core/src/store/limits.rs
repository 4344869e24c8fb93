//! The bounds that a store sets, and the checks of requests that every store makes before it does anything.

use std::collections::HashMap;

use super::CommitMode;
use super::model::{CheckpointRequest, CollectRequest, CommitRequest, PageRow, RowKind, StageRequest};
use crate::error::{Error, Result};
use crate::types::{PageRange, PageSet, Txid};

/// The bounds that a store sets to its callers, and the checks of requests against them: what they refuse is `Invalid`
/// on every store, in the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Pages in one [`read_pages`](super::PageStore::read_pages).
    pub read_pages: usize,
    /// Bytes of one commit record; a larger transaction must be staged.
    pub record_bytes: usize,
    /// Databases in one atomic commit.
    pub atomic_databases: usize,
    /// Bytes of all records of one atomic commit.
    pub atomic_bytes: usize,
    /// Rows in one [`stage`](super::PageStore::stage) or [`checkpoint`](super::PageStore::checkpoint).
    pub write_rows: usize,
    /// Pages in one [`collect`](super::PageStore::collect).
    pub collect_pages: usize,
    /// About how many bytes one [`read_log`](super::PageStore::read_log) returns.
    pub log_bytes: usize,
}

impl StoreLimits {
    /// The form of the requests of one [`commit`](super::PageStore::commit): the outer result is about the call as a
    /// whole, the inner ones about each request alone.
    pub fn check_commits(&self, requests: &[CommitRequest], mode: CommitMode) -> Result<Vec<Result<()>>> {
        let bytes: usize = requests.iter().map(|request| request.record.len()).sum();
        if mode == CommitMode::Atomic && (requests.len() > self.atomic_databases || bytes > self.atomic_bytes) {
            return Err(Error::invalid(format!(
                "an atomic commit of {} databases and {bytes} bytes; the limits are {} and {}",
                requests.len(),
                self.atomic_databases,
                self.atomic_bytes
            )));
        }
        let mut named = HashMap::new();
        for request in requests {
            *named.entry(request.database).or_insert(0_usize) += 1;
        }
        let check = |request: &CommitRequest| {
            let bytes = request.record.len();
            if named.get(&request.database).is_some_and(|count| *count > 1) {
                Err(Error::invalid(format!("database {} twice in one commit", request.database)))
            } else if bytes > self.record_bytes {
                Err(Error::invalid(format!("a record of {bytes} bytes, the limit is {}", self.record_bytes)))
            } else {
                Ok(())
            }
        };
        Ok(requests.iter().map(check).collect())
    }

    /// The rows of a [`stage`](super::PageStore::stage): whole ones.
    pub fn check_stage(&self, request: &StageRequest) -> Result<()> {
        self.check_rows("stage", &request.rows, request.expected.next())?;
        match request.rows.iter().find(|row| matches!(row.kind, RowKind::Delta { .. })) {
            Some(row) => Err(Error::invalid(format!("a staged row must be whole; page {} is a delta", row.page))),
            None => Ok(()),
        }
    }

    /// The rows of a [`checkpoint`](super::PageStore::checkpoint).
    pub fn check_checkpoint(&self, request: &CheckpointRequest) -> Result<()> {
        self.check_rows("checkpoint", &request.rows, request.txid)
    }

    /// The pages of a [`read_pages`](super::PageStore::read_pages), each once.
    pub fn check_read(&self, ranges: &[PageRange]) -> Result<PageSet> {
        pages_of("read", ranges, self.read_pages)
    }

    /// The pages of a [`collect`](super::PageStore::collect), each once.
    pub fn check_collect(&self, request: &CollectRequest) -> Result<PageSet> {
        pages_of("collection", &request.pages, self.collect_pages)
    }

    fn check_rows(&self, what: &str, rows: &[PageRow], txid: Txid) -> Result<()> {
        let limit = self.write_rows;
        if rows.len() > limit {
            return Err(Error::invalid(format!("{what} of {} rows, the limit is {limit}", rows.len())));
        }
        let mut pages = PageSet::new();
        match rows.iter().find(|row| row.txid != txid || row.page.get() == 0 || !pages.insert(row.page)) {
            Some(row) => Err(Error::invalid(format!(
                "{what} at txid {txid} has a row of page {} at txid {}: another txid, no page, or twice",
                row.page, row.txid
            ))),
            None => Ok(()),
        }
    }
}

fn pages_of(what: &str, ranges: &[PageRange], limit: usize) -> Result<PageSet> {
    if let Some(range) = ranges.iter().find(|range| range.first > range.last) {
        return Err(Error::invalid(format!(
            "{what} of pages {} to {}: the last is below the first",
            range.first, range.last
        )));
    }
    let pages: u64 = ranges.iter().map(|range| range.count()).sum();
    if pages > limit as u64 {
        return Err(Error::invalid(format!("{what} of {pages} pages, the limit is {limit}")));
    }
    let mut wanted = PageSet::new();
    for range in ranges {
        wanted.insert_range(*range);
    }
    Ok(wanted)
}
