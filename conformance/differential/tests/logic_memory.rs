//! Random SQL over the memory store. `LITEFLEET_SEED` is the first seed.

mod support;

use litefleet::Locking;
use litefleet_differential::Sort;
use support::several;

#[test]
fn random_sql_answers_as_a_rollback_journal_does() {
    several(Locking::Sqlite, 3, |_| Sort::Memory);
}

#[test]
fn random_sql_answers_as_a_write_ahead_log_does() {
    several(Locking::Snapshot, 3, |_| Sort::Memory);
}
