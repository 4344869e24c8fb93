//! What a case got where that is more than another answer: damage, an error of the disk, a crash.
//!
//! The list of expected differences excuses such a case only where its entry says so: a case that is listed for another
//! answer, and then finds a damaged database, fails the run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a case got in place of what it wanted.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Grave {
    /// A database that SQLite, or its integrity check, calls damaged.
    Malformed,
    /// `SQLITE_IOERR`.
    IoError,
    /// The program was ended by a signal.
    Signal,
    /// The VFS under test panicked.
    Panic,
}

/// What SQLite says then: its messages, its codes, and the first words of each finding of its integrity check.
const WORDS: &[(Grave, &[&str])] = &[
    (
        Grave::Malformed,
        &[
            "database disk image is malformed",
            "malformed database schema",
            "file is not a database",
            "SQLITE_CORRUPT",
            "SQLITE_NOTADB",
            "*** in database ",
            " missing from index ",
            "wrong # of entries in index ",
            "non-unique entry in index ",
            " values differ from index ",
            "rowid not at end-of-record for row ",
            "NULL value in ",
        ],
    ),
    (Grave::IoError, &["disk I/O error", "SQLITE_IOERR"]),
];

impl Grave {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::IoError => "I/O error",
            Self::Signal => "signal",
            Self::Panic => "panic",
        }
    }
}

/// What an output says of each case that may have failed.
#[derive(Debug, Default)]
pub(crate) struct Graves<'a> {
    cases: BTreeMap<&'a str, BTreeSet<Grave>>,
    /// What it says last, after the beginning of the last case.
    end: BTreeSet<Grave>,
}

impl Graves<'_> {
    pub(crate) fn of(&self, case: &str) -> BTreeSet<Grave> {
        self.cases.get(case).cloned().unwrap_or_default()
    }

    pub(crate) fn of_end(&self) -> BTreeSet<Grave> {
        self.end.clone()
    }
}

/// Reads an output; `case` tells the name that a line begins with. What follows such a line is of that case; what a case
/// wanted stands before what it got.
pub(crate) fn read<'a>(text: &'a str, case: impl Fn(&'a str) -> Option<&'a str>) -> Graves<'a> {
    let mut graves = Graves::default();
    let (mut name, mut expected, mut got) = ("", String::new(), String::new());
    let mut wants = false;
    for line in text.lines() {
        let next = case(line);
        let told = line.strip_prefix("! ").and_then(|rest| rest.split_once(" expected:"));
        if next.is_some() || told.is_some() || line.contains(" errors out of ") {
            graves.cases.entry(name).or_default().extend(found(&expected, &got));
            expected.clear();
            got.clear();
            name = next.or(told.map(|(name, _)| name.trim())).unwrap_or_default();
        }
        wants = told.is_some() || (wants && next.is_none() && !line.starts_with("! "));
        let value = if wants { &mut expected } else { &mut got };
        value.push_str(without_allowed(line));
        value.push('\n');
    }
    graves.end = found(&expected, &got).collect();
    graves.cases.entry(name).or_default().extend(&graves.end);
    graves
}

/// Without the answers that a test of faults would have taken, which it tells behind the one that it got.
fn without_allowed(line: &str) -> &str {
    line.split_once(" list=").filter(|(got, _)| got.contains("{nfail=")).map_or(line, |(got, _)| got)
}

/// What of that `got` says and `expected` does not.
fn found(expected: &str, got: &str) -> impl Iterator<Item = Grave> {
    let unwanted = move |words: &&str| got.contains(words) && !expected.contains(words);
    WORDS.iter().filter(move |(_, all)| all.iter().any(unwanted)).map(|&(grave, _)| grave)
}
