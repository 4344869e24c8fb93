//! `speedtest1`: all its sets, and settings that change how SQLite uses a file. What it prints, times aside, and the hash
//! of all results must be those that it has with SQLite's own VFS.

use crate::Result;

use super::process::{Output, Scene, last_line, same};
use super::{Other, Verdict};

const SETS: &[&str] = &["main", "cte", "rtree", "orm", "fp", "trigger", "debug1", "parsenumber"];
/// With the release that is pinned.
const BROKEN: &[(&str, &str)] = &[("trigger", "SQLite's program writes to tables that it has not made, over any VFS")];
/// In percent of the usual: the results are compared, not the times.
const SIZE: &str = "10";
const SIZE_SHORT: &str = "3";
/// Each with the main set.
const VARIANTS: &[&[&str]] = &[
    &["--without-rowid", "--pagesize", "512"],
    &["--strict", "--pagesize", "65536"],
    &["--autovacuum", "--pagesize", "1024"],
    &["--incrvacuum", "--cachesize", "10"],
    &["--exclusive"],
    &["--journal", "truncate", "--cachesize", "10"],
    &["--journal", "persist", "--cachesize", "10"],
    &["--journal", "memory"],
    &["--journal", "off"],
    &["--utf16le"],
    &["--utf16be", "--primarykey"],
    &["--nosync", "--cachesize", "10"],
    &["--reserve", "16"],
    &["--temp", "9"],
];
const VARIANTS_SHORT: usize = 2;

pub(super) fn cases(scene: &Scene) -> Result<Vec<Other>> {
    let variants = VARIANTS.iter().take(if scene.is_short() { VARIANTS_SHORT } else { VARIANTS.len() });
    let sets = SETS.iter().map(|set| (*set, &[][..]));
    let mut results = Vec::new();
    for (set, options) in sets.chain(variants.map(|options| ("main", *options))) {
        let name = format!("{set} {}", options.join(" "));
        let verdict = if scene.store().is_shared() && options.contains(&"--exclusive") {
            Verdict::NotApplicable("lease=transaction gives back between transactions what EXCLUSIVE keeps".into())
        } else {
            one(scene, set, options)?
        };
        results.push(Other::new("speedtest1", name.trim_end(), verdict));
    }
    Ok(results)
}

fn one(scene: &Scene, set: &str, options: &[&str]) -> Result<Verdict> {
    let size = if scene.is_short() { SIZE_SHORT } else { SIZE };
    let run = |ours: bool| -> Result<Output> {
        let mut arguments = vec!["--testset", set, "--size", size, "--verify"];
        arguments.extend(options);
        if ours {
            arguments.extend(["--vfs", "litefleet-suite"]);
        }
        arguments.push("speedtest.db");
        let mut output = scene.stage(ours)?.run("speedtest1", &arguments)?;
        output.text = without_times(&output.text);
        Ok(output)
    };
    let (stock, ours) = (run(false)?, run(true)?);
    if !stock.text.contains("Verification Hash: ") {
        let known = BROKEN.iter().find(|(broken, _)| *broken == set);
        return Ok(known.map_or_else(
            || Verdict::Failed(format!("it fails with SQLite's own VFS: {}", last_line(&stock.text))),
            |(_, why)| Verdict::NotApplicable((*why).into()),
        ));
    }
    Ok(same(&stock, &ours))
}

/// Each line ends with its time, such as `0.123s`.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| word.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok());
    let mut kept = String::new();
    for line in text.lines() {
        let rest = line.rsplit_once(' ').filter(|(_, last)| is_time(last)).map_or(line, |(rest, _)| rest);
        kept.push_str(rest.trim_end());
        kept.push('\n');
    }
    kept
}
