//! The limits that a store sets: exactly at them all works, one over is `Invalid` and changes nothing.

use bytes::Bytes;
use litefleet::store::{CheckpointRequest, CommitMode, CommitRequest, Lineage, PageRow};
use litefleet::{ErrorKind, Txid, UnixMillis};

use crate::fixture::{LONG, Writer, commit_one, each_at_once, image, picture, range, refused, scan, session};
use crate::harness::Harness;

/// Every limit but those of atomic commits, at it and one over.
pub async fn limits_are_enforced(harness: &dyn Harness) {
    let store = harness.store().await;
    let limits = store.limits();
    let mut writer = Writer::new(&store, "a").await;
    let count = u32::try_from(limits.read_pages).expect("a sensible limit");
    writer.commit(b"record").await;
    writer.checkpoint(1, &[image(count, 1, b"last")]).await;
    let lineage = [Lineage { database: writer.database, max_txid: Txid(1) }];
    let ways = [vec![range(1, count)], vec![range(count, count), range(count + 1, 2 * count - 1)]];
    for mut ranges in ways {
        ranges.retain(|range| range.first <= range.last);
        let read = store.read_pages(&lineage, &ranges, Txid(1)).await;
        assert_eq!(read.expect("exactly the limit").rows.len(), 1);
        ranges.push(range(5 * count, 5 * count));
        refused(store.read_pages(&lineage, &ranges, Txid(1)).await, ErrorKind::Invalid, "one page too many");
    }
    refused(store.read_pages(&lineage, &[range(1, u32::MAX)], Txid(1)).await, ErrorKind::Invalid, "every page at once");

    let full = vec![0x5a; limits.record_bytes];
    writer.commit(&full).await;
    let over = writer.request(&vec![0x5a; limits.record_bytes + 1]);
    let before = picture(&store, writer.database).await;
    refused(commit_one(&store, over).await, ErrorKind::Invalid, "a record that is one byte too large");
    rows_are_limited(&writer).await;
    let mut pages: Vec<_> = (1..).map(|p| range(p, p)).take(limits.collect_pages).collect();
    pages.push(range(u32::MAX, u32::MAX));
    let over = writer.collect_request(1, pages.clone());
    refused(store.collect(over).await, ErrorKind::Invalid, "one page too many to collect");
    assert_eq!(picture(&store, writer.database).await, before);
    pages.pop();
    let exact = writer.collect_request(1, pages);
    let reply = store.collect(exact).await.expect("exactly the limit");
    assert_eq!(reply.horizon, Txid(1));
}

/// Rows in one stage and one checkpoint. Leaves the database as it was.
async fn rows_are_limited(writer: &Writer) {
    let store = &writer.store;
    let limit = store.limits().write_rows;
    let rows = |txid: Txid, count: usize| -> Vec<PageRow> {
        (1..).map(|p| image(p, txid.get(), b"row")).take(count).collect()
    };
    let generation = writer.head().await.generation;
    let staged = |count| writer.stage_request(generation, rows(writer.txid.next(), count));
    refused(store.stage(staged(limit + 1)).await, ErrorKind::Invalid, "one staged row too many");
    let request = |count| CheckpointRequest {
        database: writer.database,
        epoch: writer.epoch,
        txid: writer.txid,
        since: Txid(0),
        attempt: 0,
        piece: 0,
        rows: rows(writer.txid, count),
        last: true,
        time: UnixMillis(0),
        warm: Vec::new(),
    };
    refused(store.checkpoint(request(limit + 1)).await, ErrorKind::Invalid, "one row of a checkpoint too many");
    let mut other = Writer::new(store, "rows").await;
    other.commit(b"record").await;
    let mut exact = request(limit);
    (exact.database, exact.epoch) = (other.database, other.epoch);
    exact.txid = other.txid;
    exact.rows = rows(other.txid, limit);
    store.checkpoint(exact).await.expect("exactly the limit");
    let generation = other.head().await.generation;
    let exact = other.stage_request(generation, rows(other.txid.next(), limit));
    store.stage(exact).await.expect("exactly the limit");
    assert_eq!(scan(store, other.database).await.len(), 2 * limit);
}

/// Atomic commits of as many databases and bytes as allowed succeed; one more of either is refused as a whole, and
/// the same requests succeed independently.
pub async fn atomic_limits_are_enforced(harness: &dyn Harness) {
    let store = harness.store().await;
    let limits = store.limits();
    let owner = session(&store, LONG).await;
    let mut writers = each_at_once(0..=limits.atomic_databases, |index| {
        let store = store.clone();
        async move { Writer::with_session(&store, owner, &format!("db-{index}")).await }
    })
    .await;
    let requests =
        |writers: &[Writer]| -> Vec<CommitRequest> { writers.iter().map(|writer| writer.request(b"r")).collect() };
    let over = requests(&writers);
    refused(store.commit(over.clone(), CommitMode::Atomic).await, ErrorKind::Invalid, "one database too many");
    for writer in &writers {
        assert_eq!(writer.head().await.txid, Txid(0), "nothing was committed");
    }
    let all = |replies: litefleet::Result<Vec<litefleet::Result<()>>>, count: usize| {
        let replies = replies.expect("the call is valid");
        assert_eq!(replies.len(), count);
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    };
    let count = over.len();
    all(store.commit(over.clone(), CommitMode::Independent).await, count);
    for (writer, request) in writers.iter_mut().zip(&over) {
        writer.note(request.commit_id);
    }
    let exact = requests(writers.get(1..).expect("there are"));
    all(store.commit(exact.clone(), CommitMode::Atomic).await, limits.atomic_databases);
    for (writer, request) in writers.iter_mut().skip(1).zip(&exact) {
        writer.note(request.commit_id);
        assert_eq!(writer.head().await.commit_id, writer.last);
    }
    atomic_bytes(&writers).await;
}

async fn atomic_bytes(writers: &[Writer]) {
    let store = writers.first().expect("there are two or more").store.clone();
    let limits = store.limits();
    // As few full records as it takes, and one that has the rest.
    let rest = limits.atomic_bytes % limits.record_bytes;
    let mut sizes = vec![limits.record_bytes; limits.atomic_bytes / limits.record_bytes];
    sizes.push(rest);
    // A store whose other two limits keep every call below this one has nothing to refuse here.
    let reachable = sizes.len() <= limits.atomic_databases;
    sizes.truncate(limits.atomic_databases);
    let set: Vec<CommitRequest> =
        writers.iter().zip(&sizes).map(|(writer, size)| writer.request(&vec![0x5a; *size])).collect();
    if reachable {
        let mut over = set.clone();
        let last = over.last_mut().expect("there is one");
        last.record = Bytes::from(vec![0x5a; rest + 1]);
        refused(store.commit(over, CommitMode::Atomic).await, ErrorKind::Invalid, "one byte too many");
        for writer in writers {
            let head = writer.head().await;
            assert_eq!((head.txid, head.commit_id), (writer.txid, writer.last));
        }
    }
    let replies = store.commit(set, CommitMode::Atomic).await;
    let replies = replies.expect("exactly the bytes allowed");
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
}
