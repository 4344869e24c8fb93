//! Litefleet on Postgres beside bare `tokio-postgres` on the same server, in one run, from one program.
//!
//! `cargo run --release -p litefleet-benches --bin litefleet-bench-postgres` starts a throwaway server of the machine's
//! own packages, with `fsync=on` and otherwise as it comes, and removes it.
#![allow(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a program that prints what it measured, in numbers far from any limit"
)]

mod commits;
mod copy;
mod latency;
mod open;
mod report;
mod rig;
mod trips;
mod wal;

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;

use report::{Goal, Row};
use rig::Rig;

/// Measures Litefleet on Postgres beside bare tokio-postgres.
#[derive(Debug, Parser)]
struct Options {
    /// Shorter runs: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// Only this measurement (may be given several times): latency, commits, wal, scan, open, trips, import
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds of both sides [default: 5, with --quick 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// A folder on the disk to measure [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    directory: Option<std::path::PathBuf>,
    /// Write the rows as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Put the table between the marks of this page
    #[arg(long, value_name = "FILE")]
    page: Option<std::path::PathBuf>,
    /// As many partitions of pages and log
    #[arg(long, default_value_t = 1)]
    partitions: u32,
}

type Workload = fn(&Rig) -> Result<Vec<Row>>;

const ALL: &[(&str, Workload)] = &[
    ("latency", latency::rows),
    ("commits", commits::rows),
    ("wal", wal::rows),
    ("scan", copy::scan),
    ("open", open::rows),
    ("trips", trips::rows),
    ("import", copy::import),
];

fn main() -> Result<()> {
    let options = Options::parse();
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 }).max(1);
    let rig = Rig::start(options.quick, rounds, options.directory.as_deref(), options.partitions)?;
    let about = rig.about()?;
    println!("{about}");
    let begin = Instant::now();
    let mut rows = Vec::new();
    for (name, workload) in ALL {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            for row in workload(&rig)? {
                println!("{row}");
                rows.push(row);
            }
        }
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report::json(&rows))?)?;
    }
    let table = report::markdown(&rows);
    println!("\n{table}");
    if let Some(file) = &options.page {
        let page = std::fs::read_to_string(file)?;
        let text = format!("{about}; the run took {} s.\n\n{table}", begin.elapsed().as_secs());
        let page = report::replace_measured(&page, &text).context("the page has no marks for the table")?;
        std::fs::write(file, page)?;
    }
    let goals: Vec<&Row> = rows.iter().filter(|row| !matches!(row.goal, Goal::None)).collect();
    println!("{} of {} goals reached", goals.iter().filter(|row| row.met()).count(), goals.len());
    Ok(())
}
