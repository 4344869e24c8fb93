//! Checkpoints.

use litefleet::store::CheckpointRequest;
use litefleet::{ErrorKind, Txid, UnixMillis};

use crate::fixture::{
    Writer, complete, delta, image, log_txids, open_request, picture, places, read_places, refused, scan, zero,
};
use crate::harness::Harness;

/// A checkpoint is between the newest completed one and the head, both included, and changes nothing otherwise.
pub async fn checkpoint_moves_forward_only(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    writer.checkpoint(3, &[image(1, 3, b"three")]).await;
    assert_eq!(writer.head().await.checkpoint, Txid(3));
    let before = picture(&store, writer.database).await;
    for txid in [0, 1, 2, 7, 8] {
        for last in [false, true] {
            let result = writer.try_checkpoint(txid, &[image(1, txid, b"wrong")], last, 0).await;
            refused(result, ErrorKind::Conflict, "a checkpoint out of bounds");
        }
    }
    assert_eq!(picture(&store, writer.database).await, before);
    writer.checkpoint(3, &[image(1, 3, b"three")]).await;
    assert_eq!(picture(&store, writer.database).await, before, "repeated");
    writer.checkpoint(3, &[image(2, 3, b"one more")]).await;
    for txid in [4, 6, 6] {
        writer.checkpoint(txid, &[image(1, txid, b"row")]).await;
        let head = writer.head().await;
        assert_eq!(head.checkpoint, Txid(txid));
        assert_eq!((head.txid, head.horizon), (Txid(6), Txid(0)));
        let opened = store.open(open_request("a")).await.expect("it exists");
        let tail: Vec<u64> = (txid + 1..=6).collect();
        assert_eq!(log_txids(complete(&opened.tail)), tail);
    }
    let all = [(1, 3), (1, 4), (1, 6), (2, 3)];
    assert_eq!(places(&scan(&store, writer.database).await), all);
}

/// The rows of a checkpoint that is not completed change neither the checkpoint nor what older snapshots read; another
/// holder may complete it, or a later one.
pub async fn half_a_checkpoint_is_harmless(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(4).await;
    writer.checkpoint(1, &[image(1, 1, b"1@1"), image(2, 1, b"2@1")]).await;
    writer.try_checkpoint(3, &[image(1, 3, b"1@3")], false, 0).await.expect("the holder can");
    let head = writer.head().await;
    assert_eq!(head.checkpoint, Txid(1));
    let opened = store.open(open_request("a")).await.expect("it exists");
    assert_eq!(log_txids(complete(&opened.tail)), [2, 3, 4]);
    // A checkpoint that is not completed does not move the horizon, and keeps no row from being needed.
    let collected = writer.collect(4, 2, 4).await;
    assert_eq!(collected.horizon, Txid(1));
    assert_eq!((collected.rows, collected.records), (0, 1));
    for (snapshot, expected) in
        [(1, [(1, 1), (2, 1)]), (2, [(1, 1), (2, 1)]), (3, [(1, 3), (2, 1)]), (4, [(1, 3), (2, 1)])]
    {
        let rows = writer.read(&[1, 2], snapshot).await;
        assert_eq!(read_places(&rows), expected, "at {snapshot}");
    }
    let next = writer.take_over().await;
    next.checkpoint(3, &[image(1, 3, b"1@3"), zero(2, 3)]).await;
    assert_eq!(next.head().await.checkpoint, Txid(3));
    next.try_checkpoint(4, &[image(1, 4, b"1@4")], false, 0).await.expect("the holder can");
    assert_eq!(next.collect(4, 2, 4).await.horizon, Txid(3));
    assert_eq!(read_places(&next.read(&[1, 2], 3).await), [(1, 3)]);
    assert_eq!(read_places(&next.read(&[1, 2], 4).await), [(1, 4)]);
}

/// A checkpoint without rows completes too: nothing may have changed, or all its rows were sent before.
pub async fn checkpoint_without_rows_completes(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.checkpoint(0, &[]).await;
    assert_eq!(writer.head().await.checkpoint, Txid(0));
    writer.commit_up_to(2).await;
    writer.try_checkpoint(2, &[image(1, 2, b"row")], false, 0).await.expect("the holder can");
    writer.checkpoint(2, &[]).await;
    assert_eq!(writer.head().await.checkpoint, Txid(2));
    assert_eq!(writer.collect(2, 1, 2).await.horizon, Txid(2));
    assert_eq!(read_places(&writer.read(&[1], 2).await), [(1, 2)]);
}

/// Every row of a checkpoint has its txid, and every staged row the next one; no page comes twice, and no delta is
/// staged. Else the request is `Invalid`, and nothing of it is written.
pub async fn rows_that_cannot_be_are_invalid(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(4).await;
    let before = picture(&store, writer.database).await;
    let of = |txid| vec![image(1, txid, b"wrong")];
    let twice = |txid| vec![image(1, txid, b"one"), image(1, txid, b"two")];
    for rows in [of(0), of(2), of(3), of(5), twice(4)] {
        let request = CheckpointRequest {
            database: writer.database,
            epoch: writer.epoch,
            txid: Txid(4),
            rows,
            last: true,
            time: UnixMillis(0),
            warm: Vec::new(),
        };
        let result = store.checkpoint(request).await;
        refused(result, ErrorKind::Invalid, "the rows of a checkpoint");
    }
    for rows in [of(0), of(4), of(6), twice(5), vec![delta(1, 5, 4, b"delta")]] {
        let result = store.stage(writer.stage_request(before.head.generation, rows)).await;
        refused(result, ErrorKind::Invalid, "staged rows");
    }
    assert_eq!(picture(&store, writer.database).await, before);
}
