//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::child::Task;

/// Measures Litefleet beside stock SQLite.
#[derive(Debug, Parser)]
#[command(name = "litefleet-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the measurements
    All(Options),
    /// Name the measurements
    List,
    /// One measurement of one side: what `all` starts
    #[command(hide = true)]
    Child(Task),
}

/// What to run, and where to.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Shorter runs and fewer rounds: to see that it works, not to quote
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only this measurement (may be given several times)
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,

    /// Rounds of both sides [default: 5, with --quick 1]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,

    /// A folder on the disk to measure [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,

    /// Write the results, every round of them, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the table with all about it as Markdown: docs/benchmarks.md
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
}

impl Options {
    /// How often both sides are run.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// The number for a run to quote, or the one for a quick look.
    pub(crate) fn scale(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }
}
