//! A Postgres server for a run, and a schema in it for each test file.

use std::sync::atomic::{AtomicUsize, Ordering};

use litefleet_postgres::testing;

/// A server, removed with this value.
#[derive(Debug)]
pub(crate) struct Server {
    server: testing::Server,
    made: AtomicUsize,
}

impl Server {
    /// Starts one. Panics, with the reason, where there are no programs for it.
    pub(crate) fn start() -> Self {
        // Nobody cuts the power here, and the server keeps what it has in memory.
        let settings = ["synchronous_commit = off", "full_page_writes = off", "shared_buffers = 256MB"];
        let options = testing::ServerOptions {
            settings: settings.map(str::to_owned).to_vec(),
            parent: super::run::memory_folder(),
            ..testing::ServerOptions::default()
        };
        Self { server: testing::Server::start(&options), made: AtomicUsize::new(0) }
    }

    /// A name for a schema that is not there yet. The first process that connects makes it.
    pub(crate) fn schema(&self) -> String {
        format!("suite_{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// What a process connects to.
    pub(crate) fn url(&self, schema: &str) -> String {
        format!("{}&schema={schema}", self.server.url())
    }

    /// Removes a schema, whose processes have ended.
    pub(crate) fn remove(&self, schema: &str) {
        self.server.sql(&format!("SET client_min_messages = error; DROP SCHEMA IF EXISTS {schema} CASCADE"));
    }
}
