//! How many round trips each operation takes: counted, not timed.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use litefleet::clock::SystemClock;
use litefleet::store::{Latency, LatencyLayer, MemoryStore, PageStore};
use litefleet::{Fleet, FleetSettings};
use rusqlite::Connection;

use super::Workload;
use crate::child::{Side, Task};
use crate::report::{Goal, Row};
use crate::runner::{Plan, Runner};
use crate::sample::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "round-trips",
    about: "Round trips of single operations, counted by the layer around the store.",
    rows,
    child,
};

const BATCH: usize = 64;

/// An operation, its budget (see the design), and what it is called in the sample.
const OPERATIONS: [(&str, &str, Option<f64>); 12] = [
    ("open_clean", "open a cleanly closed database for write, and read its warm pages", Some(1.0)),
    ("open_crashed", "open after a crash, the tail within its inline bound", Some(1.0)),
    ("open_long", "open after a crash, the tail over its inline bound", Some(2.0)),
    ("commit", "small commit", Some(1.0)),
    ("read", "read transaction under a lease", Some(0.0)),
    ("miss", "cache miss of one page", Some(1.0)),
    ("scan", "scan of 500 pages that are not cached", None),
    ("follow_open", "open for reading alone, and read", Some(1.0)),
    ("follow", "follower's read transaction", Some(1.0)),
    ("follow_stale", "follower's read transaction within its allowed staleness", Some(0.0)),
    ("commits", "commits of 64 databases at the same moment: one goes ahead, and the rest share a call", Some(2.0)),
    ("close", "close, after the last checkpoint", Some(1.0)),
];

fn rows(runner: &Runner) -> Result<Vec<Row>> {
    let plan = Plan { workload: WORKLOAD.name, parameters: Vec::new(), prepare: false, fsync_micros: None };
    let sample = runner.once(&plan, Side::Litefleet)?;
    let row = |(name, what, budget): &(&str, &str, Option<f64>)| -> Result<Row> {
        let count = *sample.get(*name).with_context(|| format!("{what} was not counted"))?;
        Ok(Row::counted(what, count, budget.map_or(Goal::None, Goal::AtMost)))
    };
    OPERATIONS.iter().map(row).collect()
}

/// A fleet on a store, under a VFS name of its own, with its session started.
fn fleet(store: &Arc<dyn PageStore>, vfs: &str, settings: FleetSettings) -> Result<Fleet> {
    let fleet = Fleet::builder(Arc::clone(store)).settings(settings).build()?;
    fleet.register(vfs, false)?;
    connect(vfs, "session", "")?.execute_batch("PRAGMA user_version = 1")?;
    Ok(fleet)
}

fn connect(vfs: &str, name: &str, parameters: &str) -> Result<Connection> {
    Ok(Connection::open(format!("file:{name}?vfs={vfs}{parameters}"))?)
}

fn trips<T>(fleet: &Fleet, body: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let before = fleet.counters().round_trips();
    let value = body()?;
    Ok(((fleet.counters().round_trips() - before) as f64, value))
}

/// Makes a table of `rows` rows, each of which has a page of its own.
fn make(vfs: &str, name: &str, rows: i64) -> Result<Connection> {
    let connection = connect(vfs, name, "")?;
    connection.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY, body BLOB NOT NULL); BEGIN")?;
    for id in 1..=rows {
        insert(&connection, id)?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(connection)
}

fn insert(connection: &Connection, id: i64) -> Result<()> {
    connection.prepare_cached("INSERT INTO entries VALUES (?, randomblob(3000))")?.execute([id])?;
    Ok(())
}

fn count(connection: &Connection) -> Result<i64> {
    Ok(connection
        .prepare_cached("SELECT count(*) FROM entries WHERE length(body) > 0")?
        .query_row([], |row| row.get(0))?)
}

fn child(_: &Task) -> Result<Sample> {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::new(Arc::new(SystemClock::default())));
    let mut sample = Sample::new();
    let mut note = |name: &str, trips: f64| sample.insert(name.to_owned(), trips);
    let a = fleet(&store, "a", FleetSettings::default())?;
    // This one lets a tail grow beyond what comes along with an open.
    let mut settings = FleetSettings::default();
    settings.database.checkpoint_bytes = 64 << 20;
    let b = fleet(&store, "b", settings)?;

    // Its few pages are read, and so are warm, before it is closed.
    drop(make("a", "clean", 10)?);
    count(&connect("b", "clean", "")?)?;
    let (opened, clean) = trips(&a, || {
        let connection = connect("a", "clean", "")?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        count(&connection)?;
        connection.execute_batch("ROLLBACK")?;
        Ok(connection)
    })?;
    note("open_clean", opened);

    note("commit", trips(&a, || insert(&clean, 100))?.0);
    note("read", trips(&a, || count(&clean))?.0);
    let _text: String = clean.query_row("PRAGMA litefleet_checkpoint", [], |row| row.get(0))?;
    note("close", trips(&a, || Ok(drop(clean)))?.0);

    // As after a crash: the holder has made no checkpoint and did not give the lease back.
    for (name, rows, operation) in [("short", 10, "open_crashed"), ("long", 2000, "open_long")] {
        let abandoned = make("b", name, 0)?;
        for id in 1..=rows {
            insert(&abandoned, id)?;
        }
        let (opened, connection) = trips(&a, || {
            let connection = connect("a", name, "&takeover=1")?;
            connection.execute_batch("PRAGMA user_version")?;
            connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
            Ok(connection)
        })?;
        note(operation, opened);
        drop((connection, abandoned));
    }

    drop(make("b", "large", 600)?);
    let large = connect("a", "large", "")?;
    large.execute_batch("BEGIN IMMEDIATE; ROLLBACK; SELECT 1 FROM entries WHERE id = 1")?;
    note("miss", trips(&a, || Ok(large.execute_batch("SELECT length(body) FROM entries WHERE id = 50")?))?.0);
    let scan = "SELECT sum(length(body)) FROM entries WHERE id > 60 AND id <= 560";
    note("scan", trips(&a, || Ok(large.query_row(scan, [], |row| row.get::<_, i64>(0))?))?.0);

    let (opened, follower) = trips(&b, || {
        let follower = connect("b", "clean", "&mode=ro")?;
        count(&follower)?;
        Ok(follower)
    })?;
    note("follow_open", opened);
    note("follow", trips(&b, || count(&follower))?.0);
    let stale = connect("b", "clean", "&mode=ro&staleness=60000")?;
    count(&stale)?;
    note("follow_stale", trips(&b, || count(&stale))?.0);

    note("commits", commits_at_once(store)?);
    Ok(sample)
}

/// Store calls for commits of many databases at the same moment, when a call takes 50 ms.
fn commits_at_once(store: Arc<dyn PageStore>) -> Result<f64> {
    let far = Latency(Duration::from_millis(50));
    let store: Arc<dyn PageStore> = Arc::new(LatencyLayer::new(store, Arc::new(far)));
    let fleet = fleet(&store, "far", FleetSettings::default())?;
    let connections: Vec<Connection> = thread::scope(|scope| {
        let open = |index| scope.spawn(move || make("far", &format!("batch-{index}"), 1));
        let threads: Vec<_> = (0..BATCH).map(open).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<_>>()
    })?;
    let start_line = Barrier::new(BATCH);
    let run = || {
        thread::scope(|scope| {
            let start_line = &start_line;
            let commit = |connection: Connection| {
                scope.spawn(move || {
                    start_line.wait();
                    insert(&connection, 2).map(|()| connection)
                })
            };
            let threads: Vec<_> = connections.into_iter().map(commit).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
        })
    };
    let (calls, connections): (f64, Vec<Connection>) = trips(&fleet, run)?;
    drop(connections);
    Ok(calls)
}
