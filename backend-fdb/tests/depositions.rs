//! Takeovers from a holder that does not rest: the lease is taken away first, in a transaction that does not know the state
//! that the database leaves with it, and granted then.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::Place;
use common::holder::{Holder, LONG, image, name, open_request, session};
use litefleet::store::{CollectRequest, DiscardRequest, EpochEnd, HeadRequest, PageStore};
use litefleet::{Epoch, ErrorKind, PageNo, PageRange, Result, Txid, UnixMillis};
use litefleet_fdb::FdbStore;

/// Up to so much later a commit arrives whose reply was lost.
const LATE: Duration = Duration::from_secs(1);

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

#[track_caller]
fn fenced<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(error) if error.kind() == ErrorKind::Fenced => {}
        other => panic!("expected Fenced, got {other:?}"),
    }
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How an epoch has ended, as a process is told that had it.
async fn end_of(holder: &Holder, epoch: Epoch) -> Option<EpochEnd> {
    let ask = HeadRequest { database: holder.database, known: Txid(0), epoch: Some(epoch), tail_bytes: 0 };
    holder.store.head(ask).await.expect("it exists").ended
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster that can be told to be slow")]
async fn force_takes_over_from_a_holder_that_commits_without_a_pause() {
    // What is read for a grant is out of date before the grant arrives: in between the holder has committed, each time.
    for same_instance in [false, true] {
        let place = Place::new();
        let ours = store(&place).await;
        let config = place.config().timeout(Duration::from_secs(15));
        let theirs = Arc::new(FdbStore::open(config).await.expect("the store opens"));
        let theirs = if same_instance { Arc::clone(&ours) } else { theirs };
        let (our_session, their_session) = (session(&ours, LONG).await, session(&theirs, LONG).await);
        let mut holder = Holder::new(&ours, our_session, "a").await;
        let mut beside = Holder::new(&ours, our_session, "beside").await;
        let stop = Arc::new(AtomicBool::new(false));
        let committing = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                while !stop.load(Ordering::SeqCst) {
                    if let Err(error) = holder.commit(b"record").await {
                        return (holder.txid, Some(error));
                    }
                }
                (holder.txid, None)
            }
        });
        place.command("latency version=30000 read=30000 late=0");
        let taken = Holder::taking(&theirs, their_session, "a", true).await;
        stop.store(true, Ordering::SeqCst);
        let (acknowledged, ended) = committing.await.expect("no panic");
        place.command("latency version=0 read=0");
        let mut taken = taken.expect("force takes over");
        assert_eq!(taken.txid, acknowledged, "none is lost, and none came after it");
        assert!(ended.is_none_or(|error| error.kind() == ErrorKind::Fenced));
        let end = end_of(&taken, Epoch(1)).await.expect("the end of the epoch is known");
        assert_eq!(end.txid, taken.txid, "what the deposed process will be told");
        taken.commit(b"theirs").await.expect("the taker can");
        beside.commit(b"record").await.expect("its epoch is still the current one");
        fenced(ours.renew_session(our_session).await);
        // Its lease is free, as after any takeover.
        let other = if same_instance { session(&ours, LONG).await } else { their_session };
        assert_eq!(Holder::new(&theirs, other, "beside").await.txid, beside.txid);
    }
}

/// What a holder does.
#[derive(Clone, Copy, Debug)]
enum Begun {
    Commit,
    Stage,
    Discard,
    Release,
    Rename,
    Delete,
    Checkpoint,
    Collect,
    Renew,
}

impl Begun {
    async fn by(self, mut holder: Holder) -> Result<()> {
        let (store, database, epoch) = (Arc::clone(&holder.store), holder.database, holder.epoch);
        match self {
            Self::Commit => holder.commit(b"late").await,
            Self::Stage => holder.stage(1, vec![image(1, holder.txid.next())]).await,
            Self::Discard => {
                let request = DiscardRequest { database, epoch, expected: holder.txid, generation: 0, limit: 10 };
                store.discard_staged(request).await.map(|_| ())
            }
            Self::Release => store.release(database, epoch, Vec::new()).await,
            Self::Rename => store.rename(database, epoch, name("elsewhere")).await,
            Self::Delete => store.delete(database, epoch).await,
            Self::Checkpoint => holder.checkpoint(vec![image(1, holder.txid)], true).await,
            Self::Collect => {
                let pages = vec![PageRange::new(PageNo(1), PageNo(1))];
                let request = CollectRequest {
                    database,
                    epoch,
                    at_most: Txid::MAX,
                    completed_before: UnixMillis(u64::MAX),
                    pages,
                    log_through: holder.txid,
                };
                store.collect(request).await.map(|_| ())
            }
            Self::Renew => store.renew_session(holder.session).await,
        }
    }
}

/// Begins something whose commit arrives late, takes the lease away and grants it, and looks at the database when
/// everything has arrived. `known`: by the instance that knows how the database stands, without a read.
async fn arrives_after_a_deposition(begun: Begun, known: bool) {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let their_session = session(&theirs, LONG).await;
    place.command(&format!("latency late={}", LATE.as_micros()));
    let mut all = Vec::new();
    for round in 0..5 {
        let our_session = session(&ours, LONG).await;
        let text = format!("a-{round}");
        let mut holder = Holder::new(&ours, our_session, &text).await;
        holder.commit(b"first").await.expect("the holder can");
        if matches!(begun, Begun::Collect) {
            holder.checkpoint(vec![image(1, holder.txid)], true).await.expect("the holder can");
            holder.commit(b"second").await.expect("the holder can");
        }
        let before = holder.head().await;
        let by = if known { holder.clone() } else { Holder { store: store(&place).await, ..holder.clone() } };
        let versions = place.counter("read_versions") + if known { 1 } else { 2 };
        place.command("next commit.1039.late");
        place.command(if known { "next version.slow.60000" } else { "next version.ok version.slow.60000" });
        let lost = tokio::spawn(begun.by(by));
        // It is about to look what came of it.
        until(|| place.counter("read_versions") >= versions || lost.is_finished()).await;
        assert!(!lost.is_finished(), "{begun:?}: the reply was lost");
        lost.abort();
        if holder.try_head().await.is_ok_and(|head| head == before) {
            // Else it would look at a version from before there was such a database, and begin by making it.
            theirs.renew_session(their_session).await.expect("it lives");
            place.command("next commit.not_committed");
            let commits = place.counter("commits");
            let taken = Holder::taking(&theirs, their_session, &text, true).await.expect("force takes over");
            // Or it arrived in between.
            let as_meant = place.counter("commits") == commits + 3 && taken.database == holder.database;
            all.push((as_meant, taken.head().await, taken, text, our_session));
        }
    }
    tokio::time::sleep(LATE + LATE / 4).await;
    assert!(all.iter().any(|(as_meant, ..)| *as_meant), "{begun:?}: the lease was taken away first");
    let conflicts = place.counter("conflicts");
    for (as_meant, head, mut taken, text, our_session) in all {
        assert_eq!(taken.head().await, head, "{begun:?}, {known}");
        taken.commit(b"theirs").await.expect("the taker can");
        let found = theirs.open(open_request(&text, None)).await.expect("it has its name");
        assert_eq!((found.created, found.database), (false, taken.database), "{begun:?}, {known}");
        if as_meant {
            assert!(end_of(&taken, Epoch(1)).await.is_some_and(|end| end.txid == head.txid), "{begun:?}, {known}");
            fenced(ours.renew_session(our_session).await);
        }
    }
    assert!(conflicts > 0, "{begun:?}: none was late enough to show anything");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that arrives late")]
async fn what_was_begun_before_the_lease_was_taken_away_does_nothing_after_it() {
    use Begun::{Checkpoint, Collect, Commit, Delete, Discard, Release, Rename, Renew, Stage};
    let mut all = tokio::task::JoinSet::new();
    for begun in [Commit, Stage, Discard, Release, Rename, Delete, Checkpoint, Collect, Renew] {
        all.spawn(arrives_after_a_deposition(begun, false));
    }
    for begun in [Commit, Stage, Release] {
        all.spawn(arrives_after_a_deposition(begun, true));
    }
    all.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that arrives late")]
async fn what_the_holder_does_after_its_lease_was_taken_away_is_fenced() {
    // The taker has ended before the lease was granted to it.
    use Begun::{Checkpoint, Collect, Commit, Delete, Discard, Release, Rename, Renew, Stage};
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let our_session = session(&ours, LONG).await;
    let mut holder = Holder::new(&ours, our_session, "a").await;
    holder.commit(b"first").await.expect("the holder can");
    deposed(&place, &theirs, "a").await;
    let head = holder.head().await;
    assert_eq!((head.epoch, head.txid, head.holder), (holder.epoch, holder.txid, None));
    assert_eq!(end_of(&holder, holder.epoch).await, None, "it has not ended, until the lease is granted");
    let another = Holder { store: store(&place).await, ..holder.clone() };
    for begun in [Commit, Stage, Discard, Release, Rename, Delete, Checkpoint, Collect, Renew] {
        fenced(begun.by(holder.clone()).await);
        fenced(begun.by(another.clone()).await);
    }
    assert_eq!(holder.head().await.txid, holder.txid);
    // Nobody needs force any more.
    let next = session(&ours, LONG).await;
    let mut taken = Holder::new(&ours, next, "a").await;
    assert_eq!((taken.txid, taken.epoch), (holder.txid, holder.epoch.next()));
    taken.commit(b"next").await.expect("the holder can");
    assert_eq!(end_of(&taken, holder.epoch).await.map(|end| end.txid), Some(holder.txid));
}

/// Takes a lease away by force, and ends before it is granted.
async fn deposed(place: &Place, store: &Arc<FdbStore>, text: &str) {
    let session = session(store, LONG).await;
    let (commits, versions) = (place.counter("commits_applied"), place.counter("read_versions"));
    place.command("next commit.not_committed version.ok version.ok version.slow.60000");
    let (store, text) = (Arc::clone(store), text.to_owned());
    let taking = tokio::spawn(async move { Holder::taking(&store, session, &text, true).await });
    // One that was refused, one that took the lease away, and one that is held up.
    until(|| place.counter("read_versions") >= versions + 3 || taking.is_finished()).await;
    assert!(!taking.is_finished() && place.counter("commits_applied") == commits + 1, "it was taken away only");
    taking.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit whose reply is lost")]
async fn a_grant_whose_reply_was_lost_is_known_again_after_a_deposition() {
    for granted_since in [false, true] {
        let place = Place::new();
        let (ours, theirs) = (store(&place).await, store(&place).await);
        ours.open(open_request("other", None)).await.expect("made: ids are reserved");
        let our_session = session(&ours, LONG).await;
        let versions = place.counter("read_versions");
        place.command("next commit.1039.done version.slow.3000");
        let opening = tokio::spawn(async move { Holder::taking(&ours, our_session, "a", false).await });
        // It is about to look what came of it.
        until(|| place.counter("read_versions") > versions).await;
        deposed(&place, &theirs, "a").await;
        if granted_since {
            let their_session = session(&theirs, LONG).await;
            assert_eq!(Holder::new(&theirs, their_session, "a").await.epoch, Epoch(2));
        }
        assert!(!opening.is_finished(), "it has not looked yet");
        let mut opened = opening.await.expect("no panic").expect("the lease was granted");
        assert_eq!(opened.epoch, Epoch(1), "granted since: {granted_since}");
        fenced(opened.commit(b"late").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit whose reply is lost")]
async fn a_deposition_whose_reply_was_lost_is_made_once() {
    for fate in ["1039.lost", "1039.done", "1039.late", "1021.done", "1021.late", "not_committed"] {
        let place = Place::new();
        let (ours, theirs) = (store(&place).await, store(&place).await);
        place.command(&format!("latency late={}", LATE.as_micros()));
        let our_session = session(&ours, LONG).await;
        let mut holder = Holder::new(&ours, our_session, "a").await;
        holder.commit(b"first").await.expect("the holder can");
        let their_session = session(&theirs, LONG).await;
        place.command(&format!("next commit.not_committed commit.{fate}"));
        let mut taken = Holder::taking(&theirs, their_session, "a", true).await.expect("force takes over");
        assert_eq!((taken.txid, taken.epoch), (holder.txid, holder.epoch.next()), "{fate}");
        assert_eq!(end_of(&taken, holder.epoch).await.map(|end| end.txid), Some(holder.txid), "{fate}");
        if fate.ends_with("late") {
            tokio::time::sleep(LATE + LATE / 4).await;
        }
        assert_eq!(taken.head().await.epoch, taken.epoch, "{fate}");
        taken.commit(b"theirs").await.expect("the taker can");
        fenced(holder.commit(b"late").await);
        fenced(ours.renew_session(our_session).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs conflicts as told")]
async fn two_takers_at_once_get_an_epoch_each() {
    let place = Place::new();
    let stores = [store(&place).await, store(&place).await, store(&place).await];
    for round in 0..20 {
        let mut sessions = Vec::new();
        for store in &stores {
            sessions.push(session(store, LONG).await);
        }
        let [ours, first, second] = &stores;
        let mut holder = Holder::taking(ours, sessions[0], "a", true).await.expect("force takes over");
        holder.commit(b"first").await.expect("the holder can");
        place.command("next commit.not_committed commit.not_committed");
        let (first, second) =
            tokio::join!(Holder::taking(first, sessions[1], "a", true), Holder::taking(second, sessions[2], "a", true));
        let (first, second) = (first.expect("force takes over"), second.expect("force takes over"));
        let (mut older, mut newer) = if first.epoch < second.epoch { (first, second) } else { (second, first) };
        assert!(older.epoch > holder.epoch && newer.epoch > older.epoch, "round {round}");
        fenced(older.commit(b"late").await);
        newer.commit(b"theirs").await.expect("the last taker can");
        fenced(holder.commit(b"late").await);
        assert_eq!(newer.head().await.txid, holder.txid.next(), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that arrives late")]
async fn nobody_is_deposed_by_one_who_has_lost_the_lease_already() {
    // The first grant of a taker arrives late, after the next one was refused; and before the taker looks again, another
    // one takes the lease from it. What the first has asked for was done.
    let place = Place::new();
    let (ours, theirs, others) = (store(&place).await, store(&place).await, store(&place).await);
    place.command(&format!("latency late={}", LATE.as_micros()));
    let mut as_meant = false;
    for round in 0..5 {
        let text = format!("a-{round}");
        let our_session = session(&ours, LONG).await;
        let mut holder = Holder::new(&ours, our_session, &text).await;
        holder.commit(b"first").await.expect("the holder can");
        let (their_session, others_session) = (session(&theirs, LONG).await, session(&others, LONG).await);
        let versions = place.counter("read_versions");
        place.command("next commit.1039.late commit.not_committed version.ok version.ok version.slow.3000");
        let (store, opened) = (Arc::clone(&theirs), text.clone());
        let opening = tokio::spawn(async move { Holder::taking(&store, their_session, &opened, true).await });
        until(|| place.counter("read_versions") >= versions + 3 || opening.is_finished()).await;
        while holder.head().await.epoch == holder.epoch {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        as_meant |= !opening.is_finished();
        place.command("faults");
        let mut newest = Holder::taking(&others, others_session, &text, true).await.expect("force takes over");
        let mut taken = opening.await.expect("no panic").expect("it was granted");
        assert_eq!((taken.epoch, newest.epoch), (Epoch(2), Epoch(3)), "round {round}");
        fenced(taken.commit(b"late").await);
        newest.commit(b"record").await.expect("the last taker can");
        others.renew_session(others_session).await.expect("it lives");
    }
    assert!(as_meant, "the grant arrived before the next one was tried each time");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit whose reply is lost")]
async fn a_grant_of_what_was_taken_away_is_known_again() {
    // Another than the taker finds the lease free; its reply is lost, and the lease is taken from it before it looks.
    let place = Place::new();
    let (ours, theirs, others) = (store(&place).await, store(&place).await, store(&place).await);
    let our_session = session(&ours, LONG).await;
    let mut holder = Holder::new(&ours, our_session, "a").await;
    holder.commit(b"first").await.expect("the holder can");
    deposed(&place, &theirs, "a").await;
    let others_session = session(&others, LONG).await;
    let versions = place.counter("read_versions");
    place.command("next commit.1039.done version.ok version.slow.3000");
    let opening = tokio::spawn(async move { Holder::taking(&others, others_session, "a", false).await });
    until(|| place.counter("read_versions") >= versions + 2 || opening.is_finished()).await;
    assert!(!opening.is_finished(), "it is about to look what came of it");
    let their_session = session(&theirs, LONG).await;
    let taken = Holder::taking(&theirs, their_session, "a", true).await.expect("force takes over");
    assert!(!opening.is_finished(), "it has not looked yet");
    let mut opened = opening.await.expect("no panic").expect("the lease was granted");
    assert_eq!((opened.epoch, taken.epoch), (Epoch(2), Epoch(3)));
    fenced(opened.commit(b"late").await);
}
