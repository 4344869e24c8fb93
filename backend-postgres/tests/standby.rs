//! A commit that its synchronous standby does not have yet is not acknowledged, however it comes to be seen.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, sync_channel};
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Operation, PageStore as _};
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Server, wait_until};
use rusqlite::Connection;
use support::writer::Writer;
use support::{connect, synchronous_pair};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY rowid").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn settings() -> FleetSettings {
    let mut settings = FleetSettings { session_lifetime: Duration::from_secs(3600), ..FleetSettings::default() };
    settings.database.store_timeout = PATIENCE;
    settings
}

fn process(url: &str) -> Process {
    Process::new(Arc::new(connect(url, "litefleet", |config| config.call_timeout(PATIENCE))), settings())
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

fn cancel_the_wait(primary: &Server) {
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
    commit_without_standby("", ".log SELECT", |primary| cancel_the_wait(primary));
}

/// A user whose sessions hear no warnings was told that it was done.
#[test]
fn commit_of_one_who_hears_no_warnings_waits_for_the_standby() {
    let parameters = "&options=-c%20client_min_messages%3Derror";
    commit_without_standby(parameters, ".log SELECT", |primary| cancel_the_wait(primary));
}

/// The same where nothing can be set for the session, as behind a pooler.
#[test]
fn commit_of_one_who_hears_no_warnings_waits_for_the_standby_through_a_pooler_too() {
    let parameters = "&options=-c%20client_min_messages%3Derror&prepared_statements=off";
    commit_without_standby(parameters, ".commit(", |primary| cancel_the_wait(primary));
}

/// A call waits for its standby, which is down, and the wait is ended by an operator: it can be seen, by what `seen` asks, and is
/// asked for again. It is acknowledged when the standby is back, and not before; then the primary is lost for good.
fn call_whose_wait_was_cancelled(
    function: &str,
    seen: &str,
    call: impl FnOnce(&Writer) -> JoinHandle<litefleet::Result<()>>,
) {
    let (mut primary, mut standby) = synchronous_pair();
    let store = connect(&primary.url(), "litefleet", |config| config.call_timeout(PATIENCE));
    let writer = Writer::new(store, "a");
    standby.stop();
    wait_until("the standby is gone", PATIENCE, || primary.sql("SELECT count(*) FROM pg_stat_replication") == "0");
    let mut asked = call(&writer);
    wait_until("it waits", PATIENCE, || waiting(&primary, function) == "1");
    cancel_the_wait(&primary);
    wait_until("it can be seen", PATIENCE, || primary.sql(seen) == "1");
    wait_until("it is asked for again", PATIENCE, || asked.is_finished() || waiting(&primary, function) == "1");
    assert!(!asked.is_finished(), "it was acknowledged without a standby");
    standby.resume();
    writer.runtime.block_on(&mut asked).unwrap().unwrap();
    primary.kill();
    standby.promote();
    assert_eq!(standby.sql(seen), "1");
}

/// A deletion that was asked for again, since its first answer was withheld, found nothing any more, and that was enough.
#[test]
fn deletion_whose_wait_was_cancelled_waits_for_the_standby() {
    call_whose_wait_was_cancelled(".delete(", "SELECT (NOT EXISTS (SELECT FROM litefleet.names))::integer", |writer| {
        let (store, database, epoch) = (Arc::clone(&writer.store), writer.database, writer.epoch);
        writer.runtime.spawn(async move { store.delete(database, epoch).await })
    });
}

/// A release that was asked for again found that nobody had the lease. Behind a failover its holder still had it, and did not know.
#[test]
fn release_whose_wait_was_cancelled_waits_for_the_standby() {
    call_whose_wait_was_cancelled(".release(", "SELECT count(*) FROM litefleet.heads WHERE holder IS NULL", |writer| {
        let (store, database, epoch) = (Arc::clone(&writer.store), writer.database, writer.epoch);
        writer.runtime.spawn(async move { store.release(database, epoch, Vec::new()).await })
    });
}

/// Whoever has a lease to give back believed that it was done, since it could be seen. Behind a failover it was not, and for as
/// long as the process lived nobody else could write.
#[test]
fn lease_whose_release_the_standby_does_not_have_is_still_to_be_given_back() {
    let (mut primary, mut standby) = synchronous_pair();
    let both = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port());
    let url = both + "?sslmode=disable&target_session_attrs=read-write";
    let plan = Arc::new(FaultPlan::default());
    let store = Arc::new(connect(&url, "litefleet", |config| config.call_timeout(PATIENCE)));
    let holder = Process::new(Arc::new(FaultLayer::new(store, Arc::clone(&plan))), settings());
    let connection = holder.open("a", "");
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0)).unwrap();
    let held = "SELECT count(*) FROM litefleet.heads WHERE holder IS NOT NULL";
    assert_eq!(primary.sql(held), "1");
    standby.stop();
    wait_until("the standby is gone", PATIENCE, || primary.sql("SELECT count(*) FROM pg_stat_replication") == "0");
    std::thread::scope(|scope| {
        let release = scope.spawn(|| primary.sql("SELECT litefleet.release(id, epoch, '{}') FROM litefleet.heads"));
        wait_until("it waits", PATIENCE, || waiting(&primary, ".release(") == "1");
        cancel_the_wait(&primary);
        release.join().unwrap();
    });
    assert_eq!(primary.sql(held), "0", "it can be seen");
    // What the process itself sends does not get there: it has a lease to give back.
    plan.arm(Fault { operation: Some(Operation::Release), after: 0, times: u64::MAX, effect: Effect::Full });
    drop(connection);
    wait_until("it makes sure", PATIENCE, || waiting(&primary, ".settled_head(") == "1");
    plan.disarm();
    primary.kill();
    standby.resume();
    standby.promote();
    assert_eq!(standby.sql(held), "1", "the release is lost");
    let other = process(&standby.url());
    let takes = || other.open("a", "").execute_batch("CREATE TABLE IF NOT EXISTS t (v INTEGER)").is_ok();
    wait_until("the lease is given back", PATIENCE, takes);
}
