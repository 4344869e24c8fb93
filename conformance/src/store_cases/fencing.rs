//! Fencing: what happens to those whose lease is gone, and to databases that are.

use std::pin::Pin;

use bytes::Bytes;
use litefleet::store::{CheckpointRequest, CommitMode, HeadRequest, Lineage, Operation};
use litefleet::{Epoch, ErrorKind, Result, Txid, UnixMillis};

use crate::fixture::{
    AMPLE, LONG, Tasks, Writer, commit_one, delta, image, lease_request, name, open_request, picture, range, refused,
    session, singles,
};
use crate::harness::{Harness, pass, short_lifetime};

type Attempt = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Every write that a holder can make, each one valid if the lease still stood.
pub(crate) fn attempts(writer: &Writer) -> Vec<(Operation, Attempt)> {
    let mut list: Vec<(Operation, Attempt)> = Vec::new();
    let mut add = |operation, attempt| list.push((operation, attempt));
    let w = writer.clone();
    add(Operation::Release, Box::pin(async move { w.release(&[7]).await }));
    let w = writer.clone();
    add(Operation::Commit, Box::pin(async move { commit_one(&w.store, w.request(b"stolen")).await }));
    let w = writer.clone();
    add(
        Operation::Stage,
        Box::pin(async move {
            let generation = w.head().await.generation;
            let rows = vec![image(1, w.txid.next().get(), b"stolen")];
            w.store.stage(w.stage_request(generation, rows)).await
        }),
    );
    let w = writer.clone();
    add(
        Operation::DiscardStaged,
        Box::pin(async move {
            let request = w.discard_request(w.head().await.generation, 10);
            w.store.discard_staged(request).await.map(|_| ())
        }),
    );
    let w = writer.clone();
    add(
        Operation::Checkpoint,
        Box::pin(async move {
            let rows = [image(1, w.txid.get(), b"stolen")];
            w.try_checkpoint(w.txid.get(), &rows, true, 0).await
        }),
    );
    let w = writer.clone();
    add(
        Operation::Collect,
        Box::pin(async move {
            let mut request = w.collect_request(w.txid.get(), singles(&[1]));
            request.log_through = w.txid;
            w.store.collect(request).await.map(|_| ())
        }),
    );
    let w = writer.clone();
    add(Operation::Rename, Box::pin(async move { w.store.rename(w.database, w.epoch, name("stolen")).await }));
    let w = writer.clone();
    add(Operation::Delete, Box::pin(async move { w.store.delete(w.database, w.epoch).await }));
    let w = writer.clone();
    add(Operation::LockExclusive, Box::pin(async move { w.store.lock_exclusive(w.database, w.epoch).await }));
    let w = writer.clone();
    add(Operation::UnlockExclusive, Box::pin(async move { w.store.unlock_exclusive(w.database, w.epoch).await }));
    list
}

pub(crate) async fn refuse_all(attempts: Vec<(Operation, Attempt)>, kind: ErrorKind, when: &str) {
    for (operation, attempt) in attempts {
        refused(attempt.await, kind, &format!("{} {when}", operation.as_str()));
    }
}

/// After a takeover, every write of the old holder is `Fenced` and changes nothing; so is one under an epoch to come.
pub async fn every_write_is_fenced(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut old = Writer::new(&store, "a").await;
    old.commit_up_to(4).await;
    old.checkpoint(1, &[image(1, 1, b"one")]).await;
    old.checkpoint(3, &[image(1, 3, b"three"), image(2, 3, b"")]).await;
    old.stage(&[image(3, 5, b"staged")]).await;
    let new = old.take_over().await;
    let before = picture(&store, new.database).await;
    assert!(before.head.staged, "the takeover leaves the staged rows");
    let late = [old.epoch, Epoch(new.epoch.get() + 1), Epoch(0)];
    for epoch in late {
        let writer = Writer { epoch, ..old.clone() };
        refuse_all(attempts(&writer), ErrorKind::Fenced, "under another epoch").await;
        assert_eq!(
            picture(&store, new.database).await,
            before,
            "something was changed under epoch {epoch}, {} is current",
            new.epoch
        );
    }
    // The same session cannot write under its older epoch either.
    let again = Writer::with_session(&store, new.session, "a").await;
    let before = picture(&store, new.database).await;
    refuse_all(attempts(&new), ErrorKind::Fenced, "under its own older epoch").await;
    assert_eq!(picture(&store, new.database).await, before);
    again.discard().await;
    refuse_all(vec![(Operation::Stage, attempts(&old).swap_remove(2).1)], ErrorKind::Fenced, "after a discard").await;
}

/// Fencing goes by the epoch alone: a holder whose session has expired is fenced by the grant and not by a clock.
pub async fn fence_needs_no_clock(harness: &dyn Harness) {
    let store = harness.store().await;
    let lifetime = short_lifetime(harness);
    let session = session(&store, lifetime).await;
    let mut old = Writer::with_session(&store, session, "a").await;
    pass(harness, lifetime * 2).await;
    old.commit_up_to(2).await;
    old.checkpoint(1, &[image(1, 1, b"one")]).await;
    let generation = old.stage(&[image(1, 3, b"staged")]).await;
    let mut flip = old.request(b"flip");
    flip.staged = Some(old.staged(generation));
    old.try_commit(flip).await.expect("the epoch is still its own");
    let new = old.take_over().await;
    assert_eq!(new.txid, Txid(3));
    refuse_all(attempts(&old), ErrorKind::Fenced, "after the takeover").await;
}

/// A deleted database is `NotFound` to every method at once, its name is free, and its id is never used again.
pub async fn deleted_database_is_unreadable(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(3).await;
    let rows = [image(1, 2, b"one"), image(2, 2, b"two")];
    writer.checkpoint(2, &rows).await;
    writer.checkpoint(3, &[delta(1, 3, 2, b"d")]).await;
    writer.stage(&[image(1, 4, b"staged")]).await;
    let stranger = Writer::new(&store, "b").await;
    let strange = picture(&store, stranger.database).await;
    let deleted = writer.database;
    store.delete(deleted, writer.epoch).await.expect("the holder can delete");
    unreadable(&writer).await;
    refused(store.open(open_request("a")).await, ErrorKind::NotFound, "opening a deleted database");
    let listed = store.list("", None, 10).await.expect("a list");
    let listed: Vec<_> = listed.into_iter().map(|entry| entry.state.expect("it is whole").database).collect();
    assert_eq!(listed, [stranger.database]);

    let again = Writer::new(&store, "a").await;
    assert_ne!(again.database, deleted);
    assert_eq!(again.txid, Txid(0));
    let head = again.head().await;
    assert_eq!((head.size, head.staged), (0, false));
    assert!(again.read(&[1, 2], 0).await.is_empty());
    unreadable(&writer).await;
    while !store.purge(2).await.expect("a purge").done {}
    unreadable(&writer).await;
    let found = picture(&store, again.database).await;
    assert!(found.rows.is_empty() && found.log.is_empty());
    assert_eq!(picture(&store, stranger.database).await, strange);
}

async fn unreadable(writer: &Writer) {
    let store = &writer.store;
    let database = writer.database;
    let lineage = [Lineage { database, max_txid: Txid::MAX }];
    // These ask for the head first, which is gone: they are tried here.
    let mut attempts = attempts(writer);
    attempts.retain(|(operation, _)| !matches!(operation, Operation::Stage | Operation::DiscardStaged));
    refuse_all(attempts, ErrorKind::NotFound, "of a deleted database").await;
    let gone = |result: Result<()>, what: &str| refused(result, ErrorKind::NotFound, what);
    let row = vec![image(1, writer.txid.next().get(), b"late")];
    gone(store.stage(writer.stage_request(0, row)).await, "stage");
    gone(store.discard_staged(writer.discard_request(0, 10)).await.map(|_| ()), "discard_staged");
    gone(store.watch(database, Txid(0)).await.map(|_| ()), "watch");
    let request = HeadRequest { database, known: Txid(0), epoch: Some(writer.epoch), tail_bytes: AMPLE };
    gone(store.head(request).await.map(|_| ()), "head");
    let pages = [range(1, 1)];
    let read = store.read_pages(&lineage, &pages, writer.txid).await;
    gone(read.map(|_| ()), "read_pages");
    let read = store.read_log(&lineage, Txid(0), writer.txid).await;
    gone(read.map(|_| ()), "read_log");
    gone(store.scan(database, None, 10).await.map(|_| ()), "scan");
}

/// While many take one lease from each other, every write is either under the current epoch or fenced: what a deposed
/// holder was told did not happen is nowhere.
pub async fn checkpoints_and_takeovers_do_not_mix(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut first = Writer::new(&store, "a").await;
    first.commit_up_to(1).await;
    let mut tasks = Tasks::new();
    for _ in 0..6 {
        let first = first.clone();
        tasks.spawn(async move {
            let mut written = Vec::new();
            let mut lost = Vec::new();
            for page in 0..12_u32 {
                let writer = first.take_over().await;
                tokio::task::yield_now().await;
                // The page number tells the epoch: no two attempts write the same row.
                let page = u32::try_from(writer.epoch.get() * 100).expect("few epochs") + page;
                let request = CheckpointRequest {
                    database: writer.database,
                    epoch: writer.epoch,
                    txid: Txid(1),
                    since: Txid(0),
                    attempt: 0,
                    piece: 0,
                    rows: vec![image(page, 1, b"row")],
                    last: false,
                    time: UnixMillis(0),
                    warm: Vec::new(),
                };
                match writer.store.checkpoint(request).await {
                    Ok(()) => written.push(page),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                        lost.push(page);
                    }
                }
            }
            (written, lost)
        });
    }
    let rows = tasks.join().await;
    let found = crate::fixture::scan(&store, first.database).await;
    let mut found: Vec<u32> = found.iter().map(|row| row.page.get()).collect();
    let mut written: Vec<u32> = rows.iter().flat_map(|(w, _)| w.iter().copied()).collect();
    found.sort_unstable();
    written.sort_unstable();
    assert_eq!(found, written, "exactly the acknowledged rows are there");
}

/// What one database does never shows in another: same pages, same txids, same commit times.
pub async fn databases_do_not_mix(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writers = Vec::new();
    for text in ["a", "a/", "b"] {
        writers.push(Writer::new(&store, text).await);
    }
    for txid in 1..=3_u64 {
        for writer in &mut writers {
            let record = format!("{}-{txid}", writer.name);
            writer.commit(record.as_bytes()).await;
            let bytes = format!("{} {txid}", writer.name);
            let rows = [image(1, txid, bytes.as_bytes()), image(2, txid, b"")];
            writer.checkpoint(txid, &rows).await;
        }
    }
    let [a, b, c] = writers.as_slice() else { panic!("there are three") };
    b.stage(&[image(1, 4, b"staged")]).await;
    a.collect(3, 2, 3).await;
    assert_eq!(b.head().await.horizon, Txid(0));
    store.delete(c.database, c.epoch).await.expect("it is held");
    while !store.purge(3).await.expect("a purge").done {}
    for (writer, rows, records) in [(a, 2, 0), (b, 7, 3)] {
        let seen = picture(&store, writer.database).await;
        assert_eq!((seen.rows.len(), seen.log.len()), (rows, records));
        let read = writer.read(&[1], 3).await;
        let bytes: Vec<Bytes> = read.into_iter().map(|r| r.row.bytes).collect();
        assert_eq!(bytes, [format!("{} 3", writer.name)]);
        assert!(seen.log.iter().all(|row| row.record == format!("{}-{}", writer.name, row.txid)));
    }
    assert!(!a.head().await.staged);
    // One session, two databases: an epoch of one is worth nothing in the other.
    let other = Writer::with_session(&store, a.session, "other").await;
    let mut wrong = a.request(b"record");
    wrong.database = other.database;
    wrong.epoch = Epoch(a.epoch.get() + 5);
    let replies = store.commit(vec![wrong], CommitMode::Atomic).await;
    let mut replies = replies.expect("the call itself is valid");
    refused(replies.pop().expect("one reply"), ErrorKind::Fenced, "another database's epoch");
    let taken = session(&store, LONG).await;
    refused(store.open(lease_request("a", taken, false)).await, ErrorKind::LeaseHeld, "the other lease still stands");
}
