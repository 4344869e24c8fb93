//! Takeovers and late requests, where a process commits without reading: commits that share a version with a takeover,
//! and commits whose reply was lost and that arrive after later ones.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::Place;
use common::holder::{Holder, LONG, image, name, open_request, session};
use litefleet::store::{DiscardRequest, PageStore};
use litefleet::{ErrorKind, Result, Txid};
use litefleet_fdb::FdbStore;

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

#[track_caller]
fn fenced(result: Result<()>) {
    match result {
        Err(error) if error.kind() == ErrorKind::Fenced => {}
        other => panic!("expected Fenced, got {other:?}"),
    }
}

/// Waits until so many commits have reached the queue of a batch.
async fn queued(place: &Place, commits: u64) {
    while place.counter("queued") < commits {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs commits that share a version")]
async fn a_takeover_at_the_version_of_our_own_commit_is_not_missed() {
    // All commits of a batch have one version, and "changed since" means at a greater one. So a commit that goes by the
    // version of ours would not see a takeover in the same batch, however many follow.
    for lifted in [0, 1, 3] {
        let place = Place::new();
        let (ours, theirs) = (store(&place).await, store(&place).await);
        let our_session = session(&ours, LONG).await;
        let mut resting = Holder::new(&ours, our_session, "resting").await;
        let mut busy = Holder::new(&ours, our_session, "busy").await;
        resting.commit(b"first").await.expect("the holder can");
        // After that, so that the taker's first look, at an older version, finds the database.
        let their_session = session(&theirs, LONG).await;
        let before = place.counter("queued");
        place.command("gather 2");
        let mut first = busy.clone();
        let first = tokio::spawn(async move { first.commit(b"record").await.map(|()| first.last) });
        queued(&place, before + 1).await;
        let mut taken = Holder::taking(&theirs, their_session, "resting", true).await.expect("force takes over");
        let done = first.await.expect("no panic").expect("this one is still ours");
        assert_eq!(place.counter("queued"), before + 2, "one batch");
        busy.note(done);
        for _ in 0..lifted {
            busy.commit(b"record").await.expect("this one is still ours");
        }
        fenced(resting.commit(b"late").await);
        taken.commit(b"theirs").await.expect("the taker can");
        assert_eq!(taken.log().await, [b"first".as_slice(), b"theirs"], "{lifted} commits later");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs commits that share a version")]
async fn a_grant_without_a_look_at_its_session_sees_its_end() {
    // A process whose chain vouches for its session reads neither the session's record nor its fence before it takes
    // another lease. Whoever ends the session, also at the version of the process's own last commit, is not missed.
    for (way, same_version) in [("taken", false), ("ended", false), ("taken", true), ("ended", true)] {
        let place = Place::new();
        let (ours, theirs) = (store(&place).await, store(&place).await);
        let our_session = session(&ours, LONG).await;
        let mut busy = Holder::new(&ours, our_session, "busy").await;
        Holder::new(&ours, our_session, "other").await;
        theirs.open(open_request("wanted", None)).await.expect("made");
        let their_session = session(&theirs, LONG).await;
        let before = place.counter("queued");
        if same_version {
            place.command("gather 2");
        }
        let mut committing = busy.clone();
        let committing = tokio::spawn(async move { committing.commit(b"record").await.map(|()| committing.last) });
        queued(&place, before + 1).await;
        match way {
            "taken" => drop(Holder::taking(&theirs, their_session, "other", true).await.expect("force takes over")),
            _ => theirs.end_session(our_session).await.expect("it ends"),
        }
        let done = committing.await.expect("no panic").expect("this one is still ours");
        busy.note(done);
        let (reads, commits) = (place.counter("gets"), place.counter("commits"));
        fenced(Holder::taking(&ours, our_session, "wanted", false).await.map(|_| ()));
        assert!(place.counter("commits") > commits && place.counter("gets") > reads, "in vain, and then it has looked");
        busy.commit(b"record").await.expect("its epoch is still the current one");
        fenced(Holder::taking(&ours, our_session, "wanted", false).await.map(|_| ()));
        assert!(Holder::new(&theirs, their_session, "wanted").await.epoch > litefleet::Epoch(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that arrives late")]
async fn a_lost_commit_that_arrives_after_later_ones_does_nothing() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut busy = Holder::new(&store, session, "busy").await;
    place.command("latency late=300000");
    for late in ["1039.late", "1021.late"] {
        let mut holder = Holder::new(&store, session, late).await;
        let mut expected = Vec::new();
        for round in 0..8_u8 {
            let (before, made) = (place.counter("queued"), place.counter("late_commits"));
            place.command(&format!("next commit.{late}"));
            let mut all = 1;
            for number in 0..3_u8 {
                holder.commit(&[round, number]).await.expect("it is tried again, and then made");
                busy.commit(b"record").await.expect("the holder can");
                expected.push(vec![round, number]);
                all += 2;
            }
            // When the lost one came first, it was not tried again.
            while place.counter("queued") + u64::from(place.counter("late_commits") > made) < before + all {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(holder.log().await, expected, "{late}, round {round}");
        }
    }
    assert!(place.counter("conflicts") > 0, "none was late enough to show anything");
}

/// What our own process does while a commit of it is on its way that nobody waits for any more.
#[derive(Clone, Copy, Debug)]
enum Then {
    Reopens,
    Discards,
    Releases,
    Deletes,
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that arrives late")]
async fn a_commit_that_was_given_up_does_nothing_after_any_other_change_of_ours() {
    const LATE: Duration = Duration::from_millis(500);
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut busy = Holder::new(&store, session, "busy").await;
    place.command(&format!("latency late={}", LATE.as_micros()));
    for round in 0..3 {
        let mut changed = Vec::new();
        for then in [Then::Reopens, Then::Discards, Then::Releases, Then::Deletes] {
            let text = format!("{then:?}-{round}");
            let mut holder = Holder::new(&store, session, &text).await;
            holder.commit(b"first").await.expect("the holder can");
            let before = place.counter("read_versions");
            place.command("next commit.1039.late version.slow.60000");
            let mut lost = holder.clone();
            let lost = tokio::spawn(async move { lost.commit(b"lost").await });
            // It is about to look what came of it.
            while place.counter("read_versions") == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            lost.abort();
            let generation = holder.head().await.generation;
            let head = holder.head().await;
            (holder.txid, holder.last) = (head.txid, head.commit_id);
            let (database, epoch) = (holder.database, holder.epoch);
            let outcome = match then {
                Then::Reopens => Holder::taking(&store, session, &text, false).await.map(|_| ()),
                Then::Discards => {
                    let request = DiscardRequest { database, epoch, expected: holder.txid, generation, limit: 10 };
                    store.discard_staged(request).await.map(|_| ())
                }
                Then::Releases => store.release(database, epoch, Vec::new()).await,
                Then::Deletes => store.delete(database, epoch).await,
            };
            // It may have arrived just before the discard.
            assert!(outcome.is_ok() || matches!(then, Then::Discards), "{then:?}: {outcome:?}");
            busy.commit(b"record").await.expect("the holder can");
            let head = if matches!(then, Then::Deletes) { None } else { Some(holder.head().await) };
            changed.push((then, holder, head));
        }
        tokio::time::sleep(LATE + LATE / 4).await;
        for (then, holder, head) in changed {
            let Some(head) = head else {
                assert!(store.open(open_request(&format!("{then:?}-{round}"), None)).await.expect("made").created);
                let gone = holder.try_head().await.expect_err("it stays deleted");
                assert_eq!(gone.kind(), ErrorKind::NotFound);
                continue;
            };
            assert_eq!(holder.head().await, head, "{then:?}");
        }
    }
    assert!(place.counter("conflicts") > 0, "none was late enough to show anything");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit whose reply is lost")]
async fn a_database_whose_creation_was_not_acknowledged_is_not_made_again() {
    // Ours creates it, and the reply is lost. Before it looks, another process finds the database, writes to it and takes
    // its name away. Ours finds the name free again: what it makes then must be another database, since to write the
    // first one's state once more would take the other's commit back, and behind its back.
    for deleted in [false, true] {
        let place = Place::new();
        let (ours, theirs) = (store(&place).await, store(&place).await);
        ours.open(open_request("other", None)).await.expect("made: ids are reserved");
        let their_session = session(&theirs, LONG).await;
        let before = place.counter("read_versions");
        place.command("next commit.1039.done version.ok version.slow.3000");
        let opening = tokio::spawn(async move { ours.open(open_request("a", None)).await });
        // It is about to look what came of it.
        while place.counter("read_versions") < before + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut first = Holder::new(&theirs, their_session, "a").await;
        first.commit(b"theirs").await.expect("the holder can");
        first.checkpoint(vec![image(1, first.txid)], true).await.expect("the holder can");
        if deleted {
            theirs.delete(first.database, first.epoch).await.expect("the holder can");
        } else {
            theirs.rename(first.database, first.epoch, name("b")).await.expect("the holder can");
        }
        let second = opening.await.expect("no panic").expect("the name is free");
        assert!(second.created && second.database != first.database, "deleted: {deleted}");
        let mut made = Holder::new(&theirs, their_session, "a").await;
        assert_eq!((made.database, made.txid), (second.database, Txid(0)));
        made.commit(b"record").await.expect("the holder can");
        made.checkpoint(vec![image(1, made.txid)], true).await.expect("the holder can");
        assert!(theirs.purge(10_000).await.expect("a purge").done);
        assert_eq!(made.read(1, 1).await.expect("there"), [image(1, made.txid)]);
        if deleted {
            assert_eq!(first.try_head().await.expect_err("it stays deleted").kind(), ErrorKind::NotFound);
        } else {
            assert_eq!(first.head().await.txid, Txid(1));
            assert_eq!(first.read(1, 1).await.expect("there"), [image(1, first.txid)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn takeovers_beside_a_busy_database_lose_no_acknowledged_commit() {
    let rounds = if cfg!(real_cluster) { 300 } else { 60 };
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let their_session = session(&theirs, LONG).await;
    for round in 0..rounds {
        let our_session = session(&ours, LONG).await;
        let mut resting = Holder::new(&ours, our_session, &format!("resting-{round}")).await;
        resting.commit(b"first").await.expect("the holder can");
        let stop = Arc::new(AtomicBool::new(false));
        let mut busy = tokio::task::JoinSet::new();
        for index in 0..4 {
            let mut holder = Holder::taking(&ours, our_session, &format!("busy-{index}"), true).await.expect("taken");
            let stop = Arc::clone(&stop);
            busy.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    holder.commit(b"record").await.expect("this one is still ours");
                }
            });
        }
        let text = format!("resting-{round}");
        let mut taken = Holder::taking(&theirs, their_session, &text, true).await.expect("force takes over");
        fenced(resting.commit(b"late").await);
        stop.store(true, Ordering::SeqCst);
        busy.join_all().await;
        taken.commit(b"theirs").await.expect("the taker can");
        assert_eq!(taken.log().await, [b"first".as_slice(), b"theirs"], "round {round}");
        theirs.release(taken.database, taken.epoch, Vec::new()).await.expect("the holder can");
    }
}
