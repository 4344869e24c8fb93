//! The order of the runs, and how a phase is started and its fsyncs counted.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

struct Runner {
    directory: PathBuf,
    shim: PathBuf,
}

impl Runner {
    fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let shim = directory.join("slow_fsync.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&shim)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../slow_fsync.c"))
            .args(["-ldl", "-lpthread"])
            .status()?;
        if !built.success() {
            bail!("slow_fsync.c does not build");
        }
        Ok(Self {
            directory: directory.to_owned(),
            shim,
        })
    }

    fn data(&self, engine: &str) -> PathBuf {
        self.directory.join(format!("data-{engine}"))
    }

    fn fresh(&self, engine: &str) -> Result<()> {
        let data = self.data(engine);
        if data.exists() {
            fs::remove_dir_all(data)?;
        }
        Ok(())
    }

    fn command(
        &self,
        phase: &str,
        engine: &str,
        data: &Path,
        numbers: &[f64],
        price_micros: u64,
    ) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["phase", phase, engine])
            .arg(data)
            .args(numbers.iter().map(f64::to_string));
        command
            .env("LD_PRELOAD", &self.shim)
            .env("LITEFLEET_FSYNC_MICROS", price_micros.to_string())
            .env("LITEFLEET_FSYNC_LOCK", self.directory.join("fsync.lock"))
            .env("LITEFLEET_FSYNC_COUNT", self.directory.join("fsync.count"));
        Ok(command)
    }

    fn run(&self, phase: &str, engine: &str, numbers: &[f64], price_micros: u64) -> Result<Value> {
        self.run_in(phase, engine, &self.data(engine), numbers, price_micros)
    }

    fn run_in(
        &self,
        phase: &str,
        engine: &str,
        data: &Path,
        numbers: &[f64],
        price_micros: u64,
    ) -> Result<Value> {
        let count = self.directory.join("fsync.count");
        fs::write(&count, "0")?;
        eprintln!("{phase} {engine} {numbers:?} {price_micros} us");
        let output = self
            .command(phase, engine, data, numbers, price_micros)?
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            bail!("{phase} of {engine} failed: {}", output.status);
        }
        let mut value: Value = serde_json::from_slice(&output.stdout)?;
        let fsyncs: u64 = fs::read_to_string(&count)?.trim().parse()?;
        value["fsyncs"] = fsyncs.into();
        if let Some(batches) = value["batches"].as_f64() {
            value["fsyncs_per_batch"] = (fsyncs as f64 / batches).into();
        }
        value["phase"] = phase.into();
        value["engine"] = engine.into();
        value["numbers"] = numbers.into();
        value["price_us"] = price_micros.into();
        Ok(value)
    }

    /// Kills the engine with SIGKILL in the middle of its commits and opens it again.
    fn crash(&self, engine: &str) -> Result<Value> {
        let mut child = self
            .command("until-killed", engine, &self.data(engine), &[], 0)?
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let mut acknowledged = 0_u64;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            acknowledged = lines.next().context("it ended by itself")??.parse()?;
        }
        child.kill()?;
        child.wait()?;
        for line in lines.map_while(Result::ok) {
            acknowledged = line.parse().unwrap_or(acknowledged);
        }
        let mut value = self.run("reopen", engine, &[], 0)?;
        let head = value["head"].as_u64().unwrap_or(0);
        if head < acknowledged {
            bail!("{engine} lost acknowledged commits: {acknowledged}, then {head}");
        }
        value["phase"] = "reopen-killed".into();
        value["acknowledged"] = acknowledged.into();
        Ok(value)
    }
}

const ALL: [&str; 5] = [
    "fjall",
    "fjall-bounded",
    "redb",
    "redb-quick",
    "redb-2files",
];
const PRICES_MICROS: [u64; 2] = [0, 1000];

fn commits(runner: &Runner, seconds: f64) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    let engines = ["fjall", "redb", "redb-quick"];
    for price in PRICES_MICROS {
        for size in [1.0, 8.0, 64.0] {
            for engine in engines {
                runner.fresh(engine)?;
            }
            // The first round fills the tables, the second goes on with what is there.
            for round in 0..2 {
                for engine in engines {
                    let mut value = runner.run("commits", engine, &[size, seconds], price)?;
                    value["round"] = round.into();
                    results.push(value);
                }
            }
        }
    }
    Ok(results)
}

fn mixed(runner: &Runner, seconds: f64) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    for price in PRICES_MICROS {
        for piece in [256.0, 32.0] {
            for round in 0..2 {
                for engine in ALL {
                    runner.fresh(engine)?;
                    let mut value =
                        runner.run("mixed", engine, &[piece, 50.0, 3.0 * seconds], price)?;
                    value["round"] = round.into();
                    results.push(value);
                }
            }
        }
    }
    Ok(results)
}

fn pages_and_crashes(runner: &Runner, seconds: f64) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    for engine in ["fjall", "fjall-bounded", "redb"] {
        runner.fresh(engine)?;
        results.push(runner.run("pages", engine, &[seconds], 0)?);
        results.push(runner.run("reopen", engine, &[], 0)?);
        results.push(runner.run("second", engine, &[], 0)?);
        results.push(runner.crash(engine)?);
    }
    runner.fresh("redb-quick")?;
    fs::rename(runner.data("redb"), runner.data("redb-quick"))?;
    results.push(runner.crash("redb-quick")?);
    Ok(results)
}

fn space(runner: &Runner) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    for row_bytes in [4096.0, 2100.0] {
        for engine in ["fjall", "fjall-bounded", "redb"] {
            runner.fresh(engine)?;
            results.push(runner.run("space", engine, &[row_bytes], 0)?);
        }
    }
    Ok(results)
}

fn full(runner: &Runner, small: &Path) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    for engine in ["fjall", "redb"] {
        let data = small.join("data");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::write(small.join("ballast"), vec![1; 48 << 20])?;
        results.push(runner.run_in("full", engine, &data, &[], 0)?);
        fs::remove_dir_all(&data)?;
    }
    Ok(results)
}

/// A power loss that kept the last block of fjall's journal and lost one before it, in a batch that was not synced
/// yet: disks may do that. The commit before it was durable, so the store should open and drop the batch.
fn torn(runner: &Runner, row_bytes: f64) -> Result<Value> {
    let engine = "fjall";
    runner.fresh(engine)?;
    let data = runner.data(engine);
    let wrote = runner
        .command("unsynced", engine, &data, &[row_bytes], 0)?
        .status()?;
    let journal = data.join("0.jnl");
    let mut bytes = fs::read(&journal)?;
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .context("an empty journal")?;
    let lost = (end - 65_536) / 4096 * 4096;
    bytes[lost..lost + 4096].fill(0);
    fs::write(&journal, bytes)?;
    let output = runner.command("reopen", engine, &data, &[], 0)?.output()?;
    let reopened: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let says = String::from_utf8_lossy(&output.stderr)
        .lines()
        .next()
        .map(str::to_owned);
    Ok(
        json!({ "phase": "torn", "engine": engine, "numbers": [row_bytes], "price_us": 0,
        "aborted": !wrote.success(), "opened": output.status.success(), "head": reopened["head"], "says": says }),
    )
}

/// All runs, or only the group of that name.
pub fn all(
    directory: &Path,
    small: Option<&Path>,
    seconds: f64,
    only: Option<&str>,
) -> Result<Value> {
    let runner = Runner::new(directory)?;
    let wanted = |group: &str| only.is_none_or(|only| only == group);
    let mut results = Vec::new();
    if wanted("commits") {
        results.extend(commits(&runner, seconds)?);
    }
    if wanted("mixed") {
        results.extend(mixed(&runner, seconds)?);
    }
    if wanted("pages") {
        results.extend(pages_and_crashes(&runner, seconds)?);
    }
    if wanted("space") {
        results.extend(space(&runner)?);
    }
    if wanted("torn") {
        for row_bytes in [2100.0, 4096.0, 32_768.0] {
            results.push(torn(&runner, row_bytes)?);
        }
    }
    if let Some(small) = small.filter(|_| wanted("full")) {
        results.extend(full(&runner, small)?);
    }
    for engine in ALL {
        runner.fresh(engine)?;
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    Ok(
        json!({ "machine": { "cores": cores, "os": std::env::consts::OS, "arch": std::env::consts::ARCH }, "results": results }),
    )
}
