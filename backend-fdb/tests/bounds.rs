//! That waiting, and what is kept, is bounded.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::holder::{Holder, LONG, image, open_request, session};
use common::{Place, by_hand, keys_between, standing_still, until};
use litefleet::clock::{Clock, SystemClock};
use litefleet::store::{CollectRequest, PageStore};
use litefleet::{ErrorKind, Fleet, FleetSettings, PageNo, Txid, UnixMillis};
use litefleet_fdb::{FdbConfig, FdbStore};
use rusqlite::{Connection, OpenFlags};

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster whose versions can be moved by a day")]
async fn a_fence_whose_session_was_forgotten_is_purged() {
    let place = Place::new();
    let (gone, taker) = (store(&place).await, store(&place).await);
    let old = session(&gone, LONG).await;
    Holder::new(&gone, old, "a").await;
    gone.end_session(old).await.expect("it ends");
    place.command(&format!("advance {}", 25_u64 * 3600 * 1_000_000));
    let session = session(&taker, LONG).await;
    assert!(taker.purge(1).await.expect("a purge").done);
    assert_eq!(session_keys(&place).await, 2, "a record and a fence are left");
    let mut holder = Holder::new(&taker, session, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    for _ in 0..2 {
        taker.purge(1).await.expect("a purge");
    }
    assert_eq!(session_keys(&place).await, 2, "the taker has left nothing of the other session");
    holder.commit(b"record").await.expect("the holder can");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster whose versions can be moved by days")]
async fn ends_of_epochs_are_forgotten() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let holder = Holder::new(&store, session, "a").await;
    let id = u8::try_from(holder.database.get()).expect("a small id");
    let ends = async || keys_between(&place, &[5, 1, id, 0x11], &[5, 1, id, 0x12]).await;
    let grant = async |grants| {
        for _ in 0..grants {
            Holder::new(&store, session, "a").await;
        }
    };
    grant(200).await;
    assert_eq!(ends().await, 201, "all are younger than a day");
    for days in [1, 2] {
        place.command(&format!("advance {}", days * 25_u64 * 3600 * 1_000_000));
        grant(64).await;
    }
    // Three days later those of the first two are gone, all of them: however many a burst has left.
    assert_eq!(ends().await, 64);
}

/// They went at each 64th grant alone: of a database that was seldom opened they stayed, however old they were.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster whose versions can be moved by days")]
async fn a_purge_forgets_ends_of_epochs() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holders = Vec::new();
    for text in ["a", "b", "c"] {
        for _ in 0..9 {
            Holder::new(&store, session, text).await;
        }
        holders.push(Holder::new(&store, session, text).await);
    }
    let [a, b, c] = holders.as_slice() else { unreachable!("three were made") };
    let ends = async |of: &Holder| {
        let id = u8::try_from(of.database.get()).expect("a small id");
        keys_between(&place, &[5, 1, id, 0x11], &[5, 1, id, 0x12]).await
    };
    let damaged = u8::try_from(c.database.get()).expect("a small id");
    by_hand(&place, |trx, key| trx.set(&key(&[5, 1, damaged, 0x11, 0]), b"damaged")).await;
    assert!(store.purge(100).await.expect("a purge").done);
    assert_eq!((ends(a).await, ends(b).await, ends(c).await), (10, 10, 10), "all are younger than a day");
    place.command(&format!("advance {}", 75_u64 * 3600 * 1_000_000));
    Holder::new(&store, session, "b").await;
    assert!(store.purge(100).await.expect("a purge").done);
    assert_eq!((ends(a).await, ends(b).await, ends(c).await), (0, 1, 0), "one is young");
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"record").await.expect("the holder can");
}

/// The end of an epoch that nobody needs any more could not be read, and no lease was granted ever again.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster whose versions can be moved by days")]
async fn damaged_ends_of_epochs_are_in_nobodys_way() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let holder = Holder::new(&store, session, "a").await;
    let id = u8::try_from(holder.database.get()).expect("a small id");
    for _ in 1..200 {
        Holder::new(&store, session, "a").await;
    }
    // The first, one among the oldest, the last of those that are looked through, and one that is hit upon by halves.
    by_hand(&place, |trx, key| {
        for epoch in [0, 100, 127, 191] {
            let end: &[u8] = if epoch == 0 { &[5, 1, id, 0x11, 0] } else { &[5, 1, id, 0x11, 1, epoch] };
            trx.set(&key(end), b"damaged");
        }
    })
    .await;
    place.command(&format!("advance {}", 75_u64 * 3600 * 1_000_000));
    for _ in 0..128 {
        Holder::taking(&store, session, "a", false).await.expect("the lease is free");
    }
    let left = keys_between(&place, &[5, 1, id, 0x11], &[5, 1, id, 0x12]).await;
    assert_eq!(left, 128, "the old ones are gone, those that cannot be read as well");
}

/// What has neither rows nor records counted as nothing: one call removed all of it, however many there were.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_empty_databases_is_bounded_too() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    for index in 0..25 {
        let holder = Holder::new(&store, session, &format!("db-{index}")).await;
        store.delete(holder.database, holder.epoch).await.expect("the holder can");
    }
    for left in [15, 5] {
        let purged = store.purge(10).await.expect("a purge");
        // It gets on, which whoever waits for the end must see.
        assert!(!purged.done && purged.removed == 10, "{purged:?}");
        assert_eq!(keys_between(&place, &[4], &[5]).await, left);
    }
    assert!(store.purge(10).await.expect("a purge").done);
    assert_eq!(keys_between(&place, &[4], &[5]).await, 0);
}

/// How many keys there are of sessions.
async fn session_keys(place: &Place) -> usize {
    keys_between(place, &[3], &[4]).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a reply that is lost")]
async fn a_lost_commit_that_was_collected_is_not_said_to_be_undone() {
    // The commit is made, and its reply is lost. Before its process looks, another that shares the session commits more
    // in the same epoch, and has the record collected; then the lease is taken. What is left tells only of later commits.
    let place = Place::new();
    let (ours, beside, theirs) = (store(&place).await, store(&place).await, store(&place).await);
    let our_session = session(&ours, LONG).await;
    let their_session = session(&theirs, LONG).await;
    let mut holder = Holder::new(&ours, our_session, "a").await;
    holder.commit(b"first").await.expect("the holder can");
    let mut other = Holder { store: Arc::clone(&beside), ..holder.clone() };
    let before = place.counter("read_versions");
    place.command("next commit.1039.done version.slow.4000");
    let request = holder.request(b"lost");
    let id = request.commit_id;
    let lost = tokio::spawn(async move { holder.send(request).await });
    while place.counter("read_versions") == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    other.note(id);
    other.commit(b"later").await.expect("it has the epoch");
    other.checkpoint(vec![image(1, other.txid)], true).await.expect("it has the epoch");
    let request = CollectRequest {
        database: other.database,
        epoch: other.epoch,
        at_most: Txid::MAX,
        completed_before: UnixMillis(u64::MAX / 4),
        pages: Vec::new(),
        log_through: Txid::MAX,
    };
    assert_eq!(beside.collect(request).await.expect("it has the epoch").records, 3);
    Holder::taking(&theirs, their_session, "a", true).await.expect("force takes over");
    let error = lost.await.expect("no panic").expect_err("nobody can say");
    assert_eq!(error.kind(), ErrorKind::CommitUnknown, "{error}");
}

/// The reads of an open before those of its warm pages: the name, the session with its fence, the small values with the
/// tail.
const READS_OF_AN_OPEN: &str = "read.ok read.ok read.ok read.ok read.ok";

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs slow reads")]
async fn a_granted_lease_does_not_wait_for_slow_warm_pages() {
    let place = Place::new();
    let first = store(&place).await;
    let owner = session(&first, LONG).await;
    let mut holder = Holder::new(&first, owner, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    holder.checkpoint(vec![image(1, holder.txid)], true).await.expect("the holder can");
    first.release(holder.database, holder.epoch, vec![PageNo(1)]).await.expect("the holder can");
    let fresh = store(&place).await;
    place.command(&format!("next {READS_OF_AN_OPEN} read.slow.30000"));
    let opened = fresh.open(open_request("a", Some(owner))).await.expect("the lease is free");
    assert!(opened.warm.is_empty(), "it came without its warm page");
    let again = store(&place).await.open(open_request("a", Some(owner))).await.expect("it is its own");
    assert_eq!(again.warm.len(), 1);
}

/// It waited for them as long as its deadline let it, and failed with them.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs slow reads")]
async fn an_open_without_a_lease_does_not_depend_on_its_warm_pages() {
    let place = Place::new();
    let first = store(&place).await;
    let mut holder = Holder::new(&first, session(&first, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    holder.checkpoint(vec![image(1, holder.txid)], true).await.expect("the holder can");
    first.release(holder.database, holder.epoch, vec![PageNo(1)]).await.expect("the holder can");
    // Before those of the warm page it reads the name, and the small values with the tail.
    for (fault, warm) in [("read.ok", 1), ("read.1031", 1), ("read.1031 read.1031", 0), ("read.slow.30000", 0)] {
        let fresh = store(&place).await;
        place.command(&format!("next read.ok read.ok read.ok {fault}"));
        let opened = fresh.open(open_request("a", None)).await.expect("it is there");
        assert_eq!(opened.warm.len(), warm, "{fault}");
        place.command("next");
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(real_cluster, ignore = "needs slow reads")]
async fn a_grant_that_failed_does_not_wait_for_slow_warm_pages() {
    let _still = standing_still();
    let place = Place::new();
    let first = store(&place).await;
    let owner = session(&first, LONG).await;
    let mut holder = Holder::new(&first, owner, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    holder.checkpoint(vec![image(1, holder.txid)], true).await.expect("the holder can");
    first.release(holder.database, holder.epoch, vec![PageNo(1)]).await.expect("the holder can");
    let hour = Duration::from_secs(3600);
    let fresh = Arc::new(FdbStore::open(place.config().timeout(hour)).await.expect("the store opens"));
    let reads = || place.counter("gets") + place.counter("ranges");
    let before = reads();
    // The commit is on its way for so long that the read of the warm page arrives: else the next try would meet its fault.
    place.command("latency commit=4000000");
    place.command(&format!("next commit.not_committed {} read.slow.{}", READS_OF_AN_OPEN, hour.as_millis()));
    let opening = tokio::spawn(async move { fresh.open(open_request("a", Some(owner))).await });
    until(|| reads() == before + 6).await;
    place.command("latency commit=0");
    until(|| opening.is_finished()).await;
    let opened = opening.await.expect("no panic").expect("the lease is free");
    assert_eq!(opened.warm.len(), 1, "the second try read it");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster that commits nothing")]
async fn a_call_is_tried_again_as_often_as_it_may_be() {
    let place = Place::new();
    for limit in [0, 1, 4] {
        let config = FdbConfig { retry_limit: Some(limit), ..place.config() };
        let store = FdbStore::open(config).await.expect("the store opens");
        let session = session(&store, LONG).await;
        let before = place.counter("commits");
        place.command("faults commit.not_committed=10000");
        let error = store.renew_session(session).await.expect_err("no commit is made");
        place.command("faults");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(place.counter("commits") - before, u64::from(limit) + 1);
        store.renew_session(session).await.expect("it lives");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster that does not answer")]
async fn creators_that_wait_for_each_other_do_not_add_up_their_time() {
    let place = Place::new();
    let limit = Duration::from_secs(1);
    let store = Arc::new(FdbStore::open(place.config().timeout(limit)).await.expect("the store opens"));
    place.command("latency commit=60000000");
    let clock = SystemClock::default();
    let mut creators = tokio::task::JoinSet::new();
    for index in 0..20 {
        let store = Arc::clone(&store);
        creators.spawn(async move { store.open(open_request(&format!("db-{index}"), None)).await });
    }
    for outcome in creators.join_all().await {
        assert_eq!(outcome.expect_err("no commit is answered").kind(), ErrorKind::Unavailable);
    }
    assert!(clock.monotonic() < limit * 10, "each has waited for the others in turn: {:?}", clock.monotonic());
}

#[test]
#[cfg_attr(real_cluster, ignore = "needs a cluster that does not answer")]
fn a_callers_time_out_is_the_stores() {
    let place = Place::new();
    let store = FdbStore::open_blocking(place.config()).expect("the store opens");
    let mut settings = FleetSettings::default();
    settings.database.store_timeout = Duration::from_millis(300);
    let fleet = Fleet::builder(Arc::new(store)).settings(settings).build().expect("a fleet");
    fleet.register("bounds", false).expect("registered");
    let connect = || Connection::open_with_flags("file:a?vfs=bounds", OpenFlags::default()).expect("it opens");
    let connection = connect();
    connection.execute_batch("CREATE TABLE t(v INTEGER NOT NULL); INSERT INTO t VALUES(1)").expect("made");
    // The commit is made, and the reply lost. The next look would take longer than the caller waits, the one after it not.
    place.command("next commit.1039.done version.slow.20000");
    connection.execute("INSERT INTO t VALUES(2)", ()).expect("it is found to be done");
    let count = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM t WHERE v = 2", (), |row| row.get(0)).expect("it reads")
    };
    assert_eq!(count(&connection), 1, "once");
    // The store itself would try for a minute.
    let clock = SystemClock::default();
    place.command("latency version=90000000 read=90000000 commit=90000000");
    connection.execute("INSERT INTO t VALUES(3)", ()).expect_err("nobody answers");
    assert!(clock.monotonic() < Duration::from_secs(30), "{:?}", clock.monotonic());
    place.command("latency version=0 read=0 commit=0");
    drop(connection);
    assert_eq!(count(&connect()), 1, "it can be used again");
}
