//! Many clients at once: what each transaction read and wrote must fit one order of all commits, the one of their stamps.

use std::collections::BTreeMap;

use foundationdb::options::StreamingMode;
use foundationdb::{KeySelector, RangeOption};

use crate::cluster::{Cluster, get};
use crate::random::Random;
use crate::test;

/// A committed transaction: where it stands, what it read (a key, or a range with all that was in it), what it wrote.
struct Committed {
    stamp: Vec<u8>,
    key_read: (String, Option<String>),
    range_read: ((String, String), Vec<(String, String)>),
    written: Vec<(String, Option<String>)>,
}

/// One transaction: reads a key and a range, then writes or clears some keys. `None` when it conflicted.
async fn attempt(cluster: &Cluster, random: &mut Random, name: &str) -> Option<Committed> {
    let transaction = cluster.begin();
    let key = random.key();
    let (one, other) = (random.key(), random.key());
    let range = if one < other { (one, other) } else { (other, one) };
    let value = get(&transaction, &cluster.key(&key)).await.unwrap();
    let option = RangeOption {
        begin: KeySelector::first_greater_or_equal(cluster.key(&range.0)),
        end: KeySelector::first_greater_or_equal(cluster.key(&range.1)),
        mode: StreamingMode::WantAll,
        reverse: random.below(2) == 0,
        ..RangeOption::default()
    };
    let mut rows = cluster.rows(&transaction, &option, false).await.unwrap().0;
    rows.sort();
    let mut written = Vec::new();
    for number in 0..=random.below(3) {
        let key = random.key();
        if random.below(4) == 0 {
            transaction.clear(&cluster.key(&key));
            written.push((key, None));
        } else {
            let value = format!("{name}.{number}");
            transaction.set(&cluster.key(&key), value.as_bytes());
            written.push((key, Some(value)));
        }
    }
    let stamp = transaction.get_versionstamp();
    match transaction.commit().await {
        Ok(_) => {
            let stamp = stamp.await.unwrap().to_vec();
            Some(Committed { stamp, key_read: (key, value), range_read: (range, rows), written })
        }
        Err(error) => {
            assert_eq!(error.code(), 1020);
            None
        }
    }
}

#[test]
fn concurrent_transactions_fit_one_order() {
    test(async |cluster| {
        let client = async |number: u64| {
            let mut random = Random(number * 7919 + 1);
            let mut committed = Vec::new();
            for step in 0..60 {
                committed.extend(attempt(cluster, &mut random, &format!("{number}.{step}")).await);
            }
            committed
        };
        let all = tokio::join!(client(1), client(2), client(3), client(4), client(5), client(6));
        let mut history: Vec<Committed> = <[_; 6]>::from(all).into_iter().flatten().collect();
        assert!(history.len() > 60 && history.len() < 360, "{} of 360 committed", history.len());
        history.sort_by(|a, b| a.stamp.cmp(&b.stamp));
        let mut model = BTreeMap::new();
        for (place, transaction) in history.iter().enumerate() {
            let (key, value) = &transaction.key_read;
            assert_eq!(model.get(key), value.as_ref(), "the {place}th read {key}");
            let ((begin, end), rows) = &transaction.range_read;
            let there = model
                .range(begin.clone()..end.clone())
                .map(|(key, value): (&String, &String)| (key.clone(), value.clone()));
            assert_eq!(&there.collect::<Vec<_>>(), rows, "the {place}th read {begin} to {end}");
            for (key, value) in &transaction.written {
                match value {
                    Some(value) => drop(model.insert(key.clone(), value.clone())),
                    None => drop(model.remove(key)),
                }
            }
        }
        assert_eq!(cluster.all().await, model.into_iter().collect::<Vec<_>>());
    });
}
