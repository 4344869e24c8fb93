//! One phase of one engine, in a process of its own: so that peak memory, bytes and fsyncs are this phase's alone.

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    engine::{Commit, Engine, PageKey, open, page_key},
    process,
};

const DATABASES: u64 = 1000;
const PAGE_DATABASES: u64 = 100;
const PAGES: u32 = 512;
const CHECKPOINT_ROWS: u32 = 256;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Half random and half zeros, or, when it stands for a row that is compressed already, all random.
    fn image(&mut self, length: usize) -> Vec<u8> {
        let mut image = vec![0; length];
        let random = if length == 4096 { length / 2 } else { length };
        self.fill(&mut image[..random]);
        image
    }
}

struct Committer {
    random: Random,
    txids: Vec<u64>,
}

impl Committer {
    fn new(engine: &dyn Engine) -> Result<Self> {
        let txids = (0..DATABASES)
            .map(|id| Ok(engine.head(id)?.unwrap_or(0)))
            .collect::<Result<_>>()?;
        Ok(Self {
            random: Random(0x9e37_79b9_7f4a_7c15),
            txids,
        })
    }

    fn batch(&mut self, size: usize) -> Vec<Commit> {
        (0..size)
            .map(|_| {
                let database = self.random.below(DATABASES);
                self.txids[database as usize] += 1;
                let txid = self.txids[database as usize];
                let (mut record, mut head) = ([0; 200], [0; 80]);
                self.random.fill(&mut record);
                self.random.fill(&mut head);
                head[..8].copy_from_slice(&txid.to_be_bytes());
                Commit {
                    database,
                    txid,
                    record,
                    head,
                }
            })
            .collect()
    }
}

fn percentile(sorted: &[u64], part: f64) -> u64 {
    sorted
        .get(((sorted.len() as f64 - 1.0) * part) as usize)
        .copied()
        .unwrap_or(0)
}

/// Commits batches for some seconds.
fn commit_for(engine: &dyn Engine, size: usize, seconds: f64) -> Result<Value> {
    let mut committer = Committer::new(engine)?;
    let (chars, bytes) = process::written()?;
    let start = Instant::now();
    let mut micros = Vec::new();
    while start.elapsed().as_secs_f64() < seconds {
        let batch = committer.batch(size);
        let before = Instant::now();
        engine.commit(&batch)?;
        micros.push(before.elapsed().as_micros() as u64);
    }
    let elapsed = start.elapsed().as_secs_f64();
    let (chars_after, bytes_after) = process::written()?;
    let commits = (micros.len() * size) as f64;
    let batches = micros.len();
    micros.sort_unstable();
    Ok(json!({
        "batches": batches,
        "commits_per_s": commits / elapsed,
        "p50_us": percentile(&micros, 0.5), "p99_us": percentile(&micros, 0.99),
        "p999_us": percentile(&micros, 0.999), "max_us": percentile(&micros, 1.0),
        "wchar_per_commit": (chars_after - chars) as f64 / commits,
        "written_per_commit": (bytes_after - bytes) as f64 / commits,
    }))
}

fn with(mut value: Value, more: &Value) -> Value {
    if let (Some(all), Some(more)) = (value.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    value
}

fn commits(engine: &str, directory: &Path, size: usize, seconds: f64) -> Result<Value> {
    let engine = open(engine, directory)?;
    let result = commit_for(&*engine, size, seconds)?;
    engine.close()?;
    Ok(with(result, &json!({ "peak_mib": process::peak_mib()? })))
}

/// Commits while another thread writes a checkpoint of 256 pages every `pace`, in pieces of `piece` rows.
fn mixed(
    engine: &str,
    directory: &Path,
    piece: usize,
    pace: Duration,
    seconds: f64,
) -> Result<Value> {
    let engine: Arc<dyn Engine> = Arc::from(open(engine, directory)?);
    let stop = Arc::new(AtomicBool::new(false));
    let rows = Arc::new(AtomicU64::new(0));
    let writer = {
        let (engine, stop, rows) = (Arc::clone(&engine), Arc::clone(&stop), Arc::clone(&rows));
        thread::spawn(move || -> Result<()> {
            let mut random = Random(7);
            let start = Instant::now();
            for round in 1_u64.. {
                let database = round % 50;
                let txid = 1 + round / 50;
                let all: Vec<_> = (0..CHECKPOINT_ROWS)
                    .map(|page| (page_key(database, page, txid), random.image(4096)))
                    .collect();
                let dead: Vec<_> = (0..CHECKPOINT_ROWS)
                    .map(|page| page_key(database, page, txid - 1))
                    .collect();
                for (rows_of_piece, dead) in all.chunks(piece).zip(dead.chunks(piece)) {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    engine.checkpoint(rows_of_piece, dead)?;
                    rows.fetch_add(rows_of_piece.len() as u64, Ordering::Relaxed);
                }
                thread::sleep((pace * round as u32).saturating_sub(start.elapsed()));
            }
            Ok(())
        })
    };
    let result = commit_for(&*engine, 8, seconds);
    stop.store(true, Ordering::Relaxed);
    let joined = writer.join();
    let result = result?;
    joined.map_err(|_| anyhow::anyhow!("the checkpoint writer panicked"))??;
    let rows = rows.load(Ordering::Relaxed) as f64 / seconds;
    Ok(with(
        result,
        &json!({ "checkpoint_rows_per_s": rows, "peak_mib": process::peak_mib()? }),
    ))
}

/// Three versions of every page, of which the first is deleted as the third arrives; then reads.
fn pages(engine: &str, directory: &Path, seconds: f64) -> Result<Value> {
    let engine = open(engine, directory)?;
    let mut random = Random(11);
    let mut committer = Committer::new(&*engine)?;
    let (chars, _) = process::written()?;
    let start = Instant::now();
    for txid in 1..=3 {
        for database in 0..PAGE_DATABASES {
            for first in (0..PAGES).step_by(CHECKPOINT_ROWS as usize) {
                let numbers = first..first + CHECKPOINT_ROWS;
                let rows: Vec<_> = numbers
                    .clone()
                    .map(|page| (page_key(database, page, txid), random.image(4096)))
                    .collect();
                let dead: Vec<_> = if txid == 3 {
                    numbers.map(|page| page_key(database, page, 1)).collect()
                } else {
                    Vec::new()
                };
                engine.checkpoint(&rows, &dead)?;
            }
        }
        engine.commit(&committer.batch(1))?;
    }
    let load_s = start.elapsed().as_secs_f64();
    let (chars_after, _) = process::written()?;
    let rows = f64::from(PAGES) * PAGE_DATABASES as f64 * 3.0;
    let load_peak = process::peak_mib()?;
    thread::sleep(Duration::from_secs(2)); // compactions
    let disk = process::disk_bytes(directory)?;

    let one = |random: &mut Random| -> Result<()> {
        let snapshot = 2 + random.below(2);
        let (database, page) = (
            random.below(PAGE_DATABASES),
            random.below(u64::from(PAGES)) as u32,
        );
        match engine.newest(database, page, snapshot)? {
            Some((txid, 4096)) if txid == snapshot => Ok(()),
            other => bail!("page {page} of {database} at {snapshot}: {other:?}"),
        }
    };
    for _ in 0..20_000 {
        one(&mut random)?; // warm
    }
    let (start, mut reads) = (Instant::now(), 0_u64);
    while start.elapsed().as_secs_f64() < seconds {
        one(&mut random)?;
        reads += 1;
    }
    let reads_per_s = reads as f64 / start.elapsed().as_secs_f64();
    let (start, mut ranges) = (Instant::now(), 0_u64);
    while start.elapsed().as_secs_f64() < seconds {
        let first = random.below(u64::from(PAGES) - 64) as u32;
        let found = engine.newest_in_range(
            random.below(PAGE_DATABASES),
            first..first + 64,
            2 + random.below(2),
        )?;
        if found != 64 {
            bail!("a range of 64 found {found}");
        }
        ranges += 1;
    }
    let ranges_per_s = ranges as f64 / start.elapsed().as_secs_f64();
    engine.close()?;
    Ok(json!({
        "load_rows_per_s": rows / load_s, "wchar_per_row": (chars_after - chars) as f64 / rows,
        "load_peak_mib": load_peak, "peak_mib": process::peak_mib()?,
        "disk_mib": disk >> 20, "live_mib": ((rows * 2.0 / 3.0) as u64 * 4096) >> 20,
        "reads_per_s": reads_per_s, "ranges_of_64_per_s": ranges_per_s,
    }))
}

/// The same 100 MB, ten times over: each round writes new rows and deletes the old, and ends with a durable commit.
fn space(engine: &str, directory: &Path, row_bytes: usize) -> Result<Value> {
    let mut engine = open(engine, directory)?;
    let mut random = Random(13);
    let mut committer = Committer::new(&*engine)?;
    let databases = 100_000_000 / (u64::from(CHECKPOINT_ROWS) * row_bytes as u64);
    let live = databases * u64::from(CHECKPOINT_ROWS) * row_bytes as u64;
    let ratio = |bytes: u64| bytes as f64 / live as f64;
    let (mut most, mut rounds) = (0, Vec::new());
    let start = Instant::now();
    for txid in 1..=10 {
        for database in 0..databases {
            let rows: Vec<(PageKey, Vec<u8>)> = (0..CHECKPOINT_ROWS)
                .map(|page| (page_key(database, page, txid), random.image(row_bytes)))
                .collect();
            let dead: Vec<_> = (0..CHECKPOINT_ROWS)
                .map(|page| page_key(database, page, txid - 1))
                .collect();
            engine.checkpoint(&rows, &dead)?;
        }
        engine.commit(&committer.batch(1))?;
        let disk = process::disk_bytes(directory)?;
        most = most.max(disk);
        rounds.push(ratio(disk));
    }
    let write_s = start.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs(2));
    let settled = process::disk_bytes(directory)?;
    let (start, mut reads) = (Instant::now(), 0_u64);
    while start.elapsed().as_secs_f64() < 1.0 {
        let page = random.below(u64::from(CHECKPOINT_ROWS)) as u32;
        engine
            .newest(random.below(databases), page, 10)?
            .context("a live row is gone")?;
        reads += 1;
    }
    let peak = process::peak_mib()?;
    let start = Instant::now();
    engine.compact()?;
    let compact_s = start.elapsed().as_secs_f64();
    let compacted = process::disk_bytes(directory)?;
    engine.close()?;
    let closed = process::disk_bytes(directory)?;
    Ok(json!({
        "rounds": rounds, "most": ratio(most), "settled": ratio(settled), "compacted": ratio(compacted),
        "closed": ratio(closed), "compact_s": compact_s, "write_s": write_s, "reads_per_s_after": reads, "peak_mib": peak,
    }))
}

fn reopen(engine: &str, directory: &Path) -> Result<Value> {
    let start = Instant::now();
    let engine = open(engine, directory)?;
    let head = engine.head(0)?;
    let open_ms = start.elapsed().as_secs_f64() * 1000.0;
    engine.close()?;
    Ok(json!({ "open_ms": open_ms, "head": head, "peak_mib": process::peak_mib()? }))
}

/// Commits to database 0 and checkpoints until it is killed; every acknowledged txid goes to stdout.
fn until_killed(engine: &str, directory: &Path) -> Result<Value> {
    let engine = open(engine, directory)?;
    let mut random = Random(17);
    let mut committer = Committer::new(&*engine)?;
    let mut stdout = std::io::stdout();
    for round in 0.. {
        let mut batch = committer.batch(1);
        batch[0].database = 0;
        batch[0].txid = engine.head(0)?.unwrap_or(0) + 1;
        let txid = batch[0].txid;
        batch[0].head[..8].copy_from_slice(&txid.to_be_bytes());
        engine.commit(&batch)?;
        writeln!(stdout, "{txid}")?;
        if round % 10 == 0 {
            let rows: Vec<_> = (0..64)
                .map(|page| (page_key(1_000_000, page, txid), random.image(4096)))
                .collect();
            engine.checkpoint(&rows, &[])?;
        }
    }
    Ok(Value::Null)
}

/// One durable commit, then a checkpoint that nothing syncs, then an end without a close.
fn unsynced(engine: &str, directory: &Path, row_bytes: usize) -> Result<Value> {
    let engine = open(engine, directory)?;
    let mut random = Random(23);
    let mut batch = Committer::new(&*engine)?.batch(1);
    batch[0].database = 0;
    engine.commit(&batch)?;
    let rows: Vec<_> = (0..64)
        .map(|page| (page_key(1, page, 1), random.image(row_bytes)))
        .collect();
    engine.checkpoint(&rows, &[])?;
    std::process::abort();
}

fn outcome<T>(result: Result<T>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".to_owned())
}

/// What happens on a full disk: `directory` is on a small file system with a file `ballast` to give up.
fn full(engine: &str, directory: &Path) -> Result<Value> {
    let ballast = directory.with_file_name("ballast");
    let path = directory;
    let engine_name = engine;
    let engine = open(engine, path)?;
    let mut committer = Committer::new(&*engine)?;
    let mut random = Random(19);
    let mut rows_written = 0_u32;
    let error = loop {
        let rows: Vec<_> = (0..64)
            .map(|page| {
                (
                    page_key(u64::from(rows_written), page, 1),
                    random.image(4096),
                )
            })
            .collect();
        if let Err(error) = engine.checkpoint(&rows, &[]) {
            break format!("checkpoint: {error}");
        }
        if let Err(error) = engine.commit(&committer.batch(1)) {
            break format!("commit: {error}");
        }
        rows_written += 64;
    };
    let again = outcome(engine.commit(&committer.batch(1)));
    let read = outcome(engine.newest(0, 1, 9));
    std::fs::remove_file(ballast)?;
    let with_space = outcome(engine.commit(&committer.batch(1)));
    let close = outcome(engine.close());
    let (reopened, commit_after) = match open(engine_name, path) {
        Ok(engine) => ("ok".to_owned(), outcome(engine.commit(&committer.batch(1)))),
        Err(error) => (format!("{error}"), String::new()),
    };
    Ok(
        json!({ "rows": rows_written, "error": error, "again": again, "read": read, "with_space_same_handle": with_space,
        "close": close, "reopen": reopened, "commit_after_reopen": commit_after }),
    )
}

/// Holds the directory open in this process while a child of it tries the same.
fn second(engine: &str, directory: &Path) -> Result<Value> {
    let _held = open(engine, directory)?;
    let start = Instant::now();
    let child = std::process::Command::new(std::env::current_exe()?)
        .args(["phase", "reopen", engine])
        .arg(directory)
        .output()?;
    Ok(
        json!({ "opened": child.status.success(), "ms": start.elapsed().as_millis() as u64,
        "says": String::from_utf8_lossy(&child.stderr).lines().next() }),
    )
}

/// `phase <name> <engine> <directory> [numbers]`: prints one line of JSON.
pub fn run(arguments: &[String]) -> Result<()> {
    let [phase, engine, directory, numbers @ ..] = arguments else {
        bail!("phase, engine, directory")
    };
    let directory = Path::new(directory);
    let number = |index: usize| -> Result<f64> {
        Ok(numbers.get(index).context("a number is missing")?.parse()?)
    };
    let value = match phase.as_str() {
        "commits" => commits(engine, directory, number(0)? as usize, number(1)?)?,
        "mixed" => mixed(
            engine,
            directory,
            number(0)? as usize,
            Duration::from_millis(number(1)? as u64),
            number(2)?,
        )?,
        "pages" => pages(engine, directory, number(0)?)?,
        "space" => space(engine, directory, number(0)? as usize)?,
        "reopen" => reopen(engine, directory)?,
        "until-killed" => until_killed(engine, directory)?,
        "unsynced" => unsynced(engine, directory, number(0)? as usize)?,
        "full" => full(engine, directory)?,
        "second" => second(engine, directory)?,
        _ => bail!("no phase {phase}"),
    };
    println!("{value}");
    Ok(())
}
