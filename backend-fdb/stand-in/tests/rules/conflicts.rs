//! Optimistic concurrency: which transactions fail because of which others.

use foundationdb::options::{ConflictRangeType, MutationType, TransactionOption};
use foundationdb::{KeySelector, RangeOption, Transaction};

use crate::cluster::{Cluster, code, get};
use crate::test;

/// True when the transaction still commits after another one changed `key`.
async fn survives(cluster: &Cluster, transaction: Transaction, key: &str) -> bool {
    cluster.put(&[(key, "theirs")]).await;
    transaction.set(&cluster.key("written"), b"x");
    match transaction.commit().await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), 1020);
            false
        }
    }
}

fn between<'a>(cluster: &Cluster, begin: &str, end: &str) -> RangeOption<'a> {
    RangeOption {
        begin: KeySelector::first_greater_or_equal(cluster.key(begin)),
        end: KeySelector::first_greater_or_equal(cluster.key(end)),
        ..RangeOption::default()
    }
}

#[test]
fn a_committed_value_is_read_back() {
    test(async |cluster| {
        cluster.put(&[("a", "1"), ("b", "2")]).await;
        assert_eq!(cluster.value("a").await.as_deref(), Some("1"));
        assert_eq!(cluster.value("c").await, None);
        let rows = [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(cluster.all().await, rows);
    });
}

#[test]
fn a_key_that_was_read_must_not_change_before_the_commit() {
    test(async |cluster| {
        for (changed, survivor) in [("a", false), ("b", true)] {
            cluster.put(&[("a", "1")]).await;
            let transaction = cluster.begin();
            get(&transaction, &cluster.key("a")).await.unwrap();
            assert_eq!(survives(cluster, transaction, changed).await, survivor, "{changed} changed");
        }
    });
}

#[test]
fn the_absence_of_a_key_is_something_that_was_read() {
    test(async |cluster| {
        let transaction = cluster.begin();
        assert_eq!(get(&transaction, &cluster.key("none")).await.unwrap(), None);
        assert!(!survives(cluster, transaction, "none").await);
    });
}

#[test]
fn a_snapshot_read_is_no_reason_for_a_conflict() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        transaction.get(&cluster.key("a"), true).await.unwrap();
        transaction.get_range(&between(cluster, "a", "c"), 1, true).await.unwrap();
        assert!(survives(cluster, transaction, "a").await);
    });
}

#[test]
fn a_transaction_that_only_writes_conflicts_with_nobody() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.get_read_version().await.unwrap();
        transaction.set(&cluster.key("a"), b"mine");
        transaction.atomic_op(&cluster.key("a"), b"x", MutationType::ByteMax);
        transaction.clear_range(&cluster.key("b"), &cluster.key("c"));
        cluster.put(&[("b", "theirs")]).await;
        assert!(survives(cluster, transaction, "a").await);
        assert_eq!(cluster.value("a").await.as_deref(), Some("x"));
        assert_eq!(cluster.value("b").await, None);
    });
}

#[test]
fn a_range_read_covers_what_it_looked_at_and_no_more() {
    test(async |cluster| {
        cluster.put(&[("b", "1"), ("d", "1"), ("f", "1")]).await;
        let limited = |limit, reverse| RangeOption { limit: Some(limit), reverse, ..between(cluster, "a", "k") };
        let cases = [
            (between(cluster, "a", "k"), "h", false),
            (between(cluster, "a", "e"), "f", true),
            (between(cluster, "a", "e"), "e", true),
            (limited(2, false), "d", false),
            (limited(2, false), "e", true),
            (limited(2, true), "c", true),
            (limited(2, true), "d", false),
            (limited(2, true), "j", false),
            (limited(9, false), "j", false),
        ];
        for (number, (range, changed, survivor)) in cases.into_iter().enumerate() {
            cluster.put(&[("b", "1"), ("d", "1"), ("f", "1")]).await;
            let tidy = cluster.begin();
            for key in ["c", "e", "h", "j"] {
                tidy.clear(&cluster.key(key));
            }
            tidy.commit().await.unwrap();
            let transaction = cluster.begin();
            cluster.rows(&transaction, &range, false).await.unwrap();
            assert_eq!(survives(cluster, transaction, changed).await, survivor, "case {number}: {changed} changed");
        }
    });
}

#[test]
fn a_key_selector_covers_the_way_to_the_key_that_it_found() {
    test(async |cluster| {
        for (changed, survivor) in [("b", true), ("d", false), ("e", false), ("g", true)] {
            let tidy = cluster.begin();
            tidy.clear_range(&cluster.key(""), &cluster.key("z"));
            tidy.commit().await.unwrap();
            cluster.put(&[("a", "1"), ("e", "1"), ("y", "1")]).await;
            let transaction = cluster.begin();
            let selector = KeySelector::first_greater_than(cluster.key("c"));
            assert_eq!(&*transaction.get_key(&selector, false).await.unwrap(), &cluster.key("e")[..]);
            assert_eq!(survives(cluster, transaction, changed).await, survivor, "{changed} changed");
        }
        for (changed, survivor) in [("0", true), ("a", false), ("b", false), ("c", true)] {
            let tidy = cluster.begin();
            tidy.clear_range(&cluster.key(""), &cluster.key("z"));
            tidy.commit().await.unwrap();
            cluster.put(&[("a", "1"), ("e", "1"), ("y", "1")]).await;
            let transaction = cluster.begin();
            let selector = KeySelector::last_less_than(cluster.key("c"));
            assert_eq!(&*transaction.get_key(&selector, false).await.unwrap(), &cluster.key("a")[..]);
            assert_eq!(survives(cluster, transaction, changed).await, survivor, "{changed} changed");
        }
    });
}

#[test]
fn an_atomic_operation_conflicts_with_those_who_read_the_key() {
    test(async |cluster| {
        cluster.put(&[("counter", "\x01")]).await;
        let transaction = cluster.begin();
        get(&transaction, &cluster.key("counter")).await.unwrap();
        let other = cluster.begin();
        other.atomic_op(&cluster.key("counter"), &[1], MutationType::Add);
        other.commit().await.unwrap();
        transaction.set(&cluster.key("b"), b"x");
        assert_eq!(code(transaction.commit().await), 1020);
    });
}

#[test]
fn a_write_without_conflict_range_is_no_conflict_for_readers() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        get(&transaction, &cluster.key("a")).await.unwrap();
        let other = cluster.begin();
        other.set_option(TransactionOption::NextWriteNoWriteConflictRange).unwrap();
        other.set(&cluster.key("a"), b"quiet");
        other.commit().await.unwrap();
        transaction.set(&cluster.key("b"), b"x");
        transaction.commit().await.unwrap();
        assert_eq!(cluster.value("a").await.as_deref(), Some("quiet"));
    });
}

#[test]
fn conflict_ranges_added_by_hand_count_like_reads_and_writes() {
    test(async |cluster| {
        let (a, b) = (cluster.key("a"), cluster.key("b"));
        let transaction = cluster.begin();
        transaction.get_read_version().await.unwrap();
        transaction.add_conflict_range(&a, &b, ConflictRangeType::Read).unwrap();
        assert!(!survives(cluster, transaction, "a1").await);

        let transaction = cluster.begin();
        get(&transaction, &cluster.key("a2")).await.unwrap();
        let other = cluster.begin();
        other.add_conflict_range(&a, &b, ConflictRangeType::Write).unwrap();
        other.commit().await.unwrap();
        transaction.set(&cluster.key("x"), b"x");
        assert_eq!(code(transaction.commit().await), 1020);
    });
}

#[test]
fn reading_what_the_transaction_wrote_itself_is_no_reason_for_a_conflict() {
    test(async |cluster| {
        cluster.put(&[("a", "1"), ("c", "1")]).await;
        let transaction = cluster.begin();
        transaction.get_read_version().await.unwrap();
        transaction.set(&cluster.key("a"), b"mine");
        transaction.clear_range(&cluster.key("c"), &cluster.key("e"));
        assert_eq!(get(&transaction, &cluster.key("a")).await.unwrap().as_deref(), Some("mine"));
        assert_eq!(get(&transaction, &cluster.key("c")).await.unwrap(), None);
        cluster.put(&[("c", "theirs")]).await;
        assert!(survives(cluster, transaction, "a").await);

        // But an atomic operation reads what others wrote.
        let transaction = cluster.begin();
        transaction.get_read_version().await.unwrap();
        transaction.atomic_op(&cluster.key("a"), b"zz", MutationType::ByteMax);
        assert_eq!(get(&transaction, &cluster.key("a")).await.unwrap().as_deref(), Some("zz"));
        assert!(!survives(cluster, transaction, "a").await);
    });
}

/// The trap: what the transaction set itself is no read conflict, also when the range is added by hand.
#[test]
fn a_read_conflict_range_after_a_set_of_the_same_key_does_nothing() {
    test(async |cluster| {
        for (set_first, survivor) in [(true, true), (false, false)] {
            let transaction = cluster.begin();
            transaction.get_read_version().await.unwrap();
            let (head, end) = (cluster.key("head"), cluster.key("head\0"));
            if set_first {
                transaction.set(&head, b"mine");
            }
            transaction.add_conflict_range(&head, &end, ConflictRangeType::Read).unwrap();
            transaction.set(&head, b"mine");
            assert_eq!(survives(cluster, transaction, "head").await, survivor, "set first: {set_first}");
        }
    });
}

#[test]
fn without_read_your_writes_a_read_conflict_range_always_counts() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set_option(TransactionOption::ReadYourWritesDisable).unwrap();
        transaction.get_read_version().await.unwrap();
        transaction.set(&cluster.key("head"), b"mine");
        let (head, end) = (cluster.key("head"), cluster.key("head\0"));
        transaction.add_conflict_range(&head, &end, ConflictRangeType::Read).unwrap();
        assert_eq!(get(&transaction, &head).await.unwrap(), None);
        assert!(!survives(cluster, transaction, "head").await);
    });
}

/// A read whose future is thrown away has been asked for: its conflict range counts.
#[test]
fn a_read_that_nobody_waits_for_is_part_of_the_transaction() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        transaction.get_read_version().await.unwrap();
        drop(transaction.get(&cluster.key("a"), false));
        // Another read, so that the first has arrived before the other transaction commits.
        get(&transaction, &cluster.key("b")).await.unwrap();
        assert!(!survives(cluster, transaction, "a").await);
    });
}

#[test]
fn of_concurrent_increments_none_is_lost() {
    test(async |cluster| {
        let increment = async || {
            let mut transaction = cluster.begin();
            loop {
                let value = get(&transaction, &cluster.key("n")).await.unwrap();
                let next = value.map_or(0, |value| value.parse::<u32>().unwrap()) + 1;
                transaction.set(&cluster.key("n"), next.to_string().as_bytes());
                match transaction.commit().await {
                    Ok(_) => return,
                    Err(error) => transaction = error.on_error().await.unwrap(),
                }
            }
        };
        let ten = async || {
            for _ in 0..10 {
                increment().await;
            }
        };
        tokio::join!(ten(), ten(), ten(), ten(), ten());
        assert_eq!(cluster.value("n").await.as_deref(), Some("50"));
    });
}
