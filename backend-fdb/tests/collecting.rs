//! Collections of pages with many versions.

mod common;

use std::sync::Arc;

use common::Place;
use common::holder::{Holder, LONG, image, session};
use litefleet::store::{CollectRequest, Collected, PageStore};
use litefleet::{PageNo, PageRange, Txid, UnixMillis};
use litefleet_fdb::FdbStore;

const PAGES: u32 = 128;
const VERSIONS: u64 = 200;

/// A database whose pages all have a row for each of its commits.
async fn with_versions(place: &Place) -> Holder {
    let store = Arc::new(FdbStore::open(place.config()).await.expect("the store opens"));
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    let half = PAGES / 2;
    for _ in 0..VERSIONS {
        holder.commit(b"record").await.expect("the holder can");
        for first in [1, half + 1] {
            let rows = (first..first + half).map(|page| image(page, holder.txid)).collect();
            holder.checkpoint(rows, first > 1).await.expect("the holder can");
        }
    }
    holder
}

async fn collect(holder: &Holder, at_most: u64) -> Collected {
    let request = CollectRequest {
        database: holder.database,
        epoch: holder.epoch,
        at_most: Txid(at_most),
        completed_before: UnixMillis(u64::MAX / 4),
        pages: vec![PageRange::new(PageNo(1), PageNo(PAGES))],
        log_through: Txid(0),
    };
    holder.store.collect(request).await.expect("the holder can")
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs slow reads, and counts them")]
async fn hot_pages_are_collected_however_slowly_they_are_read() {
    // All of them in one transaction would take longer than the five seconds that FoundationDB allows.
    let place = Place::new();
    let holder = with_versions(&place).await;
    place.command("latency read=30000");
    let before = place.counter("range_bytes");
    assert_eq!(collect(&holder, 1).await.rows, 0);
    let read = place.counter("range_bytes") - before;
    assert!(read < 3_000_000, "nothing can be dead, so nothing above the horizon is looked at: {read} bytes");
    for (horizon, rows) in [(100, 99), (100, 0), (VERSIONS, 100)] {
        let collected = collect(&holder, horizon).await;
        assert_eq!((collected.horizon, collected.rows), (Txid(horizon), rows * u64::from(PAGES)));
        place.command("latency read=0");
        let newest: Vec<_> = (1..=PAGES).map(|page| image(page, holder.txid)).collect();
        assert!(holder.read(1, PAGES).await.expect("there") == newest, "the newest rows are there");
        place.command("latency read=30000");
    }
    assert_eq!(place.counter("too_old"), 0);
    assert!(place.counter("oldest_commit") < 4_500_000, "{}", place.counter("oldest_commit"));
}
