//! Starts the children: both sides in turn, in fresh folders, with fsync as it is or slower.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::child::{Side, Task};
use crate::options::Options;
use crate::sample::{Rounds, Sample};

/// Counts fsyncs, and makes them slower.
const SHIM: &str = include_str!("../slow_fsync.c");

/// What both sides are to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workload: &'static str,
    pub(crate) parameters: Vec<(&'static str, u64)>,
    /// Another child makes the databases first.
    pub(crate) prepare: bool,
    /// The least time of an fsync in microseconds, 0 for its own; `None` also does not count them.
    pub(crate) fsync_micros: Option<u64>,
}

/// Runs plans.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) options: Options,
    pub(crate) directory: PathBuf,
    shim: PathBuf,
}

impl Runner {
    /// Makes the folder for everything, and the shim in it.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let parent = options.directory.clone().unwrap_or_else(std::env::temp_dir);
        let directory = parent.join(format!("litefleet-bench-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let (source, shim) = (directory.join("slow_fsync.c"), directory.join("slow_fsync.so"));
        fs::write(&source, SHIM)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&shim).arg(&source).args(["-ldl", "-lpthread"]);
        let status = compiler.stdout(Stdio::null()).status().context("a C compiler is needed, as `cc`")?;
        if !status.success() {
            bail!("slow_fsync.c does not build");
        }
        Ok(Self { options: options.clone(), directory, shim })
    }

    /// Both sides, as often as the options say. Who is first changes from round to round.
    pub(crate) fn compare(&self, plan: &Plan) -> Result<Rounds> {
        let mut rounds = Rounds::default();
        for round in 0..self.options.rounds() {
            let order = if round % 2 == 0 { [Side::Litefleet, Side::Stock] } else { [Side::Stock, Side::Litefleet] };
            for side in order {
                let sample = self.once(plan, side)?;
                match side {
                    Side::Litefleet => rounds.litefleet.push(sample),
                    Side::Stock => rounds.stock.push(sample),
                }
            }
        }
        Ok(rounds)
    }

    /// One side once, in a fresh folder.
    pub(crate) fn once(&self, plan: &Plan, side: Side) -> Result<Sample> {
        let directory = self.directory.join("side");
        remove(&directory)?;
        fs::create_dir_all(&directory)?;
        let task = |phase: &str| Task {
            workload: plan.workload.to_owned(),
            phase: phase.to_owned(),
            side,
            directory: directory.clone(),
            out: self.directory.join("sample.json"),
            parameters: plan.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        };
        if plan.prepare {
            self.child(&task("prepare"), None)?;
        }
        let sample = self.child(&task("run"), plan.fsync_micros);
        remove(&directory)?;
        sample
    }

    fn child(&self, task: &Task, fsync_micros: Option<u64>) -> Result<Sample> {
        remove(&task.out)?;
        let count = self.directory.join("fsync.count");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(task.arguments()?).stdout(Stdio::null());
        if let Some(micros) = fsync_micros {
            fs::write(&count, "0")?;
            command.env("LD_PRELOAD", &self.shim);
            command.env("LITEFLEET_FSYNC_MICROS", micros.to_string());
            command.env("LITEFLEET_FSYNC_LOCK", self.directory.join("fsync.lock"));
            command.env("LITEFLEET_FSYNC_COUNT", &count);
        }
        let status = command.status()?;
        if !status.success() {
            bail!("{} {} of {:?} failed: {status}", task.workload, task.phase, task.side);
        }
        let mut sample: Sample = serde_json::from_slice(&fs::read(&task.out)?)?;
        if fsync_micros.is_some() {
            sample.insert("fsyncs".to_owned(), fs::read_to_string(&count)?.trim().parse()?);
        }
        Ok(sample)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _left = remove(&self.directory);
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
