//! `locking=sqlite` with `lease=transaction`, under load: threads of several processes read and write one table at the same time.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use litefleet::store::{MemoryStore, OpenRequest, PageStore};
use litefleet::{DatabaseName, FleetSettings, Txid};
use litefleet_conformance::faults::{Process, block_on, code, pause};
use rusqlite::{Connection, ErrorCode};

const LOCKS: &str = "&locking=sqlite&lease=transaction";
const PROCESSES: usize = 3;
const CONNECTIONS: usize = 2;
/// Transactions of each connection: a third each that read, and that write after BEGIN and after BEGIN IMMEDIATE.
const TRANSACTIONS: usize = 150;
/// How often one begins again that was told that others are in the way.
const TRIES: usize = 10_000;

/// What has been committed, as the store says, whoever has locked anything.
fn head(store: &Arc<dyn PageStore>) -> Txid {
    let (store, name) = (Arc::clone(store), DatabaseName::new("a").unwrap());
    let open = OpenRequest { name, create: false, lease: None, known: None, tail_bytes: 0 };
    block_on(async move { store.open(open).await.unwrap().head.txid })
}

fn value(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT v FROM counter", [], |row| row.get(0))
}

/// A transaction of several statements that only reads: nobody commits between its first read and its last.
fn read(store: &Arc<dyn PageStore>, connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    let first = value(connection)?;
    let before = head(store);
    let rows: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
    std::thread::yield_now();
    assert_eq!((value(connection)?, rows), (first, first));
    assert_eq!(head(store), before, "somebody committed beside a reader");
    connection.execute_batch("COMMIT")
}

/// A transaction that writes what it has read and one more: an update that it did not see would be lost.
fn write(store: &Arc<dyn PageStore>, connection: &Connection, begin: &str) -> rusqlite::Result<()> {
    connection.execute_batch(begin)?;
    let first = value(connection)?;
    let before = head(store);
    connection.execute("UPDATE counter SET v = ?1", [first + 1])?;
    connection.execute("INSERT INTO t VALUES (?1, randomblob(500))", [first + 1])?;
    assert_eq!(head(store), before, "somebody committed beside a writer");
    connection.execute_batch("COMMIT")
}

/// Does it again for as long as others are in the way. Returns how often they were.
fn insist(connection: &Connection, mut transaction: impl FnMut() -> rusqlite::Result<()>) -> u64 {
    let mut refused = 0;
    for _ in 0..TRIES {
        match transaction() {
            Ok(()) => return refused,
            Err(error) => assert_eq!(code(&error), Some(ErrorCode::DatabaseBusy), "{error}"),
        }
        refused += 1;
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").unwrap();
        }
        // Two of one process that never pause would keep its lock between them for ever, as with SQLite's own.
        pause(Duration::from_millis(refused % 7 + 1));
    }
    panic!("others are in the way for ever");
}

/// Readers and writers of several processes, two connections each: what reads keeps everybody from a commit, no update is lost, and
/// in the end each of them can write.
#[test]
fn nobody_commits_beside_readers_of_other_processes() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let mut settings = FleetSettings::default();
    // A checkpoint keeps the lease for longer than the transaction before it.
    settings.database.checkpoint_records = 5;
    let processes: Vec<Process> = (0..PROCESSES).map(|_| Process::new(Arc::clone(&store), settings.clone())).collect();
    let connections = processes.iter().flat_map(|process| std::iter::repeat_n(process, CONNECTIONS));
    let connections: Vec<Connection> = connections.map(|process| process.open("a", LOCKS)).collect();
    let made =
        "BEGIN; CREATE TABLE counter (v); INSERT INTO counter VALUES (0); CREATE TABLE t (v PRIMARY KEY, w); COMMIT";
    connections[0].execute_batch(made).unwrap();
    for connection in &connections {
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
    }
    let (first, refused) = (head(&store), AtomicU64::new(0));
    let connections = std::thread::scope(|scope| {
        let work = |(number, connection): (usize, Connection)| {
            for n in number..number + TRANSACTIONS {
                let again = insist(&connection, || match n % 3 {
                    0 => read(&store, &connection),
                    1 => write(&store, &connection, "BEGIN"),
                    _ => write(&store, &connection, "BEGIN IMMEDIATE"),
                });
                refused.fetch_add(again, Ordering::Relaxed);
            }
            connection
        };
        let threads: Vec<_> = connections.into_iter().enumerate().map(|own| scope.spawn(move || work(own))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let written = PROCESSES * CONNECTIONS * TRANSACTIONS / 3 * 2;
    let written = i64::try_from(written).unwrap();
    assert_eq!(value(&connections[0]).unwrap(), written, "an update was lost");
    assert_eq!(head(&store).get() - first.get(), written.unsigned_abs(), "a commit that nobody made");
    for connection in &connections {
        insist(connection, || write(&store, connection, "BEGIN IMMEDIATE"));
    }
    eprintln!("{written} commits; {refused:?} transactions began again");
}
