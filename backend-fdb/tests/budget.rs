//! The budget of exchanges (docs/decisions/0011), counted by the stand-in as requests that reach the cluster, and, where
//! it matters what waits for what, by how many of its delays follow each other.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Place;
use common::holder::{Holder, LONG, image, open_request, session};
use litefleet::PageNo;
use litefleet::clock::{Clock, SystemClock};
use litefleet::store::{CommitMode, HeadRequest, OpenRequest, PageRow, PageStore, RowKind, Staged, Tail};
use litefleet_fdb::FdbStore;

/// Requests by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Requests {
    versions: u64,
    reads: u64,
    commits: u64,
}

fn requests(place: &Place) -> Requests {
    let reads = ["gets", "get_keys", "ranges"].iter().map(|name| place.counter(name)).sum();
    Requests { versions: place.counter("read_versions"), reads, commits: place.counter("commits") }
}

/// The requests of an action.
async fn counted<T>(place: &Place, action: impl Future<Output = T>) -> (Requests, T) {
    let before = requests(place);
    let value = action.await;
    let after = requests(place);
    let spent = Requests {
        versions: after.versions - before.versions,
        reads: after.reads - before.reads,
        commits: after.commits - before.commits,
    };
    (spent, value)
}

/// The conflict ranges of what is committed in an action: of readers, and of writers.
async fn ranges<T>(place: &Place, action: impl Future<Output = T>) -> ((u64, u64), T) {
    let now = || (place.counter("read_conflict_ranges"), place.counter("write_conflict_ranges"));
    let before = now();
    let value = action.await;
    let after = now();
    ((after.0 - before.0, after.1 - before.1), value)
}

const ONE_COMMIT: Requests = Requests { versions: 0, reads: 0, commits: 1 };

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn repeated_small_commits_take_one_commit_and_nothing_else() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    for round in 0..20 {
        let (spent, outcome) = counted(&place, holder.commit(b"record")).await;
        outcome.expect("the holder can");
        assert_eq!(spent, ONE_COMMIT, "round {round}: also the first, after the grant");
    }
    assert_eq!(place.counter("conflicts") + place.counter("too_old"), 0);
    let (ranges, outcome) = ranges(&place, holder.commit(b"record")).await;
    outcome.expect("the holder can");
    assert_eq!(ranges, (2, 1), "the fence and the slot; the slot");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_grant_reads_and_writes_little() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut busy = Holder::new(&store, session, "busy").await;
    let holder = Holder::new(&store, session, "a").await;
    store.release(holder.database, holder.epoch, Vec::new()).await.expect("the holder can");
    // What this process has changed last is not visible just below its newest version.
    let (spent, opened) = counted(&place, store.open(open_request("a", Some(session)))).await;
    let opened = opened.expect("the lease is free");
    assert_eq!(spent, Requests { versions: 0, reads: 5, commits: 1 }, "name, session, fence; small values, tail");
    store.release(opened.database, opened.head.epoch, Vec::new()).await.expect("the holder can");
    busy.commit(b"record").await.expect("the holder can");
    let granting = ranges(&place, store.open(open_request("a", Some(session))));
    let (spent, (ranges, opened)) = counted(&place, granting).await;
    opened.expect("the lease is free");
    assert_eq!(spent, Requests { versions: 0, reads: 3, commits: 1 }, "name; small values, tail");
    assert_eq!(ranges, (5, 2), "name, fence, slot, lease, progress; slot, lease");
    assert_eq!(place.counter("conflicts"), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_takeover_from_a_quicker_holder_costs_one_transaction_more() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let our_session = session(&ours, LONG).await;
    let mut holder = Holder::new(&ours, our_session, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    let their_session = session(&theirs, LONG).await;
    place.command("next commit.not_committed");
    let (spent, taken) = counted(&place, Holder::taking(&theirs, their_session, "a", true)).await;
    taken.expect("force takes over");
    // Of these two versions, twelve reads and two commits are the grant's, and the first five reads of an older version.
    let all = Requests { versions: 3, reads: 22, commits: 3 };
    assert_eq!(spent, all, "the grant twice, and in between the deposition");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_creation_looks_at_its_id_beside_the_name() {
    let place = Place::new();
    let store = store(&place).await;
    store.open(open_request("first", None)).await.expect("made: ids are reserved");
    let (spent, opened) = counted(&place, store.open(open_request("a", None))).await;
    assert!(opened.expect("made").created);
    assert_eq!(spent, Requests { versions: 1, reads: 3, commits: 1 }, "name, what is under the id, mark of a deletion");
    let (spent, opened) = counted(&place, store.open(open_request("a", None))).await;
    assert!(!opened.expect("it exists").created);
    assert_eq!(spent, Requests { versions: 1, reads: 3, commits: 0 }, "known: name, small values, tail");
    let mut index = 0;
    let created = in_a_row(&place, || {
        index += 1;
        let (store, text) = (Arc::clone(&store), format!("db-{index}"));
        async move { store.open(open_request(&text, None)).await.expect("made") }
    });
    assert_eq!(created.await, 3, "read version, name, commit");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_database_that_rested_pays_nothing_while_its_process_commits() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut resting = Holder::new(&store, session, "resting").await;
    let mut busy = Holder::new(&store, session, "busy").await;
    for _ in 0..4 {
        place.command("advance 3000000");
        busy.commit(b"record").await.expect("the holder can");
    }
    let (spent, outcome) = counted(&place, resting.commit(b"after twelve seconds")).await;
    outcome.expect("the holder can");
    assert_eq!(spent, ONE_COMMIT);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_process_that_only_renews_its_session_commits_in_one_exchange() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    for _ in 0..4 {
        place.command("advance 4000000");
        store.renew_session(session).await.expect("it lives");
    }
    let (spent, outcome) = counted(&place, holder.commit(b"after sixteen seconds")).await;
    outcome.expect("the holder can");
    assert_eq!(spent, ONE_COMMIT);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_long_tail_is_read_in_stretches_at_once() {
    let place = Place::new();
    let store = store(&place).await;
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    for _ in 0..800 {
        holder.commit(&[7; 500]).await.expect("the holder can");
    }
    store.release(holder.database, holder.epoch, Vec::new()).await.expect("the holder can");
    let opened = in_a_row(&place, || async {
        let opened = store.open(open_request("a", None)).await.expect("it exists");
        assert!(matches!(&opened.tail, Tail::Complete(rows) if rows.len() == 800));
    });
    // Half a megabyte: seven replies.
    assert_eq!(opened.await, 3, "read version, small values, tail");
    let lineage = [litefleet::store::Lineage { database: holder.database, max_txid: litefleet::Txid::MAX }];
    let rows = store.read_log(&lineage, litefleet::Txid(3), litefleet::Txid(900)).await.expect("there");
    assert_eq!(rows.len(), 797);
}

/// Where the end of the log is not known, its replies were read one after the other, however many there were.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_long_tail_after_a_known_txid_is_read_in_stretches_at_once_too() {
    let place = Place::new();
    let store = store(&place).await;
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    for _ in 0..800 {
        holder.commit(&[7; 500]).await.expect("the holder can");
    }
    let known = litefleet::Txid(1);
    let whole = |tail: &Tail| matches!(tail, Tail::Complete(rows) if rows.len() == 799);
    let head = HeadRequest { database: holder.database, known, epoch: None, tail_bytes: 1 << 20 };
    let asked = in_a_row(&place, || async { assert!(whole(&store.head(head).await.expect("it exists").tail)) });
    assert_eq!(asked.await, 3, "read version; small values and the first reply; the rest");
    let request = OpenRequest { known: Some((holder.database, known)), ..open_request("a", None) };
    let opened = in_a_row(&place, || async {
        assert!(whole(&store.open(request.clone()).await.expect("it exists").tail));
    });
    assert_eq!(opened.await, 3, "read version; name, small values and the first reply; the rest");
    let cut = HeadRequest { tail_bytes: 200_000, ..head };
    let (spent, reply) = counted(&place, store.head(cut)).await;
    assert!(matches!(reply.expect("it exists").tail, Tail::Truncated));
    assert!(spent.reads <= 9, "{spent:?}: no more than was asked for, and what is under way beside it");
    let short = HeadRequest { known: litefleet::Txid(790), ..head };
    let (spent, reply) = counted(&place, store.head(short)).await;
    assert!(matches!(reply.expect("it exists").tail, Tail::Complete(rows) if rows.len() == 10));
    assert_eq!(spent.reads, 2, "small values, and one reply");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_version_that_is_too_old_costs_one_look_and_goes_on() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"first").await.expect("the holder can");
    for _ in 0..3 {
        // This process does not notice; the cluster does.
        place.command("advance 6000000");
        let (spent, outcome) = counted(&place, holder.commit(b"late")).await;
        outcome.expect("the holder can");
        assert_eq!((spent.versions, spent.commits), (1, 2), "refused for its age, then read and committed");
        let (spent, outcome) = counted(&place, holder.commit(b"next")).await;
        outcome.expect("the holder can");
        assert_eq!(spent, ONE_COMMIT);
    }
    assert_eq!(holder.log().await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn commits_of_many_databases_share_one_transaction() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holders = Vec::new();
    for index in 0..64 {
        holders.push(Holder::new(&store, session, &format!("db-{index}")).await);
    }
    for mode in [CommitMode::Independent, CommitMode::Atomic, CommitMode::Independent] {
        let requests: Vec<_> = holders.iter().map(|holder| holder.request(&[7; 300])).collect();
        let ids: Vec<_> = requests.iter().map(|request| request.commit_id).collect();
        let (spent, outcomes) = counted(&place, store.commit(requests, mode)).await;
        assert!(outcomes.expect("a valid call").iter().all(Result::is_ok));
        assert_eq!(spent, ONE_COMMIT, "{mode:?}");
        for (holder, id) in holders.iter_mut().zip(ids) {
            holder.note(id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn large_batches_are_cut() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut requests = Vec::new();
    for index in 0..20 {
        requests.push(Holder::new(&store, session, &format!("db-{index}")).await.request(&vec![7; 100_000]));
    }
    let (spent, outcomes) = counted(&place, store.commit(requests, CommitMode::Independent)).await;
    assert!(outcomes.expect("a valid call").iter().all(Result::is_ok));
    assert_eq!(spent, Requests { versions: 0, reads: 0, commits: 7 }, "three in each, and no reads");
    assert!(place.counter("largest_commit") < 500_000);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn stagings_and_releases_take_one_commit_too() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    for sequence in 1..=3 {
        let row = image(u32::try_from(sequence).expect("small"), holder.txid.next());
        let (spent, outcome) = counted(&place, holder.stage(sequence, vec![row])).await;
        outcome.expect("the holder can");
        assert_eq!(spent, ONE_COMMIT);
    }
    let mut flip = holder.request(b"flip");
    flip.staged = Some(Staged { generation: 0, last: 3 });
    let (spent, outcome) = counted(&place, holder.send(flip)).await;
    outcome.expect("it is its own staging");
    assert_eq!(spent, ONE_COMMIT);
    assert_eq!(holder.read(1, 3).await.expect("there").len(), 3);
    let (spent, outcome) = counted(&place, store.release(holder.database, holder.epoch, vec![PageNo(1)])).await;
    outcome.expect("the holder can");
    assert_eq!(spent, ONE_COMMIT);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn checkpoints_do_not_disturb_commits_nor_commits_checkpoints() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"first").await.expect("the holder can");
    place.command("latency version=2000 read=2000 commit=2000 late=0");
    let background = holder.clone();
    let checkpoints = tokio::spawn(async move {
        for page in 1..=20 {
            background.checkpoint(vec![image(page, background.txid)], page == 20).await.expect("the holder can");
        }
    });
    while !checkpoints.is_finished() {
        holder.commit(b"record").await.expect("the holder can");
    }
    checkpoints.await.expect("no panic");
    assert_eq!(place.counter("conflicts"), 0);
    assert_eq!(place.counter("batch_read_versions"), 20, "at batch priority");
    let rows = holder.read(1, 20).await.expect("there");
    assert_eq!(rows.len(), 20);
}

/// How often what may take longer on a busy machine is tried.
const TRIES: usize = 3;

/// How many exchanges follow each other: the least of several tries, since anything else can only make it longer.
async fn in_a_row<T, A: Future<Output = T>>(place: &Place, mut action: impl FnMut() -> A) -> u32 {
    const EACH: Duration = Duration::from_millis(200);
    place.command("latency version=200000 read=200000 commit=200000 late=0");
    let mut least = u32::MAX;
    for _ in 0..TRIES {
        let clock = SystemClock::default();
        action().await;
        let count = clock.monotonic().as_millis() / EACH.as_millis();
        least = least.min(u32::try_from(count).expect("few"));
    }
    place.command("latency version=0 read=0 commit=0 late=0");
    least
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn exchanges_that_follow_each_other() {
    let place = Place::new();
    let first = store(&place).await;
    let owner = session(&first, LONG).await;
    let mut holder = Holder::new(&first, owner, "a").await;
    let rows = (1..=40).map(|page| image(page, holder.txid.next())).collect();
    holder.commit(b"record").await.expect("the holder can");
    holder.checkpoint(rows, true).await.expect("the holder can");
    for _ in 0..3 {
        holder.commit(b"tail").await.expect("the holder can");
    }
    let warm: Vec<PageNo> = (1..=30).map(PageNo).collect();
    first.release(holder.database, holder.epoch, warm).await.expect("the holder can");

    // Never opened by this process: the name leads to the id, that to the rest.
    let mut stores = Vec::new();
    for _ in 0..TRIES {
        stores.push(store(&place).await);
    }
    let opened = in_a_row(&place, || {
        let fresh = stores.pop().expect("one for each try");
        async move { fresh.open(open_request("a", None)).await.expect("it exists") }
    });
    assert_eq!(opened.await, 4, "without a lease");
    let opened = in_a_row(&place, || async { first.open(open_request("a", None)).await.expect("it exists") });
    assert_eq!(opened.await, 3, "without a lease, known, with tail and warm pages");

    // With a lease. A process that has committed a moment ago need not ask for a version.
    let with_lease = |store: Arc<FdbStore>| async move {
        let opened = store.open(open_request("a", Some(owner))).await.expect("the lease is free");
        assert_eq!(opened.warm.len(), 30, "its warm pages come along");
        assert!(matches!(&opened.tail, Tail::Complete(rows) if rows.len() == 3), "and its tail");
    };
    let fresh = async |knows_the_name: bool, has_committed: bool| {
        let fresh = store(&place).await;
        if knows_the_name {
            fresh.open(open_request("a", None)).await.expect("it exists");
        }
        if has_committed {
            session(&fresh, LONG).await;
        }
        fresh
    };
    for (knows_the_name, has_committed, exchanges) in
        [(false, false, 4), (true, false, 3), (false, true, 3), (true, true, 2)]
    {
        let mut stores = Vec::new();
        for _ in 0..TRIES {
            stores.push(fresh(knows_the_name, has_committed).await);
        }
        let opened = in_a_row(&place, || with_lease(stores.pop().expect("one for each try")));
        assert_eq!(opened.await, exchanges, "name known: {knows_the_name}, committed: {has_committed}");
    }
    let mut known = open_request("a", Some(owner));
    let opened = first.open(known.clone()).await.expect("it exists");
    known.known = Some((opened.database, opened.head.txid));
    let opened = in_a_row(&place, || async { first.open(known.clone()).await.expect("it exists") });
    assert_eq!(opened.await, 2, "with a lease and a known txid");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn opens_after_a_crash() {
    let place = Place::new();
    let dead = store(&place).await;
    let gone = session(&dead, LONG).await;
    for index in 0..=4 * TRIES {
        let mut holder = Holder::new(&dead, gone, &format!("db-{index}")).await;
        for _ in 0..10 {
            holder.commit(b"tail").await.expect("the holder can");
        }
    }
    let taker = store(&place).await;
    let session = session(&taker, LONG).await;
    Holder::taking(&taker, session, "db-0", true).await.expect("force takes over");
    let mut index = 0;
    for (knows_the_name, has_committed, exchanges) in
        [(false, false, 5), (true, false, 4), (false, true, 5), (true, true, 4)]
    {
        let mut stores = Vec::new();
        for _ in 0..TRIES {
            let fresh = store(&place).await;
            index += 1;
            let text = format!("db-{index}");
            if knows_the_name {
                fresh.open(open_request(&text, None)).await.expect("it exists");
            }
            if has_committed {
                fresh.renew_session(session).await.expect("it lives");
            }
            stores.push((fresh, text));
        }
        let opened = in_a_row(&place, || {
            let (fresh, text) = stores.pop().expect("one for each try");
            async move {
                let opened = fresh.open(open_request(&text, Some(session))).await.expect("its session has ended");
                assert!(matches!(&opened.tail, Tail::Complete(rows) if rows.len() == 10), "its tail comes along");
            }
        });
        assert_eq!(opened.await, exchanges, "name known: {knows_the_name}, committed: {has_committed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn heads_and_closes_that_follow_each_other() {
    let place = Place::new();
    let (ours, beside) = (store(&place).await, store(&place).await);
    let session = session(&ours, LONG).await;
    let mut holders = Vec::new();
    for index in 0..TRIES {
        holders.push(Holder::new(&ours, session, &format!("db-{index}")).await);
    }
    let first = holders.first().expect("some").clone();
    let follower = Holder { store: Arc::clone(&beside), ..first };
    assert_eq!(in_a_row(&place, || follower.head()).await, 2, "read version; small values, log, end of the epoch");
    // This process has not written it last: it must look.
    let closing = in_a_row(&place, || {
        let holder = holders.pop().expect("one for each try");
        let beside = Arc::clone(&beside);
        async move { beside.release(holder.database, holder.epoch, Vec::new()).await.expect("it has the epoch") }
    });
    assert_eq!(closing.await, 3, "read version, conditions, commit");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_purge_reads_no_values() {
    let place = Place::new();
    let store = store(&place).await;
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    for chunk in 0..10_u32 {
        let rows = (1..=60).map(|page| image(chunk * 60 + page, holder.txid)).collect();
        holder.checkpoint(rows, chunk == 9).await.expect("the holder can");
    }
    store.delete(holder.database, holder.epoch).await.expect("the holder can");
    let before = place.counter("range_bytes");
    let mut removed = 0;
    loop {
        let purged = store.purge(250).await.expect("a purge");
        removed += purged.removed;
        if purged.done {
            break;
        }
    }
    assert_eq!(removed, 601, "rows and a record");
    assert!(place.counter("range_bytes") - before < 4_096, "less than one page's");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_purge_walks_over_its_rows_about_twice() {
    // One request walks over half a megabyte, which is about 120 pages. The end was looked for from the beginning each time.
    let place = Place::new();
    let store = store(&place).await;
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    for chunk in 0..16_u32 {
        let rows = (1..=60).map(|page| image(chunk * 60 + page, holder.txid)).collect();
        holder.checkpoint(rows, chunk == 15).await.expect("the holder can");
    }
    store.delete(holder.database, holder.epoch).await.expect("the holder can");
    let before = place.counter("get_keys");
    assert_eq!(store.purge(1_000).await.expect("a purge").removed, 961);
    let walked = place.counter("get_keys") - before;
    assert!(walked <= 30, "{walked} requests: one for the first key, 8 to the end, and 17 to count what is left");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn misses_in_a_row_take_one_read_each() {
    let place = Place::new();
    let store = store(&place).await;
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    let rows = (1..=60).map(|page| image(page, holder.txid)).collect();
    holder.checkpoint(rows, true).await.expect("the holder can");
    holder.read(1, 1).await.expect("there");
    for page in (2..=60).step_by(7) {
        let (spent, rows) = counted(&place, holder.read(page, page)).await;
        assert_eq!(rows.expect("there"), [image(page, holder.txid)]);
        assert_eq!(spent, Requests { versions: 0, reads: 1, commits: 0 }, "its horizon was read with the first");
    }
    // What the caller was told of since must be seen.
    let newer = image(2, holder.txid.next());
    holder.commit(b"record").await.expect("the holder can");
    holder.checkpoint(vec![newer.clone()], true).await.expect("the holder can");
    assert_eq!(holder.read(2, 2).await.expect("there"), [newer]);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn misses_in_a_row_share_a_transaction() {
    let place = Place::new();
    let store = store(&place).await;
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    let rows = (1..=60).map(|page| image(page, holder.txid)).collect();
    holder.checkpoint(rows, true).await.expect("the holder can");
    let before = place.counter("transactions");
    for page in 1..=60 {
        assert_eq!(holder.read(page, page).await.expect("there"), [image(page, holder.txid)]);
    }
    let made = place.counter("transactions") - before;
    assert!(made <= 2, "one that reads the horizon, and one for all that know it: {made}");
    // When it is of no use any more, a call makes its own, and the next ones have a new one.
    for fault in ["next read.1007", "next read.1039", "advance 6000000"] {
        place.command(fault);
        assert_eq!(holder.read(2, 2).await.expect("there"), [image(2, holder.txid)], "{fault}");
        let before = place.counter("transactions");
        for page in 1..=20 {
            assert_eq!(holder.read(page, page).await.expect("there"), [image(page, holder.txid)]);
        }
        assert!(place.counter("transactions") - before <= 2, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn pages_are_read_with_few_requests() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    for chunk in 0..10_u32 {
        let rows = (1..=60).map(|page| image(chunk * 60 + page, holder.txid)).collect();
        holder.checkpoint(rows, chunk == 9).await.expect("the holder can");
    }
    let (spent, rows) = counted(&place, holder.read(1, 600)).await;
    assert_eq!(rows.expect("there").len(), 600);
    assert_eq!(spent.versions, 0, "its own checkpoint's version serves");
    assert!(spent.reads <= 40, "runs of pages share requests: {spent:?}");
    let (spent, rows) = counted(&place, holder.read(300, 300)).await;
    assert_eq!(rows.expect("there"), [image(300, holder.txid)]);
    assert_eq!(spent, Requests { versions: 0, reads: 1, commits: 0 }, "its horizon was read with the others");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn a_page_alone_brings_its_base_and_no_older_image() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    for _ in 0..2 {
        holder.commit(b"record").await.expect("the holder can");
        holder.checkpoint(vec![image(1, holder.txid), image(2, holder.txid)], true).await.expect("the holder can");
    }
    assert_eq!(holder.read(1, 1).await.expect("there"), [image(1, holder.txid)], "and its horizon");
    let before = place.counter("range_bytes");
    let (spent, rows) = counted(&place, holder.read(1, 1)).await;
    assert_eq!(rows.expect("there"), [image(1, holder.txid)]);
    assert_eq!(spent, Requests { versions: 0, reads: 1, commits: 0 });
    let read = place.counter("range_bytes") - before;
    assert!((4_096..4_200).contains(&read), "the image before it was read too: {read} bytes");
    // As large as the engine makes them.
    let base = image(2, holder.txid);
    holder.commit(b"record").await.expect("the holder can");
    let kind = RowKind::Delta { base: base.txid };
    let delta = PageRow { page: PageNo(2), txid: holder.txid, kind, bytes: base.bytes.slice(..1_100) };
    holder.checkpoint(vec![delta.clone()], true).await.expect("the holder can");
    assert_eq!(holder.read(1, 1).await.expect("there").len(), 1);
    let (spent, rows) = counted(&place, holder.read(2, 2)).await;
    assert_eq!(rows.expect("there"), [delta, base]);
    assert_eq!(spent, Requests { versions: 0, reads: 1, commits: 0 }, "the base came along");
}
