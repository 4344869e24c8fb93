//! Calls on a cluster: the loop that tries a call again until it is done or its time is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foundationdb::options::{DatabaseOption, TransactionOption};
use foundationdb::{Database, Transaction, TransactionCommitError};
use litefleet::Error;
use litefleet::clock::{Clock, SystemClock};
use litefleet::store::deadline;

use crate::config::FdbConfig;
use crate::error::{Fault, Outcome, code};
pub(crate) use crate::tx::{Pair, Piece, Tx, only};

/// For how long a call is tried at least, however little its caller waits: else one that comes with the last of its
/// caller's time would never be made.
const SHORTEST: Duration = Duration::from_secs(1);

/// What a store has written since it was opened, as FoundationDB is given it: before replication, and without what was
/// cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Transactions that were committed.
    pub transactions: u64,
    /// Keys.
    pub keys: u64,
    /// Bytes of the keys and their values.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Totals {
    transactions: AtomicU64,
    keys: AtomicU64,
    bytes: AtomicU64,
}

/// A cluster, and how calls on it are made.
pub(crate) struct Cluster {
    database: Database,
    totals: Totals,
    timeout: Duration,
    retry_limit: u32,
    tags: Vec<String>,
    background_at_batch_priority: bool,
    /// Real time, for versions: FoundationDB forgets them by its own clock, whatever clock the sessions go by.
    clock: SystemClock,
}

/// How urgent a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Somebody waits for it.
    Normal,
    /// It can wait while the cluster is loaded.
    Background,
}

/// What a body of a transaction says to do.
pub(crate) enum Step<T> {
    /// Commit it.
    Commit(T),
    /// It only read.
    Return(T),
}

/// What came of a call.
pub(crate) struct Done<T> {
    pub(crate) value: T,
    /// At which version it was committed, and when, by [`Cluster::now`], that was begun. `None` when it only read.
    pub(crate) committed: Option<(i64, Duration)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        crate::network::stop_at_exit();
    }
}

impl Cluster {
    /// Connects. Nothing is sent yet.
    pub(crate) fn connect(config: &FdbConfig) -> Outcome<Self> {
        let file = match &config.cluster_file {
            Some(path) => Some(path.to_str().ok_or_else(|| {
                Error::invalid(format!("{}: FoundationDB needs the cluster file's path in UTF-8", path.display()))
            })?),
            None => None,
        };
        let database = Database::new(file)?;
        let count = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        let delay = u64::try_from(config.max_retry_delay.as_millis()).unwrap_or(u64::MAX);
        database.set_option(DatabaseOption::TransactionMaxRetryDelay(count(delay)))?;
        database.set_option(DatabaseOption::MaxWatches(count(config.max_watches.into())))?;
        if let Some(id) = &config.datacenter {
            database.set_option(DatabaseOption::DatacenterId(id.clone()))?;
        }
        if let Some(id) = &config.machine {
            database.set_option(DatabaseOption::MachineId(id.clone()))?;
        }
        Ok(Self {
            database,
            totals: Totals::default(),
            timeout: config.timeout,
            retry_limit: config.retry_limit.unwrap_or(u32::MAX),
            tags: config.tags.clone(),
            background_at_batch_priority: config.background_at_batch_priority,
            clock: SystemClock::default(),
        })
    }

    /// Real monotonic time.
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// What was written so far.
    pub(crate) fn written(&self) -> Written {
        let Totals { transactions, keys, bytes } = &self.totals;
        let [transactions, keys, bytes] = [transactions, keys, bytes].map(|total| total.load(Ordering::Relaxed));
        Written { transactions, keys, bytes }
    }

    /// How long a call is tried.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The client library's own interface, for the directory layer.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Until when a call that begins now is tried: for as long as the settings say, and no longer than its caller waits.
    pub(crate) fn deadline(&self, priority: Priority) -> Duration {
        let waits = if priority == Priority::Normal { deadline::left() } else { None };
        self.now().saturating_add(waits.map_or(self.timeout, |left| self.timeout.min(left.max(SHORTEST))))
    }

    /// The tries of one call.
    pub(crate) fn attempts(&self, what: &'static str, priority: Priority) -> Attempts<'_> {
        self.attempts_until(what, priority, self.deadline(priority))
    }

    /// The tries of one call until a moment, by [`now`](Self::now).
    pub(crate) fn attempts_until(&self, what: &'static str, priority: Priority, deadline: Duration) -> Attempts<'_> {
        Attempts { cluster: self, what, priority, deadline, count: 0, unknown: false, reusable: None }
    }

    /// Makes a call that does no harm when it is made twice. The body is told whether an earlier try may have been
    /// committed.
    pub(crate) async fn run<T, F, B>(&self, what: &'static str, priority: Priority, body: F) -> Outcome<Done<T>>
    where
        F: FnMut(Tx, bool) -> B + Send,
        B: Future<Output = Outcome<Step<T>>> + Send,
        T: Send,
    {
        Self::run_with(self.attempts(what, priority), body).await
    }

    /// As [`run`](Self::run), with tries of a certain kind.
    pub(crate) async fn run_with<T, F, B>(mut attempts: Attempts<'_>, mut body: F) -> Outcome<Done<T>>
    where
        F: FnMut(Tx, bool) -> B + Send,
        B: Future<Output = Outcome<Step<T>>> + Send,
        T: Send,
    {
        loop {
            let tx = attempts.begin()?;
            let step = body(tx.clone(), attempts.unknown()).await;
            let failed = match step {
                Ok(Step::Return(value)) => return Ok(Done { value, committed: None }),
                Ok(Step::Commit(value)) => match attempts.commit(tx).await {
                    Ok(committed) => return Ok(Done { value, committed: Some(committed) }),
                    Err(failed) => failed,
                },
                Err(fault) => Failed::reading(tx, fault),
            };
            attempts.again(failed).await?;
        }
    }

    /// A transaction for the reads of several calls at one version. It has no time-out, since each call has its own.
    pub(crate) fn reading_at(&self, version: i64) -> Outcome<Tx> {
        let trx = self.watching()?;
        trx.set_option(TransactionOption::ReadYourWritesDisable)?;
        let tx = Tx::new(trx);
        tx.read_at(version);
        Ok(tx)
    }

    /// A transaction that is not one of several tries, and has no time-out: for watches.
    pub(crate) fn watching(&self) -> Outcome<Transaction> {
        let trx = self.database.create_trx()?;
        self.tag(&trx)?;
        Ok(trx)
    }

    fn tag(&self, trx: &Transaction) -> Outcome<()> {
        for tag in &self.tags {
            trx.set_option(TransactionOption::AutoThrottleTag(tag.clone()))?;
        }
        Ok(())
    }
}

/// The tries of one call.
pub(crate) struct Attempts<'c> {
    cluster: &'c Cluster,
    what: &'static str,
    priority: Priority,
    deadline: Duration,
    count: u32,
    unknown: bool,
    /// A transaction that has waited as long as FoundationDB wants it to.
    reusable: Option<Transaction>,
}

impl Attempts<'_> {
    /// Whether a try may have been committed.
    pub(crate) fn unknown(&self) -> bool {
        self.unknown
    }

    /// The next transaction.
    pub(crate) fn begin(&mut self) -> Outcome<Tx> {
        self.count = self.count.saturating_add(1);
        let trx = match self.reusable.take() {
            // Its time-out outlives `on_error`, and counts from when the transaction was made.
            Some(trx) => trx,
            None => self.with_time_out()?,
        };
        self.set_options(&trx)?;
        Ok(Tx::new(trx))
    }

    /// A second transaction, for reading at the same version as the first while that commits.
    pub(crate) fn beside(&self, version: i64) -> Outcome<Tx> {
        let trx = self.with_time_out()?;
        self.set_options(&trx)?;
        let tx = Tx::new(trx);
        tx.read_at(version);
        Ok(tx)
    }

    fn with_time_out(&self) -> Outcome<Transaction> {
        let trx = self.cluster.database.create_trx()?;
        let left = self.deadline.saturating_sub(self.cluster.now()).as_millis().max(1);
        trx.set_option(TransactionOption::Timeout(i32::try_from(left).unwrap_or(i32::MAX)))?;
        Ok(trx)
    }

    /// The options that a transaction loses when it is tried again.
    fn set_options(&self, trx: &Transaction) -> Outcome<()> {
        // Nothing here reads what it has written.
        trx.set_option(TransactionOption::ReadYourWritesDisable)?;
        if self.priority == Priority::Background && self.cluster.background_at_batch_priority {
            trx.set_option(TransactionOption::PriorityBatch)?;
        }
        self.cluster.tag(trx)
    }

    /// Commits. No other handle to the transaction is left. Says at which version, and when it was begun.
    pub(crate) async fn commit(&mut self, tx: Tx) -> Result<(i64, Duration), Failed> {
        let sent = self.cluster.now();
        if let Err(fault) = tx.check_size(self.what) {
            return Err(Failed::reading(tx, fault));
        }
        let (keys, bytes) = tx.written();
        let Some(trx) = tx.into_inner() else {
            let fault = Error::internal(format!("{}: a transaction was committed while it was read", self.what)).into();
            return Err(Failed::at_once(fault));
        };
        match trx.commit().await {
            Ok(committed) => {
                let totals = &self.cluster.totals;
                totals.transactions.fetch_add(1, Ordering::Relaxed);
                totals.keys.fetch_add(keys as u64, Ordering::Relaxed);
                totals.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                committed.committed_version().map(|version| (version, sent)).map_err(|error| {
                    // It has happened, and nobody can say at which version.
                    self.unknown = true;
                    Failed::at_once(Fault::Unknown(error))
                })
            }
            Err(error) => {
                let fault = Fault::of_commit(*error);
                self.unknown |= matches!(fault, Fault::Unknown(_));
                Err(Failed { fault, spent: Spent::Commit(error) })
            }
        }
    }

    /// After a fault: waits until it makes sense to try again. Gives the fault back when it does not, or when the time
    /// is over.
    pub(crate) async fn again(&mut self, failed: Failed) -> Outcome<()> {
        let Failed { fault, spent } = failed;
        if !fault.may_be_tried_again() || self.is_over() {
            return Err(self.last(fault));
        }
        tracing::debug!(call = self.what, tries = self.count, %fault, "tried again");
        // FoundationDB knows how long to wait, and makes it longer each time.
        self.reusable = match (spent, &fault) {
            (Spent::Commit(error), _) => error.on_error().await.ok(),
            (Spent::Reading(trx), Fault::Client(error)) => trx.on_error(*error).await.ok(),
            (Spent::Reading(_) | Spent::Gone, _) => None,
        };
        if self.is_over() { Err(self.last(fault)) } else { Ok(()) }
    }

    /// As [`again`](Self::again), at once: for a fault that says only that what was assumed no longer holds. That was no
    /// try. What an older version has refused is told to nobody, also when there is no time to ask the newest.
    pub(crate) fn at_once(&mut self, failed: Failed) -> Outcome<()> {
        self.count = self.count.saturating_sub(1);
        match failed.fault {
            _ if !self.is_over() => Ok(()),
            Fault::Refused(error) => {
                let what = self.what;
                Err(Error::unavailable(format!("{what}: the time is over, and only an older version said: {error}"))
                    .into())
            }
            fault => Err(self.last(fault)),
        }
    }

    fn is_over(&self) -> bool {
        self.count > self.cluster.retry_limit || self.cluster.now() >= self.deadline
    }

    fn last(&self, fault: Fault) -> Fault {
        if fault.may_be_tried_again() {
            let tries = self.count;
            tracing::debug!(call = self.what, tries, %fault, "given up");
        }
        fault
    }
}

/// Whether a fault of a commit on assumed conditions only says that they must be read.
pub(crate) fn says_read_first(fault: &Fault) -> bool {
    let codes = [code::NOT_COMMITTED, code::TRANSACTION_TOO_OLD, code::FUTURE_VERSION, code::PROCESS_BEHIND];
    matches!(fault, Fault::Client(error) if codes.contains(&error.code()))
}

/// Whether a commit was refused because somebody else changed what it relies on.
pub(crate) fn lost_a_race(fault: &Fault) -> bool {
    matches!(fault, Fault::Client(error) if error.code() == code::NOT_COMMITTED)
}

/// A try that failed, and its transaction.
pub(crate) struct Failed {
    pub(crate) fault: Fault,
    spent: Spent,
}

enum Spent {
    Reading(Transaction),
    Commit(TransactionCommitError),
    Gone,
}

impl Failed {
    /// It failed before there was a transaction.
    pub(crate) fn at_once(fault: Fault) -> Self {
        Self { fault, spent: Spent::Gone }
    }

    /// It failed before it was committed.
    pub(crate) fn reading(tx: Tx, fault: Fault) -> Self {
        let spent = tx.into_inner().map_or(Spent::Gone, Spent::Reading);
        Self { fault, spent }
    }
}

#[cfg(test)]
mod tests {
    use litefleet::ErrorKind;
    use litefleet_fdb_stand_in_control::{StandIn, real_cluster};

    use super::*;

    #[tokio::test]
    async fn what_only_an_older_version_refused_is_told_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file =
            real_cluster().unwrap_or_else(|| StandIn::create(folder.path(), "tries").unwrap().cluster_file().into());
        let config = FdbConfig::new(file);
        crate::network::start(&config.network).unwrap();
        let cluster = Cluster::connect(&config).unwrap();
        let refused = || Failed::at_once(Error::not_found("there is no database named x").into());
        let mut in_time = cluster.attempts("open", Priority::Normal);
        in_time.at_once(refused()).unwrap();
        let mut over = cluster.attempts_until("open", Priority::Normal, cluster.now());
        let told = Error::from(over.at_once(refused()).unwrap_err());
        assert_eq!(told.kind(), ErrorKind::Unavailable, "{told}");
    }
}
