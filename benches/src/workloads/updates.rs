//! How many bytes an update of one row costs the store, checkpoints included.

use anyhow::{Result, ensure};
use litefleet::FleetSettings;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use rusqlite::Connection;

use super::Workload;
use crate::child::{Side, Task};
use crate::engine::{Engine, Stock, Store};
use crate::report::{Goal, Row};
use crate::runner::{Plan, Runner};
use crate::sample::{Rounds, Sample, sample};

pub(super) const WORKLOAD: Workload = Workload {
    name: "updates",
    about: "Transactions that update one random row in a database of about 100 MB: a counter and a body of 100 bytes, which \
            is random bytes or English words. Litefleet's side counts all that is sent to the store: commit records, and \
            the checkpoints up to and with that at the close. The other side is what is written by an engine that sends \
            whole changed pages: the distinct pages that SQLite writes per transaction, 4,096 bytes each, and nothing \
            for checkpoints. It is stock SQLite in WAL mode, which writes the fewest: without page 1.",
    rows,
    child,
};

const BODY: usize = 100;
const ROWS: u64 = 870_000;

fn rows(runner: &Runner) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (words, what) in [(0, "random bytes"), (1, "words")] {
        let plan = Plan {
            workload: WORKLOAD.name,
            parameters: vec![("rows", ROWS), ("words", words), ("updates", runner.options.scale(60_000, 30_000))],
            prepare: false,
            fsync_micros: None,
        };
        // The numbers are the same in every round.
        let litefleet = vec![runner.once(&plan, Side::Litefleet)?];
        let stock = vec![runner.once(&plan, Side::Stock)?];
        let rounds = Rounds { litefleet, stock };
        let note = format!(
            "commits {:.0}, checkpoints {:.0}, staging {:.0} B; over Litefleet SQLite writes {:.2} pages, {:.0} B",
            rounds.litefleet("commit_bytes")?,
            rounds.litefleet("checkpoint_bytes")?,
            rounds.litefleet("stage_bytes")?,
            rounds.litefleet("pages")?,
            rounds.litefleet("pages")? * 4096.0,
        );
        rows.push(
            Row::of(&format!("bytes written per update, {what}"), "B", "bytes", Goal::RatioAtMost(0.2), rounds)?
                .with_traffic("round_trips_each", "sent_each")?
                .with_note(note),
        );
    }
    Ok(rows)
}

/// A new body.
struct Bodies {
    random: SmallRng,
    words: bool,
}

impl Bodies {
    fn next(&mut self) -> [u8; BODY] {
        const WORDS: [&[u8]; 16] = [
            b"account ",
            b"balance ",
            b"customer ",
            b"delivery ",
            b"estimate ",
            b"finished ",
            b"green ",
            b"house ",
            b"invoice ",
            b"January ",
            b"kitchen ",
            b"letter ",
            b"monthly ",
            b"number ",
            b"order ",
            b"pending ",
        ];
        let mut body = [b' '; BODY];
        if !self.words {
            self.random.fill_bytes(&mut body);
            return body;
        }
        let mut rest = body.as_mut_slice();
        while !rest.is_empty() {
            let word = WORDS[self.random.random_range(0..WORDS.len())];
            let count = word.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&word[..count]);
            rest = later;
        }
        body
    }
}

fn child(task: &Task) -> Result<Sample> {
    use litefleet::store::Operation;

    let engine = Engine::open(task, Store::Memory, Stock::Wal, FleetSettings::default())?;
    let rows = i64::try_from(task.parameter("rows")?)?;
    let updates = task.parameter("updates")?;
    let mut bodies = Bodies { random: SmallRng::seed_from_u64(3), words: task.parameter("words")? == 1 };
    let connection = engine.connect("updates")?;
    if let Engine::Stock { .. } = engine {
        // Nothing here is about its speed.
        connection.pragma_update(None, "synchronous", "OFF")?;
    }
    fill(&connection, rows, &mut bodies)?;
    if let Engine::Litefleet(_) = engine {
        let _text: String = connection.query_row("PRAGMA litefleet_checkpoint", [], |row| row.get(0))?;
    }
    let sent = |operation| match &engine {
        Engine::Litefleet(fleet) => fleet.counters().get(operation).sent,
        Engine::Stock { .. } => 0,
    };
    let operations = [Operation::Commit, Operation::Checkpoint, Operation::Stage];
    let before = operations.map(sent);
    let traffic = engine.traffic();
    let written = pages::written(&connection);

    let mut update = connection.prepare("UPDATE entries SET count = count + 1, body = ? WHERE id = ?")?;
    for _ in 0..updates {
        let id = bodies.random.random_range(1..=rows);
        let changed = update.execute((bodies.next().as_slice(), id))?;
        ensure!(changed == 1, "row {id} is missing");
    }
    drop(update);
    let pages = (pages::written(&connection) - written) as f64 / updates as f64;
    let size: i64 =
        connection.query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| {
            row.get(0)
        })?;
    drop(connection);

    let each = |at: usize| (sent(operations[at]) - before[at]) as f64 / updates as f64;
    let [commit, checkpoint, stage] = [each(0), each(1), each(2)];
    let bytes = match task.side {
        Side::Litefleet => commit + checkpoint + stage,
        Side::Stock => pages * 4096.0,
    };
    let mut sample = sample([
        ("bytes", bytes),
        ("pages", pages),
        ("commit_bytes", commit),
        ("checkpoint_bytes", checkpoint),
        ("stage_bytes", stage),
        ("database_bytes", size as f64),
    ]);
    engine.traffic().since(traffic).note(updates as f64, &mut sample);
    engine.close()?;
    Ok(sample)
}

fn fill(connection: &Connection, rows: i64, bodies: &mut Bodies) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE entries (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL); BEGIN",
    )?;
    let mut insert = connection.prepare("INSERT INTO entries VALUES (?, 1000, ?)")?;
    for id in 1..=rows {
        insert.execute((id, bodies.next().as_slice()))?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}

#[expect(unsafe_code, reason = "rusqlite has no call for sqlite3_db_status")]
mod pages {
    use std::ffi::c_int;

    use libsqlite3_sys as sqlite;
    use rusqlite::Connection;

    /// Pages that a connection has written so far: each dirty page counts once per transaction, unless it was spilled.
    pub(super) fn written(connection: &Connection) -> u64 {
        let (mut now, mut highest): (c_int, c_int) = (0, 0);
        // SAFETY: the handle is that of an open connection, which this thread alone uses.
        let handle = unsafe { connection.handle() };
        // SAFETY: as above; both results are places for an int.
        let code = unsafe {
            sqlite::sqlite3_db_status(handle, sqlite::SQLITE_DBSTATUS_CACHE_WRITE, &raw mut now, &raw mut highest, 0)
        };
        if code == sqlite::SQLITE_OK { u64::try_from(now).unwrap_or(0) } else { 0 }
    }
}
