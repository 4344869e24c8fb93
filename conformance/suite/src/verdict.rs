//! Compares a run with SQLite's own VFS, and with what is expected.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::differences::Difference;
use crate::grave::Grave;
use crate::outcome::{FEWER, Outcome};
use crate::run::{Outcomes, Settings};

/// A case that does not pass, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Differing {
    pub(crate) case: String,
    /// How many cases it stands for: those that failed under this name, or did not run.
    pub(crate) count: usize,
    /// What it got, where that is more than another answer: it is excused only by an entry that says so.
    #[serde(default)]
    pub(crate) got: BTreeSet<Grave>,
    /// `None`: it is not in the list.
    pub(crate) category: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Differing {
    /// How many cases of the file that is: what happens outside of them stands in brackets.
    pub(crate) fn cases(&self) -> usize {
        if self.case == FEWER || !self.case.starts_with('(') { self.count } else { 0 }
    }

    /// Its name; with how many cases did not run, or what it got.
    pub(crate) fn words(&self) -> String {
        if self.case == FEWER {
            return format!("{FEWER}: {}", self.count);
        }
        let got = self.got.iter().filter(|&&got| got != Grave::Signal && got != Grave::Panic);
        let got: Vec<&str> = got.map(|got| got.words()).collect();
        if got.is_empty() { self.case.clone() } else { format!("{} [{}]", self.case, got.join(", ")) }
    }
}

/// How the cases end that a permutation puts behind each file.
const AFTER_EACH: &[&str] = &[".test-closeallfiles", ".test-sharedcachesetting"];

/// What came of one file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FileVerdict {
    pub(crate) file: String,
    pub(crate) cases: usize,
    pub(crate) stock_cases: usize,
    pub(crate) seconds: f64,
    pub(crate) stock_seconds: f64,
    /// The run with SQLite's own VFS was an earlier one.
    pub(crate) stock_kept: bool,
    /// The cases that passed, and how often.
    pub(crate) passed: BTreeMap<String, usize>,
    pub(crate) differing: Vec<Differing>,
    /// Names that ran with SQLite's own VFS, and how much more often than here.
    pub(crate) missing: BTreeMap<String, usize>,
    /// Listed cases that have passed.
    pub(crate) passing: Vec<String>,
    pub(crate) omitted: Vec<String>,
    pub(crate) end: Option<String>,
    /// Cases that fail with SQLite's own VFS as well: they are not counted.
    pub(crate) stock_failed: BTreeMap<String, usize>,
    /// How the run with SQLite's own VFS ended, where not by its own summary: it is no measure then.
    pub(crate) stock_end: Option<String>,
}

impl FileVerdict {
    /// Nothing of it runs with SQLite's own VFS, but what a permutation looks at after each file.
    pub(crate) fn is_idle(&self) -> bool {
        let ran = self.passed.iter().chain(&self.missing);
        let after_each = ran.filter(|(case, _)| AFTER_EACH.iter().any(|end| case.ends_with(end)));
        let after_each: usize = after_each.map(|(_, count)| count).sum();
        self.stock_cases == 0 || (self.differing.is_empty() && self.stock_cases <= after_each)
    }

    /// Every case passes, and all ran that run with SQLite's own VFS.
    pub(crate) fn is_whole(&self) -> bool {
        self.differing.is_empty() && self.stock_end.is_none()
    }

    /// What is not as expected, in a few words.
    pub(crate) fn unexpected(&self) -> String {
        const MOST: usize = 3;
        if let Some(end) = &self.stock_end {
            return format!("with SQLite's own VFS: {end}");
        }
        if let Some(end) = &self.end {
            return end.clone();
        }
        let unlisted = self.differing.iter().filter(|case| case.category.is_none()).map(Differing::words);
        let passing = self.passing.iter().map(|case| format!("{case} is listed and passes"));
        let mut all: Vec<String> = unlisted.chain(passing).collect();
        let more = all.len().saturating_sub(MOST);
        all.truncate(MOST);
        let words = all.join(", ");
        if more > 0 { format!("{words} and {more} more") } else { words }
    }

    /// What differs is in the list, and what is in the list differs.
    pub(crate) fn is_expected(&self) -> bool {
        self.differing.iter().all(|case| case.category.is_some()) && self.passing.is_empty() && self.stock_end.is_none()
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
    let missing = missing(&stock.ran, &ours.ran);
    let failed = failed(stock, ours, &missing);
    let differing = failed.into_iter().map(|(case, (count, got))| {
        let entry = listed.iter().find(|d| d.excuses(&case, count, &got));
        Differing {
            category: entry.map(|d| d.category.name().to_owned()),
            reason: entry.map(|d| d.reason.clone()),
            case,
            count,
            got,
        }
    });
    let differing: Vec<Differing> = differing.collect();
    let must = listed.iter().filter(|d| d.is_binding(settings.permutation.as_deref()));
    let passed = ours.ran.iter().filter_map(|(case, times)| {
        let passed = times.saturating_sub(ours.failed.get(case).copied().unwrap_or_default());
        (passed > 0).then(|| (case.clone(), passed))
    });
    FileVerdict {
        file: file.to_owned(),
        cases: ours.cases,
        stock_cases: stock.cases,
        seconds: ours.seconds,
        stock_seconds: stock.seconds,
        stock_kept: stock.kept,
        passed: passed.collect(),
        passing: passing(must.copied(), &differing),
        differing,
        omitted: ours.omitted.clone(),
        end: ours.end.clone(),
        stock_failed: stock.failed.clone(),
        stock_end: stock.end.clone(),
        missing,
    }
}

/// What entries list that must differ and does not. A case that gets another answer than its entry says passes as far as that
/// entry goes.
pub(crate) fn passing<'a>(entries: impl Iterator<Item = &'a Difference>, differing: &[Differing]) -> Vec<String> {
    let differs = |entry: &Difference, pattern: &str| {
        differing.iter().any(|found| Difference::covers(pattern, &found.case) && entry.is_got(&found.got))
    };
    let passing = entries.flat_map(|entry| entry.cases.iter().filter(move |pattern| !differs(entry, pattern)));
    passing.cloned().collect()
}

/// How often a case fails, and what it got where that is more than another answer.
type Failed = BTreeMap<String, (usize, BTreeSet<Grave>)>;

/// What fails here and not with SQLite's own VFS, or worse than there. Of a name that is used several times and fails only sometimes, the name says
/// so.
fn failed(stock: &Outcome, ours: &Outcome, missing: &BTreeMap<String, usize>) -> Failed {
    let mut failed = BTreeMap::new();
    for (case, &times) in &ours.failed {
        let more = times.saturating_sub(stock.failed.get(case).copied().unwrap_or_default());
        let ran = ours.ran.get(case).copied().unwrap_or(times);
        let grave = ours.grave.get(case).cloned().unwrap_or_default();
        // Where stock fails as often, that excuses another answer, and not what only ours got.
        let excused = if more == 0 { stock.grave.get(case).cloned() } else { None }.unwrap_or_default();
        let grave: BTreeSet<Grave> = grave.difference(&excused).copied().collect();
        if more > 0 || !grave.is_empty() {
            let name = if times < ran { format!("{case} ({times} of {ran})") } else { case.clone() };
            failed.insert(name, (more.max(1), grave));
        }
    }
    let fewer = missing.values().sum::<usize>().max(stock.cases.saturating_sub(ours.cases));
    if fewer > 0 {
        failed.insert(FEWER.into(), (fewer, BTreeSet::new()));
    }
    failed
}

/// The names that ran with SQLite's own VFS more often than here. A test that lets one call after the other fail has as many
/// rounds as there are calls, which may be more or fewer: of its rounds there must be some.
fn missing(stock: &BTreeMap<String, usize>, ours: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let rounds = |ran: &BTreeMap<String, usize>| {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for (case, times) in ran {
            match round(case) {
                Some(name) => *found.entry(name.to_owned()).or_default() = 1,
                None => *found.entry(without_chance(case).to_owned()).or_default() += times,
            }
        }
        found
    };
    let (stock, ours) = (rounds(stock), rounds(ours));
    let fewer = |(case, times): (String, usize)| {
        let fewer = times.saturating_sub(ours.get(&case).copied().unwrap_or_default());
        (fewer > 0).then_some((case, fewer))
    };
    stock.into_iter().filter_map(fewer).collect()
}

/// The name without its number, of a round of such a test.
fn round(case: &str) -> Option<&str> {
    /// What the tests call their loops in which memory, the disk or a call of the operating system fails: words of a name,
    /// with a digit or a letter behind them where the file has one.
    const LOOPS: &[&str] = &["malloc", "oom", "ioerr", "cantopen", "transient", "persistent", "fault", "shmerr"];
    /// Words of other names as well: of a loop it is the last.
    const ENDS: &[&str] = &["-full", "-interrupt"];
    let (name, number) = case.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_loop = |word: &str| LOOPS.iter().any(|name| word.strip_prefix(name).is_some_and(|rest| rest.len() <= 1));
    let is_round = name.split(['-', '_', '.']).any(is_loop) || ENDS.iter().any(|end| name.ends_with(end));
    (is_number && is_round).then_some(name)
}

/// The name without a number that differs from run to run.
fn without_chance(case: &str) -> &str {
    /// Tests whose names end in how many rows a random choice has left.
    const RANDOM: &[&str] = &["trans-9.", "avtrans-9."];
    let is_random = RANDOM.iter().any(|start| case.starts_with(start));
    case.rsplit_once('-').filter(|_| is_random).map_or(case, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differences::Category;
    use crate::source::Release;
    use crate::{Locking, Store};

    fn ran(cases: &[&str]) -> BTreeMap<String, usize> {
        let mut ran = BTreeMap::new();
        for case in cases {
            *ran.entry((*case).to_owned()).or_default() += 1;
        }
        ran
    }

    fn judged_runs(stock: &Outcome, ours: &Outcome, listed: &[&str], fewer: Option<usize>) -> FileVerdict {
        judged_grave(stock, ours, listed, fewer, &[])
    }

    fn judged_grave(
        stock: &Outcome,
        ours: &Outcome,
        listed: &[&str],
        fewer: Option<usize>,
        got: &[Grave],
    ) -> FileVerdict {
        let difference = Difference {
            file: "test/a.test".into(),
            category: Category::Host,
            reason: "why".into(),
            cases: listed.iter().map(|&case| case.to_owned()).collect(),
            fewer,
            got: got.iter().copied().collect(),
            stores: None,
            locking: Some("sqlite".into()),
            sqlite: None,
            permutation: None,
            sometimes: false,
        };
        let settings = Settings {
            store: Store::Memory,
            locking: Locking::Sqlite,
            sqlite: Release::Pinned,
            jobs: 1,
            limit: None,
            outputs: None,
            server: None,
            stock_anew: false,
            permutation: None,
        };
        judge_one("test/a.test", stock, ours, &[difference], &settings)
    }

    fn judged(failed: &[&str], cases: usize, listed: &[&str]) -> FileVerdict {
        let outcome = |cases, failed: &[&str]| Outcome { cases, failed: ran(failed), ..Outcome::default() };
        judged_runs(&outcome(10, &["a-9"]), &outcome(cases, failed), listed, Some(2))
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
    fn what_a_permutation_looks_at_after_each_file_is_none_of_it() {
        let file = |names: &[&str]| FileVerdict {
            passed: names.iter().map(|name| ((*name).to_owned(), 1)).collect(),
            stock_cases: names.len(),
            ..FileVerdict::default()
        };
        let after = ["a.test-closeallfiles", "a.test-sharedcachesetting"];
        assert!(file(&after).is_idle() && file(&after[..1]).is_idle() && file(&[]).is_idle());
        assert!(!file(&["a-1", after[0]]).is_idle() && !file(&["a-1", after[0], after[1]]).is_idle());
    }

    #[test]
    fn fewer_cases_are_no_pass() {
        assert!(!judged(&[], 9, &[]).is_expected());
        assert!(judged(&[], 8, &["(fewer cases)"]).is_expected());
    }

    #[test]
    fn fewer_cases_have_a_bound() {
        assert!(!judged(&[], 7, &["(fewer cases)"]).is_expected());
    }

    #[test]
    fn a_file_that_ran_other_cases_is_no_pass() {
        let outcome = |names: &[&str]| Outcome { cases: 3, ran: ran(names), ..Outcome::default() };
        let verdict = judged_runs(&outcome(&["a-1", "a-2"]), &outcome(&["a-1", "a-1"]), &[], None);
        assert_eq!((verdict.is_whole(), &verdict.missing), (false, &ran(&["a-2"])));
    }

    #[test]
    fn a_loop_over_faults_may_have_other_rounds_but_not_none() {
        let outcome = |names: &[&str]| Outcome { cases: 3, ran: ran(names), ..Outcome::default() };
        let stock = outcome(&["a-1-oom-transient.1", "a-1-oom-transient.2"]);
        assert!(judged_runs(&stock, &outcome(&["a-1-oom-transient.7"]), &[], None).is_whole());
        assert!(!judged_runs(&stock, &outcome(&["a-2"]), &[], None).is_whole());
    }

    /// Names of ordinary tests have the words in them that loops are called by: one of each prefix was enough.
    #[test]
    fn only_a_loop_over_faults_may_have_other_rounds() {
        let outcome = |names: &[&str]| Outcome { cases: 9, ran: ran(names), ..Outcome::default() };
        let rounds = ["a-1-oom-transient.1", "a-1-oom-transient.2"];
        for name in
            ["bloom1-1", "default-1", "e_walckpt-1.full.2", "interrupt-2", "diskfull-1", "fts5full-1", "a-full-1"]
        {
            let (first, second) = (format!("{name}.1"), format!("{name}.2"));
            let stock = outcome(&[rounds[0], &first, &second]);
            let verdict = judged_runs(&stock, &outcome(&[rounds[0], rounds[1], &first]), &[], None);
            assert_eq!((verdict.is_whole(), &verdict.missing), (false, &ran(&[&second])), "{name}");
        }
        for name in
            ["a-full", "a-interrupt", "a-1.persistent", "ioerr2-1.7", "mallocA-1", "fts3expr-malloc-1", "a-1-oom-t"]
        {
            let (first, second) = (format!("{name}.1"), format!("{name}.2"));
            assert!(judged_runs(&outcome(&[&first, &second]), &outcome(&[&first]), &[], None).is_whole(), "{name}");
        }
    }

    /// A case that fails with SQLite's own VFS, by another answer, does not excuse damage.
    #[test]
    fn what_fails_with_stock_excuses_no_more_than_it_got() {
        let stock = Outcome { cases: 2, ran: ran(&["a-1"]), failed: ran(&["a-1"]), ..Outcome::default() };
        let with = |grave: &[Grave]| Outcome {
            grave: BTreeMap::from([("a-1".to_owned(), grave.iter().copied().collect())]),
            ..stock.clone()
        };
        assert!(judged_runs(&stock, &with(&[]), &[], None).is_whole());
        assert!(!judged_runs(&stock, &with(&[Grave::Malformed]), &[], None).is_expected());
        assert!(!judged_runs(&stock, &with(&[Grave::Malformed]), &["a-1"], None).is_expected());
        assert!(judged_runs(&with(&[Grave::IoError]), &with(&[Grave::IoError]), &[], None).is_whole());
        assert!(
            !judged_runs(&with(&[Grave::IoError]), &with(&[Grave::IoError, Grave::Malformed]), &[], None).is_expected()
        );
    }

    #[test]
    fn a_random_number_is_no_part_of_a_name() {
        let outcome = |names: &[&str]| Outcome { cases: 3, ran: ran(names), ..Outcome::default() };
        let stock = outcome(&["avtrans-9.21.1-6258", "avtrans-9.21.2-6258"]);
        assert!(judged_runs(&stock, &outcome(&["avtrans-9.21.1-17", "avtrans-9.21.2-17"]), &[], None).is_whole());
        assert!(!judged_runs(&stock, &outcome(&["avtrans-9.21.1-6258", "avtrans-9.22.1-6258"]), &[], None).is_whole());
    }

    #[test]
    fn a_name_that_fails_once_of_twice_is_not_the_name() {
        let stock = Outcome { cases: 3, ran: ran(&["a-1", "a-1"]), ..Outcome::default() };
        let ours = Outcome { failed: ran(&["a-1"]), ..stock.clone() };
        assert!(!judged_runs(&stock, &ours, &["a-1"], None).is_expected());
        assert!(judged_runs(&stock, &ours, &["a-1 (1 of 2)"], None).is_expected());
    }

    #[test]
    fn a_listed_case_that_finds_damage_is_not_excused() {
        let stock = Outcome { cases: 2, ran: ran(&["a-1"]), ..Outcome::default() };
        let ours = |grave: &[Grave]| Outcome {
            failed: ran(&["a-1"]),
            grave: BTreeMap::from([("a-1".to_owned(), grave.iter().copied().collect())]),
            ..stock.clone()
        };
        let listed = |grave: &[Grave], got: &[Grave]| judged_grave(&stock, &ours(grave), &["a-1"], None, got);
        assert!(listed(&[], &[]).is_expected());
        for grave in [Grave::Malformed, Grave::IoError, Grave::Signal, Grave::Panic] {
            assert!(!listed(&[grave], &[]).is_expected(), "{grave:?}");
            assert!(listed(&[grave], &[grave]).is_expected(), "{grave:?}");
        }
        assert!(!listed(&[Grave::Malformed, Grave::IoError], &[Grave::IoError]).is_expected());
    }

    #[test]
    fn an_entry_that_says_damage_is_true() {
        let stock = Outcome { cases: 2, ran: ran(&["a-1"]), ..Outcome::default() };
        let ours = Outcome { failed: ran(&["a-1"]), ..stock.clone() };
        let verdict = judged_grave(&stock, &ours, &["a-1"], None, &[Grave::Malformed]);
        assert_eq!((verdict.is_expected(), verdict.passing), (false, vec!["a-1".to_owned()]));
    }

    #[test]
    fn a_measure_that_did_not_end_excuses_nothing() {
        let stock = Outcome { cases: 1, end: Some("signal 11".into()), ..Outcome::default() };
        let ours = Outcome { cases: 3, ..Outcome::default() };
        assert!(!judged_runs(&stock, &ours, &[], None).is_expected());
    }
}
