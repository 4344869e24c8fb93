//! What a database costs that is open and that nobody uses.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use litefleet::FleetSettings;
use rusqlite::Connection;

use super::Workload;
use crate::child::Task;
use crate::engine::{Engine, Stock, Store};
use crate::machine;
use crate::report::{Goal, Row};
use crate::runner::{Plan, Runner};
use crate::sample::{Sample, median, sample};

pub(super) const WORKLOAD: Workload = Workload {
    name: "idle",
    about: "Many databases open at once, each with its lease held and one row read from it, then idle. What they add to the \
            process's memory, by their number. SQLite's own connections are on both sides; the embedded store is \
            Litefleet's, and its page cache is set to 1 MiB, as it is bounded for all databases together. Quoted is what \
            Litefleet takes more than stock SQLite.",
    rows,
    child,
};

const CACHE: usize = 1 << 20;
const KIB: f64 = 1024.0;

fn rows(runner: &Runner) -> Result<Vec<Row>> {
    let databases = runner.options.scale(10_000, 1000);
    let plan =
        Plan { workload: WORKLOAD.name, parameters: vec![("databases", databases)], prepare: true, fsync_micros: None };
    let rounds = runner.compare(&plan)?;
    let (ours, stock) = rounds.medians("kib_each")?;
    let more = median(
        rounds
            .litefleet
            .iter()
            .zip(&rounds.stock)
            .filter_map(|(a, b)| Some(a.get("kib_each")? - b.get("kib_each")?))
            .collect(),
    );
    let what = format!("memory of each of {databases} idle databases");
    let note = format!(
        "{more:.1} KiB each beyond SQLite's own connection; open and first read {:.0} / {:.0} µs",
        rounds.litefleet("open_micros")?,
        rounds.stock("open_micros")?
    );
    let goal = Goal::Difference { below: 16.0, difference: ours - stock };
    Ok(vec![
        Row::of(&what, "KiB", "kib_each", goal, rounds)?.with_traffic("round_trips_each", "sent_each")?.with_note(note),
    ])
}

fn name(index: u64) -> String {
    format!("idle-{index}")
}

fn child(task: &Task) -> Result<Sample> {
    let settings = FleetSettings { cache_bytes: CACHE, ..FleetSettings::default() };
    let engine = Engine::open(task, Store::Embedded, Stock::Default, settings)?;
    let databases = task.parameter("databases")?;
    if task.phase == "prepare" {
        for index in 0..databases {
            let connection = engine.connect(&name(index))?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.execute_batch(
                "BEGIN; CREATE TABLE entries (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
                 INSERT INTO entries (body) VALUES ('one row'); COMMIT",
            )?;
        }
        engine.close()?;
        return Ok(Sample::new());
    }
    let open = |name: &str| -> Result<Connection> {
        let connection = engine.connect(name)?;
        let rows: i64 = connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
        ensure!(rows == 1, "{name} has {rows} rows");
        Ok(connection)
    };
    // What is needed once is there before anything is counted.
    let first = open(&name(0))?;
    let (before, traffic) = (machine::status_bytes("VmRSS:")?, engine.traffic());
    let begin = std::time::Instant::now();
    let connections: Vec<Connection> = (1..databases).map(|index| open(&name(index))).collect::<Result<_>>()?;
    let seconds = begin.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs(2));
    let after = machine::status_bytes("VmRSS:")?;
    let count = connections.len() as f64;
    let mut sample =
        sample([("kib_each", (after as f64 - before as f64) / KIB / count), ("open_micros", seconds * 1e6 / count)]);
    engine.traffic().since(traffic).note(count, &mut sample);
    // Closing them one by one is not what is measured; the lease goes with the session.
    drop(first);
    drop(connections);
    engine.close()?;
    Ok(sample)
}
