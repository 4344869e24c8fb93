//! What waits, and for how long: in time that stands still, and that the tests move by hand.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::holder::{Holder, LONG, image, open_request, session};
use common::{Place, standing_still, until};
use litefleet::PageNo;
use litefleet::clock::{Clock, SystemClock};
use litefleet::store::PageStore;
use litefleet_fdb::FdbStore;

/// How often something else is done, to see what happens meanwhile.
const LOOKS: u64 = 100;

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

#[tokio::test(start_paused = true)]
#[cfg_attr(real_cluster, ignore = "needs watches that fail")]
async fn a_follower_whose_watches_fail_looks_again_after_a_while() {
    let _still = standing_still();
    let place = Place::new();
    let (writing, following) = (store(&place).await, store(&place).await);
    let mut holder = Holder::new(&writing, session(&writing, LONG).await, "a").await;
    let (database, known) = (holder.database, holder.txid);
    place.command("faults seed=1 watch.process_behind=10000");
    let waiting = tokio::spawn(async move {
        loop {
            let found = following.watch(database, known).await.expect("it exists");
            if found > known {
                return found;
            }
        }
    });
    let before = place.counter("read_versions");
    for _ in 0..LOOKS {
        holder.head().await;
    }
    let of_the_follower = place.counter("read_versions") - before - LOOKS;
    assert!(of_the_follower <= 3, "no time has passed, and it has looked {of_the_follower} times");
    // It does look again.
    holder.commit(b"record").await.expect("the holder can");
    tokio::time::advance(Duration::from_millis(200)).await;
    until(|| waiting.is_finished()).await;
    assert_eq!(waiting.await.expect("no panic"), holder.txid);
}

#[tokio::test(start_paused = true)]
#[cfg_attr(real_cluster, ignore = "needs reads that are slow")]
async fn warm_pages_are_waited_for_once() {
    let _still = standing_still();
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    holder.checkpoint(vec![image(1, holder.txid)], true).await.expect("the holder can");
    store.release(holder.database, holder.epoch, vec![PageNo(1)]).await.expect("the holder can");
    let mut busy = Holder::new(&store, session, "busy").await;
    busy.commit(b"record").await.expect("the holder can");
    let reads = || place.counter("gets") + place.counter("ranges");
    let (before, applied) = (reads(), place.counter("commits_applied"));
    // The name, the small values and the tail. Then the warm page, beside the commit; and again, since that read is too old.
    place.command("next read.ok read.ok read.ok read.slow.300 read.slow.30000 read.slow.30000");
    let opening = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.open(open_request("a", Some(session))).await }
    });
    until(|| reads() == before + 4 && place.counter("commits_applied") > applied).await;
    place.command("advance 6000000");
    tokio::time::advance(Duration::from_millis(1_900)).await;
    until(|| reads() == before + 6).await;
    let clock = SystemClock::default();
    tokio::time::advance(Duration::from_millis(200)).await;
    while !opening.is_finished() {
        assert!(clock.monotonic() < Duration::from_secs(1), "two seconds are over, and it waits");
        tokio::task::yield_now().await;
    }
    let opened = opening.await.expect("no panic").expect("the lease is granted all the same");
    assert!(opened.warm.is_empty());
}
