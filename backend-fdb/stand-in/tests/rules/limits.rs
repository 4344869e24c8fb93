//! Size limits. A write cannot report that it is too large: the next call that can does.

use foundationdb::options::{ConflictRangeType, MutationType, TransactionOption};

use crate::cluster::{code, get};
use crate::test;

#[test]
fn the_longest_key_and_the_largest_value_are_stored() {
    test(async |cluster| {
        let key = [&cluster.prefix[..], &vec![b'k'; 10_000 - cluster.prefix.len()]].concat();
        let transaction = cluster.begin();
        transaction.set(&key, &vec![7; 100_000]);
        transaction.commit().await.unwrap();
        assert_eq!(cluster.begin().get(&key, false).await.unwrap().unwrap().len(), 100_000);
    });
}

#[test]
fn a_longer_key_or_a_larger_value_is_refused() {
    test(async |cluster| {
        let key = [&cluster.prefix[..], &vec![b'k'; 10_001 - cluster.prefix.len()]].concat();
        let transaction = cluster.begin();
        transaction.set(&key, b"x");
        assert_eq!(code(transaction.commit().await), 2102);
        let transaction = cluster.begin();
        transaction.set(&cluster.key("a"), &vec![0; 100_001]);
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 2103);
        assert_eq!(code(transaction.commit().await), 2103);
        let transaction = cluster.begin();
        transaction.atomic_op(&cluster.key("a"), &vec![0; 100_001], MutationType::Or);
        assert_eq!(code(transaction.commit().await), 2103);
        assert_eq!(cluster.value("a").await, None);
        // Such a key cannot exist: reading and clearing it are no errors.
        let transaction = cluster.begin();
        assert_eq!(get(&transaction, &key).await.unwrap(), None);
        transaction.clear(&key);
        transaction.commit().await.unwrap();
    });
}

#[test]
fn a_transaction_of_more_than_ten_million_bytes_is_refused() {
    test(async |cluster| {
        for (values, refused) in [(99, false), (100, true)] {
            let transaction = cluster.begin();
            for i in 0..values {
                transaction.set(&cluster.key(&format!("v{i:03}")), &vec![1; 100_000]);
            }
            match transaction.commit().await {
                Ok(_) => assert!(!refused, "{values} values of 100,000 bytes were committed"),
                Err(error) => assert!(refused && error.code() == 2101, "{values} values: {error}"),
            }
        }
    });
}

#[test]
fn conflict_ranges_count_towards_the_size() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set_option(TransactionOption::SizeLimit(2000)).unwrap();
        transaction.set(&cluster.key("a"), &[0; 500]);
        let end = cluster.key(&format!("b{}", "x".repeat(1000)));
        transaction.add_conflict_range(&cluster.key("b"), &end, ConflictRangeType::Read).unwrap();
        let size = transaction.get_approximate_size().await.unwrap();
        assert!((1500..2000).contains(&size), "{size} bytes");
        let begin = cluster.key(&format!("c{}", "x".repeat(1000)));
        transaction.add_conflict_range(&begin, &cluster.key("d"), ConflictRangeType::Read).unwrap();
        assert_eq!(code(transaction.commit().await), 2101);
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "the counters are the stand-in's")]
fn what_was_refused_for_its_size_is_counted() {
    test(async |cluster| {
        let stand_in = cluster.stand_in();
        cluster.put(&[("abc", "12345")]).await;
        assert_eq!(stand_in.counter("refused_for_size"), 0);
        assert_eq!(stand_in.counter("largest_key"), cluster.key("abc").len() as u64);
        assert_eq!(stand_in.counter("largest_value"), 5);
        let transaction = cluster.begin();
        transaction.set(&cluster.key("a"), &vec![0; 100_001]);
        assert_eq!(code(transaction.commit().await), 2103);
        cluster.put(&[("b", "1")]).await;
        assert_eq!(stand_in.counter("refused_for_size"), 1);
    });
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.clear_range(&cluster.key("b"), &cluster.key("a"));
        assert_eq!(code(transaction.commit().await), 2005);
        let transaction = cluster.begin();
        let inverted = transaction.add_conflict_range(&cluster.key("b"), &cluster.key("a"), ConflictRangeType::Read);
        assert_eq!(code(inverted), 2005);
    });
}
