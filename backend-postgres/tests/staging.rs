//! A request to stage does not wait for the disk: a crash of the server may lose what it acknowledged. Then it is as if the
//! transaction had not come so far, and nothing goes on from there.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::CommitMode;
use litefleet::{ErrorKind, FleetSettings};
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Server, ServerOptions};
use rustix::process::{Pid, Signal, kill_process};
use support::writer::Writer;
use support::{bouncer, connect};

/// A server on which nothing is written to the disk but what somebody waits for.
fn lazy_server() -> Server {
    let settings = ["autovacuum = off", "checkpoint_timeout = 1d"].map(str::to_owned).to_vec();
    Server::start(&ServerOptions { settings, durable: true, ..ServerOptions::default() })
}

/// The process that writes the log behind those who do not wait.
fn wal_writer(server: &Server) -> Pid {
    let pid = server.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

/// What was not waited for since then is gone.
fn crash(server: &mut Server, wal_writer: Pid) {
    kill_process(wal_writer, Signal::KILL).unwrap();
    server.kill();
    server.resume();
}

#[test]
fn crash_loses_staged_pages_and_nothing_goes_on_from_there() {
    let mut server = lazy_server();
    let mut writer = Writer::new(connect(&server.url(), "litefleet", |config| config), "a");
    writer.stage(1, 0).unwrap();
    writer.stage(2, 1).unwrap();
    // Who waits has all that comes before written too.
    server.sql("CREATE TABLE waits ()");
    let wal_writer = wal_writer(&server);
    kill_process(wal_writer, Signal::STOP).unwrap();
    for sequence in 3..=5 {
        writer.stage(sequence, u64::from(sequence) - 1).unwrap();
    }
    crash(&mut server, wal_writer);
    assert_eq!(server.sql("SELECT max(page) FROM litefleet.pages"), "2", "they were acknowledged, and are gone");
    for mode in [CommitMode::Independent, CommitMode::Atomic] {
        assert_eq!(writer.flip(5, mode).unwrap_err().kind(), ErrorKind::Conflict, "{mode:?}");
    }
    assert_eq!(writer.stage(6, 5).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(server.sql("SELECT txid FROM litefleet.heads"), "0");
}

/// What comes before a commit is on the disk with it, though nobody waited for it.
#[test]
fn commit_makes_sure_of_what_was_staged() {
    let mut server = lazy_server();
    let mut writer = Writer::new(connect(&server.url(), "litefleet", |config| config), "a");
    let wal_writer = wal_writer(&server);
    kill_process(wal_writer, Signal::STOP).unwrap();
    for sequence in 1..=5 {
        writer.stage(sequence, u64::from(sequence) - 1).unwrap();
    }
    writer.flip(5, CommitMode::Independent).unwrap();
    crash(&mut server, wal_writer);
    assert_eq!(server.sql("SELECT h.txid, (SELECT count(*) FROM litefleet.pages) FROM litefleet.heads h"), "1|5");
    writer.commit(10).unwrap();
}

/// The transaction is rolled back with a clear error, and can be made again.
#[test]
fn transaction_of_which_pages_were_lost_is_rolled_back() {
    let mut server = lazy_server();
    let mut settings = FleetSettings { session_lifetime: Duration::from_secs(3600), ..FleetSettings::default() };
    settings.database.store_timeout = Duration::from_secs(60);
    settings.database.transaction_bytes = 64 << 10;
    let process = Process::new(Arc::new(connect(&server.url(), "litefleet", |config| config)), settings);
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v BLOB); PRAGMA cache_size = 10").unwrap();
    let wal_writer = wal_writer(&server);
    kill_process(wal_writer, Signal::STOP).unwrap();
    let fill = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t SELECT randomblob(3000) FROM n";
    connection.execute_batch(&format!("BEGIN; {fill}")).unwrap();
    crash(&mut server, wal_writer);
    connection.execute_batch("COMMIT").unwrap_err();
    let why: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
    assert!(why.contains("the store has lost staged pages"), "{why}");
    let count = |connection: &rusqlite::Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    };
    assert!(connection.is_autocommit());
    assert_eq!(count(&connection), 0);
    connection.execute_batch(fill).unwrap();
    assert_eq!(count(&connection), 300);
    drop(connection);
    assert_eq!(process.problems("a"), Vec::<String>::new());
}

/// It is set until the end of its transaction: whoever gets the connection next waits for the disk.
#[test]
fn staging_leaves_nothing_set_on_a_shared_connection() {
    let url = bouncer().single_url();
    let writer = Writer::new(connect(&url, "single", |config| config.pool_size(1)), "a");
    writer.stage(1, 0).unwrap();
    let set = writer.runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let answer = client.simple_query("SHOW synchronous_commit").await.unwrap();
        answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    });
    assert_eq!(set.as_deref(), Some("on"));
}
