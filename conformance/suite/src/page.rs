//! The page that a person reads: written from the reports of runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::differences::{Category, Difference};
use crate::report::{Report, Run, UNLISTED};
use crate::selection::{PERMUTATION, PERMUTATIONS};

/// What stands before the figures.
const INTRODUCTION: &str = include_str!("../page.md");
/// More names than this are not for a page: the report has them all.
const MOST_NAMES: usize = 12;

/// Writes the page from the reports in the cache.
pub(crate) fn write(path: &Path, cache: &Path, differences: &[Difference]) -> Result<()> {
    let reports: Vec<Report> = reports(cache)?.into_iter().map(|report| report.judged(differences)).collect();
    let mut text = INTRODUCTION.to_owned();
    runs(&mut text, &reports);
    before(&mut text, &reports);
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
                    reports.extend(Report::read(&path)?);
                }
            }
        }
    }
    if reports.is_empty() {
        return Err(format!("{} has no report of a run of veryquick or full", cache.display()));
    }
    Ok(reports)
}

/// How many files were run again.
fn again(run: &Run) -> String {
    match run.again.len() {
        0 => String::new(),
        1 => "; 1 file again".to_owned(),
        files => format!("; {files} files again"),
    }
}

/// Writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($words:tt)*) => {{ let _written = writeln!($text, $($words)*); }};
}

fn runs(text: &mut String, reports: &[Report]) {
    line!(text, "\n## Results\n");
    line!(
        text,
        "| | run | date | SQLite | files that pass whole | files without cases | cases run, and by stock | cases that differ | \
         files not as expected | fail with stock | time, and stock's |"
    );
    line!(text, "|---|---|---|---|---|---|---|---|---|---|---|");
    for (index, Report { run, totals, .. }) in reports.iter().enumerate() {
        let differing: usize = totals.differing.values().sum();
        line!(
            text,
            "| {} | {}, {}, `locking={}`{} | {} | {} | {} of {} | {} | {}, {} | {} | {} | {} | {} |",
            index + 1,
            run.selection,
            run.store,
            run.locking,
            again(run),
            run.date,
            run.sqlite,
            totals.whole,
            totals.files - totals.idle,
            totals.idle,
            totals.cases,
            totals.stock_cases,
            differing,
            totals.unexpected,
            totals.stock_failed,
            totals.time("")
        );
    }
    line!(
        text,
        "\nFiles without cases: they test what this build of SQLite does not have, and are in no other figure, unless something \
         fails in them, which is not as expected. Cases that differ: those that fail, and those that did not run. Files not as \
         expected: something fails that is not listed, or passes that is, or the run with SQLite's own VFS did not end by its own \
         summary; such a run is a failed one. Files again: they were not as expected, and were \
         run again later, with `--again`, the others not; what came of them before stands below. Fail with stock: they fail with SQLite's own VFS as well, and are not counted.\n\n\
         Time is the sum over all files, each alone in its process, for ours as for stock's; two run at a time. How many times \
         stock's ours is stands where both were measured in one run, stock's first. Else stock's is kept from an earlier run, \
         which may have found the machine busier."
    );
}

fn heading(run: &Run) -> String {
    format!("{}, {}, `{}`, {}", run.selection, run.store, run.locking, run.sqlite)
}

/// What came of files that were run again, before.
fn before(text: &mut String, reports: &[Report]) {
    for (index, Report { run, .. }) in reports.iter().enumerate().filter(|(_, report)| !report.run.again.is_empty()) {
        let files: Vec<String> =
            run.again.iter().map(|(file, before)| format!("{file} ({})", before.join("; then "))).collect();
        line!(
            text,
            "\nFiles of run {} that were run again, and what came of them before: {}.",
            index + 1,
            files.join(", ")
        );
    }
}

fn categories(text: &mut String, reports: &[Report]) {
    line!(text, "\n## Expected differences by category\n");
    line!(text, "Cases that differ, and in brackets the files that they are in.\n");
    let mut header = "| category | what it is |".to_owned();
    let mut rule = "|---|---|".to_owned();
    for Report { run, .. } in reports {
        let _written = write!(header, " {} |", heading(run));
        rule += "---|";
    }
    line!(text, "{header}\n{rule}");
    let names = Category::ALL.iter().map(|category| (category.name(), category.words()));
    for (name, words) in names.chain([(UNLISTED, "fails the run")]) {
        let cell = |report: &Report| {
            let cases = report.totals.differing.get(name).copied().unwrap_or_default();
            let files = report.totals.differing_files.get(name).copied().unwrap_or_default();
            if files == 0 { "—".to_owned() } else { format!("{cases} ({files})") }
        };
        let cells: Vec<String> = reports.iter().map(cell).collect();
        if name != UNLISTED || cells.iter().any(|cell| cell != "—") {
            line!(text, "| {name} | {words} | {} |", cells.join(" | "));
        }
    }
}

/// What differs in one file for one reason.
#[derive(Default)]
struct Row {
    /// How many cases, by the number of the run.
    cases: BTreeMap<usize, usize>,
    names: Vec<String>,
}

fn files(text: &mut String, reports: &[Report]) {
    line!(text, "\n## Files with expected differences\n");
    line!(
        text,
        "How many cases differ, of how many that run with SQLite's own VFS; where that is not the same in all runs with the file, \
         in which runs of the first table, and in the others none. Names in brackets are of what happened outside the cases: they \
         are not counted, but for how many did not run (fewer cases).\n"
    );
    line!(text, "| file | cases | category | why | which |");
    line!(text, "|---|---|---|---|---|");
    let mut rows: BTreeMap<(&str, &str, &str), Row> = BTreeMap::new();
    for (index, report) in reports.iter().enumerate() {
        for file in &report.files {
            for case in &file.differing {
                let category = case.category.as_deref().unwrap_or(UNLISTED);
                let reason = case.reason.as_deref().unwrap_or("");
                let row = rows.entry((&file.file, category, reason)).or_default();
                *row.cases.entry(index).or_default() += case.cases();
                let words = case.words();
                if !row.names.contains(&words) {
                    row.names.push(words);
                }
            }
        }
    }
    for ((file, category, reason), row) in rows {
        let names = &row.names;
        let mut shown = names.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(" ");
        if names.len() > MOST_NAMES {
            let _written = write!(shown, " and {} more", names.len() - MOST_NAMES);
        }
        line!(text, "| {file} | {} | {category} | {reason} | {shown} |", counts(reports, file, &row.cases));
    }
}

/// The count of each run that has the file; runs with the same one stand together.
fn counts(reports: &[Report], file: &str, cases: &BTreeMap<usize, usize>) -> String {
    let mut same: Vec<(Option<String>, Vec<String>)> = Vec::new();
    for (index, report) in reports.iter().enumerate() {
        let Some(verdict) = report.files.iter().find(|verdict| verdict.file == file) else { continue };
        let count = cases.get(&index).map(|count| format!("{count} of {}", verdict.stock_cases));
        let run = (index + 1).to_string();
        match same.iter_mut().find(|(other, _)| *other == count) {
            Some((_, runs)) => runs.push(run),
            None => same.push((count, vec![run])),
        }
    }
    if let [(Some(count), _)] = same.as_slice() {
        return count.clone();
    }
    let told = same.into_iter().filter_map(|(count, runs)| count.map(|count| (count, runs)));
    let told = told.map(|(count, runs)| {
        let word = if runs.len() == 1 { "run" } else { "runs" };
        format!("{count} ({word} {})", runs.join(", "))
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Differing, FileVerdict};

    fn report(sqlite: &str, stock_cases: usize, differing: &[(&str, usize)]) -> Report {
        let differing = differing.iter().map(|&(case, count)| Differing {
            case: case.into(),
            count,
            got: [].into(),
            category: Some("wal".into()),
            reason: Some("why".into()),
        });
        let file = |name: &str, stock_cases| FileVerdict {
            file: name.into(),
            stock_cases,
            cases: stock_cases,
            seconds: 6.0,
            stock_seconds: 2.0,
            ..FileVerdict::default()
        };
        let run = Run {
            selection: "veryquick".into(),
            store: "embedded".into(),
            locking: "sqlite".into(),
            sqlite: sqlite.into(),
            newest: sqlite != "1",
            date: "today".into(),
            seconds: 9.0,
            jobs: 2,
            again: BTreeMap::new(),
        };
        let first = FileVerdict { differing: differing.collect(), ..file("test/a.test", stock_cases) };
        Report::new(run, vec![first, file("test/idle.test", 0)])
    }

    fn written(write: fn(&mut String, &[Report]), reports: &[Report]) -> String {
        let mut text = String::new();
        write(&mut text, reports);
        text
    }

    #[test]
    fn idle_files_are_in_no_sum() {
        let row = written(runs, &[report("1", 12, &[("a-1", 1)])]);
        let expected = "| 1 | veryquick, embedded, `locking=sqlite` | today | 1 | 0 of 1 | 1 | 12, 12 | 1 | 0 | 0 | 6 s, 2 s: 3.0 times |";
        assert!(row.contains(expected), "{row}");
    }

    #[test]
    fn files_that_are_run_again_are_told() {
        let mut first = report("1", 12, &[("a-1", 1)]);
        let again = FileVerdict { differing: Vec::new(), cases: 13, ..first.files[0].clone() };
        first.files[0].end = Some("not done after 7 s".into());
        let mended = first.mended(vec![again], 3.0);
        let row = written(runs, std::slice::from_ref(&mended));
        assert!(row.contains("`locking=sqlite`; 1 file again | today | 1 | 1 of 1 | 1 | 13, 12 | 0 | 0 |"), "{row}");
        let told = written(before, &[mended]);
        assert!(
            told.contains("run 1 that were run again, and what came of them before: test/a.test (not done after 7 s)."),
            "{told}"
        );
    }

    #[test]
    fn a_time_of_an_earlier_run_is_not_compared() {
        let mut report = report("1", 12, &[]);
        report.files[0].stock_kept = true;
        let row = written(runs, &[Report::new(report.run, report.files)]);
        assert!(row.contains("| 6 s, 2 s (an earlier run) |"), "{row}");
    }

    #[test]
    fn a_listed_case_that_passes_is_not_as_expected() {
        let mut report = report("1", 12, &[]);
        report.files[0].passing = vec!["a-1".into()];
        let row = written(runs, &[Report::new(report.run, report.files)]);
        assert!(row.contains("| 12, 12 | 0 | 1 | 0 |"), "{row}");
    }

    #[test]
    fn every_category_has_its_line() {
        let mut report = report("1", 12, &[("a-1", 1)]);
        let one = report.files[0].differing[0].clone();
        let of = |category: &Category| Differing { category: Some(category.name().into()), ..one.clone() };
        report.files[0].differing = Category::ALL.iter().map(of).collect();
        let text = written(categories, &[Report::new(report.run, report.files)]);
        assert_eq!(text.matches("| 1 (1) |").count(), Category::ALL.len(), "{text}");
    }

    #[test]
    fn a_heading_has_the_release() {
        let text = written(categories, &[report("1", 12, &[]), report("2", 12, &[])]);
        assert!(text.contains("| veryquick, embedded, `sqlite`, 1 | veryquick, embedded, `sqlite`, 2 |"), "{text}");
    }

    #[test]
    fn the_cases_of_a_file_are_those_of_each_run() {
        let row = |reports: &[Report]| {
            let text = written(files, reports);
            text.lines().find(|line| line.starts_with("| test/a.test")).unwrap_or_default().to_owned()
        };
        let cases = [("a-1", 1), ("(fewer cases)", 2), ("(stopped after a-1)", 1)];
        let one = || report("1", 12, &cases);
        let names = "a-1 (fewer cases): 2 (stopped after a-1)";
        assert_eq!(row(&[one(), one()]), format!("| test/a.test | 3 of 12 | wal | why | {names} |"));
        let others = [one(), report("2", 13, &cases), one(), report("2", 13, &[])];
        let counts = "3 of 12 (runs 1, 3); 3 of 13 (run 2)";
        assert_eq!(row(&others), format!("| test/a.test | {counts} | wal | why | {names} |"));
    }
}
