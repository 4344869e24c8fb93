//! Settings: plain data. Every setting of a database is also a URI parameter of the same name.

use std::time::Duration;

use crate::codec::Compression;
use crate::error::{Error, Result};

/// When the right to write is taken and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseMode {
    /// Taken at the first lock, kept until the last connection closes or the lease has been idle for
    /// [`DatabaseSettings::lease_idle`]. Reads cost no round trip.
    #[default]
    Exclusive,
    /// Taken and given back by each write transaction, so that several processes share a database. Each read
    /// transaction asks for the head.
    Transaction,
}

/// How the locks of the connections of a process exclude each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// Each read transaction has a snapshot: readers do not block the writer, nor the writer readers.
    #[default]
    Snapshot,
    /// SHARED, RESERVED, PENDING and EXCLUSIVE exclude each other as SQLite's documentation says of a rollback journal:
    /// a commit waits for readers, and readers wait for the commit.
    Sqlite,
}

/// Settings of a process: one cache, one session, however many databases.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// The most bytes of page images in the cache, for all databases together.
    pub cache_bytes: usize,
    /// How long the process's session, and so every lease of it, lives without a renewal: a millisecond at least, a hundred
    /// years at the most.
    pub session_lifetime: Duration,
    /// How much earlier than the session's end this process stops to rely on it: what the store's clock may jump.
    pub session_margin: Duration,
    /// Commits of different databases share a call to the store; so many such calls are under way at a time, at the most.
    /// With 1 a batch is as large as it can be, and so is what it saves of flushes; with 2 the store works for one half of
    /// many databases while SQLite prepares the other half's next transactions. `None`: what the store says
    /// ([`PageStore::commit_calls`](crate::store::PageStore::commit_calls)).
    pub commit_calls: Option<usize>,
    /// Threads for work in the background: 1 at least, 1,024 at the most.
    pub worker_threads: usize,
    /// Who this process is, for people. Empty: host name and process id.
    pub label: String,
    /// What databases get that do not say otherwise.
    pub database: DatabaseSettings,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            session_lifetime: Duration::from_secs(15),
            session_margin: Duration::from_secs(3),
            commit_calls: None,
            worker_threads: 2,
            label: String::new(),
            database: DatabaseSettings::default(),
        }
    }
}

/// A session that lives shorter is over before anything can be done under it.
const SHORTEST_SESSION: Duration = Duration::from_millis(1);
/// What lives as long lives for ever, and can be told to every store.
const LONGEST_SESSION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const MOST_THREADS: usize = 1024;

impl FleetSettings {
    /// Settings that a fleet can work with. `Invalid` where there are none.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.session_lifetime < SHORTEST_SESSION {
            let message = format!("session_lifetime {:?}: expected a millisecond or more", self.session_lifetime);
            return Err(Error::invalid(message));
        }
        if self.worker_threads > MOST_THREADS {
            let message = format!("worker_threads {}: expected {MOST_THREADS} at the most", self.worker_threads);
            return Err(Error::invalid(message));
        }
        self.session_lifetime = self.session_lifetime.min(LONGEST_SESSION);
        Ok(self)
    }
}

/// Settings of a database. See the table in `docs/settings.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// `lease=exclusive|transaction`
    pub lease: LeaseMode,
    /// `locking=snapshot|sqlite`
    pub locking: Locking,
    /// `lease_idle=MS`: give an exclusive lease back after so long without a lock; zero keeps it until close.
    pub lease_idle: Duration,
    /// `takeover=1`: take the lease even from a live holder, who is fenced.
    pub takeover: bool,
    /// `busy=MS`: how long a lock waits here before `SQLITE_BUSY`, besides SQLite's own busy handler.
    pub busy: Duration,
    /// `store_timeout=MS`: how long a call goes on trying while the store cannot be reached.
    pub store_timeout: Duration,
    /// `staleness=MS`: how old a follower's view may be; zero asks the store in every read transaction.
    pub staleness: Duration,
    /// `snapshot_age=MS`: read transactions older than this may get `SnapshotTooOld`.
    pub snapshot_age: Duration,
    /// `checkpoint_bytes=N`: checkpoint when the log tail takes more bytes.
    pub checkpoint_bytes: usize,
    /// `checkpoint_records=N`: … has more records.
    pub checkpoint_records: usize,
    /// `checkpoint_pages=N`: … changes more distinct pages.
    pub checkpoint_pages: usize,
    /// `checkpoint_idle=MS`: checkpoint after so long without a commit.
    pub checkpoint_idle: Duration,
    /// `retention=MS`: how long old snapshots stay readable.
    pub retention: Duration,
    /// `transaction_bytes=N`: pages that a transaction buffers in memory before it stages them in the store.
    pub transaction_bytes: usize,
    /// `compression=lz4|none`
    pub compression: Compression,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            lease: LeaseMode::Exclusive,
            locking: Locking::Snapshot,
            lease_idle: Duration::ZERO,
            takeover: false,
            busy: Duration::ZERO,
            store_timeout: Duration::from_secs(5),
            staleness: Duration::ZERO,
            snapshot_age: Duration::from_secs(600),
            checkpoint_bytes: 4 << 20,
            checkpoint_records: 20_000,
            checkpoint_pages: 16_384,
            checkpoint_idle: Duration::from_secs(30),
            retention: Duration::from_secs(60),
            transaction_bytes: 8 << 20,
            compression: Compression::Lz4,
        }
    }
}

impl DatabaseSettings {
    /// The names of all parameters, as they stand in a URI.
    pub const PARAMETERS: &[&str] = &[
        "lease",
        "locking",
        "lease_idle",
        "takeover",
        "busy",
        "store_timeout",
        "staleness",
        "snapshot_age",
        "checkpoint_bytes",
        "checkpoint_records",
        "checkpoint_pages",
        "checkpoint_idle",
        "retention",
        "transaction_bytes",
        "compression",
    ];

    /// Sets one parameter from text. `Invalid` for an unknown name or a value that it cannot have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong = |expected: &str| Error::invalid(format!("parameter {name}={value}: expected {expected}"));
        let millis = || value.parse().map(Duration::from_millis).map_err(|_| wrong("milliseconds"));
        let number = || value.parse::<usize>().map_err(|_| wrong("a whole number"));
        match name {
            "lease" => {
                self.lease = match value {
                    "exclusive" => LeaseMode::Exclusive,
                    "transaction" => LeaseMode::Transaction,
                    _ => return Err(wrong("exclusive or transaction")),
                }
            }
            "locking" => {
                self.locking = match value {
                    "snapshot" => Locking::Snapshot,
                    "sqlite" => Locking::Sqlite,
                    _ => return Err(wrong("snapshot or sqlite")),
                }
            }
            "takeover" => {
                self.takeover = match value {
                    "1" | "true" | "yes" | "on" => true,
                    "0" | "false" | "no" | "off" => false,
                    _ => return Err(wrong("0 or 1")),
                }
            }
            "compression" => {
                self.compression = match value {
                    "lz4" => Compression::Lz4,
                    "none" => Compression::None,
                    _ => return Err(wrong("lz4 or none")),
                }
            }
            "lease_idle" => self.lease_idle = millis()?,
            "busy" => self.busy = millis()?,
            "store_timeout" => self.store_timeout = millis()?,
            "staleness" => self.staleness = millis()?,
            "snapshot_age" => self.snapshot_age = millis()?,
            "checkpoint_bytes" => self.checkpoint_bytes = number()?,
            "checkpoint_records" => self.checkpoint_records = number()?,
            "checkpoint_pages" => self.checkpoint_pages = number()?,
            "checkpoint_idle" => self.checkpoint_idle = millis()?,
            "retention" => self.retention = millis()?,
            "transaction_bytes" => self.transaction_bytes = number()?.max(64 << 10),
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

/// The parameter that is meant by a name, which it is or nearly is.
pub(crate) fn meant(name: &str) -> Option<&'static str> {
    let nearest = DatabaseSettings::PARAMETERS.iter().min_by_key(|known| distance(name, known));
    let most = name.len().max(3) / 3;
    nearest.copied().filter(|known| distance(name, known) <= most)
}

/// The error for a name that is none, with the one that is most like it.
fn unknown(name: &str) -> Error {
    let hint = match meant(name) {
        Some(known) => format!("did you mean {known}?"),
        None => format!("there are {}", DatabaseSettings::PARAMETERS.join(", ")),
    };
    Error::invalid(format!("there is no parameter {name}: {hint}"))
}

/// How many bytes must be put in, taken out or replaced to turn one name into the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, byte) in one.bytes().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (above, target) in row.iter_mut().zip(std::iter::once(None).chain(other.bytes().map(Some))) {
            let Some(target) = target else {
                *above = left;
                continue;
            };
            let here = (diagonal + usize::from(byte != target)).min(*above + 1).min(left + 1);
            (diagonal, left) = (*above, here);
            *above = here;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_can_be_set_and_a_misspelt_one_is_recognised() {
        let mut settings = DatabaseSettings::default();
        for name in DatabaseSettings::PARAMETERS {
            let set = ["1", "exclusive", "none", "sqlite"].iter().any(|value| settings.set(name, value).is_ok());
            assert!(set, "{name}");
        }
        for (wrong, right) in
            [("leese", "lease"), ("Busy", "busy"), ("checkpoint_byte", "checkpoint_bytes"), ("stalenes", "staleness")]
        {
            let error = settings.set(wrong, "1").unwrap_err();
            assert_eq!(error.message(), format!("there is no parameter {wrong}: did you mean {right}?"));
        }
        assert!(settings.set("colour", "1").unwrap_err().message().contains("there are lease, "));
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("kitten", "sitting")), (3, 3, 3));
    }
}
