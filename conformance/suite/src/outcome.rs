//! What a run of one test file said.

use serde::{Deserialize, Serialize};

/// The outcome of one test file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Cases that ran, as the file counts them.
    pub(crate) cases: usize,
    /// Names of cases that failed, sorted, each once.
    pub(crate) failed: Vec<String>,
    /// What the file left out: names and its reasons.
    pub(crate) omitted: Vec<String>,
    /// How the run ended, where not by its own summary.
    pub(crate) end: Option<String>,
    pub(crate) seconds: f64,
}

/// Cases of our own naming, for what happens outside the cases of a file.
pub(crate) const STOPPED: &str = "(stopped)";
pub(crate) const FEWER: &str = "(fewer cases)";
pub(crate) const LEFT: &str = "(left behind)";

impl Outcome {
    /// Reads what a test file has written. `ended`: how it ended, when it was stopped or killed.
    pub(crate) fn read(text: &str, ended: Option<String>, seconds: f64) -> Self {
        let mut outcome = Self { seconds, ..Self::default() };
        let (mut counted, mut summary, mut omitting, mut case) = (0, None, false, "");
        for line in text.lines() {
            if omitting {
                if let Some(rest) = line.strip_prefix(".  ") {
                    outcome.omitted.push(rest.split_whitespace().collect::<Vec<_>>().join(" "));
                    continue;
                }
                omitting = false;
            }
            if let Some(rest) = line.strip_prefix("! ") {
                if let Some((name, _)) = rest.split_once(" expected:") {
                    outcome.failed.push(name.trim().to_owned());
                }
            } else if let Some((name, _)) = line.split_once("...") {
                // A case's name, and what came of it, or nothing yet.
                if !name.contains(' ') && !name.is_empty() {
                    counted += 1;
                    case = name;
                }
            } else if line.starts_with("Error: ") && !case.is_empty() {
                outcome.failed.push(case.to_owned());
            } else if let Some((errors, rest)) = line.split_once(" errors out of ") {
                let tests = rest.split(' ').next().and_then(|count| count.parse().ok());
                summary = errors.parse::<usize>().ok().zip(tests);
            } else if line == "Omitted test cases:" {
                omitting = true;
            } else if let Some(names) = line.strip_prefix("!Failures on these tests:") {
                outcome.failed.extend(names.split_whitespace().map(str::to_owned));
            } else if line.starts_with("Unfreed memory:") || line.ends_with(" files were left open") {
                outcome.failed.push(LEFT.into());
            }
        }
        if let Some((_, tests)) = summary {
            outcome.cases = tests;
        } else {
            outcome.cases = counted;
            let words = ended.clone().unwrap_or_else(|| format!("the script stopped after {case}"));
            outcome.failed.push(STOPPED.into());
            outcome.end = Some(words);
        }
        if outcome.end.is_none() && ended.is_some() && outcome.failed.is_empty() {
            outcome.failed.push(STOPPED.into());
            outcome.end = ended;
        }
        outcome.failed.sort();
        outcome.failed.dedup();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read() {
        let text = "a-1... Ok\na-2...\n! a-2 expected: [1]\n! a-2 got:      [2]\na-3...\nError: no such thing\n\
                    2 errors out of 4 tests on host\n!Failures on these tests: a-2 a-3\nOmitted test cases:\n\
                    .  b-1          no reason\nAll memory allocations freed - no leaks\n";
        let outcome = Outcome::read(text, Some("exit code 1".into()), 0.5);
        assert_eq!((outcome.cases, outcome.failed), (4, vec!["a-2".to_owned(), "a-3".to_owned()]));
        assert_eq!(outcome.omitted, ["b-1 no reason"]);
        assert!(outcome.end.is_none());
    }

    #[test]
    fn a_script_that_stops_is_no_pass() {
        let outcome = Outcome::read("a-1... Ok\na-2...", Some("exit code 1".into()), 0.5);
        assert_eq!((outcome.cases, outcome.failed), (2, vec![STOPPED.to_owned()]));
    }

    #[test]
    fn memory_that_is_left_is_no_pass() {
        let outcome = Outcome::read("0 errors out of 3 tests on host\nUnfreed memory: 1 bytes\n", None, 0.5);
        assert_eq!(outcome.failed, [LEFT]);
    }
}
