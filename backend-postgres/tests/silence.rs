//! Servers and connections that say nothing at all.
#![cfg(feature = "servers")]

mod support;

use std::net::TcpListener;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use litefleet::store::deadline::{self, Deadline};
use litefleet::store::{CommitMode, OpenRequest, Opened, PageStore as _, SessionRequest};
use litefleet::{DatabaseName, ErrorKind, SessionId};
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Bouncer, Proxy, Server, ServerOptions, wait_until};
use litefleet_postgres::{PostgresStore, Prepared};
use support::place::FORMS;
use support::writer::Writer;
use support::{connect, fresh_schema, server};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

/// The first server of two accepts and never answers: it had all the time of each call, and the other never its turn.
#[test]
fn silent_server_leaves_time_for_the_next() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let both = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable&connect_timeout=60",
        silent.local_addr().unwrap().port(),
        server().port()
    );
    let store = connect(&both, &fresh_schema(), |config| config.call_timeout(Duration::from_secs(4)));
    Runtime::new().unwrap().block_on(store.list("", None, 10)).unwrap();
}

/// All open connections fall silent at once, as when the way to the server changes: one call finds out for all.
#[test]
fn silent_connections_are_given_up_together() {
    let (proxy, schema) = (Proxy::start(server().port()), fresh_schema());
    let store = connect(&proxy.url(), &schema, |config| config.call_timeout(Duration::from_secs(1)).pool_size(4));
    let mut settings = Process::small();
    settings.database.store_timeout = Duration::from_secs(5);
    let process = Process::new(Arc::new(store), settings);
    let begin = Barrier::new(4);
    let connections: Vec<_> = std::thread::scope(|scope| {
        let open = |name| {
            let (process, begin) = (&process, &begin);
            scope.spawn(move || {
                let connection = process.open(name, "");
                begin.wait();
                connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
                connection
            })
        };
        let opening = ["a", "b", "c", "d"].map(open);
        opening.map(|thread| thread.join().unwrap()).into_iter().collect()
    });
    proxy.silence();
    for connection in &connections {
        connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
    }
    drop(connections);
    let other = Process::new(Arc::new(connect(&server().url(), &schema, |config| config)), Process::small());
    for name in ["a", "b", "c", "d"] {
        let count: i64 =
            other.open(name, "&takeover=1").query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 2, "{name}");
    }
}

/// A call waits no longer than its caller, whatever `call_timeout` says.
#[test]
fn a_call_ends_when_its_caller_waits_no_longer() {
    let (proxy, schema) = (Proxy::start(server().port()), fresh_schema());
    let store = connect(&proxy.url(), &schema, |config| config.call_timeout(Duration::from_secs(3600)));
    let process = Process::new(Arc::new(store), Process::small());
    let connection = process.open("a", "&store_timeout=500");
    connection.execute_batch("CREATE TABLE t (v INTEGER)").unwrap();
    proxy.silence();
    proxy.refuse(true);
    connection.execute("INSERT INTO t VALUES (1)", []).expect_err("the server is out of reach");
    proxy.refuse(false);
    drop(connection);
    let other = Process::new(Arc::new(connect(&server().url(), &schema, |config| config)), Process::small());
    let count = other.open("a", "&takeover=1").query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(count, Ok(0));
}

/// A time-out that somebody has set for the server's statements stays, and one of ours may be longer than anybody can count: no
/// moment is so late, and the call panicked.
#[test]
fn a_statement_timeout_that_is_set_stays() {
    let (runtime, schema) = (Runtime::new().unwrap(), fresh_schema());
    let url = format!("{}&options=-c%20statement_timeout%3D300", server().url());
    let store = connect(&url, &schema, |config| config.call_timeout(Duration::MAX));
    let (locker, connection) = runtime.block_on(tokio_postgres::connect(&server().url(), NoTls)).unwrap();
    runtime.spawn(connection);
    runtime.block_on(locker.batch_execute(&format!("BEGIN; LOCK TABLE {schema}.names"))).unwrap();
    let error = runtime.block_on(store.list("", None, 10)).expect_err("the table is locked");
    assert!(error.message().contains("57014"), "{error}");
    let url = format!("{}&connect_timeout=0", server().url());
    let plain = connect(&url, &schema, |config| config.call_timeout(Duration::MAX));
    runtime.block_on(locker.batch_execute("ROLLBACK")).unwrap();
    runtime.block_on(plain.list("", None, 10)).unwrap();
}

/// Makes the making of a database do something else first.
fn before_a_name(schema: &str, body: &str) {
    server().sql(&format!(
        "CREATE FUNCTION {schema}.before_a_name() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$; \
         CREATE TRIGGER before_a_name BEFORE INSERT ON {schema}.names FOR EACH ROW EXECUTE FUNCTION {schema}.before_a_name()"
    ));
}

/// An open that makes the database.
fn create(store: &PostgresStore, name: &str) -> litefleet::Result<Opened> {
    let name = DatabaseName::new(name).expect("a name");
    let request = OpenRequest { name, create: true, lease: None, known: None, tail_bytes: 1 << 20 };
    Runtime::new().expect("a runtime").block_on(store.open(request))
}

/// A time-out for locks that somebody has set was overridden. Where there is none, ours is; behind a pooler, where nothing is set
/// for the session, there was none but for commits.
#[test]
fn a_lock_timeout_that_is_set_stays() {
    let schema = fresh_schema();
    drop(connect(&server().url(), &schema, |config| config));
    before_a_name(&schema, "RAISE EXCEPTION 'lock_timeout is %', current_setting('lock_timeout');");
    for (options, expected) in [("", "1200ms"), ("-c%20lock_timeout%3D100", "100ms"), ("-c%20lock_timeout%3D3h", "3h")]
    {
        for prepared in FORMS {
            let url = format!("{}&options={options}", server().url());
            let store = connect(&url, &schema, |config| config.prepared(prepared));
            let error = create(&store, "a").expect_err("it is refused");
            let said = error.message().contains(&format!("lock_timeout is {expected} "));
            assert!(said, "{options}, {prepared:?}: {error}");
        }
    }
}

/// A head that somebody has locked, and that another waits for, is waited for twice, and the time-out counts for each by itself:
/// the commit was given up before, and in doubt.
#[test]
fn commit_behind_another_that_waits_for_a_lock_is_undone() {
    for prepared in FORMS {
        let schema = fresh_schema();
        let writer = Writer::new(connect(&server().url(), &schema, |config| config.prepared(prepared)), "a");
        let runtime = &writer.runtime;
        let somebody = || {
            let (client, connection) =
                runtime.block_on(tokio_postgres::connect(&server().url(), NoTls)).expect("it connects");
            runtime.spawn(connection);
            client
        };
        let lock = format!("SELECT FROM {schema}.heads WHERE id = {} FOR UPDATE", writer.database);
        let (holder, other) = (somebody(), somebody());
        runtime.block_on(holder.batch_execute(&format!("BEGIN; {lock}"))).expect("it is free");
        let waits = format!("SET lock_timeout = '2s'; {lock}");
        let waiting = runtime.spawn(async move { other.batch_execute(&waits).await });
        let asked =
            format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{lock}'");
        wait_until("the other waits", Duration::from_secs(20), || server().sql(&asked) == "1");
        let commit = writer.store.commit(vec![writer.request(10)], CommitMode::Independent);
        let soon = Deadline::after(Duration::from_millis(500));
        let error = runtime.block_on(deadline::scope(soon, commit)).expect_err("the head is locked");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{prepared:?}: {error}");
        assert!(error.message().contains("55P03"), "{prepared:?}: {error}");
        runtime.block_on(waiting).expect("it ends").expect_err("its head is locked as well");
    }
}

/// What takes long on the server is given up there too: else each call that ran out of time left one behind, until the server
/// had no connections left for anybody.
#[test]
fn calls_that_nobody_waits_for_end_on_the_server() {
    let schema = fresh_schema();
    let url = format!("{}&application_name=waits", server().url());
    let store = connect(&url, &schema, |config| config.call_timeout(Duration::from_millis(500)).pool_size(2));
    // Not for a lock: there is a shorter time-out for those.
    before_a_name(&schema, "PERFORM pg_sleep(3600);");
    for _ in 0..6 {
        let error = create(&store, "a").expect_err("it takes an hour");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    wait_until("they have ended", Duration::from_secs(20), || {
        server().sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits' AND state = 'active'")
            == "0"
    });
    server().sql(&format!("DROP TRIGGER before_a_name ON {schema}.names"));
    create(&store, "a").expect("nothing holds it up");
}

/// How many connections of the store the server has.
fn connections(server: &Server) -> usize {
    let count = server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits'");
    count.parse().expect("a number")
}

/// A server whose synchronous standby is away, with the schema of a store, which was made without it.
fn without_standby() -> Server {
    let away = vec!["synchronous_standby_names = 'away'".to_owned()];
    let server = Server::start(&ServerOptions { settings: away, ..ServerOptions::default() });
    drop(connect(&format!("{}&options=-c%20synchronous_commit%3Dlocal", server.url()), "litefleet", |config| config));
    server
}

/// The calls of a store on such a server, until the standby is not asked for any more.
fn given_up_while_the_standby_is_away(server: &Server, url: &str) {
    let store = connect(&format!("{url}&application_name=waits"), "litefleet", |config| {
        config.call_timeout(Duration::from_millis(500)).prepared(Prepared::Off).pool_size(2)
    });
    for name in ["a", "b", "c", "d", "e"] {
        let error = create(&store, name).expect_err("there is no standby");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let why = if ["a", "b"].contains(&name) { "did not answer" } else { "2 calls that were given up" };
        assert!(error.message().contains(why), "{name}: {error}");
    }
    assert_eq!(connections(server), 2);
    server.sql("ALTER SYSTEM SET synchronous_standby_names = ''");
    server.sql("SELECT pg_reload_conf()");
    wait_until("they are answered", Duration::from_secs(20), || create(&store, "f").is_ok());
    assert!(connections(server) <= 2, "those that were answered are closed, or used again");
    let listed = Runtime::new().expect("a runtime").block_on(store.list("", None, 10)).expect("it lists");
    assert_eq!(listed.iter().map(|entry| entry.name.as_str()).collect::<String>(), "abf", "nothing else was sent");
}

/// What waits for a standby waits on when its connection is closed. Each call that was given up left one behind, and the next
/// opened another, until the server had no connections left for anybody.
#[test]
fn calls_given_up_while_the_standby_is_away_are_no_more_than_the_pool_holds() {
    let server = without_standby();
    given_up_while_the_standby_is_away(&server, &server.url());
}

#[test]
fn calls_given_up_while_the_standby_is_away_are_no_more_through_a_pooler() {
    let server = without_standby();
    let bouncer = Bouncer::start(&server);
    given_up_while_the_standby_is_away(&server, &bouncer.url());
}

/// A renewal must find a connection though the one before it was given up: a few of those, and no more.
#[test]
fn renewals_given_up_while_the_standby_is_away_are_a_few() {
    let server = without_standby();
    let url = format!("{}&application_name=waits", server.url());
    let store = connect(&url, "litefleet", |config| config.call_timeout(Duration::from_millis(500)));
    let runtime = Runtime::new().expect("a runtime");
    let mut told = String::new();
    for number in 0..6 {
        let request = SessionRequest {
            session: SessionId([number; 16]),
            label: String::new(),
            lifetime: Duration::from_secs(60),
        };
        let error = runtime.block_on(store.start_session(request)).expect_err("there is no standby");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        told = error.message().to_owned();
    }
    assert!(told.contains("4 calls"), "{told}");
    assert_eq!(connections(&server), 4);
}
