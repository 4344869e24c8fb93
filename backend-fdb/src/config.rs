//! Settings of the store: plain data, and their form as a URL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use litefleet::clock::{Clock, SystemClock};
use litefleet::store::StoreLimits;
use litefleet::{Error, Result};
use percent_encoding::percent_decode_str;

use crate::keys::{MAX_PREFIX_BYTES, key_bytes};
pub use crate::network::NetworkConfig;

/// The most bytes that one transaction may change. Everything is cut to be well below it, and below FoundationDB's own
/// bound of 10,000,000 by a factor of ten.
pub(crate) const TRANSACTION_BYTES: usize = 1_000_000;

/// The most watches that a database of the client library may have. It takes more without a word, and then every
/// transaction fails.
const MOST_WATCHES: u32 = 1_000_000;

/// How to open a store on FoundationDB.
#[derive(Clone, Debug)]
pub struct FdbConfig {
    /// The cluster file. Without one, FoundationDB looks for `FDB_CLUSTER_FILE`, and then in its usual places.
    pub cluster_file: Option<PathBuf>,
    /// What all keys of the store begin with. Default `litefleet/`. Stores with different prefixes share a cluster, as
    /// long as no prefix is the beginning of another.
    pub prefix: Vec<u8>,
    /// A path of the directory layer, in place of `prefix`: FoundationDB gives the store a short prefix of its own.
    pub directory: Vec<String>,
    /// How long a call is tried before it fails as unavailable. Default 10 s.
    pub timeout: Duration,
    /// How often a call that failed is made again at the most: with 0 it is made once. Without one, for as long as
    /// `timeout` allows.
    pub retry_limit: Option<u32>,
    /// The longest wait between two tries. Default 1 s.
    pub max_retry_delay: Duration,
    /// Tags of all transactions. 5 at the most, of 16 bytes each. FoundationDB throttles a tag where read versions are asked
    /// for: that holds back renewals of sessions and opens, and hardly ever a commit.
    pub tags: Vec<String>,
    /// Checkpoints, collections and purges run at batch priority: when the cluster is loaded they wait. Default true.
    pub background_at_batch_priority: bool,
    /// The data center that this process runs in: reads go to servers of the same one.
    pub datacenter: Option<String>,
    /// The machine that this process runs on: reads go to servers of the same one.
    pub machine: Option<String>,
    /// Watches at the most, one for each database that a follower waits for: up to a million. Default 10,000, as
    /// FoundationDB has it.
    pub max_watches: u32,
    /// TLS, tracing, and what else holds for the whole process.
    pub network: NetworkConfig,
    /// Bounds that callers must keep to. Under a long prefix, whose bytes count in every key of a transaction, fewer
    /// databases fit into one atomic commit: the store lowers `atomic_databases` then.
    pub limits: StoreLimits,
    /// The clock by which sessions are watched. Its wall clock is not used.
    pub clock: Arc<dyn Clock>,
}

impl Default for FdbConfig {
    fn default() -> Self {
        Self {
            cluster_file: None,
            prefix: b"litefleet/".to_vec(),
            directory: Vec::new(),
            timeout: Duration::from_secs(10),
            retry_limit: None,
            max_retry_delay: Duration::from_secs(1),
            tags: Vec::new(),
            background_at_batch_priority: true,
            datacenter: None,
            machine: None,
            max_watches: 10_000,
            network: NetworkConfig::default(),
            limits: StoreLimits {
                read_pages: 1024,
                record_bytes: 256 << 10,
                atomic_databases: 256,
                atomic_bytes: 384 << 10,
                write_rows: 64,
                collect_pages: 512,
                log_bytes: 1 << 20,
            },
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl FdbConfig {
    /// The default settings for a cluster.
    pub fn new(cluster_file: impl Into<PathBuf>) -> Self {
        Self { cluster_file: Some(cluster_file.into()), ..Self::default() }
    }

    /// With another prefix.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// With a path of the directory layer in place of the prefix.
    #[must_use]
    pub fn directory(mut self, path: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.directory = path.into_iter().map(Into::into).collect();
        self
    }

    /// With another time that a call is tried.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With other limits: tests shrink them so that the hard paths run.
    #[must_use]
    pub fn limits(mut self, limits: StoreLimits) -> Self {
        self.limits = limits;
        self
    }

    /// With another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Reads a URL: `fdb:CLUSTERFILE?option=value&…`, with `%xx` for bytes that have a meaning of their own.
    ///
    /// Options: `prefix`, `directory` (its parts separated by `/`), `timeout` and `max_retry_delay` in milliseconds,
    /// `retry_limit`, `tag` (may be repeated), `batch` (`yes` or `no`), `datacenter`, `machine`, `max_watches`, `trace`,
    /// `trace_format`, `trace_log_group`, `tls_certificate`, `tls_key`, `tls_password`, `tls_ca`, `tls_verify_peers`,
    /// `external_clients`, `knob` (may be repeated).
    ///
    /// # Errors
    ///
    /// `Invalid`, and the message says what was expected.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest =
            url.strip_prefix("fdb:").ok_or_else(|| Error::invalid(format!("'{url}' does not begin with fdb:")))?;
        let (file, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut config = Self::default();
        let file = decode(file)?;
        // Both fdb:/etc/x and fdb:///etc/x are the same file.
        let file = file.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(&file);
        if !file.is_empty() {
            config.cluster_file = Some(file.into());
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Error::invalid(format!("'{pair}' in the store's URL should be an option and a value, as in prefix=a"))
            })?;
            config.set(name, value)?;
        }
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, name: &str, raw: &str) -> Result<()> {
        let value = || decode(raw);
        let path = || decode(raw).map(PathBuf::from);
        let network = &mut self.network;
        match name {
            "prefix" => self.prefix = percent_decode_str(raw).collect(),
            "directory" => {
                self.directory = raw.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Result<_>>()?;
            }
            "timeout" => self.timeout = Duration::from_millis(number(name, raw)?.into()),
            "retry_limit" => self.retry_limit = Some(number(name, raw)?),
            "max_retry_delay" => self.max_retry_delay = Duration::from_millis(number(name, raw)?.into()),
            "tag" => self.tags.push(value()?),
            "batch" => self.background_at_batch_priority = yes_or_no(name, raw)?,
            "datacenter" => self.datacenter = Some(value()?),
            "machine" => self.machine = Some(value()?),
            "max_watches" => self.max_watches = number(name, raw)?,
            "trace" => network.trace_directory = Some(path()?),
            "trace_format" => network.trace_format = Some(value()?),
            "trace_log_group" => network.trace_log_group = Some(value()?),
            "tls_certificate" => network.tls_certificate = Some(path()?),
            "tls_key" => network.tls_key = Some(path()?),
            "tls_password" => network.tls_password = Some(value()?),
            "tls_ca" => network.tls_ca = Some(path()?),
            "tls_verify_peers" => network.tls_verify_peers = Some(value()?),
            "external_clients" => network.external_client_directory = Some(path()?),
            "knob" => network.knobs.push(value()?),
            _ => return Err(Error::invalid(format!("'{name}' is not an option of a FoundationDB store"))),
        }
        Ok(())
    }

    /// Whether the settings can be.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::invalid(message));
        if self.directory.is_empty() {
            if self.prefix.is_empty() || self.prefix.len() > MAX_PREFIX_BYTES {
                let bytes = self.prefix.len();
                return wrong(format!("the prefix has {bytes} bytes; it needs 1 to {MAX_PREFIX_BYTES}"));
            }
            if self.prefix.starts_with(&[0xff]) || self.prefix.starts_with(&[0xfe]) {
                return wrong("a prefix cannot begin with 0xff, FoundationDB's own, or 0xfe, its directories'".into());
            }
        }
        if self.timeout.is_zero() {
            return wrong("the time-out must not be zero".into());
        }
        if self.tags.len() > 5 || self.tags.iter().any(|tag| tag.len() > 16) {
            return wrong("there may be 5 transaction tags, of 16 bytes each".into());
        }
        if self.max_watches > MOST_WATCHES {
            return wrong(format!("max_watches is {}; FoundationDB allows {MOST_WATCHES}", self.max_watches));
        }
        self.network.check()?;
        // A directory's prefix is not known yet, and short.
        self.limits_under(self.prefix.len()).map(|_| ())
    }

    /// The limits of a store with a prefix of so many bytes.
    pub(crate) fn limits_under(&self, prefix: usize) -> Result<StoreLimits> {
        let mut limits = self.limits;
        let (key, commit) = (key_bytes(prefix), commit_bytes(key_bytes(prefix)));
        // Each may be staged, and may release its lease.
        let fit = TRANSACTION_BYTES.saturating_sub(limits.atomic_bytes) / (commit + 16 * key);
        limits.atomic_databases = limits.atomic_databases.min(fit.max(1));
        let all = [
            ("record_bytes", limits.record_bytes.saturating_add(commit)),
            ("atomic_bytes", limits.atomic_bytes.saturating_add(commit)),
            ("write_rows", limits.write_rows.saturating_mul(3 * key + ROW_BYTES).saturating_add(commit)),
        ];
        match all.iter().find(|(_, bytes)| *bytes > TRANSACTION_BYTES) {
            Some((name, bytes)) => Err(Error::invalid(format!(
                "the limit {name} allows transactions of {bytes} bytes; {TRANSACTION_BYTES} is the most"
            ))),
            None => Ok(limits),
        }
    }
}

/// What a commit takes of a transaction besides the record, when its keys have so many bytes: head and record are the
/// key three times each, with the conflict ranges that they make, the slot four times, and the lease twice where it was
/// read.
pub(crate) fn commit_bytes(key: usize) -> usize {
    12 * key + 416
}

/// About what a row of a page that does not compress costs in a transaction, besides its key.
const ROW_BYTES: usize = 4096 + 128;

fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Error::invalid(format!("'{text}' in the store's URL is not UTF-8")))
}

fn number(name: &str, value: &str) -> Result<u32> {
    value.parse().map_err(|_| Error::invalid(format!("{name}={value} in the store's URL: expected a number")))
}

fn yes_or_no(name: &str, value: &str) -> Result<bool> {
    match value {
        "yes" | "1" | "true" => Ok(true),
        "no" | "0" | "false" => Ok(false),
        _ => Err(Error::invalid(format!("{name}={value} in the store's URL: expected yes or no"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let config =
            FdbConfig::from_url("fdb:/etc/foundationdb/fdb.cluster?prefix=a%00b&timeout=250&tag=x&tag=y").unwrap();
        assert_eq!(config.cluster_file, Some("/etc/foundationdb/fdb.cluster".into()));
        assert_eq!(config.prefix, b"a\0b");
        assert_eq!(config.timeout, Duration::from_millis(250));
        assert_eq!(config.tags, ["x", "y"]);
        let config = FdbConfig::from_url("fdb:").unwrap();
        assert_eq!((config.cluster_file, config.prefix), (None, b"litefleet/".to_vec()));
        let config = FdbConfig::from_url("fdb:///x%20y?directory=a/b%2Fc/&tls_ca=/ca&batch=no&machine=m").unwrap();
        assert_eq!(config.cluster_file, Some("/x y".into()));
        assert_eq!(config.directory, ["a", "b/c"]);
        assert_eq!(config.network.tls_ca, Some("/ca".into()));
        assert!(!config.background_at_batch_priority);
        assert_eq!(config.machine.as_deref(), Some("m"));
    }

    #[test]
    fn urls_that_cannot_be_are_refused() {
        for url in [
            "postgres:x",
            "fdb:x?prefix",
            "fdb:x?nonsense=1",
            "fdb:x?timeout=soon",
            "fdb:x?timeout=0",
            "fdb:x?prefix=",
            "fdb:x?prefix=%ff",
            "fdb:x?batch=perhaps",
            "fdb:x?tag=12345678901234567",
            "fdb:x?max_watches=1000001",
            "fdb:x?trace_format=yaml",
            "fdb:x?knob=max_trace_lines",
            "fdb:%ff",
        ] {
            let error = FdbConfig::from_url(url).expect_err(url);
            assert_eq!(error.kind(), litefleet::ErrorKind::Invalid, "{url}");
        }
    }

    #[test]
    fn limits_that_make_transactions_too_large_are_refused() {
        let mut config = FdbConfig::default();
        config.check().unwrap();
        config.limits.write_rows = 1024;
        assert!(config.check().is_err());
    }

    #[test]
    fn a_long_prefix_leaves_room_for_fewer_databases() {
        let databases = |prefix: usize| {
            let config = FdbConfig::default().prefix(vec![b'p'; prefix]);
            config.check().unwrap();
            config.limits_under(prefix).unwrap().atomic_databases
        };
        assert_eq!(databases(10), 256);
        assert!((20..256).contains(&databases(900)), "{}", databases(900));
        assert!(databases(MAX_PREFIX_BYTES) > 1);
    }
}
