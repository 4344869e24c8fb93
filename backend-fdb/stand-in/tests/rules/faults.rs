//! What only the stand-in does: faults, recoveries, counting. Left out on a real cluster, by name.

use std::time::Duration;

use foundationdb::options::{ConflictRangeType, StreamingMode, TransactionOption};
use foundationdb::{KeySelector, RangeOption};

use crate::cluster::{Cluster, code, get};
use crate::test;

/// A commit to key `a` that met the fault; its code.
async fn commit_with(cluster: &Cluster, fault: &str) -> i32 {
    let transaction = cluster.begin();
    get(&transaction, &cluster.key("a")).await.unwrap();
    transaction.set(&cluster.key("a"), fault.as_bytes());
    cluster.stand_in().command(&format!("next {fault}"));
    code(transaction.commit().await)
}

#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn a_commit_with_an_unknown_result_may_have_happened_or_not() {
    test(async |cluster| {
        for (fault, expected, done) in [
            ("commit.commit_unknown_result.done", 1021, true),
            ("commit.commit_unknown_result", 1021, false),
            ("commit.1039.done", 1039, true),
            ("commit.1039.lost", 1039, false),
            ("commit.not_committed", 1020, false),
            ("commit.1007", 1007, false),
        ] {
            cluster.put(&[("a", "before")]).await;
            assert_eq!(commit_with(cluster, fault).await, expected);
            let now = if done { fault } else { "before" };
            assert_eq!(cluster.value("a").await.as_deref(), Some(now), "{fault}");
        }
    });
}

/// Waits until something is as wanted: the test fails by not ending in time.
async fn eventually(mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("in time");
}

#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn a_commit_can_take_effect_after_its_client_gave_up() {
    test(async |cluster| {
        cluster.stand_in().command("latency late=100000");
        for error in [1021, 1031, 1039] {
            cluster.put(&[("a", "before")]).await;
            let late = format!("commit.{error}.late");
            assert_eq!(commit_with(cluster, &late).await, error);
            eventually(async || cluster.value("a").await.as_deref() == Some(&late)).await;
        }
        assert_eq!(cluster.stand_in().counter("late_commits"), 3);
    });
}

/// What fencing relies on: a late commit is refused when what it read has changed.
#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn a_late_commit_is_bound_to_what_it_read() {
    test(async |cluster| {
        cluster.stand_in().command("latency late=100000");
        for round in 0..20 {
            let value = format!("round {round}");
            assert_eq!(commit_with(cluster, "commit.1021.late").await, 1021);
            cluster.put(&[("a", &value)]).await;
            // From the moment of this commit on nothing else may appear, however long one waits.
            for _ in 0..3 {
                let now = cluster.value("a").await;
                assert_eq!(now.as_deref(), Some(value.as_str()));
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn a_time_out_leaves_a_commit_on_its_way() {
    test(async |cluster| {
        cluster.stand_in().command("latency commit=200000");
        let transaction = cluster.begin();
        transaction.set(&cluster.key("a"), b"late");
        transaction.set_option(TransactionOption::Timeout(50)).unwrap();
        assert_eq!(code(transaction.commit().await), 1031);
        cluster.stand_in().command("latency commit=0");
        eventually(async || cluster.value("a").await.as_deref() == Some("late")).await;
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn reads_and_read_versions_fail_as_told() {
    test(async |cluster| {
        for (fault, expected) in [("read.1009", 1009), ("read.process_behind", 1037), ("read.1007", 1007)] {
            cluster.stand_in().command(&format!("next {fault}"));
            assert_eq!(code(get(&cluster.begin(), &cluster.key("a")).await), expected);
        }
        for (fault, expected) in [("version.1039", 1039), ("version.1051", 1051)] {
            cluster.stand_in().command(&format!("next {fault}"));
            assert_eq!(code(cluster.begin().get_read_version().await), expected);
        }
        cluster.stand_in().command("next read.slow.50");
        let begin = tokio::time::Instant::now();
        get(&cluster.begin(), &cluster.key("a")).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(50));
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn a_recovery_makes_every_earlier_version_too_old() {
    test(async |cluster| {
        cluster.put(&[("a", "1")]).await;
        let transaction = cluster.begin();
        let before = transaction.get_read_version().await.unwrap();
        cluster.stand_in().command("restart");
        assert_eq!(code(get(&transaction, &cluster.key("a")).await), 1007);
        let after = cluster.begin().get_read_version().await.unwrap();
        assert!(after - before >= 100_000_000, "{before} to {after}");
        assert_eq!(cluster.value("a").await.as_deref(), Some("1"));
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn a_commit_during_a_recovery_is_unknown_and_never_late() {
    test(async |cluster| {
        let mut outcomes = std::collections::BTreeSet::new();
        for round in 0..40 {
            cluster.put(&[("a", "before")]).await;
            assert_eq!(commit_with(cluster, "commit.restart").await, 1021);
            let done = cluster.value("a").await.as_deref() != Some("before");
            outcomes.insert(done);
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(cluster.value("a").await.as_deref() != Some("before"), done, "round {round}");
        }
        assert_eq!(outcomes.len(), 2, "both outcomes occur: {outcomes:?}");
        // A late commit from before the recovery does not survive it.
        cluster.stand_in().command("latency late=100000");
        cluster.put(&[("a", "before")]).await;
        assert_eq!(commit_with(cluster, "commit.1021.late").await, 1021);
        cluster.stand_in().command("restart");
        let then = cluster.value("a").await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(cluster.value("a").await, then);
    });
}

/// A counter that several clients raise, each with an id of its own for each step, through every kind of fault: it ends at
/// the number of steps, exactly.
#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn a_client_that_checks_its_own_marks_counts_right_through_any_fault() {
    test(async |cluster| {
        for seed in 1..=10 {
            let faults = "commit.1021.done=800 commit.1021.lost=800 commit.1021.late=400 commit.not_committed=500 \
                          commit.1039.late=300 commit.restart=100 commit.slow.2=500 read.1037=200 read.1009=200 \
                          version.1039=200 read.slow.1=300";
            cluster.stand_in().command(&format!("faults seed={seed} {faults}"));
            cluster.stand_in().command("latency late=3000");
            let total = format!("total{seed}");
            let client = async |client: usize| {
                for step in 0..15 {
                    let mark = format!("mark{seed}/{client}/{step}");
                    let mut transaction = cluster.begin();
                    transaction.set_option(TransactionOption::MaxRetryDelay(5)).unwrap();
                    loop {
                        let attempt = async {
                            if get(&transaction, &cluster.key(&mark)).await?.is_some() {
                                return Ok(true);
                            }
                            let value = get(&transaction, &cluster.key(&total)).await?;
                            let next = value.map_or(0, |value| value.parse::<u32>().unwrap()) + 1;
                            transaction.set(&cluster.key(&total), next.to_string().as_bytes());
                            transaction.set(&cluster.key(&mark), b"done");
                            Ok::<bool, foundationdb::FdbError>(false)
                        };
                        let error = match attempt.await {
                            Ok(true) => break,
                            Ok(false) => match transaction.commit().await {
                                Ok(_) => break,
                                Err(error) => {
                                    transaction = error.on_error().await.unwrap();
                                    continue;
                                }
                            },
                            Err(error) => error,
                        };
                        transaction = transaction.on_error(error).await.unwrap();
                    }
                }
            };
            tokio::join!(client(0), client(1), client(2), client(3));
            cluster.stand_in().command("faults");
            assert_eq!(cluster.value(&total).await.as_deref(), Some("60"), "seed {seed}");
        }
        assert!(cluster.stand_in().counter("faults") > 100);
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "counts requests")]
fn exchanges_with_the_cluster_are_counted() {
    test(async |cluster| {
        let stand_in = cluster.stand_in();
        let counted = |names: &[&str]| names.iter().map(|name| stand_in.counter(name)).collect::<Vec<_>>();
        let exchanges = ["read_versions", "gets", "get_keys", "ranges", "commits"];
        let (head, end) = (cluster.key("head"), cluster.key("head\0"));

        let transaction = cluster.begin();
        get(&transaction, &head).await.unwrap();
        transaction.get_range(&foundationdb::RangeOption::from((&head[..], &end[..])), 1, true).await.unwrap();
        transaction.set(&head, b"1");
        let version = transaction.commit().await.unwrap().committed_version().unwrap();
        assert_eq!(counted(&exchanges), [1, 1, 0, 1, 1]);

        stand_in.command("reset");
        let transaction = cluster.begin();
        transaction.set_read_version(version);
        transaction.add_conflict_range(&head, &end, ConflictRangeType::Read).unwrap();
        transaction.set(&head, b"2");
        transaction.commit().await.unwrap();
        assert_eq!(counted(&exchanges), [0, 0, 0, 0, 1], "a commit at a known version is one exchange");
        let key = head.len() as u64;
        assert_eq!(counted(&["keys_written", "key_bytes_written", "value_bytes_written"]), [1, key, 1]);

        stand_in.command("reset");
        let transaction = cluster.begin();
        transaction.set(&head, b"3");
        assert_eq!(get(&transaction, &head).await.unwrap().as_deref(), Some("3"));
        drop(transaction);
        assert_eq!(counted(&exchanges), [0, 0, 0, 0, 0], "what a transaction wrote itself takes no exchange");
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "says where shards end")]
fn a_range_read_may_end_with_a_shard() {
    test(async |cluster| {
        let rows: Vec<(String, String)> = (0..5).map(|i| (format!("k{i}"), i.to_string())).collect();
        let pairs: Vec<(&str, &str)> = rows.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        cluster.put(&pairs).await;
        cluster.stand_in().command("faults range.cut=10000");
        let transaction = cluster.begin();
        let range = |mode, reverse| RangeOption {
            begin: KeySelector::first_greater_or_equal(cluster.key("k")),
            end: KeySelector::first_greater_or_equal(cluster.key("l")),
            mode,
            reverse,
            ..RangeOption::default()
        };
        for reverse in [false, true] {
            let mut expected = rows.clone();
            if reverse {
                expected.reverse();
            }
            let exact = RangeOption { limit: Some(5), ..range(StreamingMode::Exact, reverse) };
            assert_eq!(cluster.reply(&transaction, &exact, true).await.unwrap(), (expected.clone(), true), "goes on");
            let mut next = Some(range(StreamingMode::WantAll, reverse));
            for row in expected {
                let range = next.take().expect("there is more");
                assert_eq!(cluster.reply(&transaction, &range, true).await.unwrap(), (vec![row], true));
                let again = transaction.get_range(&range, 1, true).await.unwrap();
                next = range.next_range(&again);
            }
            // That there was no more after the last is only found by looking.
            let (rest, more) = cluster.reply(&transaction, &next.expect("so it says"), true).await.unwrap();
            assert!(rest.is_empty() && !more);
        }
        assert_eq!(cluster.stand_in().counter("ranges_cut"), 2 * (4 + 2 * 5), "and the last of five ends it anyway");
        // So it is where the transaction's own writes are merged.
        transaction.set(&cluster.key("k5"), b"5");
        let exact = RangeOption { limit: Some(6), ..range(StreamingMode::Exact, false) };
        assert_eq!(cluster.reply(&transaction, &exact, true).await.unwrap().0.len(), 6, "goes on");
        let (cut, more) = cluster.reply(&transaction, &range(StreamingMode::WantAll, false), true).await.unwrap();
        assert_eq!((&cut[..], more), (&rows[..1], true));
        transaction.clear(&cluster.key("k5"));
        cluster.stand_in().command("faults");
        let (all, more) = cluster.reply(&transaction, &range(StreamingMode::WantAll, false), true).await.unwrap();
        assert_eq!((all, more), (rows, false));
    });
}
