//! Random SQL over a throwaway Postgres server. `LITEFLEET_SEED` is the first seed.
#![cfg(feature = "servers")]

mod support;

use std::sync::OnceLock;

use litefleet::Locking;
use litefleet_differential::Sort;
use litefleet_postgres::testing::{Server, ServerOptions};
use support::several;

/// The server of this program. It is gone with the program: nobody drops a static, but the pipe to its supervisor ends.
fn url(schema: &str) -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| Server::start(&ServerOptions::default()));
    format!("{}&schema={schema}", server.url())
}

#[test]
fn random_sql_answers_as_a_rollback_journal_does() {
    several(Locking::Sqlite, 1, |seed| Sort::Postgres(url(&format!("sqlite_{seed}"))));
}

#[test]
fn random_sql_answers_as_a_write_ahead_log_does() {
    several(Locking::Snapshot, 1, |seed| Sort::Postgres(url(&format!("snapshot_{seed}"))));
}
