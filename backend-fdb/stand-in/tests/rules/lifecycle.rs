//! A transaction from its creation to its end: options, time-outs, retries, cancelling, use in the wrong moment.

use foundationdb::options::{DatabaseOption, TransactionOption};
use foundationdb::{FdbError, Transaction};

use crate::cluster::{code, get};
use crate::raw::Raw;
use crate::test;

/// What `on_error` makes of an error: a new attempt, or this code.
async fn retried(transaction: Transaction, error: i32) -> Result<Transaction, i32> {
    transaction.on_error(FdbError::from_code(error)).await.map_err(FdbError::code)
}

#[test]
fn on_error_retries_what_may_be_retried_and_nothing_else() {
    test(async |cluster| {
        for error in [1007, 1009, 1020, 1021, 1037, 1038, 1042, 1051, 1213] {
            let transaction = cluster.begin();
            transaction.set(&cluster.key("a"), b"x");
            let transaction = retried(transaction, error).await.unwrap_or_else(|code| panic!("{error}: {code}"));
            assert_eq!(get(&transaction, &cluster.key("a")).await.unwrap(), None, "{error}: an attempt begins anew");
        }
        for error in [1025, 1031, 2004, 2101, 2103] {
            assert_eq!(retried(cluster.begin(), error).await.err(), Some(error));
        }
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "the real client retries this one only while it runs several versions of itself")]
fn on_error_retries_a_change_of_the_clusters_version() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set(&cluster.key("a"), b"x");
        let transaction = retried(transaction, 1039).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(cluster.value("a").await, None, "an attempt begins anew");
    });
}

#[test]
fn the_predicates_say_what_on_error_does() {
    for (error, maybe_committed, retryable) in [
        (1007, false, true),
        (1009, false, true),
        (1020, false, true),
        (1021, true, true),
        (1031, false, false),
        (1037, false, true),
        (1039, true, true),
        (2101, false, false),
    ] {
        let error = FdbError::from_code(error);
        assert_eq!(error.is_maybe_committed(), maybe_committed, "{}", error.code());
        assert_eq!(error.is_retryable(), retryable, "{}", error.code());
        assert_eq!(error.is_retryable_not_committed(), retryable && !maybe_committed, "{}", error.code());
        assert!(!error.message().is_empty());
    }
}

#[test]
fn retries_end_at_their_limit() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set_option(TransactionOption::RetryLimit(2)).unwrap();
        let transaction = retried(transaction, 1020).await.unwrap();
        let transaction = retried(transaction, 1020).await.unwrap();
        assert_eq!(retried(transaction, 1020).await.err(), Some(1020));
    });
}

#[test]
fn a_delay_between_retries_stays_below_its_limit() {
    test(async |cluster| {
        let begin = tokio::time::Instant::now();
        let mut transaction = cluster.begin();
        transaction.set_option(TransactionOption::MaxRetryDelay(1)).unwrap();
        for _ in 0..50 {
            transaction = retried(transaction, 1020).await.unwrap();
        }
        // Without the limit the mean of the last 40 alone is half a second.
        assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    });
}

#[test]
fn a_time_out_ends_everything_and_is_not_retried() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set_option(TransactionOption::Timeout(1)).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 1031);
        assert_eq!(retried(transaction, 1020).await.err(), Some(1031));
    });
}

#[test]
fn a_time_out_counts_over_all_attempts() {
    test(async |cluster| {
        let mut transaction = cluster.begin();
        transaction.set_option(TransactionOption::Timeout(200)).unwrap();
        transaction.set_option(TransactionOption::MaxRetryDelay(20)).unwrap();
        let end = loop {
            match retried(transaction, 1020).await {
                Ok(next) => transaction = next,
                Err(code) => break code,
            }
        };
        assert_eq!(end, 1031);
    });
}

#[test]
fn a_database_gives_its_transactions_their_options() {
    test(async |cluster| {
        cluster.database.set_option(DatabaseOption::TransactionRetryLimit(0)).unwrap();
        cluster.database.set_option(DatabaseOption::TransactionSizeLimit(500)).unwrap();
        assert_eq!(retried(cluster.begin(), 1020).await.err(), Some(1020));
        let transaction = cluster.begin();
        transaction.set(&cluster.key("a"), &[0; 1000]);
        assert_eq!(code(transaction.commit().await), 2101);
    });
}

#[test]
fn a_cancelled_transaction_fails_until_it_is_reset() {
    test(async |cluster| {
        let raw = Raw::begin(cluster);
        let pending = raw.get(&cluster.key("a"));
        raw.cancel();
        assert!(matches!(pending.wait(), 0 | 1025));
        assert_eq!(raw.get(&cluster.key("a")).wait(), 1025);
        assert_eq!(raw.commit().wait(), 1025);
        raw.reset();
        raw.set(&cluster.key("a"), b"1");
        assert_eq!(raw.commit().wait(), 0);
        assert_eq!(cluster.value("a").await.as_deref(), Some("1"));
    });
}

#[test]
fn use_while_a_commit_is_under_way_or_after_it_is_an_error() {
    test(async |cluster| {
        let raw = Raw::begin(cluster);
        raw.set(&cluster.key("a"), b"1");
        assert_eq!(raw.commit().wait(), 0);
        assert!(raw.committed_version() > 0);
        assert_eq!(raw.get(&cluster.key("a")).wait(), 2017);
        assert_eq!(raw.commit().wait(), 2017);
        raw.reset();
        assert_eq!(raw.get(&cluster.key("a")).wait(), 0);
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "slows commits down")]
fn use_while_a_commit_is_under_way_fails_the_commit_as_well() {
    test(async |cluster| {
        cluster.stand_in().command("latency commit=300000");
        let raw = Raw::begin(cluster);
        raw.set(&cluster.key("a"), b"1");
        let commit = raw.commit();
        assert_eq!(raw.get(&cluster.key("a")).wait(), 2017);
        assert_eq!(commit.wait(), 2017);
        cluster.stand_in().command("latency commit=0");
    });
}

#[test]
fn after_an_error_without_retry_a_transaction_must_be_reset() {
    test(async |cluster| {
        let raw = Raw::begin(cluster);
        assert_eq!(raw.on_error(2004).wait(), 2004);
        assert_eq!(raw.get(&cluster.key("a")).wait(), 1025);
        raw.reset();
        assert_eq!(raw.get(&cluster.key("a")).wait(), 0);
    });
}

#[test]
fn a_cancelled_future_says_so() {
    test(async |cluster| {
        let raw = Raw::begin(cluster);
        let watch = raw.watch(&cluster.key("a"));
        watch.cancel();
        assert_eq!(watch.wait(), 1101);
    });
}

#[test]
fn the_result_of_a_future_is_gone_with_its_memory() {
    test(async |cluster| {
        let raw = Raw::begin(cluster);
        let read = raw.get(&cluster.key("a"));
        assert_eq!(read.wait(), 0);
        assert_eq!(read.value_code(), 0);
        read.release_memory();
        assert_eq!(read.value_code(), 1102);
    });
}

#[test]
fn options_that_do_not_exist_are_refused() {
    test(async |cluster| {
        assert_eq!(code(cluster.begin().set_raw_option(9_999, None)), 2007);
        let transaction = cluster.begin();
        transaction.set_raw_option(500, Some(vec![1, 2, 3])).unwrap();
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 2006);
    });
}

#[test]
fn addresses_are_text() {
    test(async |cluster| {
        let addresses = cluster.begin().get_addresses_for_key(&cluster.key("a")).await.unwrap();
        assert!(addresses.iter().all(|address| address.to_str().unwrap().contains(':')));
        assert!(!addresses.is_empty());
    });
}

#[test]
fn a_cluster_file_must_exist_and_make_sense() {
    test(async |cluster| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fdb.cluster");
        let path = path.to_str().unwrap();
        for (text, error) in [(None, 1515), (Some("nonsense\n"), 2104)] {
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
            // To open it is no error: the file is looked at later.
            let database = foundationdb::Database::from_path(path).unwrap();
            let transaction = database.create_trx().unwrap();
            assert_eq!(code(get(&transaction, &cluster.key("a")).await), error);
            assert_eq!(code(transaction.commit().await), error);
        }
    });
}
