//! One connection, used by threads of SQLite's, which look at its socket themselves, and by tasks of a runtime, which looks at
//! it for them.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::sync::Arc;

use litefleet::DatabaseName;
use litefleet::store::{OpenRequest, PageStore, Tail};
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Server, ServerOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use support::{connect, fresh_schema, place, server};
use tokio::runtime::Builder;

/// More than a socket takes at once, in both directions.
const BYTES: i64 = 3 << 20;

fn each_in_turn(url: &str) {
    // One connection for all calls.
    let store: Arc<dyn PageStore> = Arc::new(connect(url, &fresh_schema(), |config| config.pool_size(1)));
    let settings = || {
        let mut settings = place::settings();
        // All of it stays in the log, where the tasks find it.
        settings.database.checkpoint_bytes = usize::MAX;
        settings.database.checkpoint_records = usize::MAX;
        settings.database.checkpoint_pages = usize::MAX;
        settings.database.transaction_bytes = 64 << 20;
        settings
    };
    let process = Process::new(Arc::clone(&store), settings());
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v BLOB)").unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for round in 1..=3 {
        connection.execute("INSERT INTO t VALUES (randomblob(?))", [BYTES]).unwrap();
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let store = Arc::clone(&store);
                let name = DatabaseName::new("a").unwrap();
                let request = OpenRequest { name, create: false, lease: None, known: None, tail_bytes: usize::MAX };
                runtime.spawn(async move { store.open(request).await.unwrap().tail })
            })
            .collect();
        // At the same moment, with the same connection.
        let reader = Process::new(Arc::clone(&store), settings());
        let length: i64 = reader.follow("a").query_row("SELECT sum(length(v)) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(length, round * BYTES);
        for task in tasks {
            let Tail::Complete(log) = runtime.block_on(task).unwrap() else { panic!("the log is not all there") };
            let bytes: usize = log.iter().map(|row| row.record.len()).sum();
            assert!(bytes > usize::try_from(round * BYTES).unwrap(), "{bytes} in round {round}");
        }
    }
}

#[test]
fn over_tcp() {
    each_in_turn(&server().url());
}

#[test]
fn over_a_unix_socket() {
    let folder = server().folder().display().to_string().replace('/', "%2F");
    each_in_turn(&format!("postgres://postgres@{folder}:{}/postgres", server().port()));
}

#[test]
fn over_tls() {
    let mut server = Server::start(&ServerOptions::default());
    server.stop();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    server.encrypt(&cert.pem(), &signing_key.serialize_pem());
    server.resume();
    each_in_turn(&server.url().replace("disable", "require"));
}
