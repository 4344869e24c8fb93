//! Opening: finding, creating, and taking the lease.

use litefleet::store::{HeadRequest, Tail};
use litefleet::{CommitId, DatabaseId, Epoch, ErrorKind, Txid};

use crate::fixture::{
    AMPLE, LONG, Tasks, Writer, complete, image, lease_request, log_txids, name, open_request, picture, read_places,
    refused, session,
};
use crate::harness::Harness;

/// Without `create`, a name that nobody created is `NotFound`, and stays so.
pub async fn open_without_create_finds_nothing(harness: &dyn Harness) {
    let store = harness.store().await;
    let session = session(&store, LONG).await;
    for request in [open_request("a"), lease_request("a", session, true)] {
        refused(store.open(request).await, ErrorKind::NotFound, "a name that does not exist");
    }
    assert!(store.list("", None, 10).await.expect("a list").is_empty());
}

/// A new database is empty in every respect, and is found again under its name.
pub async fn new_database_is_empty(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut request = open_request("a");
    request.create = true;
    let opened = store.open(request.clone()).await.expect("it is created");
    assert!(opened.created);
    let head = &opened.head;
    assert_eq!(head.holder, None);
    assert_eq!(head.txid, Txid(0));
    assert_eq!(head.commit_id, CommitId::default());
    assert_eq!(head.size, 0);
    assert_eq!(head.checkpoint, Txid(0));
    assert_eq!(head.horizon, Txid(0));
    assert!(!head.staged);
    assert_eq!(opened.tail, Tail::Complete(Vec::new()));
    assert!(opened.warm.is_empty());
    let again = store.open(request).await.expect("it exists");
    assert!(!again.created);
    assert_eq!(again.database, opened.database);
    assert_eq!(again.head, opened.head);
    let found = picture(&store, opened.database).await;
    assert_eq!(found.name, name("a"));
    assert!(found.rows.is_empty() && found.log.is_empty());
    let reader = Writer::new(&store, "a").await;
    assert!(reader.read(&[1, 2, u32::MAX], 0).await.is_empty());
}

/// Many creations of one name at once make one database, which one of them created.
pub async fn concurrent_creates_make_one(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut ids = Vec::new();
    for round in 0..10 {
        let mut tasks = Tasks::new();
        for _ in 0..16 {
            let (store, mut request) = (store.clone(), open_request(&format!("db-{round}")));
            request.create = true;
            tasks.spawn(async move { store.open(request).await.expect("it is made or found") });
        }
        let opened = tasks.join().await;
        let first = opened.first().expect("there are 16").database;
        assert!(opened.iter().all(|o| o.database == first));
        assert_eq!(opened.iter().filter(|o| o.created).count(), 1);
        ids.push(first);
    }
    let entries = store.list("", None, 100).await.expect("a list");
    let listed: Vec<DatabaseId> = entries.into_iter().map(|entry| entry.state.expect("it is whole").database).collect();
    assert_eq!(listed, ids);
}

/// Each grant raises the epoch: to the holder itself, after a release, and by force.
pub async fn each_grant_raises_the_epoch(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut epochs = vec![writer.epoch];
    for round in 0..4 {
        writer.commit(b"record").await;
        writer = match round {
            0 | 3 => Writer::with_session(&store, writer.session, "a").await,
            1 => writer.take_over().await,
            _ => {
                writer.release(&[]).await.expect("the holder can release");
                Writer::new(&store, "a").await
            }
        };
        let head = writer.head().await;
        assert_eq!(head.epoch, writer.epoch);
        assert_eq!(head.txid, Txid(round + 1));
        let holder = head.holder.expect("the lease is held");
        assert_eq!(holder.session, writer.session);
        assert_eq!(holder.label, format!("label-of-{}", writer.session));
        epochs.push(writer.epoch);
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "each is larger: {epochs:?}");
    store.open(open_request("a")).await.expect("it exists");
    assert_eq!(writer.head().await.epoch, writer.epoch, "a follower changes nothing");
}

/// A held lease is not given to another session without force, and the message says who holds it.
pub async fn held_lease_is_refused(harness: &dyn Harness) {
    let store = harness.store().await;
    let holder = Writer::new(&store, "a").await;
    let before = picture(&store, holder.database).await;
    let other = session(&store, LONG).await;
    let mut request = lease_request("a", other, false);
    for create in [false, true] {
        request.create = create;
        let error = store.open(request.clone()).await.expect_err("the lease is held");
        assert_eq!(error.kind(), ErrorKind::LeaseHeld);
        let label = format!("label-of-{}", holder.session);
        assert!(error.message().contains(&label), "the message names {label}: {error}");
    }
    assert_eq!(picture(&store, holder.database).await, before, "nothing was changed");
    let follower = store.open(open_request("a")).await.expect("a follower");
    assert_eq!(follower.head.epoch, holder.epoch);
}

/// How each epoch ended stays known: its last commit, whoever raised it.
pub async fn epoch_end_is_kept(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut ends: Vec<(Epoch, Txid, CommitId)> = Vec::new();
    for commits in [0, 2, 0, 1, 3] {
        writer.commit_up_to(writer.txid.get().saturating_add(commits)).await;
        ends.push((writer.epoch, writer.txid, writer.last));
        writer = writer.take_over().await;
    }
    let request =
        |epoch| HeadRequest { database: writer.database, known: Txid(0), epoch: Some(epoch), tail_bytes: AMPLE };
    for (epoch, txid, id) in ends {
        let reply = store.head(request(epoch)).await.expect("it exists");
        let end = reply.ended.expect("the end of the epoch is known");
        assert_eq!((end.epoch, end.txid, end.commit_id), (epoch, txid, id));
    }
    let reply = store.head(request(writer.epoch)).await.expect("it exists");
    assert_eq!(reply.ended, None, "the current epoch has not ended");
}

/// The end of an epoch is known for a day. Needs a clock that can be moved.
pub async fn epoch_end_is_kept_for_a_day(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut first = Writer::new(&store, "a").await;
    first.commit(b"record").await;
    let second = first.take_over().await;
    let hours = std::time::Duration::from_secs(3600);
    assert!(harness.advance(hours * 23), "this case needs a clock that can be moved; make the tests `without clock`");
    // Neither later grants nor a purge may cut the time short.
    second.take_over().await;
    while !store.purge(100).await.expect("a purge").done {}
    let request = HeadRequest { database: first.database, known: Txid(0), epoch: Some(first.epoch), tail_bytes: AMPLE };
    let end = store.head(request).await.expect("it exists").ended;
    let end = end.expect("the end of the epoch is still known after 23 hours");
    assert_eq!((end.txid, end.commit_id), (first.txid, first.last));
}

/// With a known txid an open brings the log after it and no warm pages, unless the name now means another database.
pub async fn open_with_known_txid(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(5).await;
    writer.checkpoint(4, &[image(1, 4, b"four")]).await;
    writer.release(&[1]).await.expect("the holder can release");
    let open = |known| {
        let mut request = open_request("a");
        request.known = known;
        let store = store.clone();
        async move { store.open(request).await.expect("it exists") }
    };
    for known in 0..=5 {
        let opened = open(Some((writer.database, Txid(known)))).await;
        let expected: Vec<u64> = (known + 1..=5).collect();
        assert_eq!(log_txids(complete(&opened.tail)), expected);
        assert!(opened.warm.is_empty());
    }
    let other = DatabaseId(writer.database.get() + 1);
    for known in [None, Some((other, Txid(1)))] {
        let opened = open(known).await;
        assert_eq!(log_txids(complete(&opened.tail)), [5]);
        let warm: Vec<_> = read_places(&opened.warm);
        assert_eq!(warm, [(1, 4)]);
    }
    // The records up to 3 are collected: who knows 3 lacks nothing, who knows 2 must start again.
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    writer.collect(4, 1, 3).await;
    for known in 0..=6 {
        let opened = open(Some((writer.database, Txid(known)))).await;
        if known < 3 {
            assert_eq!(opened.tail, Tail::Reload, "known {known}");
        } else {
            let expected: Vec<u64> = (known + 1..=6).collect();
            assert_eq!(log_txids(complete(&opened.tail)), expected);
        }
    }
}

/// A tail of exactly the bytes asked for comes along; one byte less, and it is truncated.
pub async fn long_tail_is_truncated(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(9).await;
    writer.checkpoint(2, &[]).await;
    let record = "record-1".len();
    // Without `known` the seven records after the checkpoint count, with it those after the known one.
    for (known, count) in [(None, 7), (Some(0), 9), (Some(6), 3), (Some(9), 0)] {
        let mut request = open_request("a");
        request.known = known.map(|txid| (writer.database, Txid(txid)));
        for bytes in [count * record, count * record + 1] {
            request.tail_bytes = bytes;
            let opened = store.open(request.clone()).await.expect("it exists");
            assert_eq!(complete(&opened.tail).len(), count);
        }
        if count > 0 {
            request.tail_bytes = count * record - 1;
            let opened = store.open(request.clone()).await.expect("it exists");
            assert_eq!(opened.tail, Tail::Truncated);
        }
        if let Some(known) = known {
            let mut request =
                HeadRequest { database: writer.database, known: Txid(known), epoch: None, tail_bytes: count * record };
            let reply = store.head(request).await.expect("it exists");
            assert_eq!(complete(&reply.tail).len(), count);
            if count > 0 {
                request.tail_bytes -= 1;
                let reply = store.head(request).await.expect("it exists");
                assert_eq!(reply.tail, Tail::Truncated);
            }
        }
    }
}
