//! Waiting for commits.

use std::sync::Arc;

use litefleet::store::PageStore;
use litefleet::{DatabaseId, ErrorKind, Result, Txid};

use crate::fixture::{Tasks, Writer, refused};
use crate::harness::Harness;

/// Watches as a caller does: again when the store returned early.
async fn until_above(store: &Arc<dyn PageStore>, database: DatabaseId, known: u64) -> Result<Txid> {
    loop {
        let seen = store.watch(database, Txid(known)).await?;
        if seen > Txid(known) {
            return Ok(seen);
        }
    }
}

/// Whoever watches sees each commit, those before the call at once, and so do several who watch one database; commits
/// of another database wake nobody for good.
pub async fn watch_tells_of_commits(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut other = Writer::new(&store, "b").await;
    writer.commit_up_to(2).await;
    assert_eq!(until_above(&store, writer.database, 0).await.expect("it exists"), Txid(2));
    assert_eq!(until_above(&store, writer.database, 1).await.expect("it exists"), Txid(2));
    let mut tasks = Tasks::new();
    for _ in 0..3 {
        let (store, database) = (store.clone(), writer.database);
        tasks.spawn(async move {
            let mut known = 2;
            while known < 12 {
                let seen = until_above(&store, database, known).await.expect("it exists").get();
                assert!(seen > known && seen <= 12, "{known}, then {seen}");
                known = seen;
            }
        });
    }
    for txid in 3..=12 {
        other.commit_up_to(txid).await;
        tokio::task::yield_now().await;
        writer.commit_up_to(txid).await;
        tokio::task::yield_now().await;
    }
    tasks.join().await;
    // A watch that is given up takes nothing with it.
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), until_above(&store, other.database, 12));
    assert!(given_up.await.is_err(), "there was no commit");
    other.commit_up_to(13).await;
    assert_eq!(until_above(&store, other.database, 12).await.expect("it exists"), Txid(13));
}

/// A watch of a database that is deleted meanwhile, or was before, ends with `NotFound`.
pub async fn watch_ends_with_the_database(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let mut tasks = Tasks::new();
    let (watched, database) = (store.clone(), writer.database);
    tasks.spawn(async move { until_above(&watched, database, 0).await.map(|_| ()) });
    tokio::task::yield_now().await;
    store.delete(writer.database, writer.epoch).await.expect("it is held");
    for watched in tasks.join().await {
        refused(watched, ErrorKind::NotFound, "a database that is deleted meanwhile");
    }
    refused(store.watch(database, Txid(0)).await.map(|_| ()), ErrorKind::NotFound, "a deleted database");
}
