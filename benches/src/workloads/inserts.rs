//! Transactions of one inserted row, on one database and on many at once.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use litefleet::FleetSettings;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rusqlite::Connection;

use super::Workload;
use crate::child::Task;
use crate::engine::{Engine, Stock, Store};
use crate::report::{Goal, Row};
use crate::runner::{Plan, Runner};
use crate::sample::{Sample, percentile, sample};

pub(super) const ONE: Workload = Workload {
    name: "inserts",
    about: "Transactions of one inserted row of 100 random bytes, one after the other, durable: over the embedded store; \
            stock SQLite with `journal_mode=WAL` and `synchronous=FULL` on the same disk. Once with fsync as it is, once \
            with every fsync taking at least 1 ms and one at a time, as on a disk that is slower or shared.",
    rows: one,
    child,
};

pub(super) const MANY: Workload = Workload {
    name: "inserts-64",
    about: "The same from 64 threads of one process, each with a database of its own; stock SQLite with 64 files.",
    rows: many,
    child,
};

const BODY: usize = 100;
const DATABASES: u64 = 64;
const SLOW_MICROS: u64 = 1000;

fn one(runner: &Runner) -> Result<Vec<Row>> {
    let goals = [(0, Goal::RatioAtLeast(0.5), Goal::None), (SLOW_MICROS, Goal::RatioAtLeast(0.95), Goal::AtMost(1.05))];
    both(runner, ONE.name, 1, goals)
}

fn many(runner: &Runner) -> Result<Vec<Row>> {
    let goals = [(0, Goal::RatioAtLeast(0.7), Goal::None), (SLOW_MICROS, Goal::RatioAtLeast(10.0), Goal::None)];
    both(runner, MANY.name, DATABASES, goals)
}

fn both(runner: &Runner, workload: &'static str, databases: u64, goals: [(u64, Goal, Goal); 2]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (micros, commits, fsyncs) in goals {
        let plan = Plan {
            workload,
            parameters: vec![("databases", databases), ("millis", runner.options.scale(3000, 700))],
            prepare: true,
            fsync_micros: Some(micros),
        };
        let mut rounds = runner.compare(&plan)?;
        for sample in rounds.litefleet.iter_mut().chain(&mut rounds.stock) {
            let each = sample.get("fsyncs").zip(sample.get("commits")).map(|(fsyncs, commits)| fsyncs / commits);
            sample.insert("fsyncs_each".to_owned(), each.unwrap_or(f64::NAN));
        }
        let fsync = if micros == 0 { "fsync as it is".to_owned() } else { format!("fsync of {} ms", micros / 1000) };
        let what = match databases {
            1 => format!("single-row inserts, {fsync}"),
            count => format!("single-row inserts from {count} databases, {fsync}"),
        };
        let note = format!(
            "p50 {:.2} / {:.2} ms, p99 {:.2} / {:.2} ms",
            rounds.litefleet("p50_ms")?,
            rounds.stock("p50_ms")?,
            rounds.litefleet("p99_ms")?,
            rounds.stock("p99_ms")?
        );
        rows.push(
            Row::of(&what, "commits/s", "rate", commits, rounds.clone())?
                .with_traffic("round_trips_each", "sent_each")?
                .with_note(note),
        );
        rows.push(Row::of(&format!("… fsyncs per commit, {fsync}"), "", "fsyncs_each", fsyncs, rounds)?);
    }
    Ok(rows)
}

fn name(index: u64) -> String {
    format!("inserts-{index}")
}

fn child(task: &Task) -> Result<Sample> {
    let engine = Engine::open(task, Store::Embedded, Stock::Wal, FleetSettings::default())?;
    let databases = task.parameter("databases")?;
    if task.phase == "prepare" {
        for index in 0..databases {
            let connection = engine.connect(&name(index))?;
            connection.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
        }
        engine.close()?;
        return Ok(Sample::new());
    }
    let time = Duration::from_millis(task.parameter("millis")?);
    let connections: Vec<Connection> =
        (0..databases).map(|index| engine.connect(&name(index))).collect::<Result<_>>()?;
    for connection in &connections {
        // The lease is taken and the cache filled before the clock runs.
        insert_row(connection, &mut SmallRng::seed_from_u64(0))?;
    }
    let before = engine.traffic();
    let start_line = Barrier::new(connections.len());
    let begin = Instant::now();
    let taken: Vec<Vec<u32>> = thread::scope(|scope| {
        let run = |(seed, connection): (u64, Connection)| {
            let start_line = &start_line;
            scope.spawn(move || {
                start_line.wait();
                insert_for(&connection, seed, time)
            })
        };
        let threads: Vec<_> = (1..).zip(connections).map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<_>>()
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut micros = taken.concat();
    micros.sort_unstable();
    let commits = micros.len() as f64;
    let mut sample = sample([
        ("commits", commits),
        ("rate", commits / seconds),
        ("p50_ms", percentile(&micros, 0.5) / 1000.0),
        ("p99_ms", percentile(&micros, 0.99) / 1000.0),
        ("max_ms", percentile(&micros, 1.0) / 1000.0),
    ]);
    engine.traffic().since(before).note(commits, &mut sample);
    engine.close()?;
    Ok(sample)
}

fn insert_row(connection: &Connection, random: &mut SmallRng) -> Result<()> {
    let mut body = [0; BODY];
    random.fill_bytes(&mut body);
    connection.prepare_cached("INSERT INTO entries (body) VALUES (?)")?.execute([body.as_slice()])?;
    Ok(())
}

/// Inserts until the time is up. Returns what each took, in microseconds.
fn insert_for(connection: &Connection, seed: u64, time: Duration) -> Result<Vec<u32>> {
    let mut random = SmallRng::seed_from_u64(seed);
    let begin = Instant::now();
    let mut taken = Vec::new();
    let mut last = begin;
    while last - begin < time {
        insert_row(connection, &mut random)?;
        let now = Instant::now();
        taken.push(u32::try_from((now - last).as_micros()).unwrap_or(u32::MAX));
        last = now;
    }
    Ok(taken)
}
