//! A commit that its synchronous standby does not have yet is not acknowledged, however it comes to be seen.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, sync_channel};
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet::store::PageStore as _;
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Server, wait_until};
use rusqlite::Connection;
use support::writer::Writer;
use support::{connect, synchronous_pair};

const PATIENCE: Duration = Duration::from_secs(60);

fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY rowid").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn process(url: &str) -> Process {
    let mut settings = FleetSettings { session_lifetime: Duration::from_secs(3600), ..FleetSettings::default() };
    settings.database.store_timeout = PATIENCE;
    Process::new(Arc::new(connect(url, "litefleet", |config| config.call_timeout(PATIENCE))), settings)
}

/// How many calls with these words wait for the standby.
fn waiting(primary: &Server, words: &str) -> String {
    let asked =
        format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%{words}%'");
    primary.sql(&asked)
}

/// A commit waits for its standby, which is down; `spoil` makes it visible all the same. It is acknowledged when the standby
/// is back, and not before; then the primary is lost for good. `words` are in the commit's statement.
fn commit_without_standby(parameters: &str, words: &str, spoil: impl FnOnce(&mut Server)) {
    let (mut primary, mut standby) = synchronous_pair();
    // It finds the standby at its end, when nothing else is left.
    let both = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port());
    let writer = process(&(both + "?sslmode=disable&target_session_attrs=read-write" + parameters));
    let connection = writer.open("a", "");
    connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
    standby.stop();
    wait_until("the standby is gone", PATIENCE, || primary.sql("SELECT count(*) FROM pg_stat_replication") == "0");
    let (sender, receiver) = sync_channel(1);
    let commit = std::thread::spawn(move || {
        sender.send(connection.execute("INSERT INTO t VALUES (2)", []).map_err(|error| error.to_string())).unwrap();
        connection
    });
    wait_until("the commit waits", PATIENCE, || waiting(&primary, words) == "1");
    spoil(&mut primary);
    let mut early = None;
    wait_until("its outcome is looked for", PATIENCE, || {
        early = receiver.try_recv().ok();
        early.is_some() || waiting(&primary, ".settled_head(") == "1"
    });
    assert_eq!(early, None, "it was acknowledged without a standby");
    assert_eq!(primary.sql("SELECT max(txid) FROM litefleet.heads"), "3", "it can be seen");
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "and is not acknowledged");
    standby.resume();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Ok(1));
    primary.kill();
    standby.promote();
    let promoted = process(&standby.url());
    assert_eq!(values(&promoted.open("a", "&takeover=1")), [1, 2]);
    drop(commit.join().unwrap());
}

fn cancel_the_wait(primary: &mut Server) {
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    assert_eq!(primary.sql(cancel), "1");
}

/// After its recovery the primary shows a commit that waited when it was killed.
#[test]
fn commit_that_a_crash_made_visible_waits_for_the_standby() {
    commit_without_standby("", ".log SELECT", |primary| {
        primary.kill();
        primary.resume();
    });
}

/// Its wait is ended by an operator: the server reports success, and a warning.
#[test]
fn commit_whose_wait_was_cancelled_waits_for_the_standby() {
    commit_without_standby("", ".log SELECT", cancel_the_wait);
}

/// A user whose sessions hear no warnings was told that it was done.
#[test]
fn commit_of_one_who_hears_no_warnings_waits_for_the_standby() {
    commit_without_standby("&options=-c%20client_min_messages%3Derror", ".log SELECT", cancel_the_wait);
}

/// The same where nothing can be set for the session, as behind a pooler.
#[test]
fn commit_of_one_who_hears_no_warnings_waits_for_the_standby_through_a_pooler_too() {
    let parameters = "&options=-c%20client_min_messages%3Derror&prepared_statements=off";
    commit_without_standby(parameters, ".commit(", cancel_the_wait);
}

/// A deletion that was asked for again, since its first answer was withheld, found nothing any more, and that was enough.
#[test]
fn deletion_whose_wait_was_cancelled_waits_for_the_standby() {
    let (mut primary, mut standby) = synchronous_pair();
    let store = connect(&primary.url(), "litefleet", |config| config.call_timeout(PATIENCE));
    let writer = Writer::new(store, "a");
    standby.stop();
    wait_until("the standby is gone", PATIENCE, || primary.sql("SELECT count(*) FROM pg_stat_replication") == "0");
    let store = Arc::clone(&writer.store);
    let (database, epoch) = (writer.database, writer.epoch);
    let mut deletion = writer.runtime.spawn(async move { store.delete(database, epoch).await });
    wait_until("the deletion waits", PATIENCE, || waiting(&primary, ".delete(") == "1");
    cancel_the_wait(&mut primary);
    wait_until("it can be seen", PATIENCE, || primary.sql("SELECT count(*) FROM litefleet.heads") == "0");
    wait_until("it is asked for again", PATIENCE, || deletion.is_finished() || waiting(&primary, ".delete(") == "1");
    assert!(!deletion.is_finished(), "it was acknowledged without a standby");
    standby.resume();
    writer.runtime.block_on(&mut deletion).unwrap().unwrap();
    primary.kill();
    standby.promote();
    assert_eq!(standby.sql("SELECT count(*) FROM litefleet.names"), "0");
}
