//! Writers, while the cluster's processes are killed and started again. Only on demand, on a cluster that the operator can
//! do that to:
//!
//! ```sh
//! LITEFLEET_FDB_RESTART_COMMAND='…' cargo test -p litefleet-fdb --test restarts -- --ignored
//! ```

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::Place;
use litefleet::Fleet;
use litefleet_fdb::FdbStore;
use rusqlite::{Connection, ErrorCode, OpenFlags};

const ROUNDS: u32 = 8;
const WRITERS: u32 = 8;

fn connect(vfs: &str, name: &str) -> Connection {
    let uri = format!("file:{name}?vfs={vfs}&busy=60000");
    Connection::open_with_flags(uri, OpenFlags::default()).expect("it opens")
}

/// Lets the writers get somewhere.
#[expect(clippy::disallowed_methods, reason = "the cluster's processes start and stop in real time")]
fn go_on() {
    std::thread::sleep(Duration::from_secs(2));
}

/// Counts up until it is told to stop. Returns what was acknowledged last.
fn write(vfs: &str, name: &str, stop: &AtomicBool) -> i64 {
    let mut connection = connect(vfs, name);
    connection.execute_batch("CREATE TABLE t(v INTEGER NOT NULL)").expect("made");
    let mut last = 0;
    while !stop.load(Ordering::SeqCst) {
        match connection.execute("INSERT INTO t VALUES(?1)", [last + 1]) {
            Ok(_) => last += 1,
            // It was tried for as long as the settings say: it has not happened, or the database says that it cannot
            // tell, until it is opened again.
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code != ErrorCode::ConstraintViolation => {
                connection = connect(vfs, name);
                let count: i64 =
                    connection.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).expect("it reads");
                assert!(count == last || count == last + 1, "{name}: {count} rows, {last} were acknowledged");
                last = count;
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    last
}

#[test]
#[ignore = "kills a cluster: run on demand, with LITEFLEET_FDB_RESTART_COMMAND"]
fn acknowledged_commits_outlive_the_death_of_the_clusters_processes() {
    let command = std::env::var("LITEFLEET_FDB_RESTART_COMMAND").expect("a command that kills and starts the cluster");
    let place = Place::new();
    let store = FdbStore::open_blocking(place.config()).expect("the store opens");
    let fleet = Fleet::builder(Arc::new(store)).build().expect("a fleet");
    fleet.register("restarts", false).expect("registered");
    let stop = AtomicBool::new(false);
    let names: Vec<String> = (0..WRITERS).map(|index| format!("db-{index}")).collect();
    let written: Vec<i64> = std::thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> = names.iter().map(|name| scope.spawn(move || write("restarts", name, stop))).collect();
        let restart = |_| {
            go_on();
            Command::new("sh").args(["-c", &command]).status().expect("a shell")
        };
        let refused = (0..ROUNDS).map(restart).find(|status| !status.success());
        go_on();
        // Before anything else: the writers would not end.
        stop.store(true, Ordering::SeqCst);
        assert!(refused.is_none(), "{command}: {refused:?}");
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    fleet.shutdown().expect("all leases are given back");
    // Another process, as it were.
    let store = FdbStore::open_blocking(place.config()).expect("the store opens");
    let fleet = Fleet::builder(Arc::new(store)).build().expect("a fleet");
    fleet.register("restarted", false).expect("registered");
    for (name, last) in names.iter().zip(written) {
        assert!(last > 0, "{name} got nowhere");
        let connection = connect("restarted", name);
        let found: (i64, i64) = connection
            .query_row("SELECT count(*), max(v) FROM t", (), |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("it reads");
        assert_eq!(found, (last, last), "{name}: each once, and nothing else");
        let check: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).expect("it reads");
        assert_eq!(check, "ok", "{name}");
    }
    fleet.shutdown().expect("all leases are given back");
}
