//! The reviewed list of expected differences.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::Result;
use crate::grave::Grave;
use crate::outcome::FEWER;
use crate::run::Settings;
use crate::source::Release;

/// Why a case differs. There is no "unknown".
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Category {
    /// Tests a file of the host's file system, or the VFS that SQLite has for it.
    Host,
    /// Tests write-ahead logging, which a store that is itself a log does not have.
    Wal,
    /// Tests several processes at one database, and the store has one; or that a reader of one keeps a writer of another out.
    MultiProcess,
    /// Tests that a reader blocks the writer, or the writer a reader. Only with `locking=snapshot`.
    Snapshot,
    /// Wants what Litefleet refuses on purpose, and says so.
    Refused,
    /// Tests journals left behind by a crash: the store holds only committed states, so there are none.
    Journal,
    /// Goes round as often as there are calls that can fail, or as chance has it.
    Rounds,
}

impl Category {
    pub(crate) const ALL: &[Self] =
        &[Self::Host, Self::Wal, Self::MultiProcess, Self::Journal, Self::Refused, Self::Rounds, Self::Snapshot];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Wal => "wal",
            Self::MultiProcess => "multi-process",
            Self::Snapshot => "snapshot",
            Self::Refused => "refused",
            Self::Journal => "journal",
            Self::Rounds => "rounds",
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Host => "the host's file system, or SQLite's own VFS for it",
            Self::Wal => "write-ahead logging, which a store that is itself a log does not have",
            Self::MultiProcess => {
                "several processes at one database: an embedded store has one, which others wait for, and one in memory \
                 is each process's own"
            }
            Self::Snapshot => "a reader that blocks the writer, or the other way round: `locking=snapshot` has neither",
            Self::Refused => "what Litefleet refuses on purpose, and says so",
            Self::Journal => "journals as files: ours are memory, and after a crash the store needs none",
            Self::Rounds => {
                "loops that go round as often as there are allocations, or calls of the VFS, that can fail, or as chance has it: \
                 there were fewer rounds"
            }
        }
    }
}

/// Cases of one file that are expected to fail, for one reason.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Difference {
    pub(crate) file: String,
    pub(crate) category: Category,
    pub(crate) reason: String,
    /// Names; `*` at the end stands for any letters.
    pub(crate) cases: Vec<String>,
    /// With `(fewer cases)`: the most that may be missing.
    pub(crate) fewer: Option<usize>,
    /// Each of the cases gets one of these, for the same reason. Without it the entry excuses another answer, and neither
    /// damage nor an error of the disk nor a crash.
    #[serde(default)]
    pub(crate) got: BTreeSet<Grave>,
    /// Only over these stores.
    pub(crate) stores: Option<Vec<String>>,
    /// Only with this value of `locking`.
    pub(crate) locking: Option<String>,
    /// Only with this release of SQLite: `pinned` or `newest`.
    pub(crate) sqlite: Option<Release>,
    /// Only in this permutation of SQLite's. What is listed without one may differ in any, and need not.
    pub(crate) permutation: Option<String>,
    /// Fails in some runs and not in others: it need not fail.
    #[serde(default)]
    pub(crate) sometimes: bool,
}

#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    difference: Vec<Difference>,
}

impl Difference {
    pub(crate) fn applies(&self, settings: &Settings) -> bool {
        let permutation = settings.permutation.as_deref();
        self.is_for(settings.store.name(), settings.locking.name(), settings.sqlite, permutation)
    }

    pub(crate) fn is_for(&self, store: &str, locking: &str, sqlite: Release, permutation: Option<&str>) -> bool {
        self.stores.as_ref().is_none_or(|only| only.iter().any(|name| name == store))
            && self.locking.as_ref().is_none_or(|only| only == locking)
            && self.sqlite.is_none_or(|only| only == sqlite)
            && self.permutation.as_deref().is_none_or(|only| Some(only) == permutation)
    }

    /// Whether what it lists must differ in such a run.
    pub(crate) fn is_binding(&self, permutation: Option<&str>) -> bool {
        !self.sometimes && self.permutation.as_deref() == permutation
    }

    /// Whether it says why `count` cases of this name differ, which got `grave`.
    pub(crate) fn excuses(&self, case: &str, count: usize, grave: &BTreeSet<Grave>) -> bool {
        self.cases.iter().any(|pattern| Self::covers(pattern, case))
            && (case != FEWER || self.fewer.is_some_and(|most| count <= most))
            && grave.is_subset(&self.got)
            && self.is_got(grave)
    }

    /// Whether a case got what the entry says that it gets.
    pub(crate) fn is_got(&self, grave: &BTreeSet<Grave>) -> bool {
        self.got.is_empty() || !self.got.is_disjoint(grave)
    }

    pub(crate) fn covers(pattern: &str, case: &str) -> bool {
        pattern.strip_suffix('*').map_or(pattern == case, |start| case.starts_with(start))
    }
}

/// Reads the list.
pub(crate) fn load(workspace: &Path) -> Result<Vec<Difference>> {
    let path = workspace.join("conformance/suite/differences.toml");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let list: List = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    for entry in &list.difference {
        if entry.cases.iter().any(|case| case == FEWER) != entry.fewer.is_some() {
            return Err(format!("{}: {}: {FEWER} and `fewer` go together", path.display(), entry.file));
        }
    }
    Ok(list.difference)
}
