//! What SQLite does, in round trips on the wire.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet_conformance::faults::Process;
use litefleet_postgres::Prepared;
use litefleet_postgres::testing::Proxy;
use rusqlite::Connection;
use support::{connect, fresh_schema, server};

fn read(connection: &Connection, key: i64) -> i64 {
    connection.query_row("SELECT length(v) FROM t WHERE k = ?", [key], |row| row.get(0)).unwrap()
}

/// An open with warm pages, a miss, a commit and a close are one round trip each.
#[test]
fn one_round_trip_each() {
    for prepared in [Prepared::On, Prepared::Off] {
        let (proxy, schema) = (Proxy::start(server().port()), fresh_schema());
        let process = || {
            // Renewals are round trips too, every few seconds for the whole process: they are not what is counted here.
            let settings = FleetSettings { session_lifetime: Duration::from_secs(3600), ..FleetSettings::default() };
            let store = connect(&proxy.url(), &schema, |config| config.prepared(prepared));
            Process::new(Arc::new(store), settings)
        };
        let first = process();
        let connection = first.open("a", "");
        connection
            .execute_batch(
                "CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB); \
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
                 INSERT INTO t SELECT i, randomblob(3000) FROM n",
            )
            .unwrap();
        drop(connection);
        // What is read first is what the next open gets along with it.
        let connection = first.open("a", "");
        read(&connection, 1);
        drop(connection);
        drop(first);
        // Another process, whose cache is empty; its connection to the server is there, and its session.
        let second = process();
        second.open("warm-up", "").query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap();
        let before = Cell::new(proxy.round_trips());
        let trip = |what: &str| {
            let now = proxy.round_trips();
            assert_eq!(now - before.replace(now), 1, "{what}, {prepared:?}");
        };
        let connection = second.open("a", "");
        read(&connection, 1);
        trip("an open for writing with warm pages, and reading them");
        read(&connection, 200);
        trip("a miss");
        read(&connection, 1);
        connection.execute("UPDATE t SET v = 'x' WHERE k = 1", []).unwrap();
        trip("a commit, and reading under the lease");
        // A close is one round trip after the last checkpoint.
        connection.execute_batch("PRAGMA litefleet_checkpoint").unwrap();
        before.set(proxy.round_trips());
        drop(connection);
        trip("a close");
    }
}
