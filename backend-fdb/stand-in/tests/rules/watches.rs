//! Watches.

use std::time::Duration;

use foundationdb::Database;
use foundationdb::options::{DatabaseOption, TransactionOption};
use tokio::time::timeout;

use crate::cluster::{code, get};
use crate::test;

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a watch that would fire by mistake.
const QUIET: Duration = Duration::from_millis(100);

#[test]
fn a_watch_tells_of_a_change_by_another() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        let watch = transaction.watch(&cluster.key("a"));
        transaction.commit().await.unwrap();
        let watch = tokio::spawn(watch);
        cluster.put(&[("b", "2")]).await;
        cluster.put(&[("a", "1")]).await;
        tokio::time::sleep(QUIET).await;
        assert!(!watch.is_finished(), "the value is still the same");
        cluster.put(&[("a", "2")]).await;
        timeout(SOON, watch).await.expect("the watch fires").unwrap().unwrap();
    });
}

#[test]
fn a_change_between_read_and_watch_is_not_missed() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        get(&transaction, &cluster.key("a")).await.unwrap();
        cluster.put(&[("a", "2")]).await;
        let watch = transaction.watch(&cluster.key("a"));
        transaction.commit().await.unwrap();
        timeout(SOON, watch).await.expect("the watch fires").unwrap();
    });
}

#[test]
fn a_watch_tells_of_the_transactions_own_change_at_once() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        for read_before in [true, false] {
            let transaction = cluster.begin();
            let watch = transaction.watch(&cluster.key("a"));
            if read_before {
                get(&transaction, &cluster.key("a")).await.unwrap();
            }
            transaction.set(&cluster.key("a"), b"2");
            timeout(SOON, watch).await.expect("the watch fires").unwrap();
        }
    });
}

#[test]
fn a_watch_set_after_the_transactions_own_write_compares_with_that() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set(&cluster.key("a"), b"mine");
        let watch = transaction.watch(&cluster.key("a"));
        transaction.commit().await.unwrap();
        let watch = tokio::spawn(watch);
        tokio::time::sleep(QUIET).await;
        assert!(!watch.is_finished());
        cluster.put(&[("a", "theirs")]).await;
        timeout(SOON, watch).await.expect("the watch fires").unwrap().unwrap();
    });
}

#[test]
fn a_watch_ends_with_a_transaction_that_was_not_committed() {
    test(async |cluster| {
        let transaction = cluster.begin();
        let watch = transaction.watch(&cluster.key("a"));
        drop(transaction);
        assert_eq!(code(timeout(SOON, watch).await.expect("the watch ends")), 1025);
    });
}

#[test]
fn a_watch_has_the_error_of_a_failed_commit() {
    test(async |cluster| {
        let transaction = cluster.begin();
        get(&transaction, &cluster.key("b")).await.unwrap();
        let watch = transaction.watch(&cluster.key("a"));
        cluster.put(&[("b", "2")]).await;
        transaction.set(&cluster.key("c"), b"x");
        assert_eq!(code(transaction.commit().await), 1020);
        assert_eq!(code(timeout(SOON, watch).await.expect("the watch ends")), 1020);
    });
}

#[test]
fn there_is_a_limit_to_watches_and_cancelled_ones_do_not_count() {
    test(async |cluster| {
        cluster.database.set_option(DatabaseOption::MaxWatches(3)).unwrap();
        for round in 0..3 {
            let transaction = cluster.begin();
            let mut watches: Vec<_> = (0..3).map(|_| transaction.watch(&cluster.key("a"))).collect();
            transaction.commit().await.unwrap();
            // Polled once, each watch is under way.
            for watch in &mut watches {
                assert!(timeout(Duration::from_millis(20), watch).await.is_err(), "round {round}");
            }
            let more = cluster.begin();
            let watch = more.watch(&cluster.key("a"));
            let commit = more.commit().await;
            assert_eq!(code(watch.await), 1032, "round {round}");
            drop(commit);
            drop(watches);
            tokio::time::sleep(QUIET).await;
        }
    });
}

#[test]
fn no_watch_without_read_your_writes() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set_option(TransactionOption::ReadYourWritesDisable).unwrap();
        assert_eq!(code(transaction.watch(&cluster.key("a")).await), 1034);
    });
}

#[test]
fn a_limit_to_watches_that_cannot_be_is_reported_by_every_transaction() {
    test(async |cluster| {
        let database = Database::from_path(&cluster.file).unwrap();
        database.set_option(DatabaseOption::MaxWatches(1_000_000)).unwrap();
        database.create_trx().unwrap().get_read_version().await.unwrap();
        database.set_option(DatabaseOption::MaxWatches(1_000_001)).unwrap();
        for _ in 0..2 {
            assert_eq!(code(database.create_trx().unwrap().get_read_version().await), 2006);
        }
        cluster.begin().get_read_version().await.unwrap();
    });
}
