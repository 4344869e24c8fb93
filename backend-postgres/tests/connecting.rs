//! Connecting: to what there is, and to what is not as it should be.
#![cfg(feature = "servers")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{PageStore as _, SessionRequest};
use litefleet::{ErrorKind, SessionId};
use litefleet_postgres::testing::{Server, ServerOptions, wait_until};
use litefleet_postgres::{PostgresConfig, PostgresStore, Prepared};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::{connect, fresh_schema, grant_serving, server};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

const PATIENCE: Duration = Duration::from_secs(60);

#[track_caller]
fn refused(outcome: litefleet::Result<PostgresStore>, kind: ErrorKind, words: &[&str]) {
    let Err(error) = outcome else { panic!("it works, and should not: {words:?}") };
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.message().contains(word), "'{word}' is not in: {error}");
    }
}

fn at(url: &str) -> litefleet::Result<PostgresStore> {
    PostgresStore::connect_blocking(PostgresConfig::from_url(url)?)
}

/// A server that goes away in the middle of the handshake, as when it is restarted, will be there again.
#[test]
fn handshake_that_breaks_off_is_worth_another_try() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).unwrap();
        client.write_all(b"S").unwrap();
    });
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=require");
    refused(at(&url), ErrorKind::Unavailable, &["TLS"]);
    server.join().unwrap();
}

/// The runtime that was made before the certificates were looked at was dropped in an asynchronous task, which panics.
#[tokio::test]
async fn settings_that_cannot_be_are_told_in_a_task_too() {
    let url = format!("{}&sslrootcert=/nowhere", server().url().replace("disable", "verify-ca"));
    let outcome = PostgresStore::connect(PostgresConfig::from_url(&url).unwrap()).await;
    refused(outcome, ErrorKind::Invalid, &["sslrootcert", "/nowhere"]);
}

#[test]
fn names_of_schemas_are_quoted_and_checked() {
    for word in ["user", "table", "select"] {
        let store = connect(&(server().url() + "&page_partitions=2"), word, |config| config);
        Runtime::new().unwrap().block_on(store.list("", None, 10)).unwrap();
    }
    for wrong in ["Upper", "a\"b", "pg_mine", "1st", ""] {
        let config = PostgresConfig::from_url(&server().url()).unwrap().schema(wrong);
        refused(PostgresStore::connect_blocking(config), ErrorKind::Invalid, &["schema's name", "lower-case"]);
    }
}

/// A process that hangs while it migrates has the lock. The others waited for ever, and did not know for what.
#[test]
fn lock_that_is_never_given_back_is_told() {
    let schema = fresh_schema();
    let runtime = Runtime::new().unwrap();
    let url = format!("{}&application_name=hangs", server().url());
    let (holder, connection) = runtime.block_on(tokio_postgres::connect(&url, NoTls)).unwrap();
    runtime.spawn(connection);
    let lock = format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('litefleet.migrate.{schema}', 0))");
    runtime.block_on(holder.batch_execute(&lock)).unwrap();
    let row = runtime.block_on(holder.query_one("SELECT pg_backend_pid()", &[])).unwrap();
    let pid = row.get::<_, i32>(0).to_string();
    let config = PostgresConfig::from_url(&server().url()).unwrap().schema(&schema);
    let hasty = config.clone().call_timeout(Duration::from_millis(300));
    let words = [&*pid, "application hangs", "pg_terminate_backend", &*schema];
    refused(PostgresStore::connect_blocking(hasty), ErrorKind::Unavailable, &words);
    server().sql(&format!("SELECT pg_terminate_backend({pid})"));
    PostgresStore::connect_blocking(config).expect("nobody has the lock any more");
}

/// A schema that somebody made for it is used by a role that may make none.
#[test]
fn schema_that_is_there_needs_no_right_to_make_one() {
    let schema = fresh_schema();
    server().sql(&format!("CREATE ROLE guest_{schema} LOGIN; CREATE SCHEMA {schema} AUTHORIZATION guest_{schema}"));
    let url = server().url().replace("postgres@", &format!("guest_{schema}@"));
    let store = connect(&url, &schema, |config| config);
    Runtime::new().unwrap().block_on(store.list("", None, 10)).unwrap();
}

/// Through a Unix socket, under a name that people find in `pg_stat_activity`.
#[test]
fn unix_socket_and_application_name() {
    let folder = server().folder().display().to_string().replace('/', "%2F");
    for (more, name) in [("", "litefleet"), ("&application_name=of%20ours", "of ours")] {
        let url = format!("postgres://postgres@{folder}:{}/postgres?schema={}{more}", server().port(), fresh_schema());
        let store = at(&url).unwrap();
        Runtime::new().unwrap().block_on(store.list("", None, 10)).unwrap();
        let here = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE client_addr IS NULL AND application_name = '{name}'"
        );
        assert_eq!(server().sql(&here), "t");
    }
}

/// Who may connect is told by a certificate of the client.
#[test]
fn client_certificates() {
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (root_key, other_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = parameters.self_signed(&root_key).unwrap();
    let (authority, other) = (Issuer::new(parameters.clone(), root_key), Issuer::new(parameters, other_key));
    let folder = tempfile::tempdir().unwrap();
    // A file with the certificate, and one with its key.
    let signed = |name: &str, authority: &Issuer<'_, KeyPair>| {
        let mut parameters = CertificateParams::new(vec!["localhost".into()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let files = |what: &str, (certificate, key): (String, String)| {
        let path = |ending: &str| folder.path().join(format!("{what}.{ending}")).display().to_string();
        std::fs::write(path("crt"), certificate).unwrap();
        std::fs::write(path("key"), key).unwrap();
        format!("&sslcert={}&sslkey={}", path("crt"), path("key"))
    };
    let mut server = Server::start(&ServerOptions {
        settings: vec!["ssl_ca_file = 'root.crt'".into()],
        access: vec!["hostssl all known 127.0.0.1/32 cert".into()],
        ..ServerOptions::default()
    });
    server.sql("CREATE ROLE known LOGIN; GRANT CREATE ON DATABASE postgres TO known");
    server.stop();
    std::fs::write(server.folder().join("data/root.crt"), root.pem()).unwrap();
    let (certificate, key) = signed("server", &authority);
    server.encrypt(&certificate, &key);
    server.resume();
    let url = format!("postgres://known@127.0.0.1:{}/postgres?sslmode=require", server.port());
    at(&(url.clone() + &files("right", signed("known", &authority)))).expect("it is known");
    refused(at(&url), ErrorKind::Invalid, &["valid client certificate", "pg_hba.conf"]);
    let another = at(&(url.clone() + &files("another", signed("another", &authority))));
    refused(another, ErrorKind::Invalid, &["authentication failed", "pg_hba.conf"]);
    let strangers = at(&(url.clone() + &files("stranger", signed("known", &other))));
    refused(strangers, ErrorKind::Invalid, &["alert", "sslcert and sslkey"]);
    let missing = at(&(url.clone() + "&sslcert=/nowhere&sslkey=/nowhere"));
    refused(missing, ErrorKind::Invalid, &["sslcert", "/nowhere"]);
    refused(at(&(url + "&sslcert=/nowhere")), ErrorKind::Invalid, &["belong together"]);
}

/// The server closes connections that nobody uses. Whoever calls does not notice.
#[test]
fn connections_that_the_server_closed_are_made_anew() {
    let url = format!(
        "{}&schema={}&application_name=idle&options=-c%20idle_session_timeout%3D100",
        server().url(),
        fresh_schema()
    );
    let (store, runtime) = (at(&url).unwrap(), Runtime::new().unwrap());
    for _ in 0..3 {
        runtime.block_on(store.list("", None, 10)).unwrap();
        wait_until("they are closed", Duration::from_secs(20), || {
            server().sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idle'") == "0"
        });
    }
}

/// The calls have all the connections that the server allows. The session had none of its own then, and could neither be
/// started nor renewed.
#[test]
fn session_borrows_a_connection_where_the_server_takes_no_more() {
    server().sql("CREATE ROLE two LOGIN CONNECTION LIMIT 2");
    let count =
        |state: &str| server().sql(&format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'two' AND {state}"));
    let runtime = Runtime::new().unwrap();
    for calls_end_first in [true, false] {
        let schema = fresh_schema();
        drop(connect(&server().url(), &schema, |config| config));
        grant_serving(&schema, "two");
        let url = server().url().replace("postgres@", "two@") + "&migrate=off";
        // Without a time-out for locks.
        let change = |config: PostgresConfig| config.pool_size(2).prepared(Prepared::Off);
        let store = Arc::new(connect(&url, &schema, change));
        wait_until("connecting is over", PATIENCE, || count("true") == "0");
        let (locker, connection) = runtime.block_on(tokio_postgres::connect(&server().url(), NoTls)).unwrap();
        runtime.spawn(connection);
        runtime.block_on(locker.batch_execute(&format!("BEGIN; LOCK TABLE {schema}.names"))).unwrap();
        let call = || {
            let store = Arc::clone(&store);
            runtime.spawn(async move { store.list("", None, 10).await })
        };
        let calls = [call(), call()];
        wait_until("both connections are in use", PATIENCE, || count("wait_event_type = 'Lock'") == "2");
        let session = SessionId(rand::random());
        let start = SessionRequest { session, label: "test".into(), lifetime: Duration::from_secs(600) };
        let free = || runtime.block_on(locker.batch_execute("ROLLBACK")).unwrap();
        let shared = Arc::clone(&store);
        let starting = async move { shared.start_session(start).await };
        let started = if calls_end_first {
            free();
            wait_until("the connections are idle", PATIENCE, || count("state = 'idle'") == "2");
            runtime.block_on(starting)
        } else {
            let starting = runtime.spawn(starting);
            free();
            runtime.block_on(starting).unwrap()
        };
        started.unwrap();
        for call in calls {
            runtime.block_on(call).unwrap().unwrap();
        }
        runtime.block_on(store.renew_session(session)).unwrap();
        runtime.block_on(store.list("", None, 10)).expect("the calls have one left");
        drop(store);
        wait_until("its connections are closed", PATIENCE, || count("true") == "0");
    }
}
