//! Comparing everything that a store answers with what the model says.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use litefleet::store::{PageRow, ReadRow};
use litefleet::{ErrorKind, Txid};

use super::{Content, Model, PAGES, decode, value};
use crate::fixture::{each_at_once, places, read, read_log, refused, scan};

impl Model {
    /// What the rows of a read and the log after them make of the pages.
    fn assemble(&self, rows: &[ReadRow], snapshot: u64) -> Content {
        let mut content = Content::new();
        for page in 1..=PAGES {
            let row = rows.iter().map(|r| &r.row).find(|row| row.page.get() == page);
            // Below the horizon nothing need be known of a page: at the horizon, a page without a row is zeros.
            let from = row.map_or(0, |row| row.txid.get()).max(self.horizon);
            let mut found = row.map_or(0, |row| value(&row.bytes));
            for (_, record) in self.log.range(from + 1..).take_while(|(txid, _)| **txid <= snapshot) {
                found = decode(record).get(&page).copied().unwrap_or(found);
            }
            if found != 0 {
                content.insert(page, found);
            }
        }
        content
    }

    /// Compares all that can be read with what must be.
    pub(crate) async fn check(&mut self, at: &str) {
        let head = self.writer.head().await;
        assert_eq!(
            (head.epoch, head.txid, head.commit_id, head.staged),
            (self.writer.epoch, self.writer.txid, self.writer.last, false),
            "{at}"
        );
        assert_eq!(head.size, self.txid() * 4096, "{at}");
        assert_eq!((head.checkpoint, head.horizon), (Txid(self.checkpoint), Txid(self.horizon)), "{at}");
        assert!(head.generation >= self.generation, "{at}");
        self.generation = head.generation;
        self.check_log(at).await;
        let stored = scan(&self.store, self.writer.database).await;
        let expected: Vec<(u32, u64)> = self.rows.keys().copied().collect();
        assert_eq!(places(&stored), expected, "{at}");
        self.check_snapshots(at).await;
    }

    async fn check_log(&self, at: &str) {
        let (store, database) = (&self.store, self.writer.database);
        let log = read_log(store, database, self.log_start, self.txid()).await;
        let log = log.unwrap_or_else(|error| panic!("{at}: {error}"));
        let log: BTreeMap<u64, Bytes> = log.into_iter().map(|r| (r.txid.get(), r.record)).collect();
        assert_eq!(log, self.log, "{at}");
        if self.log_start > 0 {
            refused(read_log(store, database, self.log_start - 1, self.txid()).await, ErrorKind::SnapshotTooOld, at);
        }
    }

    async fn check_snapshots(&self, at: &str) {
        let first = self.horizon.saturating_sub(1);
        let reads = each_at_once(first..=self.txid(), |snapshot| {
            let (store, database) = (Arc::clone(&self.store), self.writer.database);
            let pages: Vec<u32> = (1..=PAGES).collect();
            async move { (snapshot, read(&store, database, &pages, snapshot).await) }
        })
        .await;
        for (snapshot, result) in reads {
            if snapshot < self.horizon {
                refused(result, ErrorKind::SnapshotTooOld, at);
                continue;
            }
            let rows = result.unwrap_or_else(|error| panic!("{at}: {error}"));
            let found: Vec<PageRow> = rows.iter().map(|read| read.row.clone()).collect();
            assert_eq!(found, self.expected(snapshot), "{at}, snapshot {snapshot}");
            let content = self.assemble(&rows, snapshot);
            assert_eq!(&content, self.content(snapshot), "{at}, snapshot {snapshot}");
        }
    }
}
