//! Compares a run with SQLite's own VFS, and with what is expected.

use serde::{Deserialize, Serialize};

use crate::differences::Difference;
use crate::outcome::{FEWER, Outcome};
use crate::run::{Outcomes, Settings};

/// A case that does not pass, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Differing {
    pub(crate) case: String,
    /// `None`: it is not in the list.
    pub(crate) category: Option<String>,
    pub(crate) reason: Option<String>,
}

/// What came of one file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FileVerdict {
    pub(crate) file: String,
    pub(crate) cases: usize,
    pub(crate) stock_cases: usize,
    pub(crate) seconds: f64,
    pub(crate) stock_seconds: f64,
    pub(crate) differing: Vec<Differing>,
    /// Listed cases that have passed.
    pub(crate) passing: Vec<String>,
    pub(crate) omitted: Vec<String>,
    pub(crate) end: Option<String>,
    /// Cases that fail with SQLite's own VFS as well: they are not counted.
    pub(crate) stock_failed: Vec<String>,
}

impl FileVerdict {
    /// Every case passes, and as many ran as with SQLite's own VFS.
    pub(crate) fn is_whole(&self) -> bool {
        self.differing.is_empty()
    }

    /// What differs is in the list, and what is in the list differs.
    pub(crate) fn is_expected(&self) -> bool {
        self.differing.iter().all(|case| case.category.is_some()) && self.passing.is_empty()
    }
}

/// Judges each file.
pub(crate) fn judge(
    files: &[String],
    stock: &Outcomes,
    ours: &Outcomes,
    differences: &[Difference],
    settings: &Settings,
) -> Vec<FileVerdict> {
    let none = Outcome::default();
    let of = |outcomes: &Outcomes, file: &String| outcomes.get(file).unwrap_or(&none).clone();
    files.iter().map(|file| judge_one(file, &of(stock, file), &of(ours, file), differences, settings)).collect()
}

fn judge_one(
    file: &str,
    stock: &Outcome,
    ours: &Outcome,
    differences: &[Difference],
    settings: &Settings,
) -> FileVerdict {
    let listed: Vec<&Difference> = differences.iter().filter(|d| d.file == file && d.applies(settings)).collect();
    let mut failed: Vec<String> = ours.failed.iter().filter(|case| !stock.failed.contains(case)).cloned().collect();
    if ours.cases < stock.cases {
        failed.push(FEWER.into());
    }
    let differing = failed.iter().map(|case| {
        let entry = listed.iter().find(|d| d.cases.iter().any(|pattern| Difference::covers(pattern, case)));
        Differing {
            case: case.clone(),
            category: entry.map(|d| d.category.name().to_owned()),
            reason: entry.map(|d| d.reason.clone()),
        }
    });
    let missing = |pattern: &&String| !failed.iter().any(|case| Difference::covers(pattern, case));
    let must = listed.iter().filter(|d| d.is_binding(settings.permutation.as_deref()));
    FileVerdict {
        file: file.to_owned(),
        cases: ours.cases,
        stock_cases: stock.cases,
        seconds: ours.seconds,
        stock_seconds: stock.seconds,
        differing: differing.collect(),
        passing: must.flat_map(|d| &d.cases).filter(missing).cloned().collect(),
        omitted: ours.omitted.clone(),
        end: ours.end.clone(),
        stock_failed: stock.failed.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::differences::Category;
    use crate::{Locking, Store};

    fn judged(failed: &[&str], cases: usize, listed: &[&str]) -> FileVerdict {
        let outcome = |cases, failed: &[&str]| Outcome {
            cases,
            failed: failed.iter().map(|&case| case.to_owned()).collect(),
            ..Outcome::default()
        };
        let difference = Difference {
            file: "test/a.test".into(),
            category: Category::Host,
            reason: "why".into(),
            cases: listed.iter().map(|&case| case.to_owned()).collect(),
            stores: None,
            locking: Some("sqlite".into()),
            permutation: None,
            sometimes: false,
        };
        let settings = Settings {
            store: Store::Memory,
            locking: Locking::Sqlite,
            jobs: 1,
            limit: Duration::ZERO,
            outputs: None,
            server: None,
            permutation: None,
        };
        judge_one("test/a.test", &outcome(10, &["a-9"]), &outcome(cases, failed), &[difference], &settings)
    }

    #[test]
    fn only_the_list_excuses() {
        assert!(judged(&[], 10, &[]).is_whole());
        assert!(judged(&["a-9"], 10, &[]).is_whole());
        assert!(!judged(&["a-1"], 10, &[]).is_expected());
        assert!(judged(&["a-1", "a-2.1"], 10, &["a-1", "a-2.*"]).is_expected());
    }

    #[test]
    fn the_list_is_true() {
        assert!(!judged(&["a-1"], 10, &["a-1", "a-2"]).is_expected());
    }

    #[test]
    fn fewer_cases_are_no_pass() {
        assert!(!judged(&[], 9, &[]).is_expected());
        assert!(judged(&[], 9, &["(fewer cases)"]).is_expected());
    }
}
