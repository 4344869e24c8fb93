//! A FoundationDB cluster for a run: the real one that the environment names, under a prefix that is cleared again, or the
//! stand-in, whose cluster this process has, and serves to the test programs.

use std::fs;
use std::path::PathBuf;

use foundationdb::{Database, FdbBindingError};
use litefleet_fdb::{FdbConfig, FdbStore};
use litefleet_fdb_stand_in_control::{StandIn, real_cluster};

use crate::{Result, run};

#[derive(Debug)]
pub(crate) struct Cluster {
    file: PathBuf,
    /// What the prefixes of all parts begin with.
    prefix: String,
    /// Whether somebody must clear it.
    outlives_us: bool,
    /// With the cluster files.
    _folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Result<Self> {
        let folder = run::scratch()?;
        run::open_to_all(folder.path())?;
        let real = real_cluster();
        let outlives_us = real.is_some();
        let file = if let Some(given) = real {
            // The test programs run as somebody who may not read it where it is.
            let file = folder.path().join("real.cluster");
            fs::copy(&given, &file).map_err(|e| format!("{}: {e}", given.display()))?;
            file
        } else {
            let own = StandIn::create(folder.path(), "suite").map_err(|e| format!("a cluster file: {e}"))?;
            own.serve(folder.path()).cluster_file().into()
        };
        let prefix = format!("litefleet-suite/{}/", std::process::id());
        let cluster = Self { file, prefix, outlives_us, _folder: folder };
        // Before the first test: whether the cluster answers.
        let config = FdbConfig::from_url(&cluster.url("probe")).map_err(|e| e.to_string())?;
        FdbStore::open_blocking(config).map_err(|e| format!("FoundationDB: {e}"))?;
        Ok(cluster)
    }

    pub(crate) fn url(&self, part: &str) -> String {
        format!("fdb:{}?prefix={}{part}/", self.file.display(), self.prefix)
    }

    /// Removes what a part has stored.
    pub(crate) fn remove(&self, part: &str) {
        self.clear(&format!("{}{part}/", self.prefix));
    }

    fn clear(&self, prefix: &str) {
        if !self.outlives_us {
            return;
        }
        if let Err(error) = clear(&self.file.to_string_lossy(), prefix) {
            eprintln!("the keys under {prefix} are left behind: {error}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.clear(&self.prefix);
    }
}

fn clear(file: &str, prefix: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
    let database = Database::from_path(file).map_err(|e| e.to_string())?;
    let end = [prefix.as_bytes(), &[0xff]].concat();
    let (begin, end) = (prefix.as_bytes(), end.as_slice());
    let cleared = database.run(|trx, _| async move {
        trx.clear_range(begin, end);
        Ok(())
    });
    runtime.block_on(cleared).map_err(|e: FdbBindingError| e.to_string())
}
