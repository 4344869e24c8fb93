//! One transaction that is much larger than the memory allowed for it.

use std::time::Instant;

use anyhow::{Result, ensure};
use litefleet::FleetSettings;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::Workload;
use crate::child::Task;
use crate::engine::{Engine, Stock, Store};
use crate::report::{Goal, Row};
use crate::runner::{Plan, Runner};
use crate::sample::{Sample, sample};

pub(super) const WORKLOAD: Workload = Workload {
    name: "load",
    about: "1 GiB of rows of 1,000 random bytes in one transaction, over the embedded store with `transaction_bytes` and \
            `cache_bytes` of 32 MiB each; stock SQLite with `journal_mode=WAL` and `synchronous=FULL`. The time is up to \
            the end of the commit; the memory is the peak of the whole process.",
    rows,
    child,
};

const BODY: usize = 1000;
const MEMORY: usize = 32 << 20;
const MIB: f64 = 1_048_576.0;

fn rows(runner: &Runner) -> Result<Vec<Row>> {
    let mebibytes = runner.options.scale(1024, 128);
    let plan = Plan {
        workload: WORKLOAD.name,
        parameters: vec![("mebibytes", mebibytes)],
        prepare: false,
        fsync_micros: None,
    };
    let mut rounds = runner.compare(&plan)?;
    for sample in rounds.litefleet.iter_mut().chain(&mut rounds.stock) {
        let peak = sample.get("peak_bytes").map_or(f64::NAN, |bytes| bytes / MIB);
        sample.insert("peak_mib".to_owned(), peak);
    }
    let time =
        Row::of(&format!("{mebibytes} MiB in one transaction, time"), "s", "seconds", Goal::None, rounds.clone())?;
    let peak = Row::of(
        &format!("{mebibytes} MiB in one transaction, peak memory"),
        "MiB",
        "peak_mib",
        Goal::Below(160.0),
        rounds,
    )?;
    Ok(vec![time.with_traffic("round_trips", "sent")?, peak])
}

fn child(task: &Task) -> Result<Sample> {
    let mut settings = FleetSettings { cache_bytes: MEMORY, ..FleetSettings::default() };
    settings.database.transaction_bytes = MEMORY;
    let engine = Engine::open(task, Store::Embedded, Stock::Wal, settings)?;
    let connection = engine.connect("load")?;
    connection.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let rows = (task.parameter("mebibytes")? << 20) / BODY as u64;
    let traffic = engine.traffic();
    let begin = Instant::now();
    connection.execute_batch("BEGIN")?;
    let mut random = SmallRng::seed_from_u64(5);
    let mut body = [0; BODY];
    let mut insert = connection.prepare("INSERT INTO entries (body) VALUES (?)")?;
    for _ in 0..rows {
        random.fill_bytes(&mut body);
        insert.execute([body.as_slice()])?;
    }
    let commit = Instant::now();
    connection.execute_batch("COMMIT")?;
    let (seconds, commit) = (begin.elapsed().as_secs_f64(), commit.elapsed().as_secs_f64());
    drop(insert);
    let traffic = engine.traffic().since(traffic);
    let count: i64 = connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
    ensure!(u64::try_from(count)? == rows, "{count} rows of {rows} are there");
    drop(connection);
    engine.close()?;
    Ok(sample([
        ("seconds", seconds),
        ("commit_seconds", commit),
        ("with_close_seconds", begin.elapsed().as_secs_f64()),
        ("round_trips", traffic.round_trips as f64),
        ("sent", traffic.sent as f64),
    ]))
}
