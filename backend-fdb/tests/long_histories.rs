//! Databases with a long history: what a call reads of them does not grow with it.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Place;
use common::holder::{Holder, LONG, image, session};
use litefleet::Txid;
use litefleet::store::{HeadRequest, Lineage, PageStore, Tail};
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
        let mut holder = holder(&place).await;
        for txid in 1..=VERSIONS {
            holder.commit(b"record").await.expect("the holder can");
            let changed = if txid == 1 { 1..=pages } else { hot.clone() };
            let rows = changed.map(|page| image(page, holder.txid)).collect();
            holder.checkpoint(rows, true).await.expect("the holder can");
        }
        place.command(&format!("reply {reply}"));
        holder.read(1, 1).await.expect("there, and its horizon");
        for snapshot in [1, VERSIONS / 2, VERSIONS] {
            let reader = Holder { txid: Txid(snapshot), ..holder.clone() };
            let (replies, rows) = replies(&place, reader.read(1, pages)).await;
            let expected = |page| image(page, Txid(if hot.contains(&page) { snapshot } else { 1 }));
            assert!(rows.expect("there") == (1..=pages).map(expected).collect::<Vec<_>>(), "as of {snapshot}");
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
