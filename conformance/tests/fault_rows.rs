//! Rows in the store that fail their check: who reads something else does not notice.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use litefleet::store::{LeaseRequest, MemoryStore, OpenRequest, PageRow, PageStore, RowKind, SessionRequest};
use litefleet::{DatabaseName, FleetSettings, PageNo, SessionId};
use litefleet_conformance::faults::{Process, block_on, code, replace_rows};
use rusqlite::{Connection, ErrorCode};

/// The rows of the table, each on a page of its own from page 3 on.
const ROWS: u32 = 200;

/// A database `a`, checkpointed and closed.
fn store() -> Arc<dyn PageStore> {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let process = Process::new(Arc::clone(&store), FleetSettings::default());
    let connection = process.open("a", "");
    let fill = format!(
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO t SELECT i, zeroblob(3600) FROM n"
    );
    connection.execute_batch(&fill).unwrap();
    drop(connection);
    process.fleet().shutdown().unwrap();
    store
}

/// Puts rows that fail their check in the place of those of some pages. The next open gets the rows of the warm pages.
fn damage(store: &Arc<dyn PageStore>, damaged: &'static [u32], warm: &'static [u32]) {
    let store = Arc::clone(store);
    block_on(async move {
        let session = SessionId([7; 16]);
        let request = SessionRequest { session, label: "damage".into(), lifetime: Duration::from_secs(3600) };
        store.start_session(request).await.unwrap();
        let lease = Some(LeaseRequest { session, force: false });
        let name = DatabaseName::new("a").unwrap();
        let request = OpenRequest { name, create: false, lease, known: None, tail_bytes: 0 };
        let opened = store.open(request).await.unwrap();
        let txid = opened.head.txid;
        assert_eq!(opened.head.checkpoint, txid, "it was closed");
        let bytes = Bytes::from_static(b"not what was written");
        let row = |page: &u32| PageRow { page: PageNo(*page), txid, kind: RowKind::Image, bytes: bytes.clone() };
        replace_rows(&store, &opened, damaged.iter().map(row).collect()).await.unwrap();
        let warm = warm.iter().copied().map(PageNo).collect();
        store.release(opened.database, opened.head.epoch, warm).await.unwrap();
        store.end_session(session).await.unwrap();
    });
}

fn read(connection: &Connection, rows: u32) -> rusqlite::Result<i64> {
    let sql = format!("SELECT sum(length(v)) FROM (SELECT v FROM t ORDER BY k LIMIT {rows})");
    connection.query_row(&sql, [], |row| row.get(0))
}

fn words(connection: &Connection) -> String {
    connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap()
}

/// The open failed, gave the lease back in the store, and kept it here: the process went on reading what it had, while
/// another one wrote.
#[test]
fn damaged_warm_page_is_no_reason_to_lose_the_lease() {
    let store = store();
    damage(&store, &[60], &[1, 2, 60, 3]);
    let process = Process::new(Arc::clone(&store), FleetSettings::default());
    let connection = process.open("a", "");
    assert_eq!(read(&connection, 10).unwrap(), 36_000);
    let other = Process::new(Arc::clone(&store), FleetSettings::default());
    let error = read(&other.open("a", ""), 10).unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::DatabaseBusy), "the lease is held where it is used");
    let error = read(&connection, ROWS).unwrap_err();
    assert_eq!(code(&error), Some(ErrorCode::DatabaseCorrupt));
    assert!(words(&connection).contains("page 60"), "{}", words(&connection));
    connection.execute_batch("UPDATE t SET v = zeroblob(10) WHERE k = 1").unwrap();
}

/// A page that came along with a miss, and that nobody had asked for, failed the read.
#[test]
fn damaged_page_that_comes_along_fails_no_read() {
    let store = store();
    damage(&store, &[60], &[]);
    for parameters in ["", "&mode=ro"] {
        let process = Process::new(Arc::clone(&store), FleetSettings::default());
        let connection = process.open("a", parameters);
        for rows in [30, 45, 55] {
            assert_eq!(read(&connection, rows).unwrap(), 3600 * i64::from(rows));
        }
        let prefetched = process.fleet().cache().entries;
        assert!(prefetched > 10, "pages were brought along: {prefetched}");
        let error = read(&connection, ROWS).unwrap_err();
        assert_eq!(code(&error), Some(ErrorCode::DatabaseCorrupt));
        assert!(words(&connection).contains("page 60"), "{}", words(&connection));
        let last = "SELECT sum(length(v)) FROM (SELECT v FROM t ORDER BY k DESC LIMIT 100)";
        assert_eq!(connection.query_row(last, [], |row| row.get::<_, i64>(0)).unwrap(), 360_000);
    }
}

/// One of them ended the look at its neighbours, which counted as looked at.
#[test]
fn each_damaged_page_is_named_and_none_counts_as_read() {
    let store = store();
    let process = Process::new(Arc::clone(&store), FleetSettings::default());
    let name = DatabaseName::new("a").unwrap();
    let verify = || process.fleet().verify(&name, &mut |_| ControlFlow::Continue(())).unwrap();
    let before = verify();
    assert_eq!(before.problems, Vec::<String>::new());
    damage(&store, &[60, 100], &[]);
    let after = verify();
    assert_eq!(after.pages, before.pages - 2);
    for page in ["page 60 ", "page 100 "] {
        let named = after.problems.iter().filter(|problem| problem.contains(page)).count();
        assert_eq!(named, 2, "once as a row, once as a page: {:?}", after.problems);
    }
}
