//! A standby that no commit waits for is promoted: what the old primary had acknowledged last is gone, and the process that
//! it told lives on. It may lose that, and never more, and no database is damaged.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::CommitMode;
use litefleet::{ErrorKind, FleetSettings};
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Server, wait_until};
use rusqlite::Connection;
use support::writer::Writer;
use support::{asynchronous_pair, connect};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

const PATIENCE: Duration = Duration::from_secs(60);

/// A primary, its standby, and a process that goes on with whichever of them takes writes.
struct Pair {
    primary: Server,
    standby: Server,
    process: Process,
    /// Where whichever takes writes is found.
    url: String,
}

impl Pair {
    fn new() -> Self {
        let (primary, standby) = asynchronous_pair();
        let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port());
        let url = url + "?sslmode=disable&target_session_attrs=read-write";
        Self { primary, standby, process: process(&url), url }
    }

    /// The standby has everything up to now, and nothing that comes later.
    fn cut(&self) {
        let written = self.primary.sql("SELECT pg_current_wal_insert_lsn()");
        wait_until("the standby has all", PATIENCE, || {
            self.standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn")) == "t"
        });
        self.standby.sql("ALTER SYSTEM SET primary_conninfo = ''");
        self.standby.sql("SELECT pg_reload_conf()");
        wait_until("the standby is cut off", PATIENCE, || {
            self.primary.sql("SELECT count(*) FROM pg_stat_replication") == "0"
        });
    }

    /// The primary is lost for good.
    fn fail_over(&mut self) {
        self.primary.kill();
        self.standby.promote();
    }

    /// Another process, with nothing in its caches, takes the database.
    fn other(&self) -> Process {
        process(&self.standby.url())
    }
}

fn settings() -> FleetSettings {
    let mut settings = FleetSettings { session_lifetime: Duration::from_secs(3600), ..FleetSettings::default() };
    settings.database.store_timeout = PATIENCE;
    settings.database.retention = Duration::ZERO;
    settings
}

fn process(url: &str) -> Process {
    Process::new(Arc::new(connect(url, "litefleet", |config| config)), settings())
}

const ROWS: i64 = 200;

fn fill(connection: &Connection) {
    fill_with(connection, ROWS);
}

/// A table of about so many pages.
fn fill_with(connection: &Connection, rows: i64) {
    let numbers = format!("WITH n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {rows})");
    let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, filler BLOB)";
    connection.execute_batch(&format!("{table}; {numbers} INSERT INTO t SELECT id, 1, zeroblob(3000) FROM n")).unwrap();
}

fn add_to(connection: &Connection, ids: std::ops::RangeInclusive<i64>) -> rusqlite::Result<usize> {
    connection.execute("UPDATE t SET v = v + 1 WHERE id BETWEEN ?1 AND ?2", [*ids.start(), *ids.end()])
}

fn checkpoint(connection: &Connection) {
    connection.execute_batch("PRAGMA litefleet_checkpoint").unwrap();
}

fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The checkpoint is among what was lost, and no commit is. The next one was made of what had changed since it: the rows for
/// the pages that it had written were never written again, and the log that had them was deleted.
#[test]
fn lost_checkpoint_is_made_again() {
    let mut pair = Pair::new();
    let connection = pair.process.open("a", "");
    fill(&connection);
    checkpoint(&connection);
    add_to(&connection, 1..=100).unwrap();
    pair.cut();
    checkpoint(&connection);
    pair.fail_over();
    add_to(&connection, 101..=ROWS).unwrap();
    checkpoint(&connection);
    add_to(&connection, 150..=ROWS).unwrap();
    checkpoint(&connection);
    let mut wanted = vec![2; 149];
    wanted.extend(vec![3; 51]);
    assert_eq!(values(&connection), wanted);
    let other = pair.other();
    assert_eq!(values(&other.open("a", "&takeover=1")), wanted);
    assert_eq!(other.problems("a"), Vec::<String>::new());
}

/// Commits are among what was lost: the process that made them says so, and stops with the database, until it is opened again.
#[test]
fn lost_commits_stop_the_database() {
    let mut pair = Pair::new();
    let connection = pair.process.open("a", "");
    fill(&connection);
    pair.cut();
    add_to(&connection, 1..=100).unwrap();
    add_to(&connection, 1..=100).unwrap();
    pair.fail_over();
    for _ in 0..2 {
        add_to(&connection, 101..=ROWS).unwrap_err();
        let why: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
        assert!(why.contains("the store has lost commits"), "{why}");
    }
    drop(connection);
    let connection = pair.process.open("a", "");
    assert_eq!(values(&connection), vec![1; 200]);
    add_to(&connection, 1..=ROWS).unwrap();
    assert_eq!(values(&pair.other().open("a", "&takeover=1")), vec![2; 200]);
}

/// The grant is among what was lost, too, and another process has the same epoch, and has committed: the first one's commit was taken
/// on top of that, with patches on pages that are not there.
#[test]
fn lost_grant_lets_nobody_commit_on_what_is_lost() {
    let mut pair = Pair::new();
    let connection = pair.process.open("a", "");
    fill(&connection);
    drop(connection);
    pair.cut();
    let connection = pair.process.open("a", "");
    add_to(&connection, 1..=100).unwrap();
    let epoch = "SELECT epoch FROM litefleet.heads";
    let first = pair.primary.sql(epoch);
    pair.fail_over();
    let other = pair.other();
    let beside = other.open("a", "");
    add_to(&beside, 101..=ROWS).unwrap();
    assert_eq!(pair.standby.sql(epoch), first);
    add_to(&connection, 1..=100).unwrap_err();
    let why: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
    assert!(why.contains("the store has lost commits"), "{why}");
    add_to(&beside, 101..=ROWS).unwrap();
    let mut wanted = vec![1; 100];
    wanted.extend(vec![3; 100]);
    assert_eq!(values(&beside), wanted);
    assert_eq!(other.problems("a"), Vec::<String>::new());
}

/// The same for one that does not write: pages that its caches do not have would come as they were before what was lost.
#[test]
fn lost_commits_stop_who_only_reads() {
    let mut pair = Pair::new();
    let settings = FleetSettings { cache_bytes: 64 << 10, ..settings() };
    pair.process = Process::new(Arc::new(connect(&pair.url, "litefleet", |config| config)), settings);
    let connection = pair.process.open("a", "");
    connection.execute_batch("PRAGMA cache_size = 10").unwrap();
    fill(&connection);
    checkpoint(&connection);
    pair.cut();
    add_to(&connection, 1..=ROWS).unwrap();
    checkpoint(&connection);
    assert_eq!(values(&connection), vec![2; 200]);
    pair.fail_over();
    connection.query_row("SELECT sum(v) FROM t", [], |row| row.get::<_, i64>(0)).unwrap_err();
    let why: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
    assert!(why.contains("the store has lost commits"), "{why}");
}

/// Staged pages are among what was lost: those that come after are refused, and so is the commit. It went through without them.
#[test]
fn lost_chunks_block_the_rest() {
    let mut pair = Pair::new();
    let mut writer = Writer::new(connect(&pair.url, "litefleet", |config| config), "a");
    for sequence in 1..=3 {
        writer.stage(sequence, u64::from(sequence) - 1).unwrap();
    }
    pair.cut();
    for sequence in 4..=5 {
        writer.stage(sequence, u64::from(sequence) - 1).unwrap();
    }
    pair.fail_over();
    assert_eq!(writer.stage(6, 5).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(pair.standby.sql("SELECT max(page) FROM litefleet.pages"), "3");
    assert_eq!(writer.flip(5, CommitMode::Independent).unwrap_err().kind(), ErrorKind::Conflict);
    writer.flip(3, CommitMode::Independent).unwrap();
}

/// A checkpoint fails at its last piece, and is begun again: what the first attempt had written it did not write once more. Those
/// rows are among what was lost, and no piece of the second attempt is: it was completed without them.
#[test]
fn lost_pieces_of_an_attempt_before_are_written_again() {
    const MANY: i64 = 700;
    let (mut pair, runtime) = (Pair::new(), Runtime::new().unwrap());
    let connection = pair.process.open("a", "");
    fill_with(&connection, MANY);
    checkpoint(&connection);
    add_to(&connection, 1..=MANY).unwrap();
    pair.cut();
    pair.primary.sql(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not yet'; END $$; \
         CREATE TRIGGER fails BEFORE INSERT ON litefleet.checkpoints FOR EACH ROW EXECUTE FUNCTION fails()",
    );
    connection.execute_batch("PRAGMA litefleet_checkpoint").unwrap_err();
    assert_eq!(pair.primary.sql("SELECT count FROM litefleet.pieces"), "2");
    pair.primary.sql("DROP TRIGGER fails ON litefleet.checkpoints");
    let (locker, session) = runtime.block_on(tokio_postgres::connect(&pair.primary.url(), NoTls)).unwrap();
    runtime.spawn(session);
    runtime.block_on(locker.batch_execute("BEGIN; LOCK TABLE litefleet.checkpoints")).unwrap();
    let again = std::thread::spawn(move || {
        checkpoint(&connection);
        connection
    });
    wait_until("its last piece waits for the lock", PATIENCE, || {
        pair.primary
            .sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'litefleet.checkpoints'::regclass")
            == "1"
    });
    pair.fail_over();
    let connection = again.join().unwrap();
    let wanted = vec![2; usize::try_from(MANY).unwrap()];
    assert_eq!(values(&connection), wanted);
    let other = pair.other();
    assert_eq!(values(&other.open("a", "&takeover=1")), wanted);
    assert_eq!(other.problems("a"), Vec::<String>::new());
}
