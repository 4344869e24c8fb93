//! A process whose connections go through a proxy.

use std::sync::Arc;
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::Proxy;
use litefleet_postgres::{PostgresConfig, Prepared};
use rusqlite::Connection;

use super::{connect, fresh_schema, server};

/// Both forms that calls have.
pub(crate) const FORMS: [Prepared; 2] = [Prepared::Off, Prepared::On];

/// Patient enough for a few broken connections in a row.
pub(crate) fn settings() -> FleetSettings {
    let mut settings = Process::small();
    settings.database.store_timeout = Duration::from_secs(5);
    settings
}

/// A process whose connections go through a proxy, and its schema.
pub(crate) struct Place {
    pub(crate) proxy: Proxy,
    pub(crate) schema: String,
    pub(crate) process: Process,
    prepared: Prepared,
}

impl Place {
    pub(crate) fn new(prepared: Prepared, call_timeout: Duration, settings: FleetSettings) -> Self {
        let (proxy, schema) = (Proxy::start(server().port()), fresh_schema());
        let change = |config: PostgresConfig| config.prepared(prepared).call_timeout(call_timeout).pool_size(3);
        let store = connect(&proxy.url(), &schema, change);
        Self { process: Process::new(Arc::new(store), settings), proxy, schema, prepared }
    }

    /// A process whose connections do not go through it.
    pub(crate) fn other(&self) -> Process {
        Process::new(Arc::new(connect(&server().url(), &self.schema, |config| config)), settings())
    }

    /// A function of the schema as it stands in a request, where it is not prepared.
    pub(crate) fn call(&self, function: &str) -> String {
        format!("\"{}\".{function}(", self.schema)
    }

    /// What a small commit's request has in it. A statement that is prepared is named by a number, but what is bound to it is
    /// known: ten parameters in binary, of which the first has eight bytes.
    pub(crate) fn commit(&self) -> String {
        match self.prepared {
            Prepared::On => format!("\0\u{a}{}\0\u{a}\0\0\0\u{8}", "\0\u{1}".repeat(10)),
            _ => self.call("commit"),
        }
    }
}

pub(crate) fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY rowid").expect("there is a table");
    let rows = statement.query_map([], |row| row.get(0)).expect("it is read");
    rows.map(|row| row.expect("a number")).collect()
}
