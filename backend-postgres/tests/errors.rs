//! The errors that people meet: each is clear, names what to do, and has no password in it.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::future::join;
use litefleet::store::{
    HeadRequest, LeaseRequest, ListEntry, OpenRequest, PageStore, SessionRequest, SharedLock, SharedRequest,
};
use litefleet::{DatabaseName, Epoch, ErrorKind, SessionId, Txid};
use litefleet_postgres::testing::{Server, ServerOptions, wait_until};
use litefleet_postgres::{PostgresConfig, PostgresStore};
use support::writer::Writer;
use support::{connect, fresh_schema, grant_serving, server};
use tokio::runtime::Runtime;

const PASSWORD: &str = "s3cret-w0rd";

fn try_connect(url: &str) -> litefleet::Result<PostgresStore> {
    let config = PostgresConfig::from_url(url)?;
    assert!(!format!("{config:?}").contains(PASSWORD));
    PostgresStore::connect_blocking(config)
}

#[track_caller]
fn refused(outcome: litefleet::Result<impl Sized>, kind: ErrorKind, words: &[&str]) {
    let Err(error) = outcome else { panic!("it works, and should not: {words:?}") };
    let text = format!("{error}: {error:?}");
    assert!(!text.contains(PASSWORD), "the password is in it");
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.message().contains(word), "'{word}' is not in: {error}");
    }
}

#[test]
fn wrong_password_and_user_are_told() {
    let options = ServerOptions {
        access: vec!["host all guarded 127.0.0.1/32 scram-sha-256".into()],
        ..ServerOptions::default()
    };
    let server = Server::start(&options);
    server.sql(&format!("CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'"));
    server.sql("GRANT CREATE ON DATABASE postgres TO guarded");
    let url = |password: &str| format!("postgres://guarded:{password}@127.0.0.1:{}/postgres", server.port());
    try_connect(&url(PASSWORD)).expect("SCRAM works");
    refused(
        try_connect(&url("s3cret-w0rd-not")),
        ErrorKind::Invalid,
        &["password authentication failed", "pg_hba.conf"],
    );
    let none = format!("postgres://guarded@127.0.0.1:{}/postgres", server.port());
    refused(try_connect(&none), ErrorKind::Invalid, &["PGPASSWORD"]);
    refused(
        try_connect(&url(PASSWORD).replace("/postgres", "/nothing")),
        ErrorKind::Invalid,
        &["\"nothing\" does not exist", "name another"],
    );
    for wrong in ["sslmode=maybe", "port=x", "nonsense=1", "schema=Upper", "sslcert=x", "pool_size=many", "schema=%zz"]
    {
        refused(try_connect(&format!("{}?{wrong}", url(PASSWORD))), ErrorKind::Invalid, &[]);
    }
}

#[test]
fn roles_have_what_they_need_and_no_more() {
    let server = server();
    let schema = fresh_schema();
    server.sql("CREATE ROLE migrates LOGIN; CREATE ROLE serves LOGIN; GRANT CREATE ON DATABASE postgres TO migrates");
    let url = |role: &str, more: &str| {
        format!("postgres://{role}@127.0.0.1:{}/postgres?schema={schema}{more}", server.port())
    };
    // One that only serves cannot make the schema,
    refused(try_connect(&url("serves", "")), ErrorKind::Invalid, &["permission denied", "grant"]);
    refused(try_connect(&url("serves", "&migrate=off")), ErrorKind::NotFound, &["does not exist", "migrate=on"]);
    drop(try_connect(&url("migrates", "")).expect("one that migrates can"));
    // nor use it before it may,
    refused(try_connect(&url("serves", "")), ErrorKind::Invalid, &["permission denied", "docs/operations.md"]);
    grant_serving(&schema, "serves");
    // and with what the manual says it does everything: all cases of the contract run as such a role (store.rs).
    let mut writer = Writer::new(try_connect(&url("serves", "&migrate=off")).unwrap(), "a");
    writer.commit(100).unwrap();
    let store = Arc::clone(&writer.store);
    writer.runtime.block_on(store.release(writer.database, writer.epoch, vec![])).unwrap();
    writer.runtime.block_on(store.purge(10)).unwrap();
    writer.runtime.block_on(store.list("", None, 10)).unwrap();
    server.sql(&format!("REVOKE INSERT ON {schema}.log FROM serves"));
    let mut writer = Writer::new(try_connect(&url("serves", "&migrate=off")).unwrap(), "a");
    refused(writer.commit(100), ErrorKind::Invalid, &["permission denied for table log", "grant the rights"]);
}

#[test]
fn many_may_migrate_at_once_and_a_newer_schema_is_refused() {
    let schema = fresh_schema();
    let url = format!("{}&schema={schema}", server().url());
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                drop(try_connect(&url).unwrap());
            });
        }
    });
    assert_eq!(server().sql(&format!("SELECT version FROM {schema}.version")), "1");
    server().sql(&format!("UPDATE {schema}.version SET version = 999"));
    refused(try_connect(&url), ErrorKind::Invalid, &["version 999", "use a newer program"]);
}

#[test]
fn tls_failures_are_told() {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ours = file("root.crt", root.pem());
    let stranger = rcgen::generate_simple_self_signed(vec!["else".into()]).unwrap();
    let strangers = file("stranger.crt", stranger.cert.pem());
    let mut server = Server::start(&ServerOptions::default());
    refused(
        try_connect(&format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", server.port())),
        ErrorKind::Invalid,
        &["has no TLS", "sslmode=disable"],
    );
    server.stop();
    server.encrypt(&certificate.pem(), &key.serialize_pem());
    server.resume();
    let url = |host: &str, mode: &str, root: &std::path::Path| {
        let port = server.port();
        format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}&sslrootcert={}", root.display())
    };
    for (host, mode) in [("localhost", "verify-full"), ("127.0.0.1", "verify-ca"), ("127.0.0.1", "require")] {
        let store = try_connect(&url(host, mode, &ours)).unwrap_or_else(|error| panic!("{host} {mode}: {error}"));
        Writer::new(store, mode).commit(10).unwrap();
    }
    // `require` without a file of authorities verifies nothing, as with libpq.
    try_connect(&format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", server.port())).unwrap();
    refused(
        try_connect(&url("127.0.0.1", "verify-full", &ours)),
        ErrorKind::Invalid,
        &["certificate", "host is a name in it"],
    );
    for mode in ["verify-full", "verify-ca"] {
        let words = ["certificate", "sslrootcert names the authority", "sslmode"];
        refused(try_connect(&url("localhost", mode, &strangers)), ErrorKind::Invalid, &words);
    }
    let missing = folder.path().join("missing");
    refused(try_connect(&url("localhost", "verify-ca", &missing)), ErrorKind::Invalid, &["sslrootcert", "missing"]);
}

#[test]
fn connection_limit_is_shared_and_told() {
    let server = server();
    let schema = fresh_schema();
    drop(connect(&server.url(), &schema, |config| config));
    server.sql("CREATE ROLE few LOGIN SUPERUSER CONNECTION LIMIT 3");
    let url =
        format!("postgres://few@127.0.0.1:{}/postgres?schema={schema}&pool_size=8&sslmode=disable", server.port());
    // A superuser has no limit, so that one is taken back once the schema's rights need no listing.
    server.sql(&format!(
        "ALTER ROLE few NOSUPERUSER; GRANT USAGE ON SCHEMA {schema} TO few; \
         GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO few; GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO few"
    ));
    let store = Arc::new(try_connect(&url).unwrap());
    let runtime = Runtime::new().unwrap();
    // Many calls at once wait for the few connections that there are.
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let store = Arc::clone(&store);
            runtime.spawn(async move { store.list("", None, 10).await.map(|_| ()) })
        })
        .collect();
    for call in calls {
        runtime.block_on(call).unwrap().unwrap();
    }
    // Whoever gets none at all is told.
    let others: Vec<_> = (0..4).map(|_| try_connect(&url)).collect();
    let error = others.into_iter().find_map(Result::err).expect("there are three");
    refused(Err::<(), _>(error), ErrorKind::Unavailable, &["too many connections", "max_connections"]);
}

/// Those who set it without a URL had no time-out at all: not theirs, and not the default either.
#[test]
fn statement_timeout_is_told_and_nothing_is_done() {
    let schema = fresh_schema();
    let url = format!("{}&schema={schema}&statement_timeout=300", server().url());
    statement_timeout_is_told(try_connect(&url).unwrap(), &schema);
    let schema = fresh_schema();
    let mut config = PostgresConfig::from_url(&server().url()).unwrap().schema(&schema);
    config.statement_timeout = Some(Duration::from_millis(300));
    statement_timeout_is_told(PostgresStore::connect_blocking(config).unwrap(), &schema);
}

fn statement_timeout_is_told(store: PostgresStore, schema: &str) {
    let mut writer = Writer::new(store, "a");
    writer.commit(10).unwrap();
    let (locked, lock) = std::sync::mpsc::channel();
    let port = server().port();
    let statement = format!("BEGIN; LOCK TABLE {schema}.log; SELECT pg_sleep(1.5)");
    let other = std::thread::spawn(move || {
        locked.send(()).unwrap();
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Runtime::new().unwrap().block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(&statement).await.unwrap();
        });
    });
    lock.recv().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = '{schema}.log'::regclass"
    );
    wait_until("the lock is there", Duration::from_secs(10), || server().sql(&waiting) == "1");
    refused(writer.commit(10), ErrorKind::Unavailable, &["statement timeout", "57014"]);
    other.join().unwrap();
    writer.commit(10).expect("the same txid is still free");
}

#[test]
fn isolation_that_does_not_see_others_is_refused() {
    server().sql(
        "CREATE ROLE serial LOGIN SUPERUSER; ALTER ROLE serial SET default_transaction_isolation = 'serializable'",
    );
    let url = format!("postgres://serial@127.0.0.1:{}/postgres", server().port());
    refused(try_connect(&url), ErrorKind::Invalid, &["serializable", "read committed"]);
}

/// Errors that stay say what people can do about them.
#[test]
fn errors_that_stay_come_with_advice() {
    let schema = fresh_schema();
    let mut writer = Writer::new(connect(&server().url(), &schema, |config| config), "a");
    server().sql(&format!(
        "CREATE TABLE {schema}.code (code text); INSERT INTO {schema}.code VALUES (''); \
         CREATE FUNCTION {schema}.fails() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN RAISE EXCEPTION 'no' USING ERRCODE = (SELECT code FROM {schema}.code); END $$; \
         CREATE TRIGGER fails BEFORE INSERT ON {schema}.log FOR EACH ROW EXECUTE FUNCTION {schema}.fails()"
    ));
    for (code, kind, advice) in [
        ("40001", ErrorKind::Unavailable, "pg_stat_activity"),
        ("40P01", ErrorKind::Unavailable, "pg_stat_activity"),
        ("55P03", ErrorKind::Unavailable, "pg_blocking_pids()"),
        ("0A000", ErrorKind::Unavailable, "prepared_statements=off"),
        ("53200", ErrorKind::Unavailable, "work_mem"),
        ("53400", ErrorKind::Full, "temp_file_limit"),
        ("57P05", ErrorKind::Unavailable, "idle_session_timeout"),
        ("XX002", ErrorKind::Corrupt, "backup"),
        ("P0001", ErrorKind::Unavailable, "undone"),
    ] {
        server().sql(&format!("UPDATE {schema}.code SET code = '{code}'"));
        refused(writer.commit(10), kind, &[code, advice]);
    }
    server().sql(&format!("DROP TRIGGER fails ON {schema}.log"));
    writer.commit(10).expect("nothing was done");
}

#[test]
fn standby_is_refused_or_read_from() {
    let options =
        ServerOptions { access: vec!["host replication all 127.0.0.1/32 trust".into()], ..ServerOptions::default() };
    let primary = Server::start(&options);
    let mut writer = Writer::new(try_connect(&primary.url()).unwrap(), "a");
    writer.commit(10).unwrap();
    let standby = primary.standby("standby", &options);
    refused(
        try_connect(&format!("{}&target_session_attrs=read-write", standby.url())),
        ErrorKind::Unavailable,
        &["read-only standby", "target_session_attrs"],
    );
    let follower = try_connect(&standby.url()).unwrap();
    let runtime = Runtime::new().unwrap();
    assert_eq!(runtime.block_on(follower.list("", None, 10)).unwrap().len(), 1, "followers can read there");
    let session = SessionId(rand::random());
    let start = SessionRequest { session, label: String::new(), lifetime: Duration::from_secs(5) };
    refused(
        runtime.block_on(follower.start_session(start)),
        ErrorKind::Unavailable,
        &["read-only", "list the primary"],
    );
    let (database, lock) = (writer.database, SharedLock { session, number: 1 });
    let head = HeadRequest { database, known: Txid(0), epoch: None, tail_bytes: 1 << 20 };
    let locked = [
        runtime.block_on(follower.lock_shared(SharedRequest { lock, head })).map(drop),
        runtime.block_on(follower.unlock_shared(database, lock)),
        runtime.block_on(follower.lock_exclusive(database, writer.epoch)),
        runtime.block_on(follower.unlock_exclusive(database, writer.epoch)),
    ];
    for outcome in locked {
        refused(outcome, ErrorKind::Unavailable, &["read-only", "list the primary"]);
    }
}

#[test]
fn full_disk_is_told_and_reading_goes_on() {
    let server = Server::start(&ServerOptions { small_disk: Some(24 << 20), ..ServerOptions::default() });
    server.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", server.small_disk().display()));
    let url = format!("{}&options=-c%20default_tablespace%3Dsmall", server.url());
    let mut writer = Writer::new(try_connect(&url).unwrap(), "a");
    let mut commits = 0;
    let error = loop {
        match writer.commit(1 << 20) {
            Ok(()) => commits += 1,
            Err(error) => break error,
        }
        assert!(commits < 100, "the disk is never full");
    };
    refused(Err::<(), _>(error), ErrorKind::Full, &["No space left", "make room"]);
    assert!(commits > 5, "{commits}");
    let lineage = [litefleet::store::Lineage { database: writer.database, max_txid: Txid::MAX }];
    let store = Arc::clone(&writer.store);
    let log = writer.runtime.block_on(store.read_log(&lineage, Txid(0), Txid(1))).unwrap();
    assert_eq!(log.len(), 1, "reading goes on");
    server.enlarge_small_disk(64 << 20);
    writer.commit(1 << 20).expect("there is room again, and the txid is still free");
}

/// A head that cannot be read failed the whole listing, and so whatever goes through all databases.
#[test]
fn damaged_heads_are_listed_beside_the_others() {
    let schema = fresh_schema();
    let store = Arc::new(connect(&server().url(), &schema, |config| config));
    let writers = ["a", "b", "c", "d"].map(|name| Writer::new(Arc::clone(&store), name));
    let [a, b, c, _] = &writers;
    server().sql(&format!(
        "UPDATE {schema}.heads SET size = -1 WHERE id = {}; DELETE FROM {schema}.heads WHERE id = {}; \
         UPDATE {schema}.heads SET epoch = -1 WHERE id = {}",
        a.database, b.database, c.database
    ));
    let listed = a.runtime.block_on(store.list("", None, 10)).expect("it lists");
    let told = |entry: &ListEntry| match &entry.state {
        Ok(listed) => format!("{} at {}", entry.name, listed.head.txid),
        Err(error) => format!("{error:?}: {error}"),
    };
    let told: Vec<String> = listed.iter().map(told).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    for (name, line) in ["a", "b", "c"].into_iter().zip(&told) {
        assert!(line.contains("Corrupt") && line.contains(&format!("database {name}")), "{line}");
    }
    assert_eq!(told.last().map(String::as_str), Some("d at 0"));
    // An open without a head to find looked for it until its time was over, on the server too.
    for lease in [None, Some(LeaseRequest { session: SessionId([7; 16]), force: true })] {
        let session =
            SessionRequest { session: SessionId([7; 16]), label: "test".into(), lifetime: Duration::from_secs(600) };
        a.runtime.block_on(store.start_session(session)).expect("a session starts");
        let name = DatabaseName::new("b").expect("a name");
        let request = OpenRequest { name, create: true, lease, known: None, tail_bytes: 1 << 20 };
        refused(a.runtime.block_on(store.open(request)), ErrorKind::Corrupt, &["the head of b is missing"]);
    }
    // Whoever cannot know an epoch can still remove them.
    for entry in listed.iter().take(3) {
        let database = entry.database.expect("the id can be read");
        a.runtime.block_on(store.delete(database, Epoch(0))).expect("it is damaged");
    }
    let left = a.runtime.block_on(store.list("", None, 10)).expect("it lists");
    assert_eq!(left.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["d"]);
    let healthy = left.first().and_then(|entry| entry.database).expect("it is whole");
    refused(a.runtime.block_on(store.delete(healthy, Epoch(0))), ErrorKind::Fenced, &[]);
}

/// One head that could not be read failed the watches of all.
#[test]
fn a_damaged_head_is_told_to_those_who_watch_it_and_to_nobody_else() {
    let schema = fresh_schema();
    let store = Arc::new(connect(&server().url(), &schema, |config| config));
    let damaged = Writer::new(Arc::clone(&store), "a");
    let mut healthy = Writer::new(Arc::clone(&store), "b");
    server().sql(&format!("UPDATE {schema}.heads SET txid = -1 WHERE id = {}", damaged.database));
    healthy.commit(10).unwrap();
    let news = async |database| loop {
        match store.watch(database, Txid(0)).await {
            // Nothing was seen in time.
            Ok(Txid(0)) => {}
            told => return told,
        }
    };
    // Both are watched when somebody looks, but perhaps the first time.
    for _ in 0..10 {
        let both = join(news(damaged.database), news(healthy.database));
        let (of_damaged, of_healthy) = damaged.runtime.block_on(both);
        assert_eq!(of_healthy.unwrap(), Txid(1));
        refused(of_damaged, ErrorKind::Corrupt, &[&format!("id {}", damaged.database), "damaged"]);
    }
}
