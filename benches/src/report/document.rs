//! The whole document.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Row, table};
use crate::options::Options;
use crate::workloads;

/// The report as Markdown.
pub(super) fn markdown(facts: &BTreeMap<&'static str, String>, rows: &[Row], options: &Options) -> String {
    let mut text = String::from(
        "# Benchmarks\n\n\
         Litefleet beside stock SQLite, the same SQLite, in one run on one machine. This page is written by the program that \
         measures; do not edit it.\n\n",
    );
    if options.quick {
        text.push_str("**A quick run: shorter, with fewer rounds. Not for quoting.**\n\n");
    }
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _written = text.write_fmt(words);
        text.push('\n');
    };
    line(format_args!("| machine | |\n|---|---|"));
    for (name, value) in facts {
        line(format_args!("| {name} | {value} |"));
    }
    line(format_args!(
        "| rounds | {} of each side, taking turns |\n\n\
         The ratio is Litefleet's number by stock SQLite's of the same round: the median, and in brackets the smallest and \
         the largest. Absolute numbers are medians too. For times, bytes and memory less is better, for rates more. Round \
         trips and bytes are what Litefleet exchanged with its store: per operation where the row is a rate or a number of \
         bytes, else of the whole run.\n",
        options.rounds()
    ));
    let (compared, counted): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.ratio.is_some());
    if !compared.is_empty() {
        line(format_args!("{}", table::comparisons(compared.into_iter())));
    }
    if !counted.is_empty() {
        line(format_args!(
            "## Round trips\n\nOne round trip is one call of the store, whichever it is. The budget is the design's.\n\n{}",
            table::counts(counted.into_iter())
        ));
    }
    line(format_args!("## What is measured\n"));
    for workload in workloads::ALL {
        line(format_args!("- **{}**: {}", workload.name, workload.about));
    }
    line(format_args!(
        "\n## How to repeat\n\n\
         Linux and a C compiler are needed; `speedtest1.sh` also wants Debian or a relative of it.\n\n\
         \x20   export LITEFLEET_SPEEDTEST1_C=$(benches/speedtest1.sh)\n\
         \x20   cargo run --release -p litefleet-benches -- all --document docs/benchmarks.md --json benchmarks.json\n\n\
         `--quick` is for a first look, `--only NAME` runs one measurement, `--directory DIR` names the disk to measure. \
         The JSON has every round. Each measurement is a process of its own, in a folder of its own that is removed \
         afterwards; a full run needs about 8 GB of disk."
    ));
    text
}
