//! Garbage: rows and records that no snapshot at or above the horizon needs.
//!
//! The log itself says which pages may have dead rows: those that a record up to the horizon changed. So collection
//! reads the records before it deletes them, and costs what was written, not what is stored. After a crash in between
//! the records are still there, and it is done again.

use tracing::Instrument;

use super::checkpoint::For;
use super::database::Database;
use crate::codec::{Record, StagedPages};
use crate::error::{Context, Result};
use crate::store::{CollectRequest, Collected};
use crate::types::{PageNo, PageRange, PageSet, Txid, UnixMillis, pages_for_size};

/// At close, garbage is left for later while its commits are less than one part in so many of those that are still readable.
/// Looking for dead rows walks over those that live, and a database that is opened and closed all the time has closed thousands
/// of times within its retention.
const PART_AT_CLOSE: u64 = 8;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// The newest completed checkpoint.
    pub checkpoint: Txid,
    /// The horizon.
    pub horizon: Txid,
    /// Rows deleted.
    pub rows: u64,
    /// Records deleted.
    pub records: u64,
}

impl Database {
    /// Deletes what is dead, as far as retention and the snapshots in use allow.
    pub async fn collect(&self) -> Result<CollectReport> {
        self.collect_for(For::Caller).await
    }

    pub(super) async fn collect_for(&self, who: For) -> Result<CollectReport> {
        let span = tracing::debug_span!("collect", database = %self.name);
        let collected = async {
            let _kept = self.begin_maintenance();
            let _one = self.maintaining.lock().await;
            self.collect_alone(who).await
        };
        collected.instrument(span).await.context(self.words("collect garbage"))
    }

    async fn collect_alone(&self, who: For) -> Result<CollectReport> {
        if !self.lease_for(who).await? {
            return Ok(CollectReport::default());
        }
        let (database, _) = self.held()?;
        let raised = self.collect_pages(Vec::new(), Txid(0), Txid::MAX).await?;
        let mut report = CollectReport { horizon: raised.horizon, ..CollectReport::default() };
        let mut done = raised.log_start;
        let (passed, readable) = {
            let core = self.core();
            (raised.horizon.get().saturating_sub(done.get()), core.head.get().saturating_sub(raised.horizon.get()))
        };
        if who == For::Closing && passed.saturating_mul(PART_AT_CLOSE) < readable {
            done = raised.horizon;
        }
        while done < raised.horizon {
            let rows = self.read_log_piece(database, done, raised.horizon).await?;
            let Some(last) = rows.last().map(|row| row.txid) else { break };
            let mut pages = PageSet::new();
            for row in &rows {
                touched(&Record::decode(database, row.txid, &row.record)?, &mut pages);
            }
            let chunks = pages.chunks(self.fleet.store.limits().collect_pages);
            for ranges in chunks {
                report.rows += self.collect_pages(ranges, Txid(0), raised.horizon).await?.rows;
            }
            // Only now: a crash before leaves the records, and so the knowledge of what is left to collect.
            report.records += self.collect_pages(Vec::new(), last, raised.horizon).await?.records;
            done = last;
        }
        let mut core = self.core();
        core.horizon = core.horizon.max(report.horizon);
        report.checkpoint = core.checkpoint;
        metrics::counter!("litefleet_collected_rows_total").increment(report.rows);
        metrics::counter!("litefleet_collected_records_total").increment(report.records);
        Ok(report)
    }

    /// `allowed`: how far the horizon may be raised; what was found once need not be looked for again.
    async fn collect_pages(&self, pages: Vec<PageRange>, log_through: Txid, allowed: Txid) -> Result<Collected> {
        let database = self.id()?;
        let retention = u64::try_from(self.settings().retention.as_millis()).unwrap_or(u64::MAX);
        let completed_before = UnixMillis(self.fleet.clock.unix().get().saturating_sub(retention));
        let at_most = {
            let core = self.core();
            core.oldest_pin().unwrap_or(core.head).min(allowed)
        };
        let request = |epoch| {
            let pages = pages.clone();
            CollectRequest { database, epoch, at_most, completed_before, pages, log_through }
        };
        self.under_lease(|epoch| self.fleet.store.collect(request(epoch))).await
    }
}

/// Adds the pages that may have rows which this record, once checkpointed, makes dead.
fn touched(record: &Record, pages: &mut PageSet) {
    let body = &record.body;
    for (page, _) in &body.pages {
        pages.insert(*page);
    }
    for range in body.zeroed.ranges() {
        pages.insert_range(range);
    }
    let (kept, before) = (pages_for_size(body.size), pages_for_size(body.shrunk_from));
    if kept < before {
        pages.insert_range(PageRange::new(PageNo(kept.saturating_add(1)), PageNo(before)));
    }
    match &body.staged {
        StagedPages::These(set) => set.ranges().for_each(|range| pages.insert_range(range)),
        StagedPages::All if kept > 0 => pages.insert_range(PageRange::new(PageNo::FIRST, PageNo(kept))),
        StagedPages::None | StagedPages::All => {}
    }
}
