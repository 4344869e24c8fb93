//! What outlives the store's process. These cases need a harness that can reopen its stores.

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{HeadRequest, PageStore};
use litefleet::{CommitId, ErrorKind, Txid};

use crate::fixture::{
    AMPLE, Picture, Writer, commit_one, delta, image, lease_request, open_request, picture, refused, session, zero,
};
use crate::harness::Harness;

async fn reopen(harness: &dyn Harness, store: Arc<dyn PageStore>) -> Arc<dyn PageStore> {
    harness.reopen(store).await.expect("this case needs a store that can be reopened; make the tests `without reopen`")
}

/// A holder is named after its process has ended, but a store may have forgotten what its session was called.
fn without_label(mut picture: Picture) -> Picture {
    if let Some(holder) = &mut picture.head.holder {
        holder.label.clear();
    }
    picture
}

/// Everything a store said is said again after it was reopened: heads, log, rows, names, staged rows.
pub async fn reopening_keeps_everything(harness: &dyn Harness) {
    let mut store = harness.store().await;
    let mut ids = Vec::new();
    for index in 0..5_u64 {
        let mut writer = Writer::new(&store, &format!("db-{index}")).await;
        writer.commit_up_to(6 + index).await;
        writer.checkpoint(1, &[image(1, 1, b"i"), image(2, 1, b"i")]).await;
        writer.checkpoint(4, &[delta(1, 4, 1, b"d"), zero(2, 4), image(3, 4, b"i")]).await;
        writer.collect(index, 3, index / 2).await;
        writer.stage(&[image(9, writer.txid.next().get(), b"s")]).await;
        if index % 2 == 0 {
            writer.release(&[1, 3]).await.expect("the holder can");
        }
        ids.push(writer.database);
    }
    let listed = store.list("", None, 10).await.expect("a list").len();
    for round in 0..3 {
        let mut before = Vec::new();
        for id in &ids {
            before.push(picture(&store, *id).await);
        }
        store = reopen(harness, store).await;
        for (id, expected) in ids.iter().zip(before) {
            let found = picture(&store, *id).await;
            assert_eq!(without_label(found), without_label(expected), "round {round}");
        }
        assert_eq!(store.list("", None, 10).await.expect("a list").len(), listed);
        let opened = store.open(open_request("db-0")).await.expect("it exists");
        assert_eq!(opened.warm.len(), 3, "warm pages are kept");
    }
}

/// Every commit that was acknowledged is there after reopening, whenever that happens.
pub async fn acknowledged_commits_survive(harness: &dyn Harness) {
    let mut store = harness.store().await;
    let mut last = CommitId::default();
    for round in 0..12_u64 {
        // A session may end with the store's process, or live on and hold the lease: this works for both.
        let session = session(&store, Duration::from_secs(3600)).await;
        let mut request = lease_request("a", session, true);
        request.create = true;
        let opened = store.open(request).await.expect("the lease is taken by force");
        let mut writer = Writer::from_opened(&store, session, "a", &opened);
        assert_eq!((writer.txid, writer.last), (Txid(round * (round + 1) / 2), last));
        writer.commit_up_to(writer.txid.get() + round + 1).await;
        last = writer.last;
        drop(writer);
        store = reopen(harness, store).await;
    }
}

/// Fences outlive the store: epochs, their ends, generations, horizons, and ids that were used.
pub async fn reopening_keeps_the_fences(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut old = Writer::new(&store, "a").await;
    old.commit_up_to(3).await;
    old.checkpoint(2, &[image(1, 2, b"row")]).await;
    let late = old.stage_request(old.head().await.generation, vec![image(1, 4, b"late")]);
    let commit = old.request(b"late");
    let new = old.take_over().await;
    new.discard().await;
    new.collect(2, 1, 2).await;
    let mut stage = late.clone();
    stage.epoch = new.epoch;
    let gone = Writer::new(&store, "gone").await;
    store.delete(gone.database, gone.epoch).await.expect("it is held");
    let facts = (old.database, old.epoch, old.txid, old.last, gone.database);
    drop((old, new, gone));
    let store = reopen(harness, store).await;
    let (database, epoch, txid, last, deleted) = facts;
    refused(commit_one(&store, commit).await, ErrorKind::Fenced, "a late commit");
    refused(store.stage(late).await, ErrorKind::Fenced, "a late stage");
    refused(store.stage(stage).await, ErrorKind::Conflict, "an older generation");
    refused(
        crate::fixture::read(&store, database, &[1], 1).await,
        ErrorKind::SnapshotTooOld,
        "a snapshot below the horizon",
    );
    let ask = HeadRequest { database, known: Txid(0), epoch: Some(epoch), tail_bytes: AMPLE };
    let end = store.head(ask).await.expect("it exists").ended;
    let end = end.expect("the end of the epoch is known");
    assert_eq!((end.txid, end.commit_id), (txid, last));
    while !store.purge(100).await.expect("a purge").done {}
    let next = Writer::new(&store, "gone").await;
    assert_ne!(next.database, deleted, "ids are never used again");
}
