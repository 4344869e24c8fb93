//! What this machine is, as far as it matters to the numbers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::sample::median;

/// A number of bytes that the kernel states of this process in KiB.
pub(crate) fn status_bytes(label: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(label)).context("no such line in the status")?;
    let number: u64 = line.split_whitespace().next().context("no number in the status")?.parse()?;
    Ok(number * 1024)
}

/// Facts for the report: name and value.
pub(crate) fn facts(directory: &Path) -> Result<BTreeMap<&'static str, String>> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let after = |text: &str, label: &str| {
        let line = text.lines().find(|line| line.starts_with(label))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let connection = rusqlite::Connection::open_in_memory()?;
    let date: String = connection.query_row("SELECT date('now')", [], |row| row.get(0))?;
    let kib = after(&read("/proc/meminfo")?, "MemTotal").unwrap_or_default();
    let kib: f64 = kib.split_whitespace().next().unwrap_or_default().parse().unwrap_or_default();
    let mut facts = BTreeMap::from([
        ("date", date),
        ("cores", std::thread::available_parallelism()?.to_string()),
        ("kernel", read("/proc/sys/kernel/osrelease")?),
        ("memory", format!("{:.0} GiB", kib / f64::from(1 << 20))),
        ("sqlite", rusqlite::version().to_owned()),
        ("filesystem", filesystem(directory).unwrap_or_else(|| "unknown".to_owned())),
        ("fdatasync", format!("{:.0} µs", fdatasync_micros(directory)?)),
    ]);
    if let Some(model) = after(&read("/proc/cpuinfo")?, "model name") {
        facts.insert("processor", model);
    }
    if let Some(load) = read("/proc/loadavg")?.split_whitespace().next() {
        facts.insert("load before", load.to_owned());
    }
    Ok(facts)
}

/// The kind of file system that a folder is on: that of the longest mount point above it.
fn filesystem(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = mounts.filter(|(point, _)| directory.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// What it takes to append 4 KiB durably, median.
fn fdatasync_micros(directory: &Path) -> Result<f64> {
    const TIMES: usize = 200;
    let path = directory.join("probe");
    let mut file = File::create(&path)?;
    let mut taken = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let start = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        taken.push(start.elapsed().as_secs_f64() * 1e6);
    }
    drop(file);
    fs::remove_file(path)?;
    Ok(median(taken))
}
