//! Large transactions and large databases. `./test.sh fdb-large` runs them in release, and at their full sizes.

mod common;

use std::sync::Arc;

use common::Place;
use common::holder::{Holder, LONG, image, open_request, session};
use litefleet::store::{Lineage, PageRow, PageStore, Staged};
use litefleet::{Fleet, PageNo, PageRange, Txid};
use litefleet_fdb::FdbStore;
use rusqlite::{Connection, OpenFlags};

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_staged_transaction_becomes_visible_at_once() {
    // A gibibyte; in builds without optimisation a part of it, since there the stand-in takes minutes.
    let pages: u32 = if cfg!(debug_assertions) { 16_384 } else { 262_144 };
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    let txid = holder.txid.next();
    let rows = store.limits().write_rows;
    let chunk = u32::try_from(rows).expect("a small limit");
    let mut last = 0;
    for (sequence, first) in (1..).zip((1..=pages).step_by(rows)) {
        let end = pages.min(first + chunk - 1);
        holder.stage(sequence, (first..=end).map(|page| image(page, txid)).collect()).await.expect("the holder can");
        last = sequence;
    }
    assert!(holder.read(1, 1).await.expect("there").is_empty(), "not yet visible");
    let mut flip = holder.request(b"flip");
    flip.staged = Some(Staged { generation: 0, last });
    holder.send(flip).await.expect("it is its own staging");
    let reader = Arc::new(FdbStore::open(place.config()).await.expect("the store opens"));
    let reader = Holder { store: reader, ..holder };
    let step = 1_024;
    for first in (1..=pages).step_by(step) {
        let last = pages.min(first + u32::try_from(step).expect("small") - 1);
        let rows = reader.read(first, last).await.expect("the pages are there");
        assert!(rows.into_iter().eq((first..=last).map(|page| image(page, txid))), "pages {first} to {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_200_000_pages_is_opened_by_reading_little() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    let small = |page| PageRow { bytes: b"row".as_slice().into(), ..image(page, Txid(1)) };
    let pages: Vec<u32> = (1..=200_000).collect();
    let chunks: Vec<&[u32]> = pages.chunks(store.limits().write_rows).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let rows = chunk.iter().copied().map(small).collect();
        holder.checkpoint(rows, index + 1 == chunks.len()).await.expect("the holder can");
    }
    holder.commit(b"tail").await.expect("the holder can");
    let fresh = Arc::new(FdbStore::open(place.config()).await.expect("the store opens"));
    let before = place.stand_in.as_ref().map(|stand_in| stand_in.counter("range_rows"));
    let opened = fresh.open(open_request("a", None)).await.expect("it exists");
    assert_eq!(opened.head.checkpoint, Txid(1));
    let reader = Holder { store: fresh, ..holder.clone() };
    for page in [1, 77_777, 200_000] {
        assert_eq!(reader.read(page, page).await.expect("there"), [small(page)]);
    }
    if let Some(before) = before {
        assert!(place.counter("range_rows") - before < 30, "as much as a small one would take");
    }
    let range = [PageRange::new(PageNo(199_000), PageNo(200_000))];
    let lineage = [Lineage { database: holder.database, max_txid: Txid::MAX }];
    assert_eq!(reader.store.read_pages(&lineage, &range, Txid(1)).await.expect("there").rows.len(), 1_001);
}

#[test]
fn sqlite_reads_little_of_a_large_database() {
    // 200,000 pages by one transaction; in builds without optimisation a part of it.
    let rows: u32 = if cfg!(debug_assertions) { 10_000 } else { 200_000 };
    let place = Place::new();
    let connect = |vfs: &str| {
        let store = FdbStore::open_blocking(place.config()).expect("the store opens");
        let fleet = Fleet::builder(Arc::new(store)).build().expect("a fleet");
        fleet.register(vfs, false).expect("registered");
        let connection = Connection::open_with_flags(format!("file:a?vfs={vfs}"), OpenFlags::default());
        (fleet, connection.expect("it opens"))
    };
    let (fleet, writer) = connect("large-writer");
    let make = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL);
         WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {rows})
         INSERT INTO t SELECT id, zeroblob(3_900 + id % 100) FROM ids"
    );
    writer.execute_batch(&make.replace('_', "")).expect("made");
    writer.close().expect("closed");
    drop(fleet);
    let (_fleet, reader) = connect("large-reader");
    let before = place.stand_in.as_ref().map(|stand_in| stand_in.counter("range_rows"));
    for id in [1, rows / 3, rows] {
        let length = reader.query_row("SELECT length(v) FROM t WHERE id = ?", [id], |row| row.get::<_, u32>(0));
        assert_eq!(length.expect("there"), 3_900 + id % 100);
    }
    if let Some(before) = before {
        let read = place.counter("range_rows") - before;
        assert!(read < 500, "{read} rows");
    }
    let count: u32 = reader.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).expect("it reads");
    assert_eq!(count, rows);
}
