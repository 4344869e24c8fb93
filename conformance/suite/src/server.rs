//! A server for a run, and a part of it for each test file.

use std::sync::atomic::{AtomicUsize, Ordering};

use litefleet_postgres::testing;

#[cfg(feature = "fdb")]
use crate::fdb;
use crate::{Result, Store, run};

/// A server, removed with this value.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    made: AtomicUsize,
}

#[derive(Debug)]
enum Kind {
    /// Each test file has a schema.
    Postgres(testing::Server),
    /// Each test file has a prefix.
    #[cfg(feature = "fdb")]
    Fdb(fdb::Cluster),
}

impl Server {
    /// Starts what a store needs; `None` where it needs none. Panics, with the reason, where there are no programs for it.
    pub(crate) fn start(store: Store) -> Result<Option<Self>> {
        let kind = match store {
            Store::Memory | Store::Embedded => return Ok(None),
            Store::Postgres => Kind::Postgres(postgres()),
            #[cfg(feature = "fdb")]
            Store::Fdb => Kind::Fdb(fdb::Cluster::start()?),
            #[cfg(not(feature = "fdb"))]
            Store::Fdb => {
                return Err("--store fdb needs the feature fdb: cargo run -p litefleet-suite --features fdb".into());
            }
        };
        Ok(Some(Self { kind, made: AtomicUsize::new(0) }))
    }

    /// A name for a part that is not there yet. The first process that connects makes it.
    pub(crate) fn part(&self) -> String {
        format!("suite_{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// What a process connects to.
    pub(crate) fn url(&self, part: &str) -> String {
        match &self.kind {
            Kind::Postgres(server) => format!("{}&schema={part}", server.url()),
            #[cfg(feature = "fdb")]
            Kind::Fdb(cluster) => cluster.url(part),
        }
    }

    /// Removes a part, whose processes have ended.
    pub(crate) fn remove(&self, part: &str) {
        match &self.kind {
            Kind::Postgres(server) => {
                server.sql(&format!("SET client_min_messages = error; DROP SCHEMA IF EXISTS {part} CASCADE"));
            }
            #[cfg(feature = "fdb")]
            Kind::Fdb(cluster) => cluster.remove(part),
        }
    }
}

fn postgres() -> testing::Server {
    // Nobody cuts the power here, and the server keeps what it has in memory.
    let settings = ["synchronous_commit = off", "full_page_writes = off", "shared_buffers = 256MB"];
    testing::Server::start(&testing::ServerOptions {
        settings: settings.map(str::to_owned).to_vec(),
        parent: run::memory_folder(),
        ..testing::ServerOptions::default()
    })
}
