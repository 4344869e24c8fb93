//! What a transaction sees: random changes on top of random data, every kind of read, against a model.

use std::collections::BTreeMap;

use foundationdb::options::{MutationType, StreamingMode, TransactionOption};
use foundationdb::{KeySelector, RangeOption, Transaction};

use crate::cluster::{Cluster, code, get};
use crate::random::Random;
use crate::test;

type Model = BTreeMap<String, String>;

/// Below and above all keys of the model lie these, so that no selector leaves the test's own keys.
const FENCE: i32 = 8;

async fn fences(cluster: &Cluster) {
    let transaction = cluster.begin();
    for i in 0..FENCE {
        transaction.set(&cluster.key(&format!("a{i}")), b"fence");
        transaction.set(&cluster.key(&format!("z{i}")), b"fence");
    }
    transaction.commit().await.unwrap();
}

fn fenced(model: &Model) -> Vec<(String, String)> {
    let fence = |name: &str| (0..FENCE).map(|i| (format!("{name}{i}"), "fence".to_owned())).collect::<Vec<_>>();
    let rows = model.iter().map(|(key, value)| (key.clone(), value.clone()));
    [fence("a"), rows.collect(), fence("z")].concat()
}

/// A random change, made in the transaction and in the model.
fn change(cluster: &Cluster, transaction: &Transaction, model: &mut Model, random: &mut Random) {
    let key = random.key();
    let value = format!("{}", random.below(1000));
    match random.below(5) {
        0 | 1 => {
            transaction.set(&cluster.key(&key), value.as_bytes());
            model.insert(key, value);
        }
        2 => {
            transaction.clear(&cluster.key(&key));
            model.remove(&key);
        }
        3 => {
            let other = random.key();
            let (begin, end) = if key < other { (key, other) } else { (other, key) };
            transaction.clear_range(&cluster.key(&begin), &cluster.key(&end));
            model.retain(|key, _| *key < begin || *key >= end);
        }
        _ => {
            transaction.atomic_op(&cluster.key(&key), value.as_bytes(), MutationType::AppendIfFits);
            model.entry(key).or_default().push_str(&value);
        }
    }
}

/// The row that a selector names, by its place among all rows.
fn place(rows: &[(String, String)], key: &str, or_equal: bool, offset: i32) -> usize {
    let before = rows.iter().filter(|(row, _)| row.as_str() < key || (or_equal && row == key)).count();
    usize::try_from(i32::try_from(before).unwrap() + offset - 1).expect("a place inside the fences")
}

async fn check_reads(cluster: &Cluster, transaction: &Transaction, model: &Model, random: &mut Random) {
    let rows = fenced(model);
    let key = random.key();
    assert_eq!(get(transaction, &cluster.key(&key)).await.unwrap(), model.get(&key).cloned(), "{key}");

    let selector = |random: &mut Random| {
        let (key, or_equal) = (random.key(), random.below(2) == 0);
        let offset = i32::try_from(random.below(9)).unwrap() - 4;
        (KeySelector::new(cluster.key(&key).into(), or_equal, offset), place(&rows, &key, or_equal, offset))
    };
    let (key, at) = selector(random);
    let found = transaction.get_key(&key, false).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&found[cluster.prefix.len()..]), rows[at].0, "{key:?}");

    let ((begin, from), (end, to)) = (selector(random), selector(random));
    let limit = usize::try_from(random.below(6)).unwrap();
    let reverse = random.below(2) == 0;
    let most = (limit > 0).then_some(limit);
    let range = RangeOption { begin, end, limit: most, reverse, ..RangeOption::default() };
    let (found, more) = cluster.rows(transaction, &range, false).await.unwrap();
    let mut expected = rows.get(from..to).unwrap_or_default().to_vec();
    if reverse {
        expected.reverse();
    }
    let all = expected.len();
    if limit > 0 {
        expected.truncate(limit);
    }
    assert_eq!(found, expected, "{range:?}");
    assert_eq!(more, limit > 0 && all >= limit, "{range:?}: {all} rows");
}

/// Random changes, each transaction's own on top of what others have committed.
async fn changes_are_seen(cluster: &Cluster) {
    fences(cluster).await;
    for seed in 1..=40 {
        let mut random = Random(seed * 7919);
        let mut model = Model::new();
        let base = cluster.begin();
        base.clear_range(&cluster.key("k"), &cluster.key("l"));
        for _ in 0..random.below(40) {
            change(cluster, &base, &mut model, &mut random);
        }
        base.commit().await.unwrap();
        let transaction = cluster.begin();
        for _ in 0..30 {
            if random.below(3) == 0 {
                change(cluster, &transaction, &mut model, &mut random);
            }
            check_reads(cluster, &transaction, &model, &mut random).await;
        }
        transaction.commit().await.unwrap();
        assert_eq!(cluster.all().await, fenced(&model), "seed {seed}, after the commit");
    }
}

#[test]
fn a_transaction_sees_its_own_changes_on_top_of_what_was_committed() {
    test(changes_are_seen);
}

#[test]
#[cfg_attr(real_cluster, ignore = "says where shards end")]
fn a_transaction_sees_its_own_changes_where_shards_end_as_well() {
    test(async |cluster| {
        cluster.stand_in().command("faults range.cut=3000");
        changes_are_seen(cluster).await;
        assert!(cluster.stand_in().counter("ranges_cut") > 100);
    });
}

#[test]
fn pages_of_a_long_range_follow_one_another() {
    test(async |cluster| {
        let transaction = cluster.begin();
        for i in 0..2000 {
            transaction.set(&cluster.key(&format!("k{i:05}")), &[b'v'; 100]);
        }
        transaction.commit().await.unwrap();
        for (mode, reverse) in [
            (StreamingMode::Iterator, false),
            (StreamingMode::Iterator, true),
            (StreamingMode::WantAll, false),
            (StreamingMode::Medium, true),
        ] {
            let transaction = cluster.begin();
            let mut next = Some(RangeOption {
                begin: KeySelector::first_greater_or_equal(cluster.key("k")),
                end: KeySelector::first_greater_or_equal(cluster.key("l")),
                mode,
                reverse,
                ..RangeOption::default()
            });
            let (mut keys, mut iteration) = (Vec::new(), 1);
            while let Some(range) = next {
                let rows = transaction.get_range(&range, iteration, false).await.unwrap();
                assert!(rows.iter().map(|row| row.key().len() + row.value().len()).sum::<usize>() < 130_000);
                keys.extend(rows.iter().map(|row| row.key().to_vec()));
                next = range.next_range(&rows);
                iteration += 1;
            }
            let mut expected: Vec<_> = (0..2000).map(|i| cluster.key(&format!("k{i:05}"))).collect();
            if reverse {
                expected.reverse();
            }
            assert_eq!(keys, expected, "{mode:?}, reverse: {reverse}");
            assert!(iteration > 2, "{mode:?} returned everything at once");
        }
    });
}

#[test]
fn a_long_range_is_read_with_the_transactions_own_writes_in_it() {
    test(async |cluster| {
        let name = |i: u32| format!("k{i:05}");
        let transaction = cluster.begin();
        for i in (0..3000).step_by(2) {
            transaction.set(&cluster.key(&name(i)), &[b'v'; 100]);
        }
        transaction.commit().await.unwrap();
        for reverse in [false, true] {
            let transaction = cluster.begin();
            for i in (0..3000).step_by(3) {
                transaction.set(&cluster.key(&name(i)), b"mine");
            }
            for i in (0..3000).step_by(20) {
                transaction.clear(&cluster.key(&name(i)));
            }
            transaction.clear_range(&cluster.key(&name(1000)), &cluster.key(&name(1100)));
            let gone = |i: &u32| i.is_multiple_of(20) || (1000..1100).contains(i);
            let mut expected: Vec<_> = (0..3000).filter(|i| (i % 2 == 0 || i % 3 == 0) && !gone(i)).map(name).collect();
            if reverse {
                expected.reverse();
            }
            for limit in [expected.len(), expected.len() - 100, 700] {
                let range = RangeOption {
                    begin: KeySelector::first_greater_or_equal(cluster.key("k")),
                    end: KeySelector::first_greater_or_equal(cluster.key("l")),
                    mode: StreamingMode::Exact,
                    limit: Some(limit),
                    reverse,
                    ..RangeOption::default()
                };
                let (rows, _) = cluster.reply(&transaction, &range, false).await.unwrap();
                let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
                assert_eq!(keys, expected[..limit], "reverse: {reverse}");
            }
        }
    });
}

#[test]
fn exact_mode_returns_as_many_rows_as_asked_for() {
    test(async |cluster| {
        let transaction = cluster.begin();
        for i in 0..1500 {
            transaction.set(&cluster.key(&format!("k{i:05}")), &[b'v'; 100]);
        }
        transaction.commit().await.unwrap();
        let range = RangeOption {
            begin: KeySelector::first_greater_or_equal(cluster.key("k")),
            end: KeySelector::first_greater_or_equal(cluster.key("l")),
            mode: StreamingMode::Exact,
            limit: Some(1400),
            ..RangeOption::default()
        };
        let transaction = cluster.begin();
        assert_eq!(transaction.get_range(&range, 1, false).await.unwrap().len(), 1400);
        let unlimited = RangeOption { limit: None, ..range };
        assert_eq!(code(transaction.get_range(&unlimited, 1, false).await), 2210);
    });
}

#[test]
fn snapshot_reads_see_the_transactions_writes_unless_told_otherwise() {
    test(async |cluster| {
        cluster.put(&[("a", "old")]).await;
        for (option, seen) in [(None, "new"), (Some(TransactionOption::SnapshotRywDisable), "old")] {
            let transaction = cluster.begin();
            if let Some(option) = option {
                transaction.set_option(option).unwrap();
            }
            transaction.set(&cluster.key("a"), b"new");
            let value = transaction.get(&cluster.key("a"), true).await.unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&value), seen);
            assert_eq!(get(&transaction, &cluster.key("a")).await.unwrap().as_deref(), Some("new"));
        }
    });
}

#[test]
fn read_your_writes_cannot_be_switched_off_after_the_first_use() {
    test(async |cluster| {
        let transaction = cluster.begin();
        transaction.set(&cluster.key("a"), b"x");
        transaction.set_option(TransactionOption::ReadYourWritesDisable).unwrap();
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 2000);
    });
}

#[test]
fn all_reads_of_a_transaction_are_of_one_moment() {
    test(async |cluster| {
        cluster.put(&[("a", "1"), ("b", "1")]).await;
        let transaction = cluster.begin();
        assert_eq!(get(&transaction, &cluster.key("a")).await.unwrap().as_deref(), Some("1"));
        cluster.put(&[("a", "2"), ("b", "2")]).await;
        let gone = cluster.begin();
        gone.clear(&cluster.key("b"));
        gone.commit().await.unwrap();
        assert_eq!(get(&transaction, &cluster.key("b")).await.unwrap().as_deref(), Some("1"));
        assert_eq!(cluster.value("b").await, None);
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "a real cluster has other keys at its ends")]
fn a_selector_past_either_end_stops_there() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        for own_write in [false, true] {
            let transaction = cluster.begin();
            if own_write {
                transaction.set(&cluster.key("b"), b"2");
            }
            let first = KeySelector::last_less_than(cluster.key("a"));
            assert_eq!(&*transaction.get_key(&first, false).await.unwrap(), b"");
            let last = KeySelector::first_greater_than(cluster.key("b"));
            assert_eq!(&*transaction.get_key(&last, false).await.unwrap(), b"\xff");
        }
    });
}

#[test]
fn system_keys_are_out_of_sight_without_the_option() {
    test(async |cluster| {
        let transaction = cluster.begin();
        assert_eq!(code(get(&transaction, b"\xff").await), 2004);
        let transaction = cluster.begin();
        let selector = KeySelector::first_greater_or_equal(&b"\xff\x01"[..]);
        assert_eq!(code(transaction.get_key(&selector, false).await), 2004);
        let transaction = cluster.begin();
        transaction.set_option(TransactionOption::ReadSystemKeys).unwrap();
        get(&transaction, b"\xff/no such key").await.unwrap();
        transaction.set(b"\xff/no such key", b"x");
        assert_eq!(code(transaction.commit().await), 2004);
    });
}
