//! Databases with a long history: what a call reads of them does not grow with it.

mod common;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use common::Place;
use common::holder::{Holder, LONG, image, session};
use litefleet::store::{CheckpointRequest, CollectRequest, Collected, HeadRequest, Lineage, PageStore, Tail};
use litefleet::{PageNo, PageRange, Txid, UnixMillis};
use litefleet_fdb::FdbStore;

async fn holder(place: &Place) -> Holder {
    let store =
        Arc::new(FdbStore::open(place.config().timeout(Duration::from_secs(20))).await.expect("the store opens"));
    let session = session(&store, LONG).await;
    Holder::new(&store, session, "a").await
}

/// How many replies to range reads an action gets.
async fn replies<T>(place: &Place, action: impl Future<Output = T>) -> (u64, T) {
    let before = place.counter("ranges");
    let value = action.await;
    (place.counter("ranges") - before, value)
}

/// A database with a row of each of these pages at the first txid, and of the hot ones at each that follows.
async fn with_hot_pages(place: &Place, pages: u32, hot: &RangeInclusive<u32>, versions: u64) -> Holder {
    let mut holder = holder(place).await;
    for txid in 1..=versions {
        holder.commit(b"record").await.expect("the holder can");
        let changed = if txid == 1 { 1..=pages } else { hot.clone() };
        let rows = changed.map(|page| image(page, holder.txid)).collect();
        holder.checkpoint(rows, true).await.expect("the holder can");
    }
    holder
}

/// Reads all its pages as of a snapshot.
async fn reads_right(holder: &Holder, pages: u32, hot: &RangeInclusive<u32>, snapshot: u64) {
    let reader = Holder { txid: Txid(snapshot), ..holder.clone() };
    let rows = reader.read(1, pages).await.expect("there");
    let expected = |page| image(page, Txid(if hot.contains(&page) { snapshot } else { 1 }));
    assert!(rows == (1..=pages).map(expected).collect::<Vec<_>>(), "hot {hot:?} of {pages} pages, as of {snapshot}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_pages_are_read_as_they_were() {
    const VERSIONS: u64 = 50;
    let place = Place::new();
    // In runs of 18: in the first half of one, across two, and all of one but its ends.
    for (pages, hot) in [(40, 3..=4), (40, 17..=20), (36, 20..=35)] {
        let holder = with_hot_pages(&place, pages, &hot, VERSIONS).await;
        for snapshot in [1, VERSIONS / 2, VERSIONS] {
            reads_right(&holder, pages, &hot, snapshot).await;
        }
        holder.store.delete(holder.database, holder.epoch).await.expect("the holder can");
    }
}

/// It was read with all its versions, which are as many as the retention makes them, one reply after another.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn neighbours_of_hot_pages_are_read_without_their_history() {
    const VERSIONS: u64 = 60;
    // The reply ends in the first of the hot pages.
    for (pages, hot, reply, most) in
        [(4, 3..=3, 9_000, 3), (18, 15..=15, 60_000, 3), (18, 18..=18, 73_000, 2), (18, 10..=18, 40_000, 12)]
    {
        let place = Place::new();
        let holder = with_hot_pages(&place, pages, &hot, VERSIONS).await;
        place.command(&format!("reply {reply}"));
        holder.read(1, 1).await.expect("there, and its horizon");
        for snapshot in [1, VERSIONS / 2, VERSIONS] {
            let (replies, ()) = replies(&place, reads_right(&holder, pages, &hot, snapshot)).await;
            assert!(replies <= most, "hot {hot:?} of {pages} pages, as of {snapshot}: {replies} replies");
        }
    }
}

/// It was read at one version until FoundationDB had forgotten that, and then from the beginning, as often as there was time.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs slow reads")]
async fn a_log_that_takes_too_long_for_one_transaction_is_read_in_pieces() {
    let place = Place::new();
    let mut holder = holder(&place).await;
    for _ in 0..60 {
        holder.commit(&[7; 900]).await.expect("the holder can");
    }
    // One record in each reply.
    place.command("reply 900");
    place.command("latency read=500000");
    let request = HeadRequest { database: holder.database, known: Txid(0), epoch: None, tail_bytes: 64 << 20 };
    let reply = holder.store.head(request).await.expect("it exists");
    assert!(matches!(reply.tail, Tail::Truncated));
    let lineage = [Lineage { database: holder.database, max_txid: Txid::MAX }];
    let rows = holder.store.read_log(&lineage, Txid(0), holder.txid).await.expect("it exists");
    let found: Vec<u64> = rows.iter().map(|row| row.txid.get()).collect();
    let first: Vec<u64> = (1..).take(found.len()).collect();
    assert!(found == first && (1..60).contains(&found.len()), "the first of them: {found:?}");
}

/// They were walked over a hundred at a time, by each transaction of a collection.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_collection_walks_over_the_checkpoints_inside_its_retention_once() {
    let place = Place::new();
    let mut holder = holder(&place).await;
    for number in 1..=1_000 {
        holder.commit(b"record").await.expect("the holder can");
        let request = CheckpointRequest {
            database: holder.database,
            epoch: holder.epoch,
            txid: holder.txid,
            since: Txid(0),
            attempt: 0,
            piece: 0,
            rows: vec![image(number, holder.txid)],
            last: true,
            time: UnixMillis(if number == 1 { 1 } else { 3 }),
            warm: Vec::new(),
        };
        holder.store.checkpoint(request).await.expect("the holder can");
    }
    let collect = |pages: Option<PageRange>, at_most| {
        let request = CollectRequest {
            database: holder.database,
            epoch: holder.epoch,
            at_most,
            completed_before: UnixMillis(2),
            pages: pages.into_iter().collect(),
            log_through: Txid(0),
        };
        async { holder.store.collect(request).await.expect("the holder can") }
    };
    let raised = Collected { horizon: Txid(1), log_start: Txid(0), rows: 0, records: 0 };
    let (spent, collected) = replies(&place, collect(None, Txid::MAX)).await;
    assert_eq!(collected, raised);
    assert!(spent <= 4, "{spent} replies, one of them with the small values");
    // Three transactions.
    let pages = Some(PageRange::new(PageNo(1), PageNo(300)));
    let (least, collected) = replies(&place, collect(pages, Txid(1))).await;
    assert_eq!(collected, raised);
    let (spent, collected) = replies(&place, collect(pages, Txid::MAX)).await;
    assert_eq!(collected, raised);
    assert!(spent <= least + 2, "{spent} replies in place of {least}");
}
