//! Reading page rows, and everything that is stored.

use bytes::Bytes;
use litefleet::store::{Lineage, PageRow, RowKind};
use litefleet::{DatabaseId, ErrorKind, PageNo, PageRange, Txid};

use crate::fixture::{
    Writer, delta, image, places, range, read, read_log, read_places, refused, scan, scan_by, singles, zero,
};
use crate::harness::Harness;

/// At each snapshot the newest row at or below it comes, and pages without one are left out.
pub async fn newest_row_wins(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    let last = u32::MAX;
    for (txid, pages) in [(1, vec![1, 2]), (3, vec![1, last]), (5, vec![2]), (6, vec![1])] {
        let rows: Vec<PageRow> =
            pages.iter().map(|page| image(*page, txid, format!("{page}@{txid}").as_bytes())).collect();
        writer.checkpoint(txid, &rows).await;
    }
    let expected = |snapshot: u64| match snapshot {
        0 => vec![],
        1 | 2 => vec![(1, 1), (2, 1)],
        3 | 4 => vec![(1, 3), (2, 1), (last, 3)],
        5 => vec![(1, 3), (2, 5), (last, 3)],
        _ => vec![(1, 6), (2, 5), (last, 3)],
    };
    for snapshot in 0..=6 {
        let rows = writer.read(&[1, 2, 3, last - 1, last], snapshot).await;
        assert_eq!(read_places(&rows), expected(snapshot), "at {snapshot}");
        for read in rows {
            assert_eq!(read.database, writer.database);
            assert_eq!(read.row.kind, RowKind::Image);
            let bytes = format!("{}@{}", read.row.page, read.row.txid);
            assert_eq!(read.row.bytes, bytes);
        }
        assert!(writer.read(&[3, 4, 5], snapshot).await.is_empty());
    }
}

/// Ranges may come in any order and overlap: rows come in order of page, each page once.
pub async fn rows_come_in_order_of_page(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(1).await;
    let rows: Vec<PageRow> = [9, 2, 7, 4, 1].map(|page| image(page, 1, b"row")).into();
    writer.checkpoint(1, &rows).await;
    let lineage = [Lineage { database: writer.database, max_txid: Txid(1) }];
    // As much of each as the store reads in one call.
    let limit = store.limits().read_pages;
    let ways = [
        vec![(7, 9), (1, 1), (3, 6), (2, 2)],
        vec![(9, 9), (2, 2), (7, 7), (9, 9), (1, 1), (4, 4)],
        vec![(2, 4), (4, 4), (1, 3)],
        vec![(4, 4), (4, 4), (2, 2)],
    ];
    for way in ways {
        let mut room = limit as u64;
        let mut ranges: Vec<PageRange> = way.into_iter().map(|(a, b)| range(a, b)).collect();
        ranges.retain(|range| {
            let fits = range.count() <= room;
            room -= if fits { range.count() } else { 0 };
            fits
        });
        let stored = [1, 2, 4, 7, 9].into_iter();
        let expected: Vec<u32> =
            stored.filter(|page| ranges.iter().any(|range| range.contains(PageNo(*page)))).collect();
        let read = store.read_pages(&lineage, &ranges, Txid(1)).await;
        let read = read.expect("the snapshot can be read");
        let found: Vec<u32> = read.rows.iter().map(|r| r.row.page.get()).collect();
        assert_eq!(found, expected, "{ranges:?}");
    }
    let read = store.read_pages(&lineage, &[], Txid(1)).await;
    assert!(read.expect("nothing is asked for").rows.is_empty());
}

/// Bytes come back as they were, whatever they are: no encoding, no trimming, no mixing up of empty and missing.
pub async fn bytes_come_back_as_they_were(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let limit = store.limits().record_bytes;
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let mut contents: Vec<Vec<u8>> = every.chunks(limit.min(32)).map(<[u8]>::to_vec).collect();
    contents.push(Vec::new());
    contents.push(vec![0; limit.min(4096)]);
    contents.push(b"'; DROP TABLE \\x00 %s {}".to_vec());
    for content in &contents {
        writer.commit(content).await;
    }
    let count = contents.len() as u64;
    let log = read_log(&store, writer.database, 0, count).await;
    for (row, content) in log.expect("it is there").iter().zip(&contents) {
        assert_eq!(row.record, Bytes::from(content.clone()));
    }
    let mut rows: Vec<PageRow> = (1..).zip(&contents).map(|(page, content)| image(page, count, content)).collect();
    rows.push(image(99, count, &[0xff; 5000]));
    rows.push(zero(100, count));
    writer.checkpoint(count, &rows).await;
    let pages: Vec<u32> = (1..=100).collect();
    let read = writer.read(&pages, count).await;
    let read: Vec<PageRow> = read.into_iter().map(|r| r.row).collect();
    assert_eq!(read, rows);
}

/// A delta comes with the row that it is based on, right after it; several deltas may share a base.
pub async fn delta_brings_its_base(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    writer.checkpoint(1, &[image(1, 1, b"1@1"), image(2, 1, b"2@1")]).await;
    writer.checkpoint(2, &[delta(1, 2, 1, b"1@2"), image(3, 2, b"3@2")]).await;
    writer.checkpoint(4, &[delta(1, 4, 1, b"1@4"), delta(3, 4, 2, b"3@4")]).await;
    writer.checkpoint(5, &[image(1, 5, b"1@5"), delta(2, 5, 1, b"2@5")]).await;
    writer.checkpoint(6, &[delta(1, 6, 5, b"1@6"), zero(2, 6)]).await;
    let expected = [
        (1, vec![(1, 1), (2, 1)]),
        (2, vec![(1, 2), (1, 1), (2, 1), (3, 2)]),
        (3, vec![(1, 2), (1, 1), (2, 1), (3, 2)]),
        (4, vec![(1, 4), (1, 1), (2, 1), (3, 4), (3, 2)]),
        (5, vec![(1, 5), (2, 5), (2, 1), (3, 4), (3, 2)]),
        (6, vec![(1, 6), (1, 5), (2, 6), (3, 4), (3, 2)]),
    ];
    for (snapshot, expected) in expected {
        let rows = writer.read(&[1, 2, 3, 4], snapshot).await;
        assert_eq!(read_places(&rows), expected, "at {snapshot}");
        for read in rows {
            let row = &read.row;
            if row.kind == RowKind::Zero {
                continue;
            }
            assert_eq!(row.bytes, format!("{}@{}", row.page, row.txid));
            let is_delta = [(1, 2), (1, 4), (1, 6), (2, 5), (3, 4)].contains(&(row.page.get(), row.txid.get()));
            assert_eq!(matches!(row.kind, RowKind::Delta { .. }), is_delta);
        }
    }
}

/// The first database of the lineage that has a row for a page decides, each up to its largest txid.
pub async fn lineage_falls_through(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writers = Vec::new();
    for text in ["child", "parent", "grandparent"] {
        let mut writer = Writer::new(&store, text).await;
        writer.commit_up_to(9).await;
        writers.push(writer);
    }
    let [child, parent, grand] = writers.as_slice() else { panic!("there are three") };
    child.checkpoint(7, &[image(1, 7, b"c"), zero(4, 7)]).await;
    child.checkpoint(9, &[image(6, 9, b"c")]).await;
    parent.checkpoint(3, &[image(1, 3, b"p"), image(2, 3, b"p")]).await;
    parent.checkpoint(4, &[image(4, 4, b"p"), image(6, 4, b"p")]).await;
    parent.checkpoint(5, &[delta(2, 5, 3, b"p"), image(5, 5, b"p")]).await;
    grand.checkpoint(1, &[image(1, 1, b"g"), image(3, 1, b"g")]).await;
    grand.checkpoint(2, &[image(2, 2, b"g"), image(5, 2, b"g")]).await;
    grand.checkpoint(3, &[image(3, 3, b"g")]).await;
    let lineage = |parent_max: u64| {
        [(child, 9), (parent, parent_max), (grand, 2)]
            .map(|(writer, max)| Lineage { database: writer.database, max_txid: Txid(max) })
    };
    let found = |parent_max: u64, snapshot: u64| {
        let (store, lineage) = (store.clone(), lineage(parent_max));
        async move {
            let mut found = Vec::new();
            let pages = [1, 2, 3, 4, 5, 6, 7];
            for chunk in pages.chunks(store.limits().read_pages) {
                let ranges = singles(chunk);
                let rows = store.read_pages(&lineage, &ranges, Txid(snapshot)).await;
                for read in rows.expect("the snapshot can be read").rows {
                    let at = lineage.iter().position(|l| l.database == read.database);
                    let row = &read.row;
                    found.push((row.page.get(), at.expect("of the lineage"), row.txid.get()));
                }
            }
            found
        }
    };
    let all = [(1, 0, 7), (2, 1, 5), (2, 1, 3), (3, 2, 1), (4, 0, 7), (5, 1, 5), (6, 0, 9)];
    assert_eq!(found(6, 9).await, all);
    let shorter = [(1, 0, 7), (2, 1, 3), (3, 2, 1), (4, 0, 7), (5, 2, 2), (6, 1, 4)];
    assert_eq!(found(4, 8).await, shorter);
    let before = [(1, 1, 3), (2, 1, 3), (3, 2, 1), (4, 1, 4), (5, 2, 2), (6, 1, 4)];
    assert_eq!(found(4, 6).await, before);
    let oldest = [(1, 2, 1), (3, 2, 1)];
    assert_eq!(found(6, 1).await, oldest);
}

/// What is read comes with the newest completed checkpoint and the head, whether there are rows or not; of a lineage with
/// those of the first.
pub async fn rows_come_with_their_checkpoint(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(6).await;
    let mut ancestor = Writer::new(&store, "ancestor").await;
    ancestor.commit_up_to(5).await;
    ancestor.checkpoint(5, &[]).await;
    let own = Lineage { database: writer.database, max_txid: Txid::MAX };
    let above = Lineage { database: ancestor.database, max_txid: Txid(5) };
    for (before, checkpoint) in [(0, 2), (2, 3), (3, 6)] {
        // One that is not completed is none.
        for newest in [before, checkpoint] {
            let row = image(1, checkpoint, b"row");
            writer.try_checkpoint(checkpoint, &[row], newest == checkpoint, 0).await.expect("the holder can");
            for (pages, snapshot) in [(&[][..], 6), (&[1], 6), (&[7], checkpoint), (&[1, 7], 6)] {
                let told = async |lineage: &[Lineage]| {
                    let reply = store.read_pages(lineage, &singles(pages), Txid(snapshot)).await;
                    let reply = reply.expect("the snapshot can be read");
                    // A store that is never behind need not say where the head is.
                    (reply.checkpoint.get(), reply.head.map(Txid::get))
                };
                let is = |told: (u64, Option<u64>), checkpoint, head| {
                    told.0 == checkpoint && told.1.is_none_or(|at| at == head)
                };
                let what = format!("pages {pages:?} at {snapshot}");
                assert!(is(told(&[own]).await, newest, 6), "{what}");
                assert!(is(told(&[own, above]).await, newest, 6), "{what}");
                assert!(is(told(&[above, own]).await, 5, 5), "{what}");
            }
        }
    }
}

/// Reads of a database that never was are `NotFound`, not empty.
pub async fn unknown_database_is_not_found(harness: &dyn Harness) {
    let store = harness.store().await;
    let known = Writer::new(&store, "a").await;
    let unknown = DatabaseId(known.database.get() + 1);
    refused(read(&store, unknown, &[1], 0).await, ErrorKind::NotFound, "read_pages");
    refused(read_log(&store, unknown, 0, 1).await, ErrorKind::NotFound, "read_log");
    refused(store.scan(unknown, None, 1).await, ErrorKind::NotFound, "scan");
}

/// A scan brings every stored row in order: images, deltas, zeros, dead and staged ones, and those of half a checkpoint.
pub async fn scan_finds_every_row(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    assert!(scan(&store, writer.database).await.is_empty());
    writer.commit_up_to(5).await;
    let last = u32::MAX;
    writer.checkpoint(1, &[image(1, 1, b"x"), image(last, 1, b"y")]).await;
    writer.checkpoint(3, &[delta(1, 3, 1, b"d"), zero(2, 3), image(3, 3, b"z")]).await;
    writer.try_checkpoint(5, &[image(1, 5, b"half")], false, 0).await.expect("the holder can");
    writer.stage(&[image(2, 6, b"s"), image(last, 6, b"t")]).await;
    let all = [(1, 1), (1, 3), (1, 5), (2, 3), (2, 6), (3, 3), (last, 1), (last, 6)];
    for limit in 1..=9 {
        let rows = scan_by(&store, writer.database, limit).await;
        assert_eq!(places(&rows), all, "{limit} at a time");
        let kinds: Vec<RowKind> = rows.iter().map(|row| row.kind).collect();
        let base = Txid(1);
        assert_eq!(kinds.get(1), Some(&RowKind::Delta { base }));
        assert_eq!(kinds.get(3), Some(&RowKind::Zero));
        let bytes: Vec<&[u8]> = rows.iter().map(|row| row.bytes.as_ref()).collect();
        let expected: [&[u8]; 8] = [b"x", b"d", b"half", b"", b"s", b"z", b"y", b"t"];
        assert_eq!(bytes, expected);
    }
}
