//! Settings of the store: plain data.

mod url;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use litefleet::store::StoreLimits;
use litefleet::{Error, Result};

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: `sslmode` up to `require`, as libpq does it. Protects from listening, not from impostors.
    #[default]
    Nothing,
    /// That an authority we trust signed it: `sslmode=verify-ca`.
    Authority,
    /// That, and the host's name: `sslmode=verify-full`.
    Full,
}

/// Whether statements are prepared and named on the server, which saves it work per call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepared {
    /// Where the connection provably leads to the server itself, and not to a pooler: both ends name the same addresses.
    #[default]
    Auto,
    /// Always. Wrong behind a pooler in transaction mode.
    On,
    /// Never.
    Off,
}

/// How to reach a store on Postgres. Made from a URL by [`from_url`](Self::from_url).
#[derive(Clone)]
pub struct PostgresConfig {
    pub(crate) server: tokio_postgres::Config,
    /// How much of the server's certificate is checked.
    pub verify: Verify,
    /// `sslrootcert`: a PEM file of authorities instead of those of the system. With `sslrootcert=system` nothing less than
    /// [`Full`](Verify::Full) is accepted.
    pub root_certificates: Option<PathBuf>,
    /// `sslcert` and `sslkey`: PEM files of this client's certificate and key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// `schema`: where the tables are. Lower-case letters, digits and underscores. Default `litefleet`.
    pub schema: String,
    /// `pool_size`: connections at the most, besides one for sessions. Default 8.
    pub pool_size: usize,
    /// `connect_timeout` in seconds: for one server to accept a connection. Zero or less: as long as the call may take. Default 5 s.
    pub connect_timeout: Duration,
    /// `call_timeout` in milliseconds: how long a call waits for the server. Default 10 s.
    pub call_timeout: Duration,
    /// `statement_timeout` in milliseconds: after which the server itself gives a statement up. Default: as the server has it, and
    /// where it has none, `call_timeout` on connections on which statements are prepared.
    pub statement_timeout: Option<Duration>,
    /// `watch_interval` in milliseconds: how often the heads are looked at for those who watch them. Default 50 ms.
    pub watch_interval: Duration,
    /// `migrate`: make the schema, or bring it up to date, when it is not. Default yes.
    pub migrate: bool,
    /// `page_partitions`: into how many partitions by database pages and log are divided, when the schema is made. Default
    /// 1: plain tables.
    pub page_partitions: u32,
    /// `prepared_statements`: `auto`, `on` or `off`.
    pub prepared: Prepared,
    /// Threads that drive the connections. Default 1.
    pub threads: usize,
    /// Bounds that callers must keep to.
    pub limits: StoreLimits,
}

/// Without the password.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("hosts", &self.server.get_hosts())
            .field("ports", &self.server.get_ports())
            .field("user", &self.server.get_user())
            .field("database", &self.server.get_dbname())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl PostgresConfig {
    /// A server with everything else as it is by default.
    fn of_server(mut server: tokio_postgres::Config) -> Self {
        server.tcp_user_timeout(UNACKNOWLEDGED);
        Self {
            server,
            verify: Verify::Nothing,
            root_certificates: None,
            client_certificate: None,
            schema: "litefleet".to_owned(),
            pool_size: 8,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            statement_timeout: None,
            watch_interval: Duration::from_millis(50),
            migrate: true,
            page_partitions: 1,
            prepared: Prepared::Auto,
            threads: 1,
            limits: StoreLimits {
                read_pages: 512,
                record_bytes: 8 << 20,
                atomic_databases: 128,
                atomic_bytes: 32 << 20,
                write_rows: 1024,
                collect_pages: 4096,
                log_bytes: 4 << 20,
            },
        }
    }

    /// Connections are made with the time-out of statements from here on. It may have been set after the URL was read.
    pub(crate) fn tell_statement_timeout(&mut self) {
        if let Some(limit) = self.statement_timeout {
            let before = self.server.get_options().map_or_else(String::new, |options| format!("{options} "));
            self.server.options(format!("{before}-c statement_timeout={}", server_millis(limit)));
        }
    }

    /// The schema as it stands in statements: quoted, since it may be a word of SQL.
    pub(crate) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema)
    }

    /// What must hold however the settings were made.
    pub(crate) fn check(&self) -> Result<()> {
        let schema_ok = !self.schema.is_empty()
            && self.schema.len() <= 48
            && !self.schema.starts_with("pg_")
            && !self.schema.starts_with(|c: char| c.is_ascii_digit())
            && self.schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !schema_ok {
            return Err(Error::invalid(
                "the schema's name has 1 to 48 lower-case letters, digits and underscores, a digit not first, and does not begin with pg_",
            ));
        }
        // Any server has a certificate of some public authority, and the host's name is not looked at.
        if self.verify == Verify::Authority && self.root_certificates.is_none() {
            return Err(Error::invalid(
                "sslmode=verify-ca of the Postgres URL needs sslrootcert, a file of authorities; without one, say \
                 sslmode=verify-full",
            ));
        }
        Ok(())
    }

    /// With another schema.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// With another number of connections.
    #[must_use]
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections.max(1);
        self
    }

    /// With another bound on how long a call waits for the server.
    #[must_use]
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = limit;
        self
    }

    /// With statements prepared or not.
    #[must_use]
    pub fn prepared(mut self, prepared: Prepared) -> Self {
        self.prepared = prepared;
        self
    }

    /// With other limits: tests shrink them so that the hard paths run.
    #[must_use]
    pub fn limits(mut self, limits: StoreLimits) -> Self {
        self.limits = limits;
        self
    }
}

/// For how long the machine of the server may not even acknowledge that bytes have arrived: then the way to it is lost, and
/// the connection ended. No longer than a call waits by default: one that was given up for that keeps no place in the pool.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Longer than anybody waits. So much later than now there is a moment, as there is none that is `Duration::MAX` later.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// A time as the server's time-outs have it: 0 is none there, and there is a largest one.
pub(crate) fn server_millis(time: Duration) -> u128 {
    time.as_millis().min(0x7fff_ffff)
}

#[cfg(test)]
mod tests;
