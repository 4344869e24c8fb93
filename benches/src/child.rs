//! One measurement of one side, in a process of its own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::machine;
use crate::workloads;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Litefleet,
    Stock,
}

/// What a child has to do.
#[derive(Clone, Debug, Args)]
pub(crate) struct Task {
    /// The workload
    #[arg(long)]
    pub(crate) workload: String,
    /// What comes before the measurement, or the measurement
    #[arg(long, default_value = "run")]
    pub(crate) phase: String,
    /// The side
    #[arg(long)]
    pub(crate) side: Side,
    /// A folder for this side's files
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// Where the numbers are written to, as JSON
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The workload's parameters, as NAME=NUMBER
    pub(crate) parameters: Vec<String>,
}

impl Task {
    /// A parameter of the workload.
    pub(crate) fn parameter(&self, name: &str) -> Result<u64> {
        let found = self.parameters.iter().find_map(|text| text.strip_prefix(name)?.strip_prefix('='));
        let text = found.with_context(|| format!("the parameter {name} is missing"))?;
        text.parse().with_context(|| format!("the parameter {name}={text}"))
    }

    /// The arguments that make this task.
    pub(crate) fn arguments(&self) -> Result<Vec<String>> {
        let Some(side) = self.side.to_possible_value() else { bail!("no such side") };
        let path = |path: &PathBuf| path.to_str().map(str::to_owned).context("a folder whose name is not UTF-8");
        let mut arguments = vec!["child".to_owned()];
        for (option, value) in [
            ("--workload", self.workload.clone()),
            ("--phase", self.phase.clone()),
            ("--side", side.get_name().to_owned()),
            ("--directory", path(&self.directory)?),
            ("--out", path(&self.out)?),
        ] {
            arguments.extend([option.to_owned(), value]);
        }
        arguments.extend(self.parameters.iter().cloned());
        Ok(arguments)
    }
}

/// Does the task and writes what was measured.
pub(crate) fn run(task: &Task) -> Result<()> {
    let Some(workload) = workloads::find(&task.workload) else { bail!("there is no workload {}", task.workload) };
    let mut sample = (workload.child)(task)?;
    sample.insert("peak_bytes".to_owned(), machine::status_bytes("VmHWM:")? as f64);
    fs::write(&task.out, serde_json::to_vec(&sample)?)?;
    Ok(())
}
