//! Random SQL over the embedded store. `LITEFLEET_SEED` is the first seed.

mod support;

use litefleet::Locking;
use litefleet_differential::Sort;
use support::several;

#[test]
fn random_sql_answers_as_a_rollback_journal_does() {
    let folder = tempfile::tempdir().expect("a folder");
    several(Locking::Sqlite, 2, |seed| Sort::Embedded(folder.path().join(seed.to_string())));
}

#[test]
fn random_sql_answers_as_a_write_ahead_log_does() {
    let folder = tempfile::tempdir().expect("a folder");
    several(Locking::Snapshot, 2, |seed| Sort::Embedded(folder.path().join(seed.to_string())));
}
