//! What waits, and for how long: in time that stands still, and that the tests move by hand.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::holder::{Holder, LONG, image, open_request, session};
use common::{Place, standing_still, until};
use litefleet::clock::{Clock, SystemClock};
use litefleet::store::PageStore;
use litefleet::{PageNo, Txid};
use litefleet_fdb::{FdbConfig, FdbStore};
use tokio::time::Instant;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// How often something else is done, to see what happens meanwhile.
const LOOKS: u64 = 100;

/// Counts the store's warnings.
#[derive(Clone, Debug, Default)]
struct Warnings(Arc<AtomicU64>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with("litefleet_fdb")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

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

#[tokio::test(start_paused = true)]
async fn many_followers_without_a_watch_are_warned_of_once() {
    let _still = standing_still();
    let place = Place::new();
    let config = FdbConfig { max_watches: 1, ..place.config() };
    let store = Arc::new(FdbStore::open(config).await.expect("the store opens"));
    let warnings = Warnings::default();
    let _counting = tracing::subscriber::set_default(warnings.clone());
    let mut following = tokio::task::JoinSet::new();
    let polls = Arc::new(AtomicU64::new(0));
    for index in 0..10 {
        let database = store.open(open_request(&format!("db-{index}"), None)).await.expect("made").database;
        let (store, polls) = (Arc::clone(&store), Arc::clone(&polls));
        following.spawn(async move {
            loop {
                store.watch(database, Txid(0)).await.expect("it exists");
                polls.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let (count, polls) = (|| warnings.0.load(Ordering::SeqCst), || polls.load(Ordering::SeqCst));
    let clock = SystemClock::default();
    let begun = Instant::now();
    for warned in 1..=2 {
        let before = polls();
        while polls() < before + 60 {
            assert!(clock.monotonic() < Duration::from_secs(60), "they do not poll");
            // The answers take time of their own.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert_eq!(count(), warned, "{} polls in {:?}", polls(), begun.elapsed());
        tokio::time::advance(Duration::from_secs(60)).await;
    }
}
