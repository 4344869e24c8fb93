//! SQLite's other programs over the VFS. Each case runs with SQLite's own VFS and with ours, in one run, and both must say
//! the same.

mod build;
mod kvtest;
mod page;
mod process;
mod processes;
mod speedtest;
mod threads;
mod words;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::run::Settings;
use crate::source::Tree;
use crate::{Result, clock};

pub(crate) use page::write as page;
use process::Scene;

/// How much of the programs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    /// What continuous integration has time for.
    Short,
}

/// What came of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Other {
    pub(crate) program: String,
    pub(crate) test: String,
    pub(crate) verdict: Verdict,
}

/// Whether a case holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    /// It cannot be asked of this store, or of this VFS.
    NotApplicable(String),
}

impl Other {
    fn new(program: &str, test: &str, verdict: Verdict) -> Self {
        Self { program: program.into(), test: test.into(), verdict }
    }
}

/// All of a run, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) store: String,
    pub(crate) locking: String,
    pub(crate) sqlite: String,
    pub(crate) date: String,
    pub(crate) extent: String,
    pub(crate) seconds: f64,
    pub(crate) results: Vec<Other>,
}

impl Report {
    /// How many passed, failed, and were not applicable, of one program or of all.
    pub(crate) fn counts(&self, program: Option<&str>) -> (usize, usize, usize) {
        let chosen = self.results.iter().filter(|result| program.is_none_or(|name| result.program == name));
        chosen.fold((0, 0, 0), |(passed, failed, not), result| match result.verdict {
            Verdict::Passed => (passed + 1, failed, not),
            Verdict::Failed(_) => (passed, failed + 1, not),
            Verdict::NotApplicable(_) => (passed, failed, not + 1),
        })
    }
}

/// The programs, in the order in which they run.
const PROGRAMS: &[(&str, Cases)] = &[
    ("speedtest1", speedtest::cases),
    ("wordcount", words::cases),
    ("kvtest", kvtest::cases),
    ("threadtest3", threads::cases),
    ("mptester", processes::cases),
];

type Cases = fn(&Scene) -> Result<Vec<Other>>;

/// Builds and runs them. Whether all passed.
pub(crate) fn run(
    workspace: &Path,
    cache: &Path,
    tree: &Tree,
    settings: &Settings,
    extent: Extent,
    only: &[String],
) -> Result<bool> {
    let programs = build::all(workspace, cache, tree)?;
    let scene = Scene { programs, tree, settings, extent };
    let start = clock::now();
    let mut results = Vec::new();
    for (name, cases) in PROGRAMS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let part = cases(&scene)?;
        for Other { test, verdict, .. } in &part {
            match verdict {
                Verdict::Passed => {}
                Verdict::Failed(why) => eprintln!("  {name} {test}: FAILED: {why}"),
                Verdict::NotApplicable(why) => eprintln!("  {name} {test}: not applicable: {why}"),
            }
        }
        results.extend(part);
    }
    let report = Report {
        store: settings.store.name().into(),
        locking: settings.locking.name().into(),
        sqlite: tree.version.clone(),
        date: clock::today(),
        extent: if extent == Extent::All { "all" } else { "short" }.into(),
        seconds: start.elapsed().as_secs_f64(),
        results,
    };
    for (name, _) in PROGRAMS {
        let (passed, failed, not) = report.counts(Some(name));
        if passed + failed + not > 0 {
            eprintln!("{name}: {passed} passed; {failed} failed; {not} not applicable");
        }
    }
    let (passed, failed, _) = report.counts(None);
    eprintln!("test result: {passed} passed; {failed} failed ({}, locking={})", report.store, report.locking);
    // What ran only in part does not take the place of a whole run.
    if only.is_empty() {
        let name = format!("report-programs-{}-{}-{}.json", report.extent, report.store, report.locking);
        let path = cache.join(name);
        let text = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        eprintln!("report: {}", path.display());
    }
    Ok(failed == 0)
}
