//! The report of a run, as JSON and in a few lines.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::differences::Difference;
use crate::selection::PERMUTATION;
use crate::source::Release;
use crate::verdict::{Differing, FileVerdict, passing};

/// What was run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) selection: String,
    pub(crate) store: String,
    pub(crate) locking: String,
    pub(crate) sqlite: String,
    /// Not the release that the list of differences was made with.
    pub(crate) newest: bool,
    pub(crate) date: String,
    pub(crate) seconds: f64,
    pub(crate) jobs: usize,
    /// Files that were run again later, by `--again`, and what came of each before.
    #[serde(default)]
    pub(crate) again: BTreeMap<String, Vec<String>>,
}

impl Run {
    pub(crate) fn release(&self) -> Release {
        if self.newest { Release::Newest } else { Release::Pinned }
    }

    /// The permutation of SQLite's that was run.
    pub(crate) fn permutation(&self) -> Option<&str> {
        let (word, name) = self.selection.split_once(' ')?;
        (word == PERMUTATION && !name.contains(' ')).then_some(name)
    }

    pub(crate) fn file_name(&self) -> String {
        let selection = self.selection.replace(' ', "-");
        let name = match selection.as_str() {
            name @ ("veryquick" | "full" | "short" | "processes") => name,
            name if self.permutation().is_some() => name,
            _ => "named",
        };
        let newest = if self.newest { "-newest" } else { "" };
        format!("report-{name}-{}-{}{newest}.json", self.store, self.locking)
    }
}

/// Raised with what the figures of a report mean.
const FORM: u32 = 2;

/// The report of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    form: u32,
    pub(crate) run: Run,
    pub(crate) totals: Totals,
    pub(crate) files: Vec<FileVerdict>,
}

/// Sums over all files. Idle ones count where a line says so.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// With idle ones.
    pub(crate) files: usize,
    /// Files of which nothing runs with SQLite's own VFS: they say nothing.
    pub(crate) idle: usize,
    pub(crate) whole: usize,
    pub(crate) cases: usize,
    pub(crate) stock_cases: usize,
    /// Cases that do not pass, by category of the list.
    pub(crate) differing: BTreeMap<String, usize>,
    /// Files with a case of a category.
    pub(crate) differing_files: BTreeMap<String, usize>,
    /// Files with something that is not as the list says; idle ones as well.
    pub(crate) unexpected: usize,
    /// Cases that fail with SQLite's own VFS.
    pub(crate) stock_failed: usize,
    /// Seconds of all files together: more than the run took, where several ran at the same time.
    pub(crate) seconds: f64,
    /// The same with SQLite's own VFS.
    pub(crate) stock_seconds: f64,
    /// Files whose run with SQLite's own VFS was an earlier one: its time is that of another hour.
    pub(crate) stock_kept: usize,
}

impl Totals {
    /// Ours by stock's, where both were measured in one run.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (self.stock_kept == 0 && self.stock_seconds > 0.0).then(|| self.seconds / self.stock_seconds)
    }

    /// The time of ours, and of stock's, which `whose` names.
    pub(crate) fn time(&self, whose: &str) -> String {
        let ratio = match self.ratio() {
            Some(ratio) => format!(": {ratio:.1} times"),
            None if self.stock_kept > 0 => " (an earlier run)".to_owned(),
            None => String::new(),
        };
        format!("{:.0} s, {:.0} s{whose}{ratio}", self.seconds, self.stock_seconds)
    }
}

/// The name of what stands in no list.
pub(crate) const UNLISTED: &str = "not listed";

impl Report {
    pub(crate) fn new(run: Run, files: Vec<FileVerdict>) -> Self {
        let mut totals = Totals { files: files.len(), ..Totals::default() };
        for file in &files {
            totals.unexpected += usize::from(!file.is_expected());
            if file.is_idle() {
                totals.idle += 1;
                continue;
            }
            totals.whole += usize::from(file.is_whole());
            totals.stock_failed += file.stock_failed.values().sum::<usize>();
            totals.cases += file.cases;
            totals.stock_cases += file.stock_cases;
            totals.seconds += file.seconds;
            totals.stock_seconds += file.stock_seconds;
            totals.stock_kept += usize::from(file.stock_kept);
            let mut categories: Vec<&str> = Vec::new();
            for case in &file.differing {
                let category = case.category.as_deref().unwrap_or(UNLISTED);
                *totals.differing.entry(category.to_owned()).or_default() += case.cases();
                categories.push(category);
            }
            categories.sort_unstable();
            categories.dedup();
            for category in categories {
                *totals.differing_files.entry(category.to_owned()).or_default() += 1;
            }
        }
        Self { form: FORM, run, totals, files }
    }

    /// Reads a report; `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|e| format!("{}: {e}", path.display()))?,
        };
        let report = serde_json::from_slice::<Self>(&bytes).ok().filter(|report| report.form == FORM);
        let old = || format!("{}: not a report of this version: run it again, or delete the file", path.display());
        report.map(Some).ok_or_else(old)
    }

    /// Nothing failed that should not, and nothing passed that should not.
    pub(crate) fn is_good(&self) -> bool {
        self.totals.unexpected == 0
    }

    /// The report of a run like this one, of which some files are to be run again, by the list as it is now.
    pub(crate) fn to_mend(path: &Path, run: &Run, differences: &[Difference]) -> Result<Self> {
        let place = path.display();
        let found = Self::read(path)?.ok_or_else(|| format!("{place}: there is no report of such a run"))?;
        let same = |of: fn(&Run) -> &str| of(&found.run) == of(run);
        if !(same(|run| &run.selection)
            && same(|run| &run.sqlite)
            && same(|run| &run.store)
            && same(|run| &run.locking))
        {
            let Run { selection, sqlite, store, locking, .. } = &found.run;
            return Err(format!("{place} is of another run: {selection} of {sqlite} on {store}, locking={locking}"));
        }
        Ok(found.judged(differences))
    }

    /// Judges what differs by a list that may be newer than the report.
    pub(crate) fn judged(mut self, differences: &[Difference]) -> Self {
        let run = &self.run;
        for file in &mut self.files {
            let is_for = |d: &&Difference| {
                d.file == file.file && d.is_for(&run.store, &run.locking, run.release(), run.permutation())
            };
            let listed: Vec<&Difference> = differences.iter().filter(is_for).collect();
            for case in &mut file.differing {
                let entry = listed.iter().find(|d| d.excuses(&case.case, case.count, &case.got));
                case.category = entry.map(|d| d.category.name().to_owned());
                case.reason = entry.map(|d| d.reason.clone());
            }
            let must = listed.into_iter().filter(|d| d.is_binding(run.permutation()));
            file.passing = passing(must, &file.differing);
        }
        Self::new(self.run, self.files)
    }

    /// The files that are not as expected.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        self.files.iter().filter(|file| !file.is_expected()).map(|file| file.file.clone()).collect()
    }

    /// With files that were run again.
    pub(crate) fn mended(mut self, files: Vec<FileVerdict>, seconds: f64) -> Self {
        for again in files {
            if let Some(file) = self.files.iter_mut().find(|file| file.file == again.file) {
                let before = self.run.again.entry(file.file.clone()).or_default();
                let words = file.unexpected();
                if before.last() != Some(&words) {
                    before.push(words);
                }
                *file = again;
            }
        }
        self.run.seconds += seconds;
        Self::new(self.run, self.files)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|e| e.to_string())?;
        fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Says to a person what came of it.
    pub(crate) fn print(&self) {
        for file in self.files.iter().filter(|file| !file.is_expected()) {
            eprintln!("{} ({} cases, {} with SQLite's own VFS)", file.file, file.cases, file.stock_cases);
            let unlisted = file.differing.iter().filter(|case| case.category.is_none());
            let cases: Vec<String> = unlisted.map(Differing::words).collect();
            if !cases.is_empty() {
                let shown = cases.iter().take(12).cloned().collect::<Vec<_>>().join(" ");
                eprintln!("  fail and are not listed ({}): {shown}", cases.len());
            }
            if !file.passing.is_empty() {
                eprintln!("  are listed and pass: {}", file.passing.join(" "));
            }
            if !file.missing.is_empty() && !cases.is_empty() {
                let shown = file.missing.keys().take(12).map(String::as_str).collect::<Vec<_>>().join(" ");
                eprintln!("  did not run ({}): {shown}", file.missing.len());
            }
            if let Some(end) = &file.end {
                eprintln!("  {end}");
            }
            if let Some(end) = &file.stock_end {
                eprintln!("  with SQLite's own VFS it did not end by its own summary: {end}");
            }
        }
        for file in self.files.iter().filter(|file| !file.stock_failed.is_empty()) {
            let shown = file.stock_failed.keys().take(12).map(String::as_str).collect::<Vec<_>>().join(" ");
            eprintln!("{}: fail with SQLite's own VFS ({}): {shown}", file.file, file.stock_failed.len());
        }
        let totals = &self.totals;
        eprintln!(
            "{} of {} files pass whole, and {} more have no cases in this build; {} cases, {} with SQLite's own VFS; \
             {:.0} s; of work {}",
            totals.whole,
            totals.files - totals.idle,
            totals.idle,
            totals.cases,
            totals.stock_cases,
            self.run.seconds,
            totals.time(" with SQLite's own VFS")
        );
        for (category, cases) in &totals.differing {
            let files = totals.differing_files.get(category).copied().unwrap_or_default();
            eprintln!("  {category}: {cases} cases in {files} files");
        }
        eprintln!("test result: {} passed; {} failed", totals.files - totals.unexpected, totals.unexpected);
    }
}
