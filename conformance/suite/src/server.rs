//! A server for a run, and a part of it for each test file.

use std::sync::atomic::{AtomicUsize, Ordering};

use litefleet_postgres::testing;

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
            // In memory, and gone with the run.
            #[cfg(feature = "fdb")]
            Kind::Fdb(_) => {}
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

#[cfg(feature = "fdb")]
mod fdb {
    //! The stand-in for FoundationDB: this process has the cluster, and serves it to the test programs.

    use litefleet_fdb::{FdbConfig, FdbStore};
    use litefleet_fdb_stand_in_control::StandIn;

    use crate::{Result, run};

    #[derive(Debug)]
    pub(super) struct Cluster {
        served: StandIn,
        /// With the cluster files.
        _folder: tempfile::TempDir,
    }

    impl Cluster {
        pub(super) fn start() -> Result<Self> {
            let folder = run::scratch()?;
            run::open_to_all(folder.path())?;
            let own = StandIn::create(folder.path(), "suite").map_err(|e| format!("a cluster file: {e}"))?;
            let cluster = Self { served: own.serve(folder.path()), _folder: folder };
            // Before the first test: whether the cluster answers.
            let config = FdbConfig::from_url(&cluster.url("probe")).map_err(|e| e.to_string())?;
            FdbStore::open_blocking(config).map_err(|e| format!("the stand-in for FoundationDB: {e}"))?;
            Ok(cluster)
        }

        pub(super) fn url(&self, part: &str) -> String {
            format!("fdb:{}?prefix={part}/", self.served.cluster_file())
        }
    }
}
