//! `litefleet-bench`: Litefleet beside stock SQLite in one run.
//!
//! Every measurement is a child process of its own, the two sides take turns, and the table quotes medians. A workload
//! module says what is measured and turns it into rows; `runner` starts the children; `report` writes what came of it.

#![allow(clippy::cast_precision_loss, reason = "counts, bytes and microseconds here are far below 2^52")]

mod child;
mod engine;
mod machine;
mod options;
mod report;
mod runner;
mod sample;
mod workloads;

use anyhow::Result;
use clap::Parser;

use crate::options::{Cli, Command};

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::All(options) => report::run(&options),
        Command::List => report::list(),
        Command::Child(task) => child::run(&task),
    }
}
