//! The server, and both sides on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use litefleet::{Fleet, FleetSettings};
use litefleet_postgres::testing::{Server, ServerOptions};
use litefleet_postgres::{PostgresConfig, PostgresStore};
use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

/// What the measurements share.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) runtime: Runtime,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) folder: PathBuf,
    partitions: u32,
}

/// A fleet over a store of its own connections, registered with SQLite.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) fleet: Fleet,
    vfs: String,
}

impl Rig {
    pub(crate) fn start(quick: bool, rounds: usize, directory: Option<&Path>, partitions: u32) -> Result<Self> {
        let parent = directory.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let options = ServerOptions { durable: true, parent: Some(parent.clone()), ..ServerOptions::default() };
        let folder = parent.join(format!("litefleet-bench-postgres-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { server: Server::start(&options), runtime, quick, rounds, folder, partitions })
    }

    pub(crate) fn about(&self) -> Result<String> {
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split_whitespace().next().unwrap_or_default().to_owned();
        let version = self.server.sql("SHOW server_version");
        let cores = std::thread::available_parallelism()?;
        Ok(format!(
            "PostgreSQL {version}, fsync=on; {cores} cores for both; load before: {load}; rounds: {}",
            self.rounds
        ))
    }

    /// The larger number for a run to quote, the other for a quick look.
    pub(crate) fn scale(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    /// A bare connection.
    pub(crate) fn bare(&self) -> Result<Client> {
        self.bare_at(&self.server.url())
    }

    /// A bare connection to a server.
    pub(crate) fn bare_at(&self, url: &str) -> Result<Client> {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            Ok(client)
        })
    }

    /// Litefleet in a schema, at a URL.
    pub(crate) fn side_at(&self, url: &str, schema: &str, settings: FleetSettings) -> Result<Side> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let mut config = PostgresConfig::from_url(url)?.schema(schema);
        config.page_partitions = self.partitions;
        let fleet = Fleet::builder(Arc::new(PostgresStore::connect_blocking(config)?)).settings(settings).build()?;
        let vfs = format!("postgres-{}", LAST.fetch_add(1, Ordering::Relaxed));
        fleet.register(&vfs, false)?;
        Ok(Side { fleet, vfs })
    }

    pub(crate) fn side(&self, schema: &str) -> Result<Side> {
        self.side_at(&self.server.url(), schema, FleetSettings::default())
    }

    /// A number that SQL says.
    pub(crate) fn number(&self, sql: &str) -> Result<f64> {
        self.server.sql(sql).parse().with_context(|| sql.to_owned())
    }

    /// Seconds of processor time that the server and all its processes have taken.
    pub(crate) fn server_seconds(&self) -> Result<f64> {
        let server = self.server.pid();
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let field = |n: usize| fields.get(n).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
            if pid == server {
                ticks += field(11) + field(12) + field(13) + field(14);
            } else if field(1) == i64::from(server) {
                ticks += field(11) + field(12);
            }
        }
        Ok(ticks as f64 / 100.0)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _left = fs::remove_dir_all(&self.folder);
    }
}

impl Side {
    /// A connection to a database, which is made where there is none.
    pub(crate) fn connect(&self, name: &str) -> Result<Connection> {
        Ok(Connection::open(format!("file:{name}?vfs={}", self.vfs))?)
    }

    pub(crate) fn close(self) -> Result<()> {
        self.fleet.shutdown()?;
        self.fleet.unregister(&self.vfs)?;
        Ok(())
    }
}
