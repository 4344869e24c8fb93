//! `kvtest`: a database of large blobs, made, measured, read in all its ways, overwritten, and exported to files. It looks
//! for its files with `access` and `stat`. The same database, made by SQLite's own VFS, is read through both.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{Result, Store};

use super::process::{Output, Scene, Stage, last_line, same};
use super::{Other, Verdict};

const DATABASE: &str = "kv.db";
/// Reading never changes the database; each of these must print the same.
const READS: &[&[&str]] = &[
    &[],
    &["--desc"],
    &["--random"],
    &["--blob-api"],
    &["--blob-api", "--random", "--multitrans"],
    &["--multitrans"],
    &["--cache-size", "10", "--random"],
    &["--mmap", "1000000"],
    &["--start", "100", "--max-id", "120"],
    &["--integrity-check"],
];
const WRITES: &[&[&str]] = &[
    &["--update", "--integrity-check"],
    &["--update", "--multitrans", "--integrity-check"],
    &["--update", "--blob-api", "--random", "--integrity-check"],
    &["--update", "--nosync", "--jmode", "truncate", "--integrity-check"],
    &["--update", "--jmode", "persist", "--cache-size", "10", "--integrity-check"],
];
const PAGE_SIZES: &[&str] = &["512", "4096", "65536"];

pub(super) fn cases(scene: &Scene) -> Result<Vec<Other>> {
    let mut results = Vec::new();
    for page_size in PAGE_SIZES.iter().skip(usize::from(scene.is_short())).take(if scene.is_short() { 1 } else { 3 }) {
        let (stock, ours) = (scene.stage(false)?, scene.stage(true)?);
        let mut check = |name: &str, verdict| {
            results.push(Other::new("kvtest", &format!("{name}, pages of {page_size}"), verdict));
        };
        let init =
            ["init", DATABASE, "--count", "300", "--size", "5000", "--variance", "4000", "--pagesize", page_size];
        check("init", both_end(&stock.run("kvtest", &init)?, &ours.run("kvtest", &init)?));
        // Each command is a process of its own, and a store in memory is that of one process: it gets a copy before each.
        let keeps = !matches!(scene.store(), Store::Memory);
        check("init, read by export", if keeps { exports_what_it_made(&ours)? } else { not_kept() });
        // Its content is random: ours is replaced by the other one, which moves into the store when it is opened.
        copy(&stock, &ours)?;
        let both = |arguments: &[&str]| -> Result<Verdict> {
            if !keeps {
                copy(&stock, &ours)?;
            }
            Ok(same(&kept(stock.run("kvtest", arguments)?), &kept(ours.run("kvtest", arguments)?)))
        };
        check("stat", both(&["stat", DATABASE])?);
        for options in READS {
            check(&format!("run {}", options.join(" ")), both(&run_with(options))?);
        }
        // Before the overwriting, whose content is random.
        if !scene.is_short() {
            for (name, options) in [("export", &[][..]), ("export --tree", &["--tree"])] {
                if !keeps {
                    copy(&stock, &ours)?;
                }
                check(name, export(&stock, &ours, options)?);
            }
        }
        for options in WRITES {
            check(&format!("run {}", options.join(" ")), both(&run_with(options))?);
        }
        check("stat --vacuum", both(&["stat", DATABASE, "--vacuum"])?);
        check("stat after it", if keeps { both(&["stat", DATABASE])? } else { not_kept() });
    }
    Ok(results)
}

fn copy(stock: &Stage, ours: &Stage) -> Result<()> {
    let copied = fs::copy(stock.folder().join(DATABASE), ours.folder().join(DATABASE));
    copied.map(drop).map_err(|e| format!("{DATABASE}: {e}"))
}

fn not_kept() -> Verdict {
    Verdict::NotApplicable(
        "what another process has made is not there: a store in memory is that of one process".into(),
    )
}

fn run_with<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [&["run", DATABASE, "--count", "400"], options].concat()
}

/// Of what prints nothing.
fn both_end(stock: &Output, ours: &Output) -> Verdict {
    match (&stock.ended, &ours.ended) {
        (None, None) => Verdict::Passed,
        (Some(how), _) => Verdict::Failed(format!("with SQLite's own VFS: {how}: {}", last_line(&stock.text))),
        (None, Some(how)) => Verdict::Failed(format!("{how}: {}", last_line(&ours.text))),
    }
}

/// Exports what `init` made, and reads it both ways: from the database, and from the files.
fn exports_what_it_made(ours: &Stage) -> Result<Verdict> {
    fs::create_dir(ours.folder().join("made")).map_err(|e| e.to_string())?;
    let exported = ours.run("kvtest", &["export", DATABASE, "made"])?;
    if let Some(how) = exported.ended {
        return Ok(Verdict::Failed(format!("export: {how}: {}", last_line(&exported.text))));
    }
    let files = files(&ours.folder().join("made"))?;
    Ok(if files.len() == 300 { Verdict::Passed } else { Verdict::Failed(format!("{} files of 300", files.len())) })
}

/// Exports from both; the files must be the same, byte by byte.
fn export(stock: &Stage, ours: &Stage, options: &[&str]) -> Result<Verdict> {
    let to = format!("files{}", options.concat());
    let mut found = Vec::new();
    for stage in [stock, ours] {
        fs::create_dir(stage.folder().join(&to)).map_err(|e| format!("{to}: {e}"))?;
        let output = stage.run("kvtest", &[&["export", DATABASE, to.as_str()], options].concat())?;
        if let Some(how) = output.ended {
            return Ok(Verdict::Failed(format!("export: {how}: {}", last_line(&output.text))));
        }
        found.push(files(&stage.folder().join(&to))?);
    }
    let (Some(ours), Some(stock)) = (found.pop(), found.pop()) else { return Err("two exports".into()) };
    if stock.is_empty() {
        return Ok(Verdict::Failed("SQLite's own VFS exports nothing".into()));
    }
    let different = stock.iter().find(|(name, bytes)| ours.get(*name) != Some(bytes));
    Ok(match different {
        Some((name, _)) => Verdict::Failed(format!("{name} differs")),
        None if ours.len() != stock.len() => Verdict::Failed("files that the other has not".into()),
        None => Verdict::Passed,
    })
}

/// All files below a folder.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let words = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(words)? {
        let entry = entry.map_err(words)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            found.extend(files(&entry.path())?.into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).map_err(words)?);
        }
    }
    Ok(found)
}

/// Without what is of a time, or of memory.
fn kept(mut output: Output) -> Output {
    const OF_TIME: &[&str] = &["elapsed", "per blob", "BLOBs/s", "Memory", "memory", "icrosec", "MB/s", "bytes/s"];
    let lines = output.text.lines().filter(|line| !OF_TIME.iter().any(|word| line.contains(word)));
    output.text = lines.collect::<Vec<_>>().join("\n");
    output
}
