//! Grants that wait: what became of their session meanwhile counts.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{HeadRequest, LeaseRequest, OpenRequest, Opened, PageStore, SessionRequest};
use litefleet::{DatabaseName, ErrorKind, SessionId, Txid};
use litefleet_postgres::PostgresStore;
use litefleet_postgres::testing::wait_until;
use support::{connect, fresh_schema, server};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

async fn session(store: &PostgresStore) -> SessionId {
    let session = SessionId(rand::random());
    let request = SessionRequest { session, label: "test".into(), lifetime: Duration::from_secs(600) };
    store.start_session(request).await.unwrap();
    session
}

async fn open(store: &PostgresStore, session: SessionId, force: bool) -> litefleet::Result<Opened> {
    let lease = Some(LeaseRequest { session, force });
    let name = DatabaseName::new("a").unwrap();
    store.open(OpenRequest { name, create: true, lease, known: None, tail_bytes: 1 << 20 }).await
}

async fn bare() -> Client {
    let (client, connection) = tokio_postgres::connect(&server().url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A session ends, as by a takeover elsewhere, while a grant to it waits for a lock. It had the lease all the same, though
/// anybody might take it at once, and its process relied on it until its next renewal.
#[test]
fn grant_to_a_session_that_ended_while_it_waited_is_refused() {
    let schema = fresh_schema();
    let store = Arc::new(connect(&server().url(), &schema, |config| config));
    let runtime = Runtime::new().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\"{schema}\".open(%'"
    );
    for (locked, force) in [("heads", false), ("sessions", true)] {
        let holder = runtime.block_on(session(&store));
        let first = runtime.block_on(open(&store, holder, true)).unwrap();
        if locked == "heads" {
            runtime.block_on(store.release(first.database, first.head.epoch, vec![])).unwrap();
        }
        let taker = runtime.block_on(session(&store));
        let lock = runtime.block_on(bare());
        let statement = format!("BEGIN; SELECT FROM {schema}.{locked} FOR UPDATE");
        runtime.block_on(lock.batch_execute(&statement)).unwrap();
        let shared = Arc::clone(&store);
        let grant = runtime.spawn(async move { open(&shared, taker, force).await });
        wait_until("the grant waits", Duration::from_secs(20), || server().sql(&waiting) == "1");
        // By the one that has the lock: nobody else could, of a session.
        let end = format!("SELECT {schema}.end_session('{taker}'); COMMIT");
        runtime.block_on(lock.batch_execute(&end)).unwrap();
        let error = runtime.block_on(grant).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{locked}: {error}");
        let known = HeadRequest { database: first.database, known: Txid(0), epoch: None, tail_bytes: 1 << 20 };
        let head = runtime.block_on(store.head(known)).unwrap().head;
        assert_eq!(head.epoch, first.head.epoch, "{locked}: nothing was granted");
        // Whoever held it by a session that lives still does.
        let holds = head.holder.filter(|holder| holder.expires_in > Some(Duration::ZERO)).map(|holder| holder.session);
        assert_eq!(holds, Some(holder).filter(|_| locked == "sessions"), "{locked}");
    }
}

/// The session of an open that creates ends while it waits for another's creation of that name, which then does not come about.
/// It was refused, and the database was there all the same.
#[test]
fn open_that_is_refused_creates_nothing() {
    let schema = fresh_schema();
    let store = Arc::new(connect(&server().url(), &schema, |config| config));
    let runtime = Runtime::new().unwrap();
    let session = runtime.block_on(session(&store));
    let other = runtime.block_on(bare());
    let creates = format!("BEGIN; INSERT INTO {schema}.names VALUES ('a', nextval('{schema}.database_ids'))");
    runtime.block_on(other.batch_execute(&creates)).unwrap();
    let shared = Arc::clone(&store);
    let opened = runtime.spawn(async move { open(&shared, session, false).await });
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\"{schema}\".open(%'"
    );
    wait_until("the open waits", Duration::from_secs(20), || server().sql(&waiting) == "1");
    runtime.block_on(store.end_session(session)).unwrap();
    runtime.block_on(other.batch_execute("ROLLBACK")).unwrap();
    assert_eq!(runtime.block_on(opened).unwrap().unwrap_err().kind(), ErrorKind::Fenced);
    assert!(runtime.block_on(store.list("", None, 10)).unwrap().is_empty());
    assert_eq!(server().sql(&format!("SELECT count(*) FROM {schema}.heads")), "0");
}
