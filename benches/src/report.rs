//! Rows, and the table, the document and the JSON that are made of them.

mod document;
mod table;

use std::fs;
use std::io::{Write, stderr, stdout};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::machine;
use crate::options::Options;
use crate::runner::Runner;
use crate::sample::{Rounds, median};
use crate::workloads;

/// What a row is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    None,
    /// Litefleet's number by stock SQLite's is at least this.
    RatioAtLeast(f64),
    /// … at most this.
    RatioAtMost(f64),
    /// Litefleet's own number is at most this.
    AtMost(f64),
    /// … below this.
    Below(f64),
    /// Litefleet's number less stock SQLite's is below this.
    Difference {
        below: f64,
        difference: f64,
    },
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    /// Median, smallest and largest of the rounds' ratios. `None` where nothing is compared.
    pub(crate) ratio: Option<[f64; 3]>,
    pub(crate) litefleet: f64,
    pub(crate) stock: f64,
    pub(crate) round_trips: Option<f64>,
    pub(crate) sent: Option<f64>,
    pub(crate) note: String,
    rounds: Rounds,
}

impl Row {
    /// A comparison of a number of both sides.
    pub(crate) fn of(what: &str, unit: &'static str, number: &str, goal: Goal, rounds: Rounds) -> Result<Self> {
        let (litefleet, stock) = rounds.medians(number)?;
        let ratios = rounds.ratios(number)?;
        let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ratio = Some([median(ratios), smallest, largest]);
        let what = what.to_owned();
        Ok(Self {
            what,
            unit,
            goal,
            ratio,
            litefleet,
            stock,
            round_trips: None,
            sent: None,
            note: String::new(),
            rounds,
        })
    }

    /// A number of Litefleet's alone.
    pub(crate) fn counted(what: &str, count: f64, goal: Goal) -> Self {
        Self {
            what: what.to_owned(),
            unit: "",
            goal,
            ratio: None,
            litefleet: count,
            stock: f64::NAN,
            round_trips: None,
            sent: None,
            note: String::new(),
            rounds: Rounds::default(),
        }
    }

    /// What was not measured, and why.
    pub(crate) fn left_out(what: &str, reason: &str) -> Self {
        let mut row = Self::counted(what, f64::NAN, Goal::None);
        row.note = format!("left out: {reason}");
        row.ratio = Some([f64::NAN; 3]);
        row
    }

    /// With round trips and bytes sent, from numbers of Litefleet's.
    pub(crate) fn with_traffic(mut self, round_trips: &str, sent: &str) -> Result<Self> {
        self.round_trips = Some(self.rounds.litefleet(round_trips)?);
        self.sent = Some(self.rounds.litefleet(sent)?);
        Ok(self)
    }

    /// With a remark.
    pub(crate) fn with_note(mut self, note: String) -> Self {
        self.note = note;
        self
    }

    /// Whether the goal is met. `None` without a goal or a number.
    pub(crate) fn met(&self) -> Option<bool> {
        let ratio = self.ratio.map_or(f64::NAN, |ratio| ratio[0]);
        let (number, met) = match self.goal {
            Goal::None => return None,
            Goal::RatioAtLeast(least) => (ratio, ratio >= least),
            Goal::RatioAtMost(most) => (ratio, ratio <= most),
            Goal::AtMost(most) => (self.litefleet, self.litefleet <= most),
            Goal::Below(bound) => (self.litefleet, self.litefleet < bound),
            Goal::Difference { below, difference } => (difference, difference < below),
        };
        (!number.is_nan()).then_some(met)
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "unit": self.unit,
            "ratio": self.ratio.map(|ratio| json!({ "median": ratio[0], "smallest": ratio[1], "largest": ratio[2] })),
            "goal": table::goal(self.goal),
            "met": self.met(),
            "litefleet": self.litefleet,
            "stock": self.stock,
            "round_trips": self.round_trips,
            "sent_bytes": self.sent,
            "note": self.note,
            "rounds": { "litefleet": self.rounds.litefleet, "stock": self.rounds.stock },
        })
    }
}

/// Names the workloads.
pub(crate) fn list() -> Result<()> {
    let mut out = stdout().lock();
    for workload in workloads::ALL {
        writeln!(out, "{:12} {}", workload.name, workload.about)?;
    }
    Ok(())
}

/// Runs the measurements and writes what came of them.
pub(crate) fn run(options: &Options) -> Result<()> {
    for name in &options.only {
        ensure!(workloads::find(name).is_some(), "there is no measurement {name}: see `litefleet-bench list`");
    }
    let runner = Runner::new(options)?;
    let facts = machine::facts(&runner.directory)?;
    let mut rows = Vec::new();
    for workload in workloads::ALL {
        if options.only.is_empty() || options.only.iter().any(|name| name == workload.name) {
            writeln!(stderr(), "{} …", workload.name)?;
            let found = (workload.rows)(&runner)?;
            write!(stderr(), "{}", table::plain(&found))?;
            rows.extend(found);
        }
    }
    drop(runner);
    let text = document::markdown(&facts, &rows, options);
    stdout().lock().write_all(text.as_bytes())?;
    if let Some(path) = &options.document {
        fs::write(path, &text)?;
    }
    if let Some(path) = &options.json {
        let results: Vec<Value> = rows.iter().map(Row::json).collect();
        let all = json!({ "machine": facts, "quick": options.quick, "rounds": options.rounds(), "results": results });
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}
