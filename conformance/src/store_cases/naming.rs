//! Names: listing, renaming, deleting, purging.

use std::collections::BTreeSet;
use std::sync::Arc;

use litefleet::store::{ListEntry, PageStore};
use litefleet::{DatabaseId, DatabaseName, ErrorKind, Txid};

use crate::fixture::{LONG, Tasks, Writer, each_at_once, image, name, open_request, picture, refused, session};
use crate::harness::Harness;

/// Every entry under a prefix, page after page, checked to be in order and no longer than asked for.
async fn list_all(store: &Arc<dyn PageStore>, prefix: &str, limit: usize) -> Vec<ListEntry> {
    let mut entries: Vec<ListEntry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.name.clone());
        let more = store.list(prefix, after.as_ref(), limit).await;
        let more = more.expect("a list");
        assert!(more.len() <= limit, "{} entries of {limit}", more.len());
        let Some(first) = more.first() else {
            break;
        };
        assert!(
            after.is_none_or(|after| first.name > after),
            "a page of the listing begins after the last one: {}",
            first.name
        );
        entries.extend(more);
    }
    assert!(entries.is_sorted_by(|a, b| a.name.as_str().as_bytes() < b.name.as_str().as_bytes()));
    assert!(entries.iter().all(|e| e.name.as_str().starts_with(prefix)));
    entries
}

fn names(entries: &[ListEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

/// Prefixes and starting points mean bytes: no pattern, no case, no collation.
pub async fn listing_goes_by_bytes(harness: &dyn Harness) {
    let store = harness.store().await;
    let all = [
        "A",
        "B/1",
        "a",
        "a%",
        "a%b",
        "a/",
        "a/1",
        "a/10",
        "a/2",
        "a0",
        "a\\",
        "a\\b",
        "a_",
        "a_b",
        "ab",
        "b",
        "é",
        "é1",
        "\u{10ffff}",
        "\u{10ffff}a",
    ];
    for text in all {
        Writer::new(&store, text).await;
    }
    for prefix in ["", "a", "A", "a/", "a/1", "a%", "a_", "a\\", "é", "\u{10ffff}", "x", "a/11"] {
        let mut expected: Vec<&str> = all.into_iter().filter(|n| n.starts_with(prefix)).collect();
        expected.sort_unstable();
        for limit in [1, 2, 3, 100] {
            assert_eq!(names(&list_all(&store, prefix, limit).await), expected, "{prefix:?}");
        }
        // A starting point need not exist, nor begin with the prefix.
        for after in ["\u{1}", "A", "a", "a/1", "a/15", "a`", "zz", "\u{10ffff}z"] {
            let listed = store.list(prefix, Some(&name(after)), 100).await;
            let rest: Vec<&str> = expected.iter().copied().filter(|n| *n > after).collect();
            assert_eq!(names(&listed.expect("a list")), rest, "{prefix:?} after {after:?}");
        }
    }
}

/// Ten thousand databases are created at the same time and listed, page by page, each with its own head.
pub async fn ten_thousand_databases_are_listed(harness: &dyn Harness) {
    let store = harness.store().await;
    let session = session(&store, LONG).await;
    let made = each_at_once(0..10_000_u32, |index| {
        let store = store.clone();
        async move {
            let text = format!("{:02}/{index}", index % 100);
            let mut writer = Writer::with_session(&store, session, &text).await;
            writer.commit_up_to(u64::from(index % 3)).await;
            (name(&text), writer.database, writer.epoch, writer.txid)
        }
    })
    .await;
    let ids: BTreeSet<DatabaseId> = made.iter().map(|m| m.1).collect();
    assert_eq!(ids.len(), 10_000, "each has an id of its own");
    let mut expected = made;
    expected.sort();
    let listed = list_all(&store, "", 700).await;
    let whole = |entry: ListEntry| {
        let state = entry.state.expect("it is whole");
        assert_eq!(entry.database, Some(state.database));
        (entry.name, state.database, state.head.epoch, state.head.txid)
    };
    let listed: Vec<_> = listed.into_iter().map(whole).collect();
    let differ = listed.iter().zip(&expected).find(|(listed, made)| listed != made);
    assert!(
        listed == expected,
        "the listing is exactly what was made: {} and {}, {differ:?}",
        listed.len(),
        expected.len()
    );
    assert_eq!(list_all(&store, "42/", 7).await.len(), 100);
    store.end_session(session).await.expect("it lives");
    Writer::new(&store, "77/77").await;
}

/// A database that exists under one name during the whole of a listing appears exactly once, whatever happens to others.
pub async fn listing_while_writing(harness: &dyn Harness) {
    let store = harness.store().await;
    let stable: Vec<String> = (0..120).map(|i| format!("db-{:03}-stays", i * 3)).collect();
    let owner = session(&store, LONG).await;
    for text in &stable {
        Writer::with_session(&store, owner, text).await;
    }
    let (done, stop) = tokio::sync::watch::channel(false);
    let mut tasks = Tasks::new();
    for churn in 0..3_usize {
        let (store, stop) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            let mut round = 0_usize;
            while !*stop.borrow() {
                let at = (round * 7 + churn * 31) % 360;
                let text = format!("db-{at:03}-comes-{churn}");
                let mut writer = Writer::with_session(&store, owner, &text).await;
                writer.commit(b"record").await;
                let moved = format!("db-{:03}-goes-{churn}", (at + 180) % 360);
                let (id, epoch) = (writer.database, writer.epoch);
                store.rename(id, epoch, name(&moved)).await.expect("free");
                store.delete(id, epoch).await.expect("it is held");
                round += 1;
                tokio::task::yield_now().await;
            }
        });
    }
    for round in 0..25 {
        let listed = list_all(&store, "db-", [1, 7, 50, 1000][round % 4]).await;
        let kept: Vec<&str> = names(&listed).into_iter().filter(|n| n.ends_with("stays")).collect();
        assert_eq!(kept, stable, "each exactly once");
    }
    done.send(true).expect("the others listen");
    tasks.join().await;
    while !store.purge(50).await.expect("a purge").done {}
    assert_eq!(names(&list_all(&store, "", 9).await), stable);
}

/// A rename moves the name and nothing else; a name that is taken stays where it is.
pub async fn rename_moves_the_name(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "old").await;
    writer.commit_up_to(2).await;
    writer.checkpoint(1, &[image(1, 1, b"row")]).await;
    let taken = Writer::new(&store, "taken").await;
    let before = picture(&store, writer.database).await;
    let (id, epoch) = (writer.database, writer.epoch);
    let rename = |text: &str| store.rename(id, epoch, name(text));
    refused(rename("taken").await, ErrorKind::Conflict, "a name that is taken");
    assert_eq!(picture(&store, writer.database).await, before);
    for _ in 0..2 {
        rename("new").await.expect("the name is free, or already its own");
        let mut expected = before.clone();
        expected.name = name("new");
        assert_eq!(picture(&store, writer.database).await, expected);
        let opened = store.open(open_request("new")).await.expect("it exists");
        assert_eq!(opened.database, writer.database);
        refused(store.open(open_request("old")).await, ErrorKind::NotFound, "the old name");
    }
    assert_eq!(names(&list_all(&store, "", 10).await), ["new", "taken"]);
    writer.commit(b"goes on").await;
    let other = Writer::new(&store, "old").await;
    assert_ne!(other.database, writer.database);
    assert_eq!(other.txid, Txid(0));
    refused(
        store.rename(writer.database, writer.epoch, name("old")).await,
        ErrorKind::Conflict,
        "a name that was its own once",
    );
    // One that is done is done, also for who has lost the lease since, and its reply before.
    store.release(id, epoch, Vec::new()).await.expect("held");
    let next = Writer::new(&store, "new").await;
    rename("new").await.expect("it has that name");
    refused(rename("newer").await, ErrorKind::Fenced, "the lease is another's");
    let writer = next;
    // A name that was deleted is free.
    store.delete(taken.database, taken.epoch).await.expect("held");
    store.rename(writer.database, writer.epoch, name("taken")).await.expect("the name is free");
}

/// Of many that want one name at once, by creating and by renaming, one gets it.
pub async fn one_of_many_gets_a_name(harness: &dyn Harness) {
    let store = harness.store().await;
    for round in 0..10 {
        let wanted = format!("wanted-{round}");
        let mut tasks = Tasks::new();
        for rival in 0..8 {
            let (store, wanted) = (store.clone(), wanted.clone());
            let writer = Writer::new(&store, &format!("rival-{round}-{rival}")).await;
            tasks.spawn(async move {
                if rival == 0 {
                    let mut request = open_request(&wanted);
                    request.create = true;
                    let opened = store.open(request).await.expect("found or made");
                    return opened.created.then_some(opened.database);
                }
                let id = writer.database;
                match store.rename(id, writer.epoch, name(&wanted)).await {
                    Ok(()) => Some(id),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                        None
                    }
                }
            });
        }
        let got: Vec<DatabaseId> = tasks.join().await.into_iter().flatten().collect();
        let opened = store.open(open_request(&wanted)).await.expect("it exists");
        assert_eq!(got, [opened.database]);
    }
}

/// A purge removes every row and record of deleted databases, some at a time, and nothing of the others.
pub async fn purge_removes_the_bytes(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut kept = Writer::new(&store, "kept").await;
    kept.commit_up_to(3).await;
    kept.checkpoint(2, &[image(1, 2, b"row")]).await;
    kept.stage(&[image(1, 4, b"staged")]).await;
    let before = picture(&store, kept.database).await;
    while !store.purge(100).await.expect("a purge").done {}
    for round in 0..2 {
        for text in ["a", "b"] {
            let mut writer = Writer::new(&store, text).await;
            writer.commit_up_to(8).await;
            writer.checkpoint(6, &[1, 2, 3, 4].map(|page| image(page, 6, b"row"))).await;
            writer.stage(&[image(9, 9, b"s")]).await;
            let (id, epoch) = (writer.database, writer.epoch);
            store.delete(id, epoch).await.expect("it is held");
        }
        let (mut removed, mut calls) = (0, 0);
        loop {
            let purged = store.purge(5).await.expect("a purge");
            removed += purged.removed;
            calls += 1;
            assert!(purged.removed <= 10, "about 5, not {}", purged.removed);
            assert!(calls < 1000, "a purge comes to an end");
            if purged.done {
                break;
            }
            assert!(purged.removed > 0, "each call gets further");
        }
        assert!(removed >= 26, "13 rows and records each, {removed} removed");
        assert!(calls > 2, "about 5 in each call, {removed} in {calls}");
        assert!(store.purge(5).await.expect("a purge").done, "round {round}");
    }
    assert_eq!(picture(&store, kept.database).await, before);
    let listed: Vec<DatabaseName> = list_all(&store, "", 10).await.into_iter().map(|e| e.name).collect();
    assert_eq!(listed, [name("kept")]);
}
