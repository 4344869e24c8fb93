//! Transactions in each other's way, as the server tells it: they are undone, and tried again.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{CommitMode, PageStore as _};
use litefleet_postgres::testing::{Server, ServerOptions, wait_until};
use litefleet_postgres::{PostgresConfig, Prepared};
use support::place::FORMS;
use support::writer::Writer;
use support::{connect, fresh_schema, server};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(60);

/// A session of somebody else, at a server.
fn somebody(runtime: &Runtime, server: &Server, options: &str) -> Client {
    let url = format!("{}&options={options}", server.url());
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&url, NoTls)).unwrap();
    runtime.spawn(connection);
    client
}

#[test]
fn deadlocks_and_serialization_failures_are_tried_again() {
    let schema = fresh_schema();
    let store = connect(&server().url(), &schema, |config| config);
    let mut writer = Writer::new(store, "a");
    // A trigger that fails as those do, twice.
    server().sql(&format!(
        "CREATE SEQUENCE {schema}.tries; \
         CREATE FUNCTION {schema}.fails() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n bigint := nextval('{schema}.tries'); \
         BEGIN IF n = 1 THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END IF; \
         IF n = 2 THEN RAISE EXCEPTION 'serialize' USING ERRCODE = '40001'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER fails BEFORE INSERT ON {schema}.log FOR EACH ROW EXECUTE FUNCTION {schema}.fails()"
    ));
    writer.commit(10).expect("it is tried again");
    assert_eq!(server().sql(&format!("SELECT last_value FROM {schema}.tries")), "3");
    assert_eq!(server().sql(&format!("SELECT count(*) FROM {schema}.log")), "1");
}

/// Two sessions lock two heads, each the one that the other has: the server ends ours. Ours waits in a trigger after its
/// first head until the other waits for that one, and the other never looks for deadlocks.
#[test]
fn real_deadlock_is_tried_again() {
    for prepared in FORMS {
        let (schema, runtime) = (fresh_schema(), Runtime::new().unwrap());
        let url = format!("{}&options=-c%20deadlock_timeout%3D10", server().url());
        let store = Arc::new(connect(&url, &schema, |config: PostgresConfig| config.prepared(prepared)));
        let [a, b] = ["a", "b"].map(|name| Writer::new(Arc::clone(&store), name));
        server().sql(&format!(
            "CREATE SEQUENCE {schema}.tries; \
             CREATE FUNCTION {schema}.waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('{schema}.tries') = 1 THEN \
                WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))) \
                LOOP PERFORM pg_sleep(0.01); END LOOP; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER waits BEFORE INSERT ON {schema}.log FOR EACH ROW EXECUTE FUNCTION {schema}.waits()"
        ));
        let before = server().log().matches("deadlock detected").count();
        let other = somebody(&runtime, server(), "-c%20deadlock_timeout%3D3600000");
        let lock = |writer: &Writer| format!("SELECT FROM {schema}.heads WHERE id = {} FOR UPDATE", writer.database);
        runtime.block_on(other.batch_execute(&format!("BEGIN; {}", lock(&b)))).unwrap();
        let (requests, shared) = (vec![a.request(10), b.request(10)], Arc::clone(&store));
        let commits = runtime.spawn(async move { shared.commit(requests, CommitMode::Independent).await });
        let begun = format!("SELECT is_called FROM {schema}.tries");
        wait_until("the first head is locked", PATIENCE, || server().sql(&begun) == "t");
        // The other gets it when ours is ended.
        runtime.block_on(other.batch_execute(&format!("{}; ROLLBACK", lock(&a)))).unwrap();
        let outcomes = runtime.block_on(commits).unwrap().unwrap();
        assert!(outcomes.iter().all(Result::is_ok), "{prepared:?}: {outcomes:?}");
        assert_eq!(server().log().matches("deadlock detected").count(), before + 1, "{prepared:?}");
        assert_eq!(server().sql(&format!("SELECT count(*) FROM {schema}.log")), "2");
    }
}

/// A reload of the server's configuration changes the isolation of transactions under open connections. On those that lead to
/// the server itself it stays as it was. On others a commit that waits for a lock fails then, is undone, and tried again.
#[test]
fn real_serialization_failure_is_tried_again() {
    let (server, runtime) = (Server::start(&ServerOptions::default()), Runtime::new().unwrap());
    let mut writers = [("a", Prepared::On), ("b", Prepared::Off)].map(|(name, prepared)| {
        Writer::new(connect(&server.url(), "litefleet", |config| config.prepared(prepared)), name)
    });
    for writer in &mut writers {
        writer.commit(10).unwrap();
    }
    let other = somebody(&runtime, &server, "-c%20default_transaction_isolation%3Dread%5C%20committed");
    server.sql("ALTER SYSTEM SET default_transaction_isolation = 'repeatable read'");
    server.sql("SELECT pg_reload_conf()");
    wait_until("it is known", PATIENCE, || server.sql("SHOW default_transaction_isolation") == "repeatable read");
    for (mut writer, failures) in writers.into_iter().zip([0, 1]) {
        let change = format!("BEGIN; UPDATE litefleet.heads SET size = size WHERE id = {}", writer.database);
        runtime.block_on(other.batch_execute(&change)).unwrap();
        let commit = std::thread::spawn(move || writer.commit(10));
        wait_until("the commit waits", PATIENCE, || {
            server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == "1"
        });
        runtime.block_on(other.batch_execute("COMMIT")).unwrap();
        commit.join().unwrap().expect("it is tried again");
        assert_eq!(server.log().matches("could not serialize access").count(), failures);
    }
    assert_eq!(server.sql("SELECT string_agg(txid::text, ' ') FROM litefleet.heads"), "2 2");
}
