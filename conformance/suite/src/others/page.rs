//! The page that a person reads, from the reports of whole runs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;

use super::{PROGRAMS, Report, Verdict};

const HEAD: &str = include_str!("page.md");

/// Writes the page from the reports in the cache.
pub(crate) fn write(page: &Path, cache: &Path) -> Result<()> {
    let mut reports = Vec::new();
    for entry in fs::read_dir(cache).map_err(|e| format!("{}: {e}", cache.display()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("report-programs-all-") {
            let text = fs::read_to_string(entry.path()).map_err(|e| e.to_string())?;
            let report: Report = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", entry.path().display()))?;
            reports.push(report);
        }
    }
    if reports.is_empty() {
        return Err("there is no report: run `programs` first".into());
    }
    reports.sort_by(|a, b| (&a.store, &a.locking).cmp(&(&b.store, &b.locking)));
    fs::write(page, text(&reports)).map_err(|e| format!("{}: {e}", page.display()))
}

/// Writing to a string cannot fail: the results of `write!` are nothing.
fn text(reports: &[Report]) -> String {
    let mut text = HEAD.to_owned();
    let names: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(text, "| store | locking | date | SQLite | {} | time |", names.join(" | "));
    let _ = writeln!(text, "|---|---|---|---|{}---|", "---|".repeat(names.len()));
    for report in reports {
        let cells = names.iter().map(|name| {
            let (passed, failed, not) = report.counts(Some(name));
            let outside = if not > 0 { format!(" ({not})") } else { String::new() };
            format!("{passed} of {}{outside}", passed + failed)
        });
        let cells: Vec<String> = cells.collect();
        let Report { store, locking, date, sqlite, seconds, .. } = report;
        let _ = writeln!(text, "| {store} | {locking} | {date} | {sqlite} | {} | {seconds:.0} s |", cells.join(" | "));
    }
    let failed = |verdict: &Verdict| match verdict {
        Verdict::Failed(why) => Some(why.clone()),
        _ => None,
    };
    let not = |verdict: &Verdict| match verdict {
        Verdict::NotApplicable(why) => Some(why.clone()),
        _ => None,
    };
    section(&mut text, "What fails", reports, &failed);
    section(&mut text, "What does not apply", reports, &not);
    text
}

fn section(text: &mut String, title: &str, reports: &[Report], why: &dyn Fn(&Verdict) -> Option<String>) {
    let _ = writeln!(text, "\n## {title}\n");
    let before = text.len();
    for report in reports {
        for result in &report.results {
            if let Some(words) = why(&result.verdict) {
                let (store, locking) = (&report.store, &report.locking);
                let _ = writeln!(text, "- {store}, {locking}: {} `{}`: {words}", result.program, result.test);
            }
        }
    }
    if text.len() == before {
        text.push_str("Nothing.\n");
    }
}
