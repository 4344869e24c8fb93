//! Garbage: what is collected, and what never is.

use std::collections::BTreeSet;

use litefleet::store::{Lineage, PageRow};
use litefleet::{ErrorKind, Txid, UnixMillis};

use crate::fixture::{
    Writer, delta, image, log_txids, picture, places, read, read_log, read_places, refused, scan, singles, tail, zero,
};
use crate::harness::Harness;

/// Completed checkpoints at 2, 4, 6 and 8 of nine commits, at the times 2000 to 8000, and half of one at 9.
async fn with_checkpoints(harness: &dyn Harness) -> Writer {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(9).await;
    for txid in [2, 4, 6, 8] {
        let bytes = format!("1@{txid}");
        writer.checkpoint(txid, &[image(1, txid, bytes.as_bytes())]).await;
    }
    writer.try_checkpoint(9, &[image(1, 9, b"1@9")], false, 1).await.expect("the holder can");
    writer
}

/// The horizon becomes the largest completed checkpoint that both bounds allow, and never falls.
pub async fn horizon_never_falls(harness: &dyn Harness) {
    // at most, completed before, the horizon of a fresh database after that
    let bounds = [
        (0, u64::MAX / 4, 0),
        (1, u64::MAX / 4, 0),
        (2, u64::MAX / 4, 2),
        (5, u64::MAX / 4, 4),
        (9, u64::MAX / 4, 8),
        (u64::MAX, u64::MAX / 4, 8),
        (9, 1999, 0),
        (9, 2000, 2),
        (9, 5999, 4),
        (9, 6000, 6),
        (3, 6000, 2),
    ];
    for (at_most, before, horizon) in bounds {
        let writer = with_checkpoints(harness).await;
        let mut request = writer.collect_request(at_most, Vec::new());
        request.completed_before = UnixMillis(before);
        let reply = writer.store.collect(request).await.expect("the holder can");
        assert_eq!(reply.horizon, Txid(horizon), "{at_most}, {before}");
        assert_eq!(writer.head().await.horizon, Txid(horizon));
    }
    let writer = with_checkpoints(harness).await;
    for (at_most, horizon) in [(4, 4), (2, 4), (0, 4), (7, 6), (5, 6), (9, 8), (1, 8)] {
        let reply = writer.collect(at_most, 1, 0).await;
        assert_eq!(reply.horizon, Txid(horizon));
    }
    let next = writer.take_over().await;
    assert_eq!(next.head().await.horizon, Txid(8), "also for the next");
}

/// So it is where there are many checkpoints, of which neither all commits have one nor all were made at times of their own.
pub async fn horizon_is_found_among_many_checkpoints(harness: &dyn Harness) {
    const COMMITS: u64 = 90;
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(COMMITS).await;
    let time = |txid: u64| txid / 5 * 5;
    let completed: Vec<u64> = (3..COMMITS - 2).filter(|txid| txid % 4 != 0 && !(30..50).contains(txid)).collect();
    for txid in &completed {
        writer.try_checkpoint(*txid, &[], true, time(*txid)).await.expect("the holder can");
    }
    let mut expected = 0;
    for (at_most, before) in
        (0..COMMITS).flat_map(|at| [(at, 0), (at, at / 2), (at / 2, at), (at, at.saturating_sub(7))])
    {
        let mut request = writer.collect_request(at_most, Vec::new());
        request.completed_before = UnixMillis(before);
        let allowed = completed.iter().rfind(|txid| **txid <= at_most && time(**txid) <= before);
        expected = expected.max(allowed.copied().unwrap_or_default());
        let reply = store.collect(request).await.expect("the holder can");
        assert_eq!(reply.horizon, Txid(expected), "{at_most}, {before}");
    }
    assert!(expected > 80, "{expected}");
}

/// A clock that ran ahead for a while, or was set back, does not hold the horizon back for good.
pub async fn horizon_rises_past_checkpoints_of_a_wrong_clock(harness: &dyn Harness) {
    for wrong in [&[3_u64, 4, 5][..], &[9, 10], &[20], &[3, 12, 21]] {
        let store = harness.store().await;
        let mut writer = Writer::new(&store, "a").await;
        writer.commit_up_to(40).await;
        let time = |txid: u64| if wrong.contains(&txid) { u64::MAX / 8 } else { txid };
        let mut before = 0;
        for txid in 2..=40 {
            writer.try_checkpoint(txid, &[], true, time(txid)).await.expect("the holder can");
            let mut request = writer.collect_request(txid, Vec::new());
            request.completed_before = UnixMillis(txid.saturating_sub(6));
            let horizon = store.collect(request).await.expect("the holder can").horizon.get();
            assert!(horizon >= before && horizon <= txid.saturating_sub(6), "{horizon} at {txid}");
            assert!(horizon < 2 || !wrong.contains(&horizon), "{horizon} was completed later than that");
            before = horizon;
        }
        assert_eq!(before, 34, "{wrong:?}");
    }
}

/// A snapshot below the horizon cannot be read, whether its rows are still there or not; one at it can.
pub async fn read_below_the_horizon_fails(harness: &dyn Harness) {
    let writer = with_checkpoints(harness).await;
    // No pages are named: the horizon rises, and no row goes.
    let request = writer.collect_request(6, Vec::new());
    let reply = writer.store.collect(request).await.expect("the holder can");
    assert_eq!((reply.horizon, reply.rows), (Txid(6), 0));
    for round in 0..2 {
        for snapshot in 0..6 {
            for page in [1, 2] {
                refused(
                    read(&writer.store, writer.database, &[page], snapshot).await,
                    ErrorKind::SnapshotTooOld,
                    "a snapshot below the horizon",
                );
            }
        }
        for (snapshot, txid) in [(6, 6), (7, 6), (8, 8), (9, 9)] {
            let rows = writer.read(&[1, 2], snapshot).await;
            assert_eq!(read_places(&rows), [(1, txid)]);
        }
        if round == 0 {
            assert_eq!(writer.collect(6, 2, 0).await.rows, 2);
        }
    }
}

/// What is read comes with the horizon that it was checked against, whether there are rows or not; of a lineage the largest.
pub async fn rows_come_with_their_horizon(harness: &dyn Harness) {
    let writer = with_checkpoints(harness).await;
    let store = &writer.store;
    let mut ancestor = Writer::new(store, "ancestor").await;
    ancestor.commit_up_to(5).await;
    ancestor.checkpoint(5, &[]).await;
    ancestor.collect(5, 1, 0).await;
    let own = Lineage { database: writer.database, max_txid: Txid::MAX };
    let above = Lineage { database: ancestor.database, max_txid: Txid(5) };
    for horizon in [0, 2, 4, 6, 8] {
        writer.collect(horizon, 1, 0).await;
        for snapshot in [horizon, 9] {
            for pages in [&[][..], &[1], &[7], &[1, 7]] {
                let told = async |lineage: &[Lineage]| {
                    let reply = store.read_pages(lineage, &singles(pages), Txid(snapshot)).await;
                    reply.expect("the snapshot can be read").horizon
                };
                let what = format!("pages {pages:?} at {snapshot}");
                assert_eq!(told(&[own]).await, Txid(horizon), "{what}");
                if snapshot >= 5 {
                    assert_eq!(told(&[own, above]).await, Txid(horizon.max(5)), "{what}");
                    assert_eq!(told(&[above, own]).await, Txid(horizon.max(5)), "{what}");
                }
            }
        }
    }
}

/// Exactly the dead rows of the pages given go: those with a newer row at or below the horizon, and zeros there.
pub async fn dead_rows_are_collected(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(9).await;
    writer.checkpoint(1, &[1, 2, 3, 4, 5].map(|p| image(p, 1, b"x"))).await;
    writer.checkpoint(3, &[image(1, 3, b"x"), zero(3, 3), zero(4, 3), zero(6, 3)]).await;
    writer.checkpoint(5, &[image(1, 5, b"x"), image(4, 5, b"x")]).await;
    writer.checkpoint(7, &[image(1, 7, b"x"), image(2, 7, b"x"), image(3, 7, b"x"), zero(5, 7)]).await;
    let some = writer.collect_request(5, singles(&[2, 4]));
    let mut rows = 0;
    for chunk in some.pages.chunks(store.limits().collect_pages) {
        let mut request = some.clone();
        request.pages = chunk.to_vec();
        let reply = store.collect(request).await.expect("the holder can");
        assert_eq!(reply.horizon, Txid(5));
        rows += reply.rows;
    }
    assert_eq!(rows, 2, "of pages 2 and 4 only: 4@1 and 4@3");
    let left = places(&scan(&store, writer.database).await);
    let page_four: Vec<_> = left.iter().filter(|(page, _)| *page == 4).collect();
    assert_eq!(page_four, [&(4, 5)]);
    assert_eq!(writer.collect(5, 9, 0).await.rows, 5);
    let left = [(1, 5), (1, 7), (2, 1), (2, 7), (3, 7), (4, 5), (5, 1), (5, 7)];
    assert_eq!(places(&scan(&store, writer.database).await), left);
    assert_eq!(read_places(&writer.read(&[1, 2, 3, 4, 5, 6], 5).await), [(1, 5), (2, 1), (4, 5), (5, 1)]);
    assert_eq!(writer.collect(5, 9, 0).await.rows, 0, "again");
    assert_eq!(writer.collect(9, 9, 0).await.rows, 4);
    let left = [(1, 7), (2, 7), (3, 7), (4, 5)];
    assert_eq!(places(&scan(&store, writer.database).await), left);
}

/// A base stays as long as a delta that is kept needs it, and goes with the last of them.
pub async fn bases_outlive_their_deltas(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(9).await;
    writer.checkpoint(1, &[image(1, 1, b"i"), image(2, 1, b"i")]).await;
    writer.checkpoint(2, &[delta(1, 2, 1, b"d"), image(2, 2, b"i")]).await;
    writer.checkpoint(4, &[delta(1, 4, 1, b"d"), delta(2, 4, 1, b"d")]).await;
    writer.checkpoint(6, &[image(1, 6, b"i"), delta(2, 6, 2, b"d")]).await;
    writer.checkpoint(8, &[delta(1, 8, 6, b"d"), zero(2, 8)]).await;
    let steps: [(u64, &[(u32, u64)]); 5] = [
        (2, &[(1, 1), (1, 2), (1, 4), (1, 6), (1, 8), (2, 1), (2, 2), (2, 4), (2, 6), (2, 8)]),
        (4, &[(1, 1), (1, 4), (1, 6), (1, 8), (2, 1), (2, 2), (2, 4), (2, 6), (2, 8)]),
        (6, &[(1, 6), (1, 8), (2, 2), (2, 6), (2, 8)]),
        (8, &[(1, 6), (1, 8)]),
        (9, &[(1, 6), (1, 8)]),
    ];
    for (horizon, left) in steps {
        writer.collect(horizon, 2, 0).await;
        assert_eq!(places(&scan(&store, writer.database).await), left, "at {horizon}");
        let rows = writer.read(&[1, 2], 9).await;
        assert_eq!(read_places(&rows).first(), Some(&(1, 8)));
        assert_eq!(read_places(&rows).get(1), Some(&(1, 6)));
    }
}

/// A zero row stays as long as an older row of its page does: without it that row would be read in its place.
pub async fn zeros_hide_what_is_kept_before_them(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(9).await;
    writer.checkpoint(1, &[image(1, 1, b"base")]).await;
    writer.checkpoint(3, &[zero(1, 3)]).await;
    writer.checkpoint(5, &[delta(1, 5, 1, b"like the base again")]).await;
    writer.collect(3, 1, 0).await;
    for snapshot in [3, 4] {
        let rows = writer.read(&[1], snapshot).await;
        assert!(read_places(&rows) == [(1, 3)] || rows.is_empty(), "the page is zeros at {snapshot}, not {rows:?}");
    }
    assert_eq!(read_places(&writer.read(&[1], 5).await), [(1, 5), (1, 1)]);
    writer.checkpoint(7, &[zero(1, 7)]).await;
    writer.collect(7, 1, 0).await;
    assert!(scan(&store, writer.database).await.is_empty());
}

/// Records go up to the smaller of what was asked and the horizon; a range that begins among them is refused.
pub async fn collected_log_is_refused(harness: &dyn Harness) {
    let writer = with_checkpoints(harness).await;
    let store = &writer.store;
    // at most, log through, then where the log starts, and how many records went
    for (at_most, through, start, gone) in
        [(2, 0, 0, 0), (2, 1, 1, 1), (2, 9, 2, 1), (4, 1, 2, 0), (6, 5, 5, 3), (9, u64::MAX, 8, 3), (9, 9, 8, 0)]
    {
        let mut request = writer.collect_request(at_most, Vec::new());
        request.log_through = Txid(through);
        let reply = store.collect(request).await.expect("the holder can");
        assert_eq!(
            (reply.log_start, reply.records, reply.rows),
            (Txid(start), gone, 0),
            "at most {at_most}, through {through}"
        );
        for after in 0..=9 {
            let result = read_log(store, writer.database, after, 9).await;
            if after < start {
                refused(result, ErrorKind::SnapshotTooOld, "records that are gone");
                refused(
                    read_log(store, writer.database, after, after + 1).await,
                    ErrorKind::SnapshotTooOld,
                    "a range of collected records alone",
                );
            } else {
                let expected: Vec<u64> = (after + 1..=9).collect();
                assert_eq!(log_txids(&result.expect("they are there")), expected);
            }
        }
        let tail = tail(store, writer.database, start).await;
        assert_eq!(crate::fixture::complete(&tail).len() as u64, 9 - start);
    }
}

/// However checkpoints and collections go, every snapshot at or above the horizon reads as before.
pub async fn nothing_a_snapshot_needs_is_collected(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let last = 24;
    writer.commit_up_to(last).await;
    for txid in 1..=last {
        let rows: Vec<PageRow> = (1..=6_u32)
            .filter(|page| (txid + u64::from(*page)).is_multiple_of(u64::from(page % 4) + 1))
            .map(|page| match (txid + u64::from(page)) % 5 {
                0 => zero(page, txid),
                _ => image(page, txid, format!("{page}@{txid}").as_bytes()),
            })
            .collect();
        writer.checkpoint(txid, &rows).await;
    }
    let pages: Vec<u32> = (1..=6).collect();
    let mut oracle = Vec::new();
    for snapshot in 0..=last {
        oracle.push(content(&writer, &pages, snapshot).await);
    }
    for horizon in [1, 2, 5, 6, 11, 12, 13, 20, 24] {
        writer.collect(horizon, 6, horizon / 2).await;
        for (snapshot, expected) in (0..=last).zip(&oracle) {
            if snapshot < horizon {
                refused(
                    read(&store, writer.database, &pages, snapshot).await,
                    ErrorKind::SnapshotTooOld,
                    "a snapshot below the horizon",
                );
            } else {
                let found = content(&writer, &pages, snapshot).await;
                assert_eq!(&found, expected, "at {snapshot}, the horizon is {horizon}");
            }
        }
        let log = read_log(&store, writer.database, horizon / 2, last).await;
        log.expect("the log after that is there");
    }
    assert!(picture(&store, writer.database).await.rows.len() <= 6);
}

/// The pages that are not zeros, and their bytes.
async fn content(writer: &Writer, pages: &[u32], snapshot: u64) -> BTreeSet<(u32, Vec<u8>)> {
    let rows = writer.read(pages, snapshot).await;
    let rows = rows.into_iter().map(|read| read.row);
    rows.filter(|row| !row.bytes.is_empty()).map(|row| (row.page.get(), row.bytes.to_vec())).collect()
}
