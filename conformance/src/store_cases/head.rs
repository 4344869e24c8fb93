//! The head, the lease's end, and what travels with them.

use litefleet::store::{CheckpointRequest, HeadRequest, Operation, Tail};
use litefleet::{DatabaseName, Epoch, ErrorKind, PageNo, Txid, UnixMillis};

use crate::fixture::{
    LONG, Tasks, Writer, complete, delta, image, lease_request, log_txids, name, open_request, picture, read_places,
    refused, session, tail,
};
use crate::harness::Harness;
use crate::store_cases::fencing::{attempts, refuse_all};

/// The head brings the records after the known txid, and says so when they are gone.
pub async fn head_brings_what_is_new(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    for txid in 1..=6 {
        writer.commit_up_to(txid).await;
        assert_eq!(writer.head().await.txid, Txid(txid));
        for known in 0..=txid {
            let tail = tail(&store, writer.database, known).await;
            let rows = complete(&tail);
            let expected: Vec<u64> = (known + 1..=txid).collect();
            assert_eq!(log_txids(rows), expected);
            for row in rows {
                assert_eq!(row.record, format!("record-{}", row.txid));
            }
        }
    }
    writer.checkpoint(5, &[image(1, 5, b"five")]).await;
    writer.collect(5, 1, 4).await;
    for known in 0..4 {
        let tail = tail(&store, writer.database, known).await;
        assert_eq!(tail, Tail::Reload, "known {known}");
    }
    let tail = tail(&store, writer.database, 4).await;
    assert_eq!(log_txids(complete(&tail)), [5, 6]);
    let missing = HeadRequest {
        database: litefleet::DatabaseId(writer.database.get() + 1),
        known: Txid(0),
        epoch: None,
        tail_bytes: 0,
    };
    refused(store.head(missing).await, ErrorKind::NotFound, "a database that never was");
}

/// A released lease is free at once, the epoch stays as it is, and nothing can be written under it any more.
pub async fn released_epoch_cannot_write(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(2).await;
    let stale = Writer { epoch: Epoch(writer.epoch.get() - 1), ..writer.clone() };
    refused(stale.release(&[]).await, ErrorKind::Fenced, "a release under another epoch");
    assert!(writer.head().await.holder.is_some(), "the lease is held");
    writer.release(&[1]).await.expect("the holder can release");
    let head = writer.head().await;
    assert_eq!(head.holder, None);
    assert_eq!(head.epoch, writer.epoch);
    let before = picture(&store, writer.database).await;
    let (release, writes) =
        attempts(&writer).into_iter().partition::<Vec<_>, _>(|(operation, _)| *operation == Operation::Release);
    refuse_all(writes, ErrorKind::Fenced, "after the release").await;
    for (_, again) in release {
        again.await.expect("releasing again is fine");
    }
    assert_eq!(picture(&store, writer.database).await, before);
    let next = Writer::new(&store, "a").await;
    assert!(next.epoch > writer.epoch);
    refused(writer.release(&[]).await, ErrorKind::Fenced, "a late release, after the next grant");
    assert!(next.head().await.holder.is_some(), "the lease is held");
}

/// The warm pages of a release come with the next open: the newest rows at or below the checkpoint, with their bases.
pub async fn warm_pages_come_with_the_open(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    let rows = [image(1, 2, b"1@2"), image(2, 2, b"2@2"), image(3, 2, b"")];
    writer.checkpoint(2, &rows).await;
    writer.checkpoint(4, &[delta(2, 4, 2, b"2@4")]).await;
    // Half a checkpoint: its rows are above the checkpoint, and do not count.
    writer.try_checkpoint(5, &[image(1, 5, b"1@5")], false, 0).await.expect("the holder can");
    writer.release(&[2, 1, 9, 2]).await.expect("the holder can");
    for _ in 0..2 {
        let opened = store.open(open_request("a")).await.expect("it exists");
        // In order of page, each page once, a base after its delta.
        assert_eq!(read_places(&opened.warm), [(1, 2), (2, 4), (2, 2)]);
        assert!(opened.warm.iter().all(|r| r.database == writer.database));
        assert_eq!(log_txids(complete(&opened.tail)), [5, 6]);
    }
    let taker = session(&store, LONG).await;
    let opened = store.open(lease_request("a", taker, false)).await;
    let opened = opened.expect("the lease is free");
    assert_eq!(opened.warm.len(), 3, "they come with a lease too");
}

/// The warm pages of a completed checkpoint come with the next open, without a release; none leave those before.
pub async fn warm_pages_come_with_a_checkpoint(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(4).await;
    // Each checkpoint writes the page whose number is its txid.
    let request = |page: u32, last, warm: &[u32]| CheckpointRequest {
        database: writer.database,
        epoch: writer.epoch,
        txid: Txid(page.into()),
        since: Txid(0),
        attempt: 0,
        piece: 0,
        rows: vec![image(page, page.into(), b"row")],
        last,
        time: UnixMillis(0),
        warm: warm.iter().copied().map(PageNo).collect(),
    };
    let after = |request| async {
        store.checkpoint(request).await.expect("the holder can");
        read_places(&store.open(open_request("a")).await.expect("it exists").warm)
    };
    assert_eq!(after(request(1, false, &[1])).await, [], "it is not completed");
    assert_eq!(after(request(1, true, &[1, 9])).await, [(1, 1)]);
    assert_eq!(after(request(2, true, &[])).await, [(1, 1)]);
    assert_eq!(after(request(3, true, &[3, 2, 3])).await, [(2, 2), (3, 3)]);
    writer.release(&[]).await.expect("the holder can");
    let opened = store.open(open_request("a")).await.expect("it exists");
    assert_eq!(read_places(&opened.warm), [(2, 2), (3, 3)], "a release without any leaves them");
}

/// Head, log and warm pages of one open belong together, however many commits and checkpoints go on meanwhile.
pub async fn open_is_one_moment(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut tasks = Tasks::new();
    let (done, stop) = tokio::sync::watch::channel(false);
    for reader in 0..4 {
        let (store, stop) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            while !*stop.borrow() {
                let opened = store.open(open_request("a")).await.expect("it exists");
                let head = &opened.head;
                let expected: Vec<u64> = (head.checkpoint.get() + 1..=head.txid.get()).collect();
                assert_eq!(log_txids(complete(&opened.tail)), expected, "{reader}");
                assert_eq!(head.size, head.txid.get() * 4096);
                // Page 1 has a row at every checkpoint, and is warm from the first release on.
                for read in &opened.warm {
                    assert_eq!(read.row.txid, head.checkpoint);
                    assert_eq!(read.row.bytes, format!("image-{}", head.checkpoint));
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for round in 1..=60_u64 {
        writer.commit_up_to(round * 2).await;
        let checkpoint = round * 2 - 1;
        let bytes = format!("image-{checkpoint}");
        writer.checkpoint(checkpoint, &[image(1, checkpoint, bytes.as_bytes())]).await;
        if round % 10 == 1 {
            writer.release(&[1]).await.expect("the holder can");
            writer = Writer::with_session(&store, writer.session, "a").await;
        }
        tokio::task::yield_now().await;
    }
    done.send(true).expect("the readers listen");
    tasks.join().await;
}

/// Any name works, whatever its characters, up to 512 bytes; names that look alike are different.
pub async fn any_name_can_be_used(harness: &dyn Harness) {
    let store = harness.store().await;
    let long = "x".repeat(512);
    let wide = "é".repeat(256);
    let names = [
        "a",
        "A",
        " a",
        "a ",
        "a/b",
        "a/",
        "/",
        ".",
        "..",
        "%",
        "_",
        "\\",
        "'",
        "\"",
        "?",
        "\n",
        "\u{1}",
        "\u{7f}",
        "é",
        "e\u{301}",
        "名前",
        "\u{10ffff}",
        "\u{feff}a",
        &long,
        &wide,
    ];
    let mut writers = Vec::new();
    for text in names {
        writers.push(Writer::new(&store, text).await);
    }
    for (writer, text) in writers.iter_mut().zip(names) {
        writer.commit(b"record").await;
        let opened = store.open(open_request(text)).await.expect("it exists");
        assert_eq!(opened.database, writer.database, "{text:?}");
        assert_eq!(picture(&store, writer.database).await.name, name(text));
    }
    let mut sorted: Vec<DatabaseName> = names.iter().map(|text| name(text)).collect();
    sorted.sort_unstable();
    let listed = store.list("", None, 1000).await.expect("a list");
    let listed: Vec<DatabaseName> = listed.into_iter().map(|entry| entry.name).collect();
    assert_eq!(listed, sorted, "in byte order of the names");
}
