//! Databases: which cluster a cluster file names, and what all transactions of a database have in common.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::network;
use super::options;
use crate::cluster::Cluster;
use crate::cluster::protocol::{Reply, Request};
use crate::code::{self, Code};
use crate::served::client::Remote;
use crate::served::{self, server};

/// The number of watches that a database may have. Source: "C API", `fdb_transaction_watch`.
const MAX_WATCHES: i64 = 10_000;

#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) link: Link,
    defaults: Mutex<Vec<(i32, Option<Vec<u8>>)>>,
    /// What was wrong with the value of an option.
    deferred: OnceLock<Code>,
    max_watches: AtomicI64,
    /// Watches that have not reported yet.
    pub(crate) watches: Arc<AtomicI64>,
    /// Seeds the jitter of each transaction.
    made: AtomicU64,
}

/// The way to a cluster.
#[derive(Debug, Clone)]
pub(crate) enum Link {
    /// In this process.
    Here(Arc<Cluster>),
    /// In another one, which serves it.
    There(Arc<Remote>),
    /// Nowhere: the cluster file is missing, or makes no sense.
    Broken(Code),
}

impl Link {
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, Code> {
        match self {
            Self::Here(cluster) => cluster.call(request).await,
            Self::There(remote) => remote.call(request).await,
            Self::Broken(code) => Err(*code),
        }
    }

    /// Tells the cluster something that nobody waits for.
    pub(crate) fn tell(&self, request: Request) {
        let link = self.clone();
        if let Some(network) = network::handle() {
            network.spawn(async move { link.call(request).await });
        }
    }

    pub(crate) fn command(&self, command: &str) -> Result<(), Code> {
        match self {
            Self::Here(cluster) => cluster.command(command).map(drop),
            Self::There(remote) => remote.ask(Request::Command(command.to_owned())).map(drop),
            Self::Broken(code) => Err(*code),
        }
    }

    pub(crate) fn counter(&self, name: &str) -> Result<u64, Code> {
        match self {
            Self::Here(cluster) => cluster.counter(name),
            Self::There(remote) => match remote.ask(Request::Counter(name.to_owned()))? {
                Reply::Size(count) => Ok(count),
                _ => Err(code::OPERATION_FAILED),
            },
            Self::Broken(code) => Err(*code),
        }
    }

    /// Lets other processes use the cluster; returns the connection string for them.
    pub(crate) fn serve(&self) -> Result<String, Code> {
        match self {
            Self::Here(cluster) => {
                let address = server::start(Arc::clone(cluster)).map_err(|_| code::OPERATION_FAILED)?;
                Ok(format!("{}:{}@{address}", served::DESCRIPTION, address.port()))
            }
            Self::There(_) => Err(code::CLIENT_INVALID_OPERATION),
            Self::Broken(code) => Err(*code),
        }
    }

    /// Finds the cluster of a connection string: the same string is the same cluster.
    fn to(connection: &str) -> Result<Self, Code> {
        static LINKS: Mutex<Option<HashMap<String, Link>>> = Mutex::new(None);
        let connection = checked(connection).ok_or(code::CONNECTION_STRING_INVALID)?;
        let mut links = LINKS.lock().unwrap_or_else(PoisonError::into_inner);
        let links = links.get_or_insert_default();
        if let Some(link) = links.get(connection) {
            return Ok(link.clone());
        }
        let link = match served_at(connection) {
            Some(address) => Self::There(Remote::new(address)),
            None => Self::Here(new_cluster()?),
        };
        links.insert(connection.to_owned(), link.clone());
        Ok(link)
    }

    /// `path` of a cluster file, or the default one when it is empty.
    pub(crate) fn from_file(path: &str) -> Result<Self, Code> {
        let text = std::fs::read_to_string(cluster_file(path)).map_err(|_| code::NO_CLUSTER_FILE_FOUND)?;
        Self::to(&text)
    }
}

/// A cluster in this process, as the environment wants it.
fn new_cluster() -> Result<Arc<Cluster>, Code> {
    let cluster = Cluster::new();
    for command in std::env::var("LITEFLEET_STAND_IN_COMMANDS").unwrap_or_default().split(';') {
        if !command.trim().is_empty() {
            cluster.command(command)?;
        }
    }
    Ok(cluster)
}

/// Where another process serves the cluster of this connection string, if one does.
fn served_at(connection: &str) -> Option<SocketAddr> {
    let (name, address) = connection.split_once('@')?;
    let (description, _) = name.split_once(':')?;
    (description == served::DESCRIPTION).then(|| address.parse().ok()).flatten()
}

/// Source: FoundationDB documentation, "Administration", cluster files: the argument, else the environment, else the
/// current folder, else the system's.
fn cluster_file(path: &str) -> PathBuf {
    if !path.is_empty() {
        return PathBuf::from(path);
    }
    if let Some(path) = std::env::var_os("FDB_CLUSTER_FILE") {
        return PathBuf::from(path);
    }
    let here = PathBuf::from("fdb.cluster");
    if here.exists() { here } else { Path::new("/etc/foundationdb/fdb.cluster").to_path_buf() }
}

/// `description:id@address:port,…`, alone on its line; lines that begin with # are comments.
fn checked(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next().filter(|_| lines.next().is_none())?;
    let (name, addresses) = line.split_once('@')?;
    let (description, id) = name.split_once(':')?;
    let word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let address = |address: &str| {
        address.trim_end_matches(":tls").rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    };
    (word(description) && word(id) && addresses.split(',').all(address)).then_some(line)
}

impl Database {
    /// A database of a cluster file. What is wrong with the file is reported by its transactions, as by the real library,
    /// which reads the file later, on the network thread.
    pub(crate) fn open(path: &str) -> Result<Arc<Self>, Code> {
        Self::when_set_up(|| Link::from_file(path))
    }

    pub(crate) fn connect(connection: &str) -> Result<Arc<Self>, Code> {
        Self::when_set_up(|| Link::to(connection))
    }

    fn when_set_up(link: impl FnOnce() -> Result<Link, Code>) -> Result<Arc<Self>, Code> {
        if network::handle().is_none() {
            return Err(code::NETWORK_NOT_SETUP);
        }
        Ok(Self::over(link().unwrap_or_else(Link::Broken)))
    }

    fn over(link: Link) -> Arc<Self> {
        Arc::new(Self {
            link,
            defaults: Mutex::new(Vec::new()),
            deferred: OnceLock::new(),
            max_watches: AtomicI64::new(MAX_WATCHES),
            watches: Arc::default(),
            made: AtomicU64::new(0),
        })
    }

    /// Options that every transaction of this database begins with.
    pub(crate) fn defaults(&self) -> Vec<(i32, Option<Vec<u8>>)> {
        self.defaults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets an option. What is wrong with a value is reported by the transactions that begin after it, all of them: the
    /// real library looks at it later, on the network thread.
    pub(crate) fn set_option(&self, option: i32, value: Option<&[u8]>) -> Code {
        match self.try_set_option(option, value) {
            Ok(()) => code::SUCCESS,
            Err(code::INVALID_OPTION_VALUE) => {
                self.deferred.get_or_init(|| code::INVALID_OPTION_VALUE);
                code::SUCCESS
            }
            Err(code) => code,
        }
    }

    /// What every transaction fails with.
    pub(crate) fn trouble(&self) -> Option<Code> {
        match self.link {
            Link::Broken(code) => Some(code),
            Link::Here(_) | Link::There(_) => self.deferred.get().copied(),
        }
    }

    fn try_set_option(&self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        options::check(options::DATABASE, option, value)?;
        if option == options::MAX_WATCHES {
            self.max_watches.store(options::number(value, 0, 1_000_000)?, Ordering::Relaxed);
        }
        if let Some(default) = options::default_for(option) {
            options::check(options::TRANSACTION, default, value)?;
            let mut defaults = self.defaults.lock().unwrap_or_else(PoisonError::into_inner);
            defaults.retain(|(other, _)| *other != default);
            defaults.push((default, value.map(<[u8]>::to_vec)));
        }
        Ok(())
    }

    /// One more transaction: how many were made before it.
    pub(crate) fn count_transaction(&self) -> u64 {
        if let Link::Here(cluster) = &self.link {
            cluster.count_transaction();
        }
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a place among the watches; it is free again when the result is dropped.
    pub(crate) fn watch_place(&self) -> Result<WatchPlace, Code> {
        let place = WatchPlace(Arc::clone(&self.watches));
        let before = self.watches.fetch_add(1, Ordering::Relaxed);
        if before < self.max_watches.load(Ordering::Relaxed) { Ok(place) } else { Err(code::TOO_MANY_WATCHES) }
    }
}

#[derive(Debug)]
pub(crate) struct WatchPlace(Arc<AtomicI64>);

impl Drop for WatchPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn a_cluster_file_holds_one_connection_string() {
        assert_eq!(checked("# comment\nab_c:12@127.0.0.1:4500\n"), Some("ab_c:12@127.0.0.1:4500"));
        assert!(checked("a:b@[::1]:4500:tls,10.0.0.1:1").is_some());
        for wrong in ["", "a@127.0.0.1:1", "a:b@127.0.0.1", "a:b", "a b:c@1.1.1.1:1", "a:b@1.1.1.1:1\nc:d@1.1.1.1:1"] {
            assert_eq!(checked(wrong), None, "{wrong}");
        }
    }
}
