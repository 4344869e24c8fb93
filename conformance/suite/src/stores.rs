//! The stores under test: one for each run of a program, which finds it through its environment.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use litefleet_postgres::testing::{Server, ServerOptions};

use crate::{Locking, Store};

/// What a program finds its store by: see `conformance/suite-vfs`.
const STORE: &str = "LITEFLEET_SUITE_STORE";
const SETTINGS: &str = "LITEFLEET_SUITE_SETTINGS";

/// A store of its own for one run; what it takes of a server is given back with this value.
#[derive(Debug)]
pub(crate) struct Place {
    url: String,
    schema: Option<String>,
}

impl Place {
    /// A new store. A file of an embedded one is in `folder`.
    pub(crate) fn new(store: Store, folder: &Path) -> Self {
        match store {
            Store::Memory => Self { url: "memory".into(), schema: None },
            Store::Embedded => Self { url: format!("embedded:{}", folder.display()), schema: None },
            Store::Postgres => {
                static LAST: AtomicU64 = AtomicU64::new(0);
                let schema = format!("suite_{}", LAST.fetch_add(1, Ordering::Relaxed));
                Self { url: format!("{}&schema={schema}", server().url()), schema: Some(schema) }
            }
        }
    }

    /// Tells a program that is about to start.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env(STORE, &self.url);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(schema) = &self.schema {
            server().sql(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE"));
        }
    }
}

/// The settings of the databases, as the environment has them. Processes that share a store take turns at each database.
pub(crate) fn settings(store: Store, locking: Locking) -> (&'static str, String) {
    let lease = if store == Store::Postgres { "&lease=transaction" } else { "" };
    (SETTINGS, format!("locking={}{lease}", locking.name()))
}

/// A throwaway server for all runs. It is gone with this process: nobody drops a static, but the pipe to its supervisor
/// ends. Panics with the reason where there can be none.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        eprintln!("starting a Postgres server");
        // Dropping a schema locks each of its tables; a test can have hundreds of connections.
        let settings = ["max_locks_per_transaction = 256", "client_min_messages = warning"].map(str::to_owned).to_vec();
        Server::start(&ServerOptions { settings, ..ServerOptions::default() })
    })
}
