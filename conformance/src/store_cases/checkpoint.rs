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

/// A request for one page, which is its number.
fn piece(writer: &Writer, txid: u64, piece: u64, last: bool) -> CheckpointRequest {
    CheckpointRequest {
        database: writer.database,
        epoch: writer.epoch,
        txid: Txid(txid),
        since: Txid(0),
        attempt: 1,
        piece,
        rows: vec![image(u32::try_from(piece + 1).expect("small"), txid, b"row")],
        last,
        time: UnixMillis(0),
        warm: Vec::new(),
    }
}

/// A failover may lose a checkpoint that was acknowledged. One that rests on it, and has no rows for what it had, does not
/// happen, neither in part nor when it would be completed.
pub async fn checkpoint_rests_on_one_before(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    writer.checkpoint(3, &[image(1, 3, b"three")]).await;
    let before = picture(&store, writer.database).await;
    for (since, last) in [(4, false), (4, true), (5, true), (6, true)] {
        let request = CheckpointRequest { since: Txid(since), ..piece(&writer, 6, 0, last) };
        refused(store.checkpoint(request).await, ErrorKind::Conflict, "a checkpoint on one that is not there");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    for (since, txid) in [(3, 4), (2, 5), (5, 6)] {
        let request = CheckpointRequest { since: Txid(since), ..piece(&writer, txid, 0, true) };
        store.checkpoint(request.clone()).await.expect("what it rests on is there");
        store.checkpoint(request).await.expect("a repetition");
        assert_eq!(writer.head().await.checkpoint, Txid(txid));
    }
}

/// A failover may lose pieces of a checkpoint that were acknowledged. Each piece asks for those before it, of the same
/// checkpoint and under the same epoch, and so does the one that completes it.
pub async fn lost_piece_blocks_the_checkpoint(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    let before = picture(&store, writer.database).await;
    for (number, last) in [(1, false), (1, true), (7, true)] {
        let lost = store.checkpoint(piece(&writer, 3, number, last)).await;
        refused(lost, ErrorKind::Conflict, "nothing came before");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    // One that comes again takes back none of those after it.
    for number in [0, 1, 1, 2, 0] {
        store.checkpoint(piece(&writer, 3, number, false)).await.expect("those before it are there");
    }
    let before = picture(&store, writer.database).await;
    for (txid, number, last) in [(3, 4, false), (3, 4, true), (4, 3, true), (2, 3, true)] {
        let lost = store.checkpoint(piece(&writer, txid, number, last)).await;
        refused(lost, ErrorKind::Conflict, "a piece before it is not there");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    let new = writer.take_over().await;
    refused(store.checkpoint(piece(&new, 3, 3, true)).await, ErrorKind::Conflict, "the old holder's pieces");
    // From the beginning again, and with fewer.
    for (number, last) in [(0, false), (1, true), (1, true), (0, false)] {
        store.checkpoint(piece(&new, 3, number, last)).await.expect("those before it are there, or it is completed");
    }
    assert_eq!(new.head().await.checkpoint, Txid(3));
    refused(store.checkpoint(piece(&new, 4, 2, true)).await, ErrorKind::Conflict, "another checkpoint's pieces");
    store.checkpoint(piece(&new, 4, 0, true)).await.expect("it is alone");
    assert_eq!(new.head().await.checkpoint, Txid(4));
}

/// A piece of an attempt that was given up is refused once another has begun, which may have read the rows before it, and
/// so is one that would complete the checkpoint; also when the other has completed it.
pub async fn late_piece_of_an_attempt_is_refused(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    let of = |attempt, number, last| CheckpointRequest { attempt, ..piece(&writer, 3, number, last) };
    for number in 0..3 {
        store.checkpoint(of(1, number, false)).await.expect("those before it are there");
    }
    // Without rows: only that it begins.
    let begins = CheckpointRequest { rows: Vec::new(), ..of(2, 0, false) };
    for _ in 0..2 {
        store.checkpoint(begins.clone()).await.expect("a new attempt");
    }
    let before = picture(&store, writer.database).await;
    for (number, last) in [(0, false), (3, false), (3, true), (0, true)] {
        let late = store.checkpoint(of(1, number, last)).await;
        refused(late, ErrorKind::Conflict, "an attempt that was given up");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    refused(store.checkpoint(of(2, 2, true)).await, ErrorKind::Conflict, "pieces of another attempt");
    store.checkpoint(of(2, 1, true)).await.expect("the one before it is there");
    assert_eq!(writer.head().await.checkpoint, Txid(3));
    let before = picture(&store, writer.database).await;
    for (number, last) in [(0, false), (3, true)] {
        let late = store.checkpoint(of(1, number, last)).await;
        refused(late, ErrorKind::Conflict, "an attempt that was given up");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    store.checkpoint(of(2, 1, true)).await.expect("it is completed");
    // The next is another's, under the same epoch.
    store.checkpoint(CheckpointRequest { attempt: 4, ..piece(&writer, 5, 0, true) }).await.expect("a new one");
    // And a new holder counts from the beginning.
    let new = writer.take_over().await;
    store.checkpoint(CheckpointRequest { attempt: 1, ..piece(&new, 6, 0, false) }).await.expect("under its own epoch");
    store
        .checkpoint(CheckpointRequest { attempt: 1, ..piece(&new, 6, 1, true) })
        .await
        .expect("the one before is there");
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
            since: Txid(0),
            attempt: 0,
            piece: 0,
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
