//! Reading the log.

use litefleet::Txid;
use litefleet::store::Lineage;

use crate::fixture::{Writer, image, log_txids, read_log};
use crate::harness::Harness;

/// Every range of the log comes whole, in order and without a gap, in as many calls as it takes.
pub async fn log_has_no_gap(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let last = 40;
    writer.commit_up_to(last).await;
    writer.checkpoint(20, &[image(1, 20, b"row")]).await;
    for after in 0..=last {
        for to in [after, after + 1, after + 2, last - 1, last] {
            if to < after || to > last {
                continue;
            }
            let rows = read_log(&store, writer.database, after, to).await;
            let rows = rows.expect("nothing was collected");
            let expected: Vec<u64> = (after + 1..=to).collect();
            assert_eq!(log_txids(&rows), expected);
            assert!(rows.iter().all(|r| r.record == format!("record-{}", r.txid)));
        }
    }
    // Another holder's commits go on in the same log.
    let mut next = writer.take_over().await;
    next.commit_up_to(last + 3).await;
    let rows = read_log(&store, writer.database, last - 1, last + 3).await;
    assert_eq!(log_txids(&rows.expect("it is there")).len(), 4);
}

/// A record of the full size comes through the log, though it alone may be more than one reply's bytes.
pub async fn large_records_come_one_by_one(harness: &dyn Harness) {
    let store = harness.store().await;
    let limits = store.limits();
    let mut writer = Writer::new(&store, "a").await;
    let large = vec![0x5a; limits.record_bytes];
    for _ in 0..3 {
        writer.commit(&large).await;
    }
    let rows = read_log(&store, writer.database, 0, 3).await;
    let rows = rows.expect("nothing was collected");
    assert!(rows.iter().all(|row| row.record == large));
    let lineage = [Lineage { database: writer.database, max_txid: Txid(3) }];
    let first = store.read_log(&lineage, Txid(0), Txid(3)).await;
    let bytes: usize = first.expect("it is there").iter().map(|r| r.record.len()).sum();
    let bound = limits.log_bytes.max(limits.record_bytes) * 2;
    assert!(bytes <= bound, "{bytes} is about {}", limits.log_bytes);
}

/// Records up to an ancestor's largest txid come from the ancestor, those above from the database before it.
pub async fn log_falls_through_the_lineage(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut lineage = Vec::new();
    for (text, max) in [("child", 9), ("parent", 6), ("grandparent", 2)] {
        let mut writer = Writer::new(&store, text).await;
        for txid in 1..=9 {
            writer.commit(format!("{text}-{txid}").as_bytes()).await;
        }
        lineage.push(Lineage { database: writer.database, max_txid: Txid(max) });
    }
    for after in 0..=9_u64 {
        for to in after..=9 {
            let mut last = after;
            while last < to {
                let rows = store.read_log(&lineage, Txid(last), Txid(to)).await;
                let rows = rows.expect("nothing was collected");
                assert!(!rows.is_empty(), "at least one record comes");
                for row in rows {
                    last += 1;
                    let of = match last {
                        0..=2 => "grandparent",
                        3..=6 => "parent",
                        _ => "child",
                    };
                    assert_eq!(row.txid, Txid(last));
                    assert_eq!(row.record, format!("{of}-{last}"));
                }
            }
            assert_eq!(last, to);
        }
    }
}
