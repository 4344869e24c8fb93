//! Transactions: what each call checks, and what it leaves behind in the transaction.
//!
//! Source: FoundationDB documentation, "C API" (transaction functions), "Developer Guide" (transactions, conflict
//! ranges, watches, versionstamps), options file (what each option means), "Error Codes".

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::attempt::Attempt;
use super::database::Database;
use super::future::{FdbFuture, KeyArray, Output, RowArray};
use super::read::{RangeRead, Reader};
use super::settings::Settings;
use super::writes::Writes;
use super::{network, options, size};
use crate::cluster::Random;
use crate::cluster::protocol::{Range, Reply, Request, Selector, Version};
use crate::code::{self, Code};

/// The delay before the first retry; it doubles with each. Source: the client's constant; the documentation gives none.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Transaction {
    pub(super) database: Arc<Database>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// Options that outlive a retry, in the order in which they were set.
    pub(super) persistent: Vec<(i32, Option<Vec<u8>>)>,
    pub(super) attempt: Arc<Attempt>,
    pub(super) writes: Arc<Writes>,
    /// The first error of a call that has no way to report one; every later call reports it.
    deferred: Option<Code>,
    pub(super) commit_started: bool,
    pub(super) committed: Version,
    created: Instant,
    pub(super) retries: i64,
    pub(super) backoff: Duration,
    pub(super) random: Random,
}

/// A read as it is asked for.
enum Read {
    Get(Bytes),
    GetKey(Selector),
    GetRange(RangeRead),
}

impl Transaction {
    pub(crate) fn new(database: Arc<Database>) -> Arc<Self> {
        // Each transaction of a database has other jitter, and the same in every run.
        let mut random = Random::new(database.count_transaction());
        random.next();
        let state = State {
            settings: Settings::default(),
            persistent: Vec::new(),
            attempt: Arc::default(),
            writes: Arc::default(),
            deferred: None,
            commit_started: false,
            committed: -1,
            created: Instant::now(),
            retries: 0,
            backoff: FIRST_BACKOFF,
            random,
        };
        let transaction = Arc::new(Self { database, state: Mutex::new(state) });
        transaction.reset();
        transaction
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back to a new transaction, with the database's defaults.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.retries = 0;
        state.backoff = FIRST_BACKOFF;
        state.created = Instant::now();
        state.persistent = self.database.defaults();
        state.next_attempt();
        if let Some(code) = self.database.trouble() {
            state.defer(code);
        }
    }

    pub(crate) fn cancel(&self) {
        self.lock().attempt.end(code::TRANSACTION_CANCELLED);
    }

    /// Sets an option. What is wrong with a value is reported by later calls, as by the real library.
    pub(crate) fn set_option(&self, option: i32, value: Option<&[u8]>) -> Code {
        let mut state = self.lock();
        match options::check(options::TRANSACTION, option, value) {
            Err(code::INVALID_OPTION_VALUE) => state.defer(code::INVALID_OPTION_VALUE),
            Err(code) => return code,
            Ok(()) => {
                state.set_option(option, value);
                if Settings::is_persistent(option) {
                    state.persistent.push((option, value.map(<[u8]>::to_vec)));
                }
            }
        }
        code::SUCCESS
    }

    pub(crate) fn set_read_version(&self, version: Version) {
        let mut state = self.lock();
        if let Err(code) = state.attempt.set_version(version) {
            state.defer(code);
        }
    }

    pub(crate) fn committed_version(&self) -> Version {
        self.lock().committed
    }

    pub(crate) fn read_version(&self) -> Arc<FdbFuture> {
        let attempt = match self.lock().usable() {
            Ok(attempt) => attempt,
            Err(code) => return FdbFuture::ready(Err(code)),
        };
        let link = self.database.link.clone();
        FdbFuture::start(async move { attempt.guard(attempt.version(&link)).await.map(Output::Number) })
    }

    pub(crate) fn get(&self, key: Bytes, snapshot: bool) -> Arc<FdbFuture> {
        self.read(Read::Get(key), snapshot)
    }

    pub(crate) fn get_key(&self, selector: Selector, snapshot: bool) -> Arc<FdbFuture> {
        self.read(Read::GetKey(selector), snapshot)
    }

    pub(crate) fn get_range(&self, range: RangeRead, snapshot: bool) -> Arc<FdbFuture> {
        self.read(Read::GetRange(range), snapshot)
    }

    /// A read goes on when nobody waits for it any more: its conflict range is part of the transaction all the same.
    fn read(&self, read: Read, snapshot: bool) -> Arc<FdbFuture> {
        let mut state = self.lock();
        let allowed = state.usable().and_then(|_| read.allowed(&state.settings));
        match allowed {
            Err(code) => return FdbFuture::ready(Err(code)),
            Ok(Some(known)) => return FdbFuture::ready(Ok(known)),
            Ok(None) => {}
        }
        let reader = state.reader(&self.database, snapshot);
        drop(state);
        FdbFuture::start_lasting(async move {
            let reading = reader.attempt.begin_read();
            let result = reader.attempt.guard(read.perform(&reader)).await;
            if let Err(code) = &result {
                reader.attempt.read_failed(*code);
            }
            drop(reading);
            result
        })
    }

    /// The size so far, by the client's estimate. Source: "C API", `fdb_transaction_get_approximate_size`.
    pub(crate) fn approximate_size(&self) -> Arc<FdbFuture> {
        let size = self.lock().usable().map(|attempt| attempt.size.load(Ordering::Relaxed));
        FdbFuture::ready(size.map(|size| Output::Number(i64::try_from(size).unwrap_or(i64::MAX))))
    }

    pub(crate) fn range_size(&self, range: Range) -> Arc<FdbFuture> {
        self.ask(Request::RangeSize(range), |reply| match reply {
            Reply::Size(size) => Some(Output::Number(i64::try_from(size).unwrap_or(i64::MAX))),
            _ => None,
        })
    }

    pub(crate) fn split_points(&self, range: Range, chunk: i64) -> Arc<FdbFuture> {
        let Ok(chunk) = u64::try_from(chunk) else { return FdbFuture::ready(Err(code::CLIENT_INVALID_OPERATION)) };
        if range.begin.clone().max(range.end.clone()) > self.lock().settings.read_bound() {
            return FdbFuture::ready(Err(code::KEY_OUTSIDE_LEGAL_RANGE));
        }
        self.ask(Request::SplitPoints { range, chunk }, |reply| match reply {
            Reply::Keys(keys) => Some(Output::Keys(KeyArray::new(keys))),
            _ => None,
        })
    }

    /// A question to the cluster that has nothing to do with the transaction's version.
    fn ask(&self, request: Request, output: fn(Reply) -> Option<Output>) -> Arc<FdbFuture> {
        let attempt = match self.lock().usable() {
            Ok(attempt) => attempt,
            Err(code) => return FdbFuture::ready(Err(code)),
        };
        let link = self.database.link.clone();
        FdbFuture::start(async move {
            let reply = attempt.guard(link.call(request)).await?;
            output(reply).ok_or(code::OPERATION_FAILED)
        })
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl State {
    /// A new attempt; everything of the one before fails.
    pub(super) fn next_attempt(&mut self) {
        let before = std::mem::take(&mut self.attempt);
        before.end(code::TRANSACTION_CANCELLED);
        self.writes = Arc::default();
        self.deferred = None;
        self.commit_started = false;
        self.committed = -1;
        self.settings = Settings::default();
        for (option, value) in self.persistent.clone() {
            self.set_option(option, value.as_deref());
        }
    }

    pub(super) fn defer(&mut self, code: Code) {
        self.deferred.get_or_insert(code);
    }

    fn set_option(&mut self, option: i32, value: Option<&[u8]>) {
        // Source: options file: read-your-writes cannot be switched off after a read or a write.
        let late = option == options::READ_YOUR_WRITES_DISABLE && (!self.writes.is_empty() || self.attempt.has_read());
        let result = if late { Err(code::CLIENT_INVALID_OPERATION) } else { self.settings.set(option, value) };
        if let Err(code) = result {
            self.defer(code);
        }
        match option {
            options::TIMEOUT => self.start_timeout(),
            options::PRIORITY_BATCH | options::PRIORITY_SYSTEM_IMMEDIATE => {
                self.attempt.use_batch_priority(self.settings.batch_priority);
            }
            _ => {}
        }
    }

    /// The time-out counts from the transaction's creation or reset, over all its attempts.
    fn start_timeout(&mut self) {
        let serial = self.attempt.next_timeout();
        let Some(network) = network::handle().filter(|_| !self.settings.timeout.is_zero()) else { return };
        let deadline = self.created + self.settings.timeout;
        let attempt = Arc::downgrade(&self.attempt);
        network.spawn(async move {
            sleep_until(deadline).await;
            if let Some(attempt) = attempt.upgrade().filter(|attempt| attempt.is_timeout(serial)) {
                attempt.end(code::TRANSACTION_TIMED_OUT);
            }
        });
    }

    /// The attempt, if it can be used. Use during or after a commit fails the commit as well.
    pub(super) fn usable(&mut self) -> Result<Arc<Attempt>, Code> {
        if let Some(code) = self.deferred {
            return Err(code);
        }
        self.check_commit()?;
        match self.attempt.ended() {
            Some(code) => Err(code),
            None => Ok(Arc::clone(&self.attempt)),
        }
    }

    pub(super) fn check_commit(&mut self) -> Result<(), Code> {
        if !self.commit_started {
            return Ok(());
        }
        if self.settings.protects_commit {
            self.attempt.end(code::USED_DURING_COMMIT);
        }
        Err(code::USED_DURING_COMMIT)
    }

    pub(super) fn reader(&self, database: &Database, snapshot: bool) -> Reader {
        let settings = &self.settings;
        let sees = settings.read_your_writes && (!snapshot || settings.snapshot_sees_writes > 0);
        Reader {
            attempt: Arc::clone(&self.attempt),
            link: database.link.clone(),
            seen: sees.then(|| Arc::clone(&self.writes)),
            decided: settings.read_your_writes.then(|| Arc::clone(&self.writes)),
            snapshot,
            bypass_unreadable: settings.bypass_unreadable,
            bound: settings.read_bound(),
        }
    }
}

impl Read {
    /// Whether the keys may be read; the answer, where it takes no reading.
    fn allowed(&self, settings: &Settings) -> Result<Option<Output>, Code> {
        let bound = settings.read_bound();
        let outside = |key: &Bytes| if *key > bound { Err(code::KEY_OUTSIDE_LEGAL_RANGE) } else { Ok(()) };
        match self {
            Self::Get(key) if *key >= bound => Err(code::KEY_OUTSIDE_LEGAL_RANGE),
            // There is no key as long as this.
            Self::Get(key) if key.len() > size::key_limit(key) => Ok(Some(Output::Value(None))),
            Self::Get(_) => Ok(None),
            Self::GetKey(selector) => outside(&selector.key).map(|()| None),
            Self::GetRange(range) => {
                outside(&range.begin.key)?;
                outside(&range.end.key)?;
                let (begin, end) = (range.begin.clone().without_or_equal(), range.end.clone().without_or_equal());
                let empty = begin.offset >= end.offset && begin.key >= end.key;
                Ok(empty.then(|| Output::Rows(RowArray::new(Vec::new(), false))))
            }
        }
    }

    async fn perform(&self, reader: &Reader) -> Result<Output, Code> {
        match self {
            Self::Get(key) => reader.get(key).await.map(Output::Value),
            Self::GetKey(selector) => reader.get_key(selector).await.map(Output::Key),
            Self::GetRange(range) => {
                reader.get_range(range).await.map(|rows| Output::Rows(RowArray::new(rows.pairs, rows.more)))
            }
        }
    }
}
