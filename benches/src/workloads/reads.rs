//! Reads of single rows of a database that is in memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use litefleet::FleetSettings;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use rusqlite::Connection;

use super::Workload;
use crate::child::Task;
use crate::engine::{Engine, Stock, Store};
use crate::report::{Goal, Row};
use crate::runner::{Plan, Runner};
use crate::sample::{Sample, sample};

pub(super) const WORKLOAD: Workload = Workload {
    name: "reads",
    about: "A prepared SELECT of one row by its rowid, at random, in a database of about 50 MB. SQLite's cache is its \
            default of 2 MB, so nearly every read of a leaf goes to the VFS: to Litefleet's page cache, which holds the \
            database, or to the operating system's, by `pread`. Once with a transaction per SELECT, once within one.",
    rows,
    child,
};

const BODY: usize = 100;

fn rows(runner: &Runner) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (within, what) in [(0, "point reads, a transaction each"), (1, "point reads within one transaction")] {
        let plan = Plan {
            workload: WORKLOAD.name,
            parameters: vec![("rows", 420_000), ("within", within), ("millis", runner.options.scale(3000, 700))],
            prepare: false,
            fsync_micros: None,
        };
        let rounds = runner.compare(&plan)?;
        let misses = rounds.litefleet("misses")?;
        rows.push(
            Row::of(what, "reads/s", "rate", Goal::RatioAtLeast(0.95), rounds)?
                .with_traffic("round_trips_each", "sent_each")?
                .with_note(format!("{misses:.0} reads missed Litefleet's cache")),
        );
    }
    Ok(rows)
}

fn child(task: &Task) -> Result<Sample> {
    let engine = Engine::open(task, Store::Memory, Stock::Default, FleetSettings::default())?;
    let rows = i64::try_from(task.parameter("rows")?)?;
    let keep = engine.connect("reads")?;
    fill(&keep, rows)?;
    // A new connection has an empty cache; the old one keeps the database open.
    let connection = engine.connect("reads")?;
    let scanned: i64 = connection.query_row("SELECT sum(length(body)) FROM entries", [], |row| row.get(0))?;
    ensure!(scanned == rows * i64::try_from(BODY)?, "not all rows are there");

    let misses = || match &engine {
        Engine::Litefleet(fleet) => fleet.counters().get(litefleet::store::Operation::ReadPages).calls,
        Engine::Stock { .. } => 0,
    };
    let time = Duration::from_millis(task.parameter("millis")?);
    let within = task.parameter("within")? == 1;
    if within {
        connection.execute_batch("BEGIN; SELECT 1 FROM entries LIMIT 1;")?;
    }
    let mut statement = connection.prepare("SELECT body FROM entries WHERE id = ?")?;
    let mut random = SmallRng::seed_from_u64(7);
    let (traffic, missed) = (engine.traffic(), misses());
    let begin = Instant::now();
    let (mut reads, mut bytes) = (0u64, 0);
    while begin.elapsed() < time {
        // The clock is asked once for many reads.
        for _ in 0..64 {
            let id = random.random_range(1..=rows);
            bytes += statement.query_row([id], |row| Ok(row.get_ref(0)?.as_blob()?.len()))?;
            reads += 1;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(bytes as u64 == reads * BODY as u64, "a row has another length");
    let mut sample =
        sample([("rate", reads as f64 / seconds), ("reads", reads as f64), ("misses", (misses() - missed) as f64)]);
    engine.traffic().since(traffic).note(reads as f64, &mut sample);
    drop(statement);
    if within {
        connection.execute_batch("COMMIT")?;
    }
    drop((connection, keep));
    engine.close()?;
    Ok(sample)
}

fn fill(connection: &Connection, rows: i64) -> Result<()> {
    connection.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY, body BLOB NOT NULL); BEGIN")?;
    let mut random = SmallRng::seed_from_u64(1);
    let mut insert = connection.prepare("INSERT INTO entries VALUES (?, ?)")?;
    let mut body = [0; BODY];
    for id in 1..=rows {
        random.fill_bytes(&mut body);
        insert.execute((id, body.as_slice()))?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}
