//! What a run of one test file said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::grave::{self, Grave};

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal(i32),
    /// It was not done after so many seconds, and was ended.
    Late(u64),
}

impl End {
    pub(crate) fn is_good(&self) -> bool {
        *self == Self::Exit(0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Late(seconds) => write!(f, "not done after {seconds} s"),
        }
    }
}

/// The outcome of one test file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Cases that ran.
    pub(crate) cases: usize,
    /// Each case by its name, and how often it ran: some names are used twice.
    pub(crate) ran: BTreeMap<String, usize>,
    /// How often which failed. Cases of our own naming stand in brackets.
    pub(crate) failed: BTreeMap<String, usize>,
    /// Of those, the ones that got more than another answer.
    #[serde(default)]
    pub(crate) grave: BTreeMap<String, BTreeSet<Grave>>,
    /// What the file left out: names and its reasons.
    pub(crate) omitted: Vec<String>,
    /// How the run ended, where not by its own summary.
    pub(crate) end: Option<String>,
    pub(crate) seconds: f64,
    /// From an earlier run.
    #[serde(skip)]
    pub(crate) kept: bool,
}

/// Cases of our own naming, for what happens outside the cases of a file.
pub(crate) const FEWER: &str = "(fewer cases)";
const LEFT: &str = "(left behind)";
/// A process of the test had a store that no other process sees.
pub(crate) const OWN_STORE: &str = "(store of its own)";
/// A script wanted to see a database while another process had the store.
pub(crate) const UNSEEN: &str = "(store not seen)";

/// The bridge to the VFS could not read, or close the store, which SQLite or a script does not see.
pub(crate) const BRIDGE_FAILED: &str = "(bridge failed)";

/// The VFS under test has panicked, which SQLite sees as an I/O error: cases that make errors happen would take it for theirs.
pub(crate) const PANICKED: &str = "(panicked)";

/// What the lines of an output say.
#[derive(Debug, Default)]
struct Lines<'a> {
    counted: usize,
    /// The case that began last.
    case: &'a str,
    failed: Vec<&'a str>,
    /// Errors, and cases that ran.
    summary: Option<(usize, usize)>,
    /// The summary's list of what failed.
    listed: Option<&'a str>,
}

impl Outcome {
    /// Reads what a test file has written. `prefix`: what a permutation puts before the name of each case.
    pub(crate) fn read(text: &str, prefix: &str, end: &End, seconds: f64) -> Self {
        let mut outcome = Self { seconds, ..Self::default() };
        let lines = outcome.read_lines(text, prefix);
        let graves = grave::read(text, case);
        for name in lines.names() {
            outcome.fail_with(name.strip_prefix(prefix).unwrap_or(name), graves.of(name));
        }
        let case = lines.case.strip_prefix(prefix).unwrap_or(lines.case);
        // A file that ends by its summary has counted that as well.
        outcome.cases = lines.summary.map_or(lines.counted, |(_, cases)| cases.saturating_sub(1));
        let words = match (end, lines.summary) {
            (End::Signal(signal), _) => Some(format!("(signal {signal} after {case})")),
            (End::Late(_), _) => Some(format!("(not done after {case})")),
            // A file that is not for this system leaves before it has begun.
            (End::Exit(0), None) if text.trim().is_empty() => None,
            (End::Exit(_), None) => Some(format!("(stopped after {case})")),
            // The script says by its exit code whether anything has failed.
            (End::Exit(0), Some(_)) => None,
            (End::Exit(1), Some(_)) if !outcome.failed.is_empty() => None,
            (End::Exit(code), Some(_)) => Some(format!("(exit code {code})")),
        };
        if let Some(words) = words {
            let mut grave = graves.of_end();
            if matches!(end, End::Signal(_)) {
                grave.insert(Grave::Signal);
            }
            outcome.fail_with(&words, grave);
            outcome.end = Some(end.to_string());
        }
        outcome
    }

    fn fail(&mut self, case: &str) {
        self.fail_with(case, BTreeSet::new());
    }

    /// A process has said that this has happened; its output may have said so already.
    pub(crate) fn mark(&mut self, case: &str) {
        if !self.failed.contains_key(case) {
            let grave = (case == PANICKED).then_some(Grave::Panic);
            self.fail_with(case, grave.into_iter().collect());
        }
    }

    fn fail_with(&mut self, case: &str, grave: BTreeSet<Grave>) {
        *self.failed.entry(case.to_owned()).or_default() += 1;
        if !grave.is_empty() {
            self.grave.entry(case.to_owned()).or_default().extend(grave);
        }
    }

    fn read_lines<'a>(&mut self, text: &'a str, prefix: &str) -> Lines<'a> {
        let mut lines = Lines::default();
        let mut omitting = false;
        for line in text.lines() {
            if omitting {
                if let Some(rest) = line.strip_prefix(".  ") {
                    self.omitted.push(rest.split_whitespace().collect::<Vec<_>>().join(" "));
                    continue;
                }
                omitting = false;
            }
            if line.contains("thread '") && line.contains(" panicked at ") {
                self.fail_with(PANICKED, BTreeSet::from([Grave::Panic]));
            }
            if let Some(rest) = line.strip_prefix("! ") {
                lines.failed.extend(rest.split_once(" expected:").map(|(name, _)| name.trim()));
            } else if let Some(name) = case(line) {
                lines.counted += 1;
                lines.case = name;
                *self.ran.entry(name.strip_prefix(prefix).unwrap_or(name).to_owned()).or_default() += 1;
            } else if line.starts_with("Error: ") && !lines.case.is_empty() {
                lines.failed.push(lines.case);
            } else if let Some((errors, rest)) = line.split_once(" errors out of ") {
                let tests = rest.split(' ').next().and_then(|count| count.parse().ok());
                lines.summary = errors.parse::<usize>().ok().zip(tests);
            } else if line == "Omitted test cases:" {
                omitting = true;
            } else if let Some(names) = line.strip_prefix("!Failures on these tests:") {
                lines.listed = Some(names);
            } else if line.starts_with("Unfreed memory:") || line.ends_with(" files were left open") {
                self.fail(LEFT);
            }
        }
        lines
    }
}

/// The name of a case that a line begins with; what came of it, or nothing yet, follows.
fn case(line: &str) -> Option<&str> {
    // Threads of a script may write dots meanwhile.
    let (name, rest) = line.trim_start_matches('.').split_once("...")?;
    let is_name = !name.is_empty() && (!name.contains(' ') || rest.is_empty() || rest == " Ok");
    is_name.then_some(name)
}

impl<'a> Lines<'a> {
    /// What failed. Without a summary, as the lines say it, where what another process writes may look like an error.
    fn names(&self) -> Vec<&'a str> {
        let Some(listed) = self.listed else {
            // Nothing, as the summary says.
            return if self.summary.is_some() { Vec::new() } else { self.failed.clone() };
        };
        // The list divides names by spaces, and some have spaces in them.
        let mut spaced: Vec<&str> = self.failed.iter().copied().filter(|name| name.contains(' ')).collect();
        let mut names = Vec::new();
        let mut rest = listed.trim_start();
        while !rest.is_empty() {
            let whole = spaced.iter().position(|name| rest.starts_with(*name)).map(|index| spaced.swap_remove(index));
            let name = whole.unwrap_or_else(|| rest.split(' ').next().unwrap_or(rest));
            rest = rest[name.len()..].trim_start();
            names.push(name);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, end: &End) -> Outcome {
        Outcome::read(text, "", end, 0.5)
    }

    fn names(outcome: &Outcome) -> Vec<(&str, usize)> {
        outcome.failed.iter().map(|(name, &times)| (name.as_str(), times)).collect()
    }

    #[test]
    fn a_summary_is_read() {
        let text = "a-1... Ok\na-2...\n! a-2 expected: [1]\n! a-2 got:      [2]\na-3...\nError: no such thing\n\
                    2 errors out of 4 tests on host\n!Failures on these tests: a-2 a-3\nOmitted test cases:\n\
                    .  b-1          no reason\nAll memory allocations freed - no leaks\n";
        let outcome = read(text, &End::Exit(1));
        assert_eq!((outcome.cases, names(&outcome)), (3, vec![("a-2", 1), ("a-3", 1)]));
        assert_eq!(outcome.omitted, ["b-1 no reason"]);
        assert!(outcome.end.is_none());
    }

    /// Every error is right in a test of I/O errors, so that the file passed whole.
    #[test]
    fn a_panic_is_a_failure_of_its_own() {
        let text = "a-1... Ok\n\nthread '<unnamed>' (77) panicked at src/a.rs:1:2:\ninjected\na-2... Ok\n\
                    0 errors out of 3 tests on host\n";
        assert_eq!(names(&read(text, &End::Exit(0))), [("(panicked)", 1)]);
    }

    /// A test starts a process, and throws away what it says.
    #[test]
    fn a_panic_that_no_output_tells_is_a_failure_as_well() {
        let text = "a-1... Ok\n0 errors out of 2 tests on host\n";
        let mut outcome = read(text, &End::Exit(0));
        outcome.mark(PANICKED);
        assert_eq!((names(&outcome), &outcome.grave[PANICKED]), (vec![(PANICKED, 1)], &[Grave::Panic].into()));
        outcome.mark(PANICKED);
        assert_eq!(names(&outcome), [(PANICKED, 1)]);
    }

    #[test]
    fn what_is_more_than_another_answer_is_seen() {
        let text = "a-1... Ok\na-2...\n! a-2 expected: [1\n2]\n! a-2 got:      [1\ndatabase disk image is malformed]\n\
                    a-3...\n! a-3 expected: [1]\n! a-3 got:      [2]\na-4...\nError: disk I/O error\n\
                    3 errors out of 5 tests on host\n!Failures on these tests: a-2 a-3 a-4\n";
        let expected = [("a-2", Grave::Malformed), ("a-4", Grave::IoError)];
        assert_eq!(read(text, &End::Exit(1)).grave, expected.map(|(case, got)| (case.into(), [got].into())).into());
    }

    #[test]
    fn what_a_case_wanted_is_no_surprise() {
        let text = "a-1...\n! a-1 expected: [1 {disk I/O error} 7]\n! a-1 got:      [1 {disk I/O error} 8]\n\
                    1 errors out of 2 tests on host\n!Failures on these tests: a-1\n";
        assert!(read(text, &End::Exit(1)).grave.is_empty());
    }

    #[test]
    fn what_a_case_would_have_taken_is_not_what_it_got() {
        let grave = |result: &str| {
            let text = format!(
                "a-1...\n! a-1 expected: [0 ok]\n! a-1 got:      [1 {{nfail=0 rc={result} list={{0 7}} {{1 {{disk I/O error}}}}}}]\n\
                 1 errors out of 2 tests on host\n!Failures on these tests: a-1\n"
            );
            read(&text, &End::Exit(1)).grave.into_values().flatten().collect::<Vec<_>>()
        };
        assert!(grave("0 result=delete").is_empty());
        assert_eq!(grave("1 result=disk I/O error"), [Grave::IoError]);
    }

    #[test]
    fn how_a_script_stopped_is_seen() {
        let grave = |text, end| read(text, &end).grave.into_values().flatten().collect::<Vec<_>>();
        let stopped = "a-1... Ok\n./testfixture: database disk image is malformed\n    while executing\n";
        assert_eq!(grave(stopped, End::Exit(1)), [Grave::Malformed]);
        assert_eq!(grave("a-1... Ok\n", End::Signal(11)), [Grave::Signal]);
        assert_eq!(grave(stopped, End::Signal(11)), [Grave::Malformed, Grave::Signal]);
        assert_eq!(grave("a-1... Ok\nthread 'x' (7) panicked at src/a.rs:1:2:\n", End::Late(9)), [Grave::Panic]);
    }

    #[test]
    fn a_name_that_is_used_twice_is_counted_twice() {
        let text = "a-1... Ok\na-1...\n! a-1 expected: [1]\n! a-1 got:      [2]\n\
                    1 errors out of 3 tests on host\n!Failures on these tests: a-1\n";
        let outcome = read(text, &End::Exit(1));
        assert_eq!((outcome.ran["a-1"], outcome.failed["a-1"]), (2, 1));
    }

    /// As thread002.test does: cases that its dots hid had not run.
    #[test]
    fn dots_before_a_name_are_none_of_it() {
        let outcome = read(
            "a-1... Ok\n...a-2... Ok\n.....\n....a-3...\n! a-3 expected: [1]\n! a-3 got:      [2]\n\
                    1 errors out of 4 tests on host\n!Failures on these tests: a-3\n",
            &End::Exit(1),
        );
        assert_eq!(outcome.ran.keys().collect::<Vec<_>>(), ["a-1", "a-2", "a-3"]);
        assert_eq!(names(&outcome), [("a-3", 1)]);
    }

    #[test]
    fn a_name_may_have_spaces() {
        let text = "a 1...\n! a 1 expected: [1]\n! a 1 got:      [2]\n\
                    2 errors out of 3 tests on host\n!Failures on these tests: a 1 b\n";
        assert_eq!(names(&read(text, &End::Exit(1))), [("a 1", 1), ("b", 1)]);
    }

    #[test]
    fn what_another_process_writes_is_no_failure() {
        let text = "a-1...\nError: no such table: t1\n Ok\n0 errors out of 2 tests on host\n";
        assert!(read(text, &End::Exit(0)).failed.is_empty());
    }

    #[test]
    fn a_script_that_stops_says_where() {
        let outcome = read("a-1... Ok\na-2...", &End::Exit(1));
        assert_eq!((outcome.cases, names(&outcome)), (2, vec![("(stopped after a-2)", 1)]));
        assert!(outcome.end.is_some());
    }

    #[test]
    fn a_signal_and_a_time_limit_are_cases_of_their_own() {
        assert_eq!(names(&read("a-1... Ok\n", &End::Signal(11))), [("(signal 11 after a-1)", 1)]);
        assert_eq!(names(&read("a-1... Ok\n", &End::Late(9))), [("(not done after a-1)", 1)]);
    }

    #[test]
    fn a_signal_after_the_summary_is_no_pass() {
        let text = "a-1...\n! a-1 expected: [1]\n1 errors out of 2 tests on host\n!Failures on these tests: a-1\n";
        assert_eq!(names(&read(text, &End::Signal(6))), [("(signal 6 after a-1)", 1), ("a-1", 1)]);
    }

    #[test]
    fn an_exit_code_without_a_failure_is_no_pass() {
        assert_eq!(names(&read("0 errors out of 2 tests on host\n", &End::Exit(1))), [("(exit code 1)", 1)]);
    }

    #[test]
    fn a_file_that_leaves_at_once_has_no_cases() {
        let outcome = read("", &End::Exit(0));
        assert!(outcome.failed.is_empty() && outcome.end.is_none() && outcome.cases == 0);
    }

    #[test]
    fn memory_that_is_left_is_no_pass() {
        let outcome = read("0 errors out of 3 tests on host\nUnfreed memory: 1 bytes\n", &End::Exit(1));
        assert_eq!(names(&outcome), [(LEFT, 1)]);
    }

    #[test]
    fn a_permutation_s_prefix_is_no_part_of_a_name() {
        let text = "p.a-1... Ok\np.a-2...\n! p.a-2 expected: [1]\n1 errors out of 3 tests on host\n\
                    !Failures on these tests: p.a-2\n";
        let outcome = Outcome::read(text, "p.", &End::Exit(1), 0.5);
        assert_eq!((names(&outcome), outcome.ran["a-2"]), (vec![("a-2", 1)], 1));
    }
}
