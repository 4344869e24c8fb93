//! Versions: which are readable, which commits have one, and versionstamps.

use foundationdb::options::{ConflictRangeType, MutationType, TransactionOption};

use crate::cluster::{code, get};
use crate::test;

#[test]
fn a_commit_has_a_version_above_the_one_it_read_at() {
    test(async |cluster| {
        let transaction = cluster.begin();
        let read = transaction.get_read_version().await.unwrap();
        transaction.set(&cluster.key("a"), b"1");
        let committed = transaction.commit().await.unwrap().committed_version().unwrap();
        assert!(committed > read, "{committed} after {read}");
        let later = cluster.begin().get_read_version().await.unwrap();
        assert!(later >= committed, "a read version, {later}, that does not see the commit at {committed}");
    });
}

#[test]
fn a_transaction_without_writes_has_no_commit_version() {
    test(async |cluster| {
        let transaction = cluster.begin();
        get(&transaction, &cluster.key("a")).await.unwrap();
        let stamp = transaction.get_versionstamp();
        let committed = transaction.commit().await.unwrap();
        assert_eq!(committed.committed_version().unwrap(), -1);
        assert_eq!(code(stamp.await), 2021);
    });
}

/// The way in which a small commit goes without a read version of its own.
#[test]
fn the_version_of_a_commit_serves_as_read_version_of_the_next() {
    test(async |cluster| {
        let (head, end) = (cluster.key("head"), cluster.key("head\0"));
        let transaction = cluster.begin();
        transaction.set(&head, b"0");
        let mut version = transaction.commit().await.unwrap().committed_version().unwrap();
        for value in 1..5_u8 {
            let transaction = cluster.begin();
            transaction.set_read_version(version);
            transaction.add_conflict_range(&head, &end, ConflictRangeType::Read).unwrap();
            transaction.set(&head, &[b'0' + value]);
            version = transaction.commit().await.unwrap().committed_version().unwrap();
        }
        assert_eq!(cluster.value("head").await.as_deref(), Some("4"));
        cluster.put(&[("head", "theirs")]).await;
        let transaction = cluster.begin();
        transaction.set_read_version(version);
        transaction.add_conflict_range(&head, &end, ConflictRangeType::Read).unwrap();
        transaction.set(&head, b"5");
        assert_eq!(code(transaction.commit().await), 1020);
    });
}

#[test]
fn a_read_version_is_set_once_and_is_positive() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set_read_version(0);
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 2011);
        let transaction = cluster.begin();
        let version = transaction.get_read_version().await.unwrap();
        transaction.set_read_version(version);
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 2010);
    });
}

#[test]
fn an_old_read_version_is_refused() {
    test(async |cluster| {
        // The client must know the cluster: a commit that it sends while it learns who commits there ends as 1021.
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        transaction.set_read_version(1);
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 1007);
        let transaction = cluster.begin();
        transaction.set_read_version(1);
        transaction.add_conflict_range(&cluster.key("a"), &cluster.key("b"), ConflictRangeType::Read).unwrap();
        transaction.set(&cluster.key("a"), b"x");
        assert_eq!(code(transaction.commit().await), 1007);
    });
}

#[test]
fn a_version_that_has_not_been_reached_is_refused() {
    test(async |cluster| {
        let now = cluster.begin().get_read_version().await.unwrap();
        let transaction = cluster.begin();
        transaction.set_read_version(now + 1_000_000_000_000);
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 1009);
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "moves the clock of versions")]
fn reads_and_commits_end_after_five_seconds() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        get(&transaction, &cluster.key("a")).await.unwrap();
        cluster.stand_in().command("advance 4000000");
        get(&transaction, &cluster.key("a")).await.unwrap();
        transaction.set(&cluster.key("b"), b"x");
        cluster.stand_in().command("advance 1500000");
        assert_eq!(code(transaction.get(&cluster.key("c"), false).await), 1007);
        assert_eq!(cluster.stand_in().counter("too_old"), 1);
        let oldest = cluster.stand_in().counter("oldest_read");
        assert!((4_000_000..5_000_000).contains(&oldest), "{oldest}");
        let blind = cluster.begin();
        blind.get_read_version().await.unwrap();
        blind.set(&cluster.key("b"), b"x");
        cluster.stand_in().command("advance 6000000");
        assert_eq!(code(blind.commit().await), 1007);
    });
}

#[test]
fn a_stamped_key_gets_the_version_of_its_commit() {
    test(async |cluster| {
        let key = [&cluster.key("log/")[..], b"..........", b"/x"].concat();
        let place = u32::try_from(cluster.key("log/").len()).unwrap().to_le_bytes();
        let transaction = cluster.begin();
        transaction.atomic_op(&[&key[..], &place].concat(), b"entry", MutationType::SetVersionstampedKey);
        let value = [b"<..........>", &1_u32.to_le_bytes()[..]].concat();
        transaction.atomic_op(&cluster.key("value"), &value, MutationType::SetVersionstampedValue);
        let stamp = transaction.get_versionstamp();
        let version = transaction.commit().await.unwrap().committed_version().unwrap();
        let stamp = stamp.await.unwrap().to_vec();
        assert_eq!(stamp[..8], version.to_be_bytes());
        let key = [&cluster.key("log/")[..], &stamp, b"/x"].concat();
        let reader = cluster.begin();
        assert_eq!(get(&reader, &key).await.unwrap().as_deref(), Some("entry"));
        let value = reader.get(&cluster.key("value"), false).await.unwrap().unwrap();
        assert_eq!(value[..], [b"<", &stamp[..], b">"].concat());
    });
}

#[test]
fn what_only_the_commit_decides_cannot_be_read_before() {
    test(async |cluster| {
        let key = [&cluster.key("log/")[..], b".........."].concat();
        let place = u32::try_from(cluster.key("log/").len()).unwrap().to_le_bytes();
        let template = [&key[..], &place].concat();
        let transaction = cluster.begin();
        transaction.atomic_op(&template, b"entry", MutationType::SetVersionstampedKey);
        assert_eq!(code(get(&transaction, &cluster.key("log/~~~~~~~~~~")).await), 1036);

        let transaction = cluster.begin();
        transaction.atomic_op(&template, b"entry", MutationType::SetVersionstampedKey);
        let range = (cluster.key("l"), cluster.key("m"));
        let option = foundationdb::RangeOption::from(range);
        assert_eq!(code(cluster.rows(&transaction, &option, false).await), 1036);
        // The failed read fails the commit.
        assert_eq!(code(transaction.commit().await), 1036);

        let transaction = cluster.begin();
        let value = [b"..........", &0_u32.to_le_bytes()[..]].concat();
        transaction.atomic_op(&cluster.key("value"), &value, MutationType::SetVersionstampedValue);
        assert_eq!(get(&transaction, &cluster.key("other")).await.unwrap(), None);
        assert_eq!(code(get(&transaction, &cluster.key("value")).await), 1036);

        let transaction = cluster.begin();
        transaction.set_option(TransactionOption::BypassUnreadable).unwrap();
        transaction.atomic_op(&cluster.key("value"), &value, MutationType::SetVersionstampedValue);
        // As it was written, with the stamp's place at its end, which only the commit takes off.
        let seen = transaction.get(&cluster.key("value"), false).await.unwrap().unwrap();
        assert_eq!(seen[..], value);
    });
}

#[test]
fn a_range_read_fails_only_when_it_reaches_what_cannot_be_read() {
    test(async |cluster| {
        cluster.put(&[("a", "1"), ("b", "1"), ("y", "1"), ("z", "1")]).await;
        let place = u32::try_from(cluster.key("log/").len()).unwrap().to_le_bytes();
        let template = [&cluster.key("log/")[..], b"..........", &place].concat();
        for (limit, reverse, readable) in
            [(2, false, true), (3, false, false), (0, false, false), (2, true, true), (3, true, false)]
        {
            let transaction = cluster.begin();
            transaction.atomic_op(&template, b"entry", MutationType::SetVersionstampedKey);
            let range = foundationdb::RangeOption::from((cluster.key("a"), cluster.key("zz")));
            let range = foundationdb::RangeOption { limit: (limit > 0).then_some(limit), reverse, ..range };
            match cluster.rows(&transaction, &range, false).await {
                Ok((rows, _)) => assert!(readable && rows.len() == 2, "limit {limit}, reverse {reverse}"),
                Err(error) => assert!(!readable && error.code() == 1036, "limit {limit}, reverse {reverse}: {error}"),
            }
        }
    });
}

#[test]
fn a_stamped_key_conflicts_with_those_who_read_its_range() {
    test(async |cluster| {
        let place = u32::try_from(cluster.key("log/").len()).unwrap().to_le_bytes();
        let reader = cluster.begin();
        let range = foundationdb::RangeOption::from((cluster.key("log/"), cluster.key("log0")));
        assert_eq!(reader.get_range(&range, 1, false).await.unwrap().len(), 0);
        let transaction = cluster.begin();
        let template = [&cluster.key("log/")[..], b"..........", &place].concat();
        transaction.atomic_op(&template, b"entry", MutationType::SetVersionstampedKey);
        transaction.commit().await.unwrap();
        reader.set(&cluster.key("a"), b"x");
        assert_eq!(code(reader.commit().await), 1020);
    });
}

#[test]
fn a_clear_after_a_stamped_key_takes_it_back() {
    test(async |cluster| {
        let place = u32::try_from(cluster.key("log/").len()).unwrap().to_le_bytes();
        let template = [&cluster.key("log/")[..], b"..........", &place].concat();
        for (clear_first, entries) in [(true, 1), (false, 0)] {
            let transaction = cluster.begin();
            let clear = || transaction.clear_range(&cluster.key("log/"), &cluster.key("log0"));
            if clear_first {
                clear();
            }
            transaction.atomic_op(&template, b"entry", MutationType::SetVersionstampedKey);
            if !clear_first {
                clear();
            }
            transaction.commit().await.unwrap();
            assert_eq!(cluster.all().await.len(), entries, "cleared first: {clear_first}");
        }
    });
}

#[test]
fn stamps_of_concurrent_commits_differ_and_follow_the_order_of_commits() {
    test(async |cluster| {
        let commit = async |number: usize| {
            let transaction = cluster.begin();
            transaction.set(&cluster.key(&format!("s{number}")), b"x");
            let stamp = transaction.get_versionstamp();
            let version = transaction.commit().await.unwrap().committed_version().unwrap();
            (version, stamp.await.unwrap().to_vec())
        };
        let mut stamps = Vec::new();
        for round in 0..5 {
            let first = round * 3;
            let committed = tokio::join!(commit(first), commit(first + 1), commit(first + 2));
            stamps.extend(<[_; 3]>::from(committed));
        }
        stamps.sort();
        assert!(stamps.windows(2).all(|pair| pair[0].1 < pair[1].1), "{stamps:?}");
    });
}

#[test]
fn a_range_is_measured_and_split() {
    test(async |cluster| {
        let transaction = cluster.begin();
        for i in 0..100 {
            transaction.set(&cluster.key(&format!("k{i:02}")), &[1; 1000]);
        }
        transaction.commit().await.unwrap();
        let transaction = cluster.begin();
        let (begin, end) = (cluster.key("k"), cluster.key("l"));
        let size = transaction.get_estimated_range_size_bytes(&begin, &end).await.unwrap();
        assert!(size >= 0, "{size}");
        let points = transaction.get_range_split_points(&begin, &end, 10_000).await.unwrap();
        let points: Vec<_> = points.iter().map(|point| point.key().to_vec()).collect();
        assert_eq!(points.first(), Some(&begin));
        assert_eq!(points.last(), Some(&end));
        assert!(points.is_sorted());
    });
}
