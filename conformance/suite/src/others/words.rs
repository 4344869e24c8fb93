//! `wordcount`: each of its modes, and what changes the file under it. The summary, with a checksum of all words and an
//! integrity check, must be that of SQLite's own VFS.

use std::path::PathBuf;

use crate::Result;

use super::Other;
use super::process::{Output, Scene, same};

const MODES: &[&str] = &["--insert", "--update", "--replace", "--upsert", "--select", "--delete", "--query", "--all"];
const VARIANTS: &[&[&str]] = &[
    &[],
    &["--without-rowid"],
    &["--nocase"],
    &["--pagesize", "512", "--cachesize", "10"],
    &["--pagesize", "65536"],
    &["--commit", "100"],
    &["--commit", "100", "--journal", "persist"],
    &["--journal", "truncate"],
    &["--journal", "memory"],
    &["--journal", "off"],
    &["--nosync", "--cachesize", "10"],
];
const VARIANTS_SHORT: usize = 1;

/// A text of the tree, of some thousand words.
fn text(scene: &Scene) -> PathBuf {
    scene.tree.path.join("README.md")
}

pub(super) fn cases(scene: &Scene) -> Result<Vec<Other>> {
    let variants = VARIANTS.iter().take(if scene.is_short() { VARIANTS_SHORT } else { VARIANTS.len() });
    let mut results = Vec::new();
    for variant in variants {
        for mode in MODES {
            let run = |ours: bool| -> Result<Output> {
                let text = text(scene).display().to_string();
                let mut arguments = vec![*mode, "--summary"];
                arguments.extend(*variant);
                arguments.extend(["words.db", text.as_str()]);
                let mut output = scene.stage(ours)?.run("wordcount", &arguments)?;
                output.text = without_times(&output.text);
                Ok(output)
            };
            let (stock, ours) = (run(false)?, run(true)?);
            let name = format!("{mode} {}", variant.join(" "));
            results.push(Other::new("wordcount", name.trim_end(), same(&stock, &ours)));
        }
    }
    Ok(results)
}

/// With `--all` it says how long each mode took.
fn without_times(text: &str) -> String {
    let is_time = |line: &str| {
        let first = line.split_whitespace().next();
        line.contains(" wordcount") && first.is_some_and(|word| word.parse::<f64>().is_ok())
    };
    let mut kept = String::new();
    for line in text.lines() {
        kept.push_str(line.split_once(" wordcount").filter(|_| is_time(line)).map_or(line, |(_, mode)| mode));
        kept.push('\n');
    }
    kept
}
