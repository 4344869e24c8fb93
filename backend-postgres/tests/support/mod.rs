//! What the tests share: one server for all of a program, and a schema for each store.
#![allow(dead_code, reason = "each program uses some of it")]

pub(crate) mod child;
pub(crate) mod place;
pub(crate) mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use litefleet::store::{PageStore, StoreLimits};
use litefleet_conformance::Harness;
use litefleet_postgres::testing::{Bouncer, Server, ServerOptions, wait_until};
use litefleet_postgres::{PostgresConfig, PostgresStore};

/// The smallest limits that the cases are written for, or nearly: each a little odd, so that nothing divides evenly.
pub(crate) const TINY: StoreLimits = StoreLimits {
    read_pages: 3,
    record_bytes: 37,
    atomic_databases: 3,
    atomic_bytes: 101,
    write_rows: 2,
    collect_pages: 2,
    log_bytes: 50,
};

/// The server of this program. It is gone with the program: nobody drops a static, but the pipe to its supervisor ends.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&ServerOptions::default()))
}

/// A pooler in front of it.
pub(crate) fn bouncer() -> &'static Bouncer {
    static BOUNCER: OnceLock<Bouncer> = OnceLock::new();
    BOUNCER.get_or_init(|| Bouncer::start(server()))
}

/// A primary, and a standby that no commit waits for.
pub(crate) fn asynchronous_pair() -> (Server, Server) {
    let options = ServerOptions {
        settings: ["wal_level = replica", "max_wal_senders = 5"].map(str::to_owned).to_vec(),
        access: vec!["host replication all 127.0.0.1/32 trust".into()],
        durable: true,
        ..ServerOptions::default()
    };
    let primary = Server::start(&options);
    let standby = primary.standby("standby", &options);
    (primary, standby)
}

/// A primary, and a standby whose disk every commit waits for.
pub(crate) fn synchronous_pair() -> (Server, Server) {
    let (primary, standby) = asynchronous_pair();
    // Only now, or the first commits would wait for a standby that is not there.
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
    primary.sql("SELECT pg_reload_conf()");
    wait_until("the standby is synchronous", Duration::from_secs(60), || {
        primary.sql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"
    });
    (primary, standby)
}

/// A name of a schema that no other store has.
pub(crate) fn fresh_schema() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("store_{}", LAST.fetch_add(1, Ordering::Relaxed))
}

/// A store at a URL, in this schema.
pub(crate) fn connect(url: &str, schema: &str, change: impl FnOnce(PostgresConfig) -> PostgresConfig) -> PostgresStore {
    let config = PostgresConfig::from_url(url).expect("the URL is right").schema(schema);
    PostgresStore::connect_blocking(change(config)).expect("the store connects")
}

/// The rights that `docs/operations.md` lists for a role that only serves.
pub(crate) fn grant_serving(schema: &str, role: &str) {
    server().sql(&format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT SELECT ON {schema}.version TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.heads, {schema}.names, {schema}.warm, {schema}.sessions, \
             {schema}.epoch_ends, {schema}.log, {schema}.pages, {schema}.staged, {schema}.checkpoints, {schema}.pieces, \
             {schema}.shared_locks, {schema}.exclusive_locks, {schema}.condemned TO {role}; \
         GRANT USAGE ON SEQUENCE {schema}.database_ids TO {role}; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}"
    ));
}

/// A role that owns nothing, where nobody may call the functions of schemas that are made from here on unless told so.
fn role() -> &'static str {
    static ROLE: OnceLock<&str> = OnceLock::new();
    ROLE.get_or_init(|| {
        server().sql("CREATE ROLE only_serves LOGIN; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC");
        "only_serves"
    })
}

/// Stores for the cases.
#[derive(Debug)]
pub(crate) struct Stores {
    url: String,
    limits: Option<StoreLimits>,
    only_serves: bool,
    moves_times: bool,
    /// The schemas of the stores, by the stores' addresses.
    schemas: Mutex<HashMap<usize, String>>,
}

impl Stores {
    pub(crate) fn at(url: impl Into<String>) -> Self {
        let (only_serves, moves_times) = (false, false);
        Self { url: url.into(), limits: None, only_serves, moves_times, schemas: Mutex::default() }
    }

    #[must_use]
    pub(crate) fn limits(mut self, limits: StoreLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Stores used by a role that has no more than it needs. The schemas are made by another.
    #[must_use]
    pub(crate) fn only_serves(mut self) -> Self {
        self.only_serves = true;
        self
    }

    /// Stores whose clock can be moved: the server's cannot, so what is in the tables is made older.
    #[must_use]
    pub(crate) fn moves_times(mut self) -> Self {
        self.moves_times = true;
        self
    }

    /// A store of a schema that is there or not.
    pub(crate) fn open(&self, schema: &str) -> PostgresStore {
        let limited = |config: PostgresConfig| match self.limits {
            Some(limits) => config.limits(limits),
            None => config,
        };
        if !self.only_serves {
            return connect(&self.url, schema, limited);
        }
        let role = role();
        drop(connect(&self.url, schema, limited));
        grant_serving(schema, role);
        let url = self.url.replacen("postgres@", &format!("{role}@"), 1) + "&migrate=off";
        connect(&url, schema, limited)
    }

    fn give(&self, schema: String) -> Arc<dyn PageStore> {
        let store: Arc<dyn PageStore> = Arc::new(self.open(&schema));
        self.schemas.lock().expect("no test panics with it").insert(address(&store), schema);
        store
    }
}

fn address(store: &Arc<dyn PageStore>) -> usize {
    Arc::as_ptr(store).cast::<()>().addr()
}

#[async_trait]
impl Harness for Stores {
    async fn store(&self) -> Arc<dyn PageStore> {
        tokio::task::block_in_place(|| self.give(fresh_schema()))
    }

    async fn reopen(&self, store: Arc<dyn PageStore>) -> Option<Arc<dyn PageStore>> {
        assert_eq!(Arc::strong_count(&store), 1, "another handle is still open");
        let schema = self.schemas.lock().expect("no test panics with it").remove(&address(&store));
        drop(store);
        Some(tokio::task::block_in_place(|| self.give(schema.expect("a store of this harness"))))
    }

    fn advance(&self, by: Duration) -> bool {
        if self.moves_times && !by.is_zero() {
            for schema in self.schemas.lock().expect("no test panics with it").values() {
                let back = format!("interval '{} seconds'", by.as_secs_f64());
                server().sql(&format!(
                    "UPDATE {schema}.sessions SET expires = expires - {back}; \
                     UPDATE {schema}.epoch_ends SET at = at - {back}"
                ));
            }
        }
        self.moves_times
    }
}
