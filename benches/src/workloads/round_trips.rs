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

/// What the operation is called in the sample, what it is, and its budget (see the design).
const OPERATIONS: [(&str, &str, Option<f64>); 14] = [
    ("open_clean", "open a cleanly closed database for write, and read its warm pages", Some(1.0)),
    ("open_crashed", "open after a crash, the tail within its inline bound", Some(1.0)),
    ("open_long", "open after a crash, the tail over its inline bound", Some(2.0)),
    ("open_new", "open after a crash of a database that was never closed", Some(1.0)),
    ("commit", "small commit", Some(1.0)),
    ("read", "read transaction under a lease", Some(0.0)),
    ("miss", "cache miss of one page", Some(1.0)),
    ("scan", "scan of 500 pages that are not cached", None),
    ("follow_open", "open for reading alone", Some(1.0)),
    ("follow", "follower's read transaction", Some(1.0)),
    ("follow_stale", "follower's read transaction within its allowed staleness", Some(0.0)),
    ("commits", "commits of 64 databases at the same moment: one goes ahead, and the rest share a call", Some(2.0)),
    ("large", "transaction of 40 MB, staged 256 pages at a time", None),
    ("close", "close, after the last checkpoint", Some(1.0)),
];

fn rows(runner: &Runner) -> Result<Vec<Row>> {
    let plan = Plan { workload: WORKLOAD.name, parameters: Vec::new(), prepare: false, fsync_micros: None };
    let sample = runner.once(&plan, Side::Litefleet)?;
    let row = |(name, what, budget): &(&str, &str, Option<f64>)| -> Result<Row> {
        let count = *sample.get(*name).with_context(|| format!("{what} was not counted"))?;
        let calls = sample.iter().filter_map(|(key, calls)| {
            let operation = key.strip_prefix(name)?.strip_prefix(':')?;
            Some(format!("{calls} {operation}"))
        });
        let calls = calls.collect::<Vec<_>>().join(", ");
        Ok(Row::counted(what, count, budget.map_or(Goal::None, Goal::AtMost)).with_note(calls))
    };
    OPERATIONS.iter().map(row).collect()
}

/// Counts the round trips of a fleet into a sample: all of them under a name, and of each operation under `name:operation`.
struct Count<'a>(&'a mut Sample);

impl Count<'_> {
    fn of<T>(&mut self, fleet: &Fleet, name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = fleet.counters().all();
        let value = body()?;
        let mut sum = 0.0;
        for (operation, counts) in fleet.counters().all() {
            let calls = counts.calls - before.get(operation).map_or(0, |counts| counts.calls);
            if calls > 0 {
                self.0.insert(format!("{name}:{operation}"), calls as f64);
                sum += calls as f64;
            }
        }
        self.0.insert(name.to_owned(), sum);
        Ok(value)
    }
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

/// Takes the write lock, which opens the database.
fn open(connection: &Connection) -> Result<()> {
    Ok(connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?)
}

fn child(_: &Task) -> Result<Sample> {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::new(Arc::new(SystemClock::default())));
    let mut sample = Sample::new();
    let mut trips = Count(&mut sample);
    let a = fleet(&store, "a", FleetSettings::default())?;
    // This one lets a tail grow beyond what comes along with an open.
    let mut settings = FleetSettings::default();
    settings.database.checkpoint_bytes = 64 << 20;
    let b = fleet(&store, "b", settings)?;

    one_database(&mut trips, &a, &b)?;
    crashes(&mut trips, &a)?;

    drop(make("b", "large", 600)?);
    let large = connect("a", "large", "")?;
    open(&large)?;
    large.execute_batch("SELECT length(body) FROM entries WHERE id = 1")?;
    trips.of(&a, "miss", || Ok(large.execute_batch("SELECT length(body) FROM entries WHERE id = 50")?))?;
    let scan = "SELECT sum(length(body)) FROM entries WHERE id > 60 AND id <= 560";
    trips.of(&a, "scan", || Ok(large.query_row(scan, [], |row| row.get::<_, i64>(0))?))?;

    let staged = trips.of(&a, "large", || make("a", "staged", 10_000))?;
    drop(staged);
    commits_at_once(&mut trips, store)?;
    Ok(sample)
}

/// The life of a small database.
fn one_database(trips: &mut Count<'_>, a: &Fleet, b: &Fleet) -> Result<()> {
    // Its few pages are read, and so are warm, before it is closed.
    drop(make("a", "small", 10)?);
    count(&connect("b", "small", "")?)?;
    let connection = trips.of(a, "open_clean", || {
        let connection = connect("a", "small", "")?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        count(&connection)?;
        connection.execute_batch("ROLLBACK")?;
        Ok(connection)
    })?;
    let follower = trips.of(b, "follow_open", || {
        let follower = connect("b", "small", "&mode=ro")?;
        // One read transaction; a query would be two, as SQLite reads the schema in one of its own.
        follower.execute_batch("PRAGMA user_version")?;
        Ok(follower)
    })?;
    count(&follower)?;
    trips.of(b, "follow", || count(&follower))?;
    let stale = connect("b", "small", "&mode=ro&staleness=60000")?;
    count(&stale)?;
    trips.of(b, "follow_stale", || count(&stale))?;

    trips.of(a, "commit", || insert(&connection, 100))?;
    trips.of(a, "read", || count(&connection))?;
    let _text: String = connection.query_row("PRAGMA litefleet_checkpoint", [], |row| row.get(0))?;
    trips.of(a, "close", || {
        drop(connection);
        Ok(())
    })
}

/// Opens what another process left as a crash leaves it: without a checkpoint, and with the lease not given back.
fn crashes(trips: &mut Count<'_>, a: &Fleet) -> Result<()> {
    for (name, closed_before, rows) in [("open_crashed", true, 10), ("open_long", true, 1500), ("open_new", false, 10)]
    {
        let mut abandoned = make("b", name, 1)?;
        // What is read between an open and a close is warm at the next open.
        for _ in 0..if closed_before { 2 } else { 0 } {
            drop(abandoned);
            abandoned = connect("b", name, "")?;
            count(&abandoned)?;
        }
        for id in 2..rows {
            insert(&abandoned, id)?;
        }
        let connection = connect("a", name, "&takeover=1")?;
        trips.of(a, name, || open(&connection))?;
    }
    Ok(())
}

/// Commits of many databases at the same moment, when a call of the store takes 50 ms.
fn commits_at_once(trips: &mut Count<'_>, store: Arc<dyn PageStore>) -> Result<()> {
    let far = Latency(Duration::from_millis(50));
    let store: Arc<dyn PageStore> = Arc::new(LatencyLayer::new(store, Arc::new(far)));
    let fleet = fleet(&store, "far", FleetSettings::default())?;
    let names: Vec<String> = (0..BATCH).map(|index| format!("batch-{index}")).collect();
    let connections = each(names, |name| make("far", &name, 1))?;
    let start_line = Barrier::new(BATCH);
    let commit = |connection: Connection| {
        start_line.wait();
        insert(&connection, 2).map(|()| connection)
    };
    // The connections are closed after the count.
    trips.of(&fleet, "commits", || each(connections, commit)).map(drop)
}

/// Does something with each of many values, on a thread each.
fn each<T: Send, R: Send>(values: Vec<T>, body: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let body = &body;
        let threads: Vec<_> = values.into_iter().map(|value| scope.spawn(move || body(value))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<R>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}
