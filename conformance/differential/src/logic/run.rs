//! Takes scripts through ours.

use std::fmt;
use std::ops::ControlFlow;

use litefleet::store::Operation;
use litefleet::{DatabaseName, LeaseMode, Locking};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};

use crate::place::{Opener, Place};
use crate::session::{Answer, Failure, Session};

use super::generator::{open, script};

const DATABASE: &str = "logic";

/// What a script is like; all of it follows from the seed and the locking.
#[derive(Clone, Debug)]
pub struct Case {
    /// Everything is drawn from it.
    pub seed: u64,
    /// The setting `locking` of ours.
    pub locking: Locking,
    /// The setting `lease` of ours.
    pub lease: LeaseMode,
    /// The store is closed and opened between the parts.
    pub parts: usize,
    /// Random steps of each part, besides those that look at everything at its end.
    pub steps: usize,
    /// Connections of the process.
    pub connections: usize,
    /// Whether one connection asks in the middle of another's transaction.
    pub interleaved: bool,
    /// SQLite's page size.
    pub page_size: u32,
    /// SQLite's `auto_vacuum`.
    pub auto_vacuum: u32,
}

impl Case {
    /// The case of a seed.
    pub fn new(seed: u64, locking: Locking) -> Self {
        // Not the generator's numbers.
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let interleaved = rng.random_bool(0.5);
        Self {
            seed,
            locking,
            lease: if rng.random_bool(0.3) { LeaseMode::Transaction } else { LeaseMode::Exclusive },
            parts: 3,
            steps: 120,
            connections: if interleaved { rng.random_range(2..4) } else { rng.random_range(1..3) },
            interleaved,
            page_size: *[512, 1024, 4096, 4096, 8192, 65536].choose(&mut rng).unwrap_or(&4096),
            auto_vacuum: *[0, 0, 1, 2].choose(&mut rng).unwrap_or(&0),
        }
    }

    /// SQLite's `cache_size`. So few pages that transactions write before their commit; but where a statement is still reading
    /// after a commit, what a rollback then leaves in free pages is stored as one (`docs/decisions/0013-rollbacks.md`). Another
    /// connection whose snapshot is older is then told so when it writes, where SQLite's log has nothing new.
    pub(super) fn cache_pages(&self) -> u32 {
        if self.interleaved && self.locking == Locking::Snapshot { 10_000 } else { 10 }
    }
}

/// What ran, and what of the store it used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Statements and queries with their answers compared.
    pub records: usize,
    /// Calls that wrote page rows of checkpoints.
    pub checkpoints: u64,
    /// Calls that wrote pages of large transactions before their commit.
    pub stages: u64,
    /// Calls that read pages.
    pub reads: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.checkpoints += other.checkpoints;
        self.stages += other.stages;
        self.reads += other.reads;
    }
}

/// What was not the same.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The case.
    pub case: Case,
    /// Which part, from 0.
    pub part: usize,
    /// The record, what was expected, and what came.
    pub words: String,
    /// The script until there.
    pub script: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, part {}: {}", self.case, self.part, self.words)
    }
}

impl DB for Session {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        Ok(match Session::run(self, sql)? {
            Answer::Changed(count) => DBOutput::StatementComplete(count),
            Answer::Rows(rows) => {
                let columns = rows.first().map_or(1, Vec::len);
                DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows }
            }
        })
    }
}

/// Makes the script of a case on SQLite's own VFS, and takes it through ours.
pub fn run(case: &Case, opener: Opener) -> Result<Tally, Box<Problem>> {
    let problem = |part: usize, words: String, script: &str| {
        Box::new(Problem { case: case.clone(), part, words, script: script.to_owned() })
    };
    let outside = |words: String| problem(0, words, "");
    let folder = tempfile::tempdir().map_err(|e| outside(e.to_string()))?;
    let script = script(case, folder.path()).map_err(|e| outside(format!("SQLite's own VFS: {e}")))?;
    let mut settings = Place::small();
    settings.database.locking = case.locking;
    settings.database.lease = case.lease;
    let mut place = Place::open(opener, settings).map_err(|e| outside(e.to_string()))?;
    let mut tally = Tally::default();
    let mut so_far = String::new();
    for (index, part) in script.iter().enumerate() {
        so_far += part.text();
        let uri = place.uri(DATABASE);
        let make = || std::future::ready(open(case, &uri));
        let mut runner = Runner::new(make);
        let result = runner.run_script(part.text());
        drop(runner);
        result.map_err(|e| problem(index, e.to_string(), &so_far))?;
        tally.records += part.records;
        tally.add(used(&place));
        look_at_store(&place).map_err(|words| problem(index, words, &so_far))?;
        place.reopen().map_err(|e| problem(index, format!("cannot be opened again: {e}"), &so_far))?;
    }
    Ok(tally)
}

fn used(place: &Place) -> Tally {
    let calls = |operation| place.fleet().map_or(0, |fleet| fleet.counters().get(operation).calls);
    Tally {
        records: 0,
        checkpoints: calls(Operation::Checkpoint),
        stages: calls(Operation::Stage),
        reads: calls(Operation::ReadPages),
    }
}

/// What is stored must be whole by itself.
fn look_at_store(place: &Place) -> Result<(), String> {
    let Some(fleet) = place.fleet() else { return Err("the store is not open".into()) };
    let name = DatabaseName::new(DATABASE).map_err(|e| e.to_string())?;
    let report = fleet.verify(&name, &mut |_| ControlFlow::Continue(())).map_err(|e| e.to_string())?;
    if report.problems.is_empty() { Ok(()) } else { Err(report.problems.join("; ")) }
}
