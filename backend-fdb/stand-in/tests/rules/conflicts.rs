//! Optimistic concurrency: which transactions fail because of which others.

use foundationdb::options::ConflictRangeType;

use crate::cluster::{code, get};
use crate::test;

#[test]
fn a_committed_value_is_read_back() {
    test(async |cluster| {
        cluster.put(&[("a", "1"), ("b", "2")]).await;
        assert_eq!(cluster.value("a").await.as_deref(), Some("1"));
        assert_eq!(cluster.value("c").await, None);
    });
}

#[test]
fn a_key_read_and_changed_by_another_is_a_conflict() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let reader = cluster.begin();
        get(&reader, &cluster.key("a")).await.unwrap();
        cluster.put(&[("a", "2")]).await;
        reader.set(&cluster.key("b"), b"x");
        assert_eq!(code(reader.commit().await), 1020);
        assert_eq!(cluster.value("b").await, None);
    });
}

#[test]
fn a_read_conflict_range_after_a_set_of_the_same_key_does_nothing() {
    test(async |cluster| {
        for (set_first, conflict) in [(true, false), (false, true)] {
            let transaction = cluster.begin();
            transaction.get_read_version().await.unwrap();
            let (head, end) = (cluster.key("head"), cluster.key("head\0"));
            if set_first {
                transaction.set(&head, b"mine");
                transaction.add_conflict_range(&head, &end, ConflictRangeType::Read).unwrap();
            } else {
                transaction.add_conflict_range(&head, &end, ConflictRangeType::Read).unwrap();
                transaction.set(&head, b"mine");
            }
            cluster.put(&[("head", "theirs")]).await;
            let result = transaction.commit().await;
            assert_eq!(result.is_err(), conflict, "set first: {set_first}");
        }
    });
}
