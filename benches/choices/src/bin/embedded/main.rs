//! fjall against redb on Litefleet's workload: every phase of every engine in a process of its own, engines
//! alternating, fsyncs counted and priced by `slow_fsync.c`.
//!
//! `embedded [--directory D] [--small-directory S] [--seconds N] [--only commits|mixed|pages|space|torn|full]`; S is a small, otherwise empty file system for
//! the full-disk phase, which is left out without it.

mod engine;
mod fjall_engine;
mod phases;
mod process;
mod redb_engine;
mod report;
mod runs;

use std::path::PathBuf;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "phase") {
        return phases::run(&arguments[1..]);
    }
    let option = |name: &str| {
        arguments
            .iter()
            .position(|argument| argument == name)
            .and_then(|at| arguments.get(at + 1))
    };
    let directory = option("--directory").map_or_else(
        || std::env::temp_dir().join("litefleet-choices"),
        PathBuf::from,
    );
    let seconds: f64 = option("--seconds")
        .map_or(Ok(2.0), |text| text.parse())
        .context("--seconds")?;
    let small = option("--small-directory").map(PathBuf::from);
    let only = option("--only").map(String::as_str);
    let results = runs::all(&directory, small.as_deref(), seconds, only)?;
    report::print(&results);
    let path = directory.join("embedded.json");
    std::fs::write(&path, serde_json::to_string_pretty(&results)?)?;
    println!("\nJSON: {}", path.display());
    Ok(())
}
