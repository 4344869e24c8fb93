//! The page that a person reads: written from the reports of runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::differences::{Category, Difference};
use crate::report::{Report, UNLISTED};
use crate::selection::{PERMUTATION, PERMUTATIONS};

/// What stands before the figures.
const INTRODUCTION: &str = include_str!("../page.md");
/// More names than this are not for a page: the report has them all.
const MOST_NAMES: usize = 12;

/// Writes the page from the reports in the cache.
pub(crate) fn write(path: &Path, cache: &Path, differences: &[Difference]) -> Result<()> {
    let reports: Vec<Report> = reports(cache)?.into_iter().map(|report| explain(report, differences)).collect();
    let mut text = INTRODUCTION.to_owned();
    runs(&mut text, &reports);
    categories(&mut text, &reports);
    files(&mut text, &reports);
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn reports(cache: &Path) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    let permutations = PERMUTATIONS.iter().map(|name| format!("{PERMUTATION}-{name}"));
    for selection in ["veryquick", "full", "processes"].map(str::to_owned).into_iter().chain(permutations) {
        for locking in ["sqlite", "snapshot"] {
            for store in ["embedded", "memory", "postgres", "fdb"] {
                for newest in ["", "-newest"] {
                    let path = cache.join(format!("report-{selection}-{store}-{locking}{newest}.json"));
                    let Ok(text) = fs::read_to_string(&path) else { continue };
                    reports.push(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?);
                }
            }
        }
    }
    if reports.is_empty() {
        return Err(format!("{} has no report of a run of veryquick or full", cache.display()));
    }
    Ok(reports)
}

/// Gives the cases that differ the reasons of the list as it is now.
fn explain(mut report: Report, differences: &[Difference]) -> Report {
    for file in &mut report.files {
        for case in &mut file.differing {
            let entry = differences.iter().find(|d| {
                d.file == file.file
                    && d.is_for(&report.run.store, &report.run.locking, report.run.release(), report.run.permutation())
                    && d.excuses(&case.case, case.count, &case.got)
            });
            case.category = entry.map(|d| d.category.name().to_owned());
            case.reason = entry.map(|d| d.reason.clone());
        }
    }
    Report::new(report.run, report.files)
}

/// Writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($words:tt)*) => {{ let _written = writeln!($text, $($words)*); }};
}

fn runs(text: &mut String, reports: &[Report]) {
    line!(text, "\n## Results\n");
    line!(
        text,
        "| run | date | SQLite | files that pass whole | files without cases | cases run, and by stock | cases that differ | \
         fail with stock | time, and stock's |"
    );
    line!(text, "|---|---|---|---|---|---|---|---|---|");
    for Report { run, totals, .. } in reports {
        let differing: usize = totals.differing.values().sum();
        line!(
            text,
            "| {}, {}, `locking={}` | {} | {} | {} of {} | {} | {}, {} | {} | {} | {:.0} s, {:.0} s |",
            run.selection,
            run.store,
            run.locking,
            run.date,
            run.sqlite,
            totals.whole,
            totals.files - totals.idle,
            totals.idle,
            totals.cases,
            totals.stock_cases,
            differing,
            totals.stock_failed,
            totals.seconds,
            totals.stock_seconds
        );
    }
    line!(
        text,
        "\nFiles without cases: they test what this build of SQLite does not have, and are in no other figure. Cases that \
         differ: those that fail, and those that did not run. Fail with stock: they fail with SQLite's own VFS as well, and \
         are not counted.\n\nTime is the sum over all files, each alone in its process; two run at a time. Stock's is kept from \
         the run that first measured it, which may have found the machine busier: compare only where both ran in one run."
    );
}

fn categories(text: &mut String, reports: &[Report]) {
    line!(text, "\n## Expected differences by category\n");
    line!(text, "Cases that differ, and in brackets the files that they are in.\n");
    let mut header = "| category | what it is |".to_owned();
    let mut rule = "|---|---|".to_owned();
    for Report { run, .. } in reports {
        let _written = write!(header, " {}, {}, `{}` |", run.selection, run.store, run.locking);
        rule += "---|";
    }
    line!(text, "{header}\n{rule}");
    let all = [
        Category::Host,
        Category::Wal,
        Category::MultiProcess,
        Category::Journal,
        Category::Refused,
        Category::Snapshot,
    ];
    let names = all.iter().map(|category| (category.name(), category.words()));
    for (name, words) in names.chain([(UNLISTED, "fails the run")]) {
        let cell = |report: &Report| {
            let cases = report.totals.differing.get(name).copied().unwrap_or_default();
            let files = report.totals.differing_files.get(name).copied().unwrap_or_default();
            if cases == 0 { "—".to_owned() } else { format!("{cases} ({files})") }
        };
        let cells: Vec<String> = reports.iter().map(cell).collect();
        if name != UNLISTED || cells.iter().any(|cell| cell != "—") {
            line!(text, "| {name} | {words} | {} |", cells.join(" | "));
        }
    }
}

/// Each file once, with what differs in the first run that has a difference there.
fn files(text: &mut String, reports: &[Report]) {
    line!(text, "\n## Files with expected differences\n");
    line!(text, "| file | cases | category | why | which |");
    line!(text, "|---|---|---|---|---|");
    let mut rows: BTreeMap<(&str, &str, &str), (usize, Vec<String>)> = BTreeMap::new();
    for report in reports {
        for file in &report.files {
            for case in &file.differing {
                let category = case.category.as_deref().unwrap_or(UNLISTED);
                let reason = case.reason.as_deref().unwrap_or("");
                let row = rows.entry((&file.file, category, reason)).or_insert((file.cases, Vec::new()));
                let words = case.words();
                if !row.1.contains(&words) {
                    row.1.push(words);
                }
            }
        }
    }
    for ((file, category, reason), (cases, names)) in rows {
        let mut shown = names.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(" ");
        if names.len() > MOST_NAMES {
            let _written = write!(shown, " and {} more", names.len() - MOST_NAMES);
        }
        line!(text, "| {file} | {} of {cases} | {category} | {reason} | {shown} |", names.len());
    }
}
