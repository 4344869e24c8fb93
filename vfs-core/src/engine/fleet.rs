//! A fleet: one store, one session, one cache and one commit queue for all databases of the process.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use std::vec;

use tokio::task::JoinSet;

use super::batch::CommitBatcher;
use super::cache::{CacheCounters, PageCache};
use super::database::{Database, Role};
use super::lease::{FIRST_PAUSE, LONGEST_PAUSE};
use super::registry::Registry;
use super::session::Session;
use super::unreturned::Unreturned;
use crate::bridge::Bridge;
use crate::clock::{Clock, Randomness, SystemClock};
use crate::config::FleetSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::store::deadline::{self, Deadline};
use crate::store::{Metered, MetricsLayer, PageStore, StoreCounters};
use crate::types::{DatabaseName, Txid};

/// How often idle databases are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Idle databases that are looked after at once.
const LOOKING: usize = 8;
/// A step of a purge comes with every so many looks.
const PURGE_ROUNDS: u32 = 600;
/// Rows removed in one step of a purge.
pub(super) const PURGE_STEP: usize = 4096;

#[derive(Debug)]
pub(crate) struct FleetInner {
    pub(crate) store: Arc<dyn PageStore>,
    pub(crate) metered: Arc<Metered>,
    pub(crate) settings: FleetSettings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) randomness: Arc<Randomness>,
    pub(crate) bridge: Bridge,
    pub(crate) session: Session,
    pub(super) cache: PageCache,
    pub(super) batcher: CommitBatcher,
    pub(super) registry: Registry,
    pub(super) unreturned: Unreturned,
    instances: AtomicU64,
    /// The process that it was built in.
    process: u32,
}

impl FleetInner {
    /// `Invalid` in a process that was forked from the one that built the fleet: its threads are not here, and its store is
    /// the other process's. Two that go on with one store would write into each other's files and connections.
    pub(super) fn check_process(&self) -> Result<()> {
        if std::process::id() == self.process {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the store was opened in process {}, which this one was forked from: open a store after the fork, under another \
             name of a VFS",
            self.process
        )))
    }

    pub(super) fn next_instance(&self) -> u64 {
        self.instances.fetch_add(1, Ordering::Relaxed)
    }

    /// Calls the store until it can be reached, or the time for it is over, which the store is told too.
    pub(super) async fn retry<T, F, Fut>(&self, limit: Duration, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let start = self.clock.monotonic();
        let deadline = Deadline::after(limit);
        let mut pause = FIRST_PAUSE;
        loop {
            match deadline::scope(deadline, call()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let waited = self.clock.monotonic().saturating_sub(start);
                    if waited + pause > limit {
                        return Err(error);
                    }
                    self.pause(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                reply => return reply,
            }
        }
    }

    /// Waits for about so long, never in step with others.
    pub(crate) async fn pause(&self, about: Duration) {
        let micros = u64::try_from(about.as_micros()).unwrap_or(u64::MAX);
        let jittered = micros / 2 + self.randomness.below(micros.max(1));
        tokio::time::sleep(Duration::from_micros(jittered)).await;
    }
}

/// Puts a fleet together.
#[derive(Debug)]
pub struct FleetBuilder {
    store: Arc<dyn PageStore>,
    settings: FleetSettings,
    clock: Arc<dyn Clock>,
    randomness: Arc<Randomness>,
    runtime: Option<tokio::runtime::Handle>,
}

impl FleetBuilder {
    /// Other settings than the default ones.
    #[must_use]
    pub fn settings(mut self, settings: FleetSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Another source of identifiers than the operating system's.
    #[must_use]
    pub fn randomness(mut self, randomness: Arc<Randomness>) -> Self {
        self.randomness = randomness;
        self
    }

    /// A multi-threaded Tokio runtime to work on, instead of one of the fleet's own; [`build`](Self::build) refuses another. A
    /// store whose connections live on a runtime needs the fleet on the same one. It must outlive the fleet.
    #[must_use]
    pub fn runtime(mut self, handle: tokio::runtime::Handle) -> Self {
        self.runtime = Some(handle);
        self
    }

    /// Starts the fleet. Nothing is read from the store yet. `Invalid` on a current-thread runtime, and for settings that
    /// nothing can be done with.
    pub fn build(self) -> Result<Fleet> {
        let Self { store, settings, clock, randomness, runtime } = self;
        let mut settings = settings.checked()?;
        if settings.label.is_empty() {
            settings.label = default_label();
        }
        let bridge = match runtime {
            Some(handle) => Bridge::on(handle)?,
            None => Bridge::start(settings.worker_threads)?,
        };
        let metered = Arc::new(Metered::new(Arc::clone(&clock)));
        let store: Arc<dyn PageStore> = Arc::new(MetricsLayer::new(store, Arc::clone(&metered)));
        let session = Session::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::clone(&randomness),
            settings.label.clone(),
            settings.session_lifetime,
            settings.session_margin,
        );
        let cache = PageCache::new(settings.cache_bytes)?;
        let batcher = CommitBatcher::new(
            Arc::clone(&store),
            settings.commit_calls.unwrap_or_else(|| store.commit_calls()).max(1),
        );
        let inner = Arc::new(FleetInner {
            store,
            metered,
            settings,
            clock,
            randomness,
            bridge,
            session,
            cache,
            batcher,
            registry: Registry::default(),
            unreturned: Unreturned::default(),
            instances: AtomicU64::new(1),
            process: std::process::id(),
        });
        inner.bridge.spawn(keep_session(Arc::downgrade(&inner), inner.session.pace()));
        inner.bridge.spawn(sweep(Arc::downgrade(&inner)));
        Ok(Fleet { inner })
    }
}

/// Databases in a store, for the connections of this process.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub(super) inner: Arc<FleetInner>,
}

impl Fleet {
    /// Begins to put a fleet together.
    pub fn builder(store: Arc<dyn PageStore>) -> FleetBuilder {
        FleetBuilder {
            store,
            settings: FleetSettings::default(),
            clock: Arc::new(SystemClock::default()),
            randomness: Arc::new(Randomness::from_os()),
            runtime: None,
        }
    }

    /// As [`FleetInner::check_process`].
    pub(crate) fn check_process(&self) -> Result<()> {
        self.inner.check_process()
    }

    /// Connects to a database of this process; the store is asked at the first lock.
    pub fn connect(&self, name: &DatabaseName, role: Role, create: bool) -> Arc<Database> {
        self.inner.registry.connect(&self.inner, name, role, create)
    }

    /// Ends a connection. The last one makes a checkpoint and gives the lease back.
    pub fn disconnect(&self, database: &Arc<Database>) {
        if !database.disconnect() || self.check_process().is_err() {
            return;
        }
        let closed = self.inner.bridge.wait(async {
            if !database.holds_lease() {
                return Ok(());
            }
            let checkpoint = database.checkpoint_at_close().await;
            let release = database.release_lease().await;
            checkpoint.and(release)
        });
        if let Err(error) = closed {
            tracing::warn!(database = %database.name(), %error, "closed without a checkpoint: the next open reads the log");
        }
        self.inner.registry.forget(database);
    }

    /// Makes a checkpoint now, and collects what it makes garbage. Returns its txid.
    pub fn checkpoint(&self, database: &Arc<Database>) -> Result<Txid> {
        self.inner.bridge.wait(async {
            let txid = database.checkpoint().await;
            let collected = database.collect().await;
            database.give_back().await;
            collected.and(txid)
        })
    }

    /// Makes a checkpoint and gives the lease back. False when it is not held here.
    pub fn release(&self, database: &Arc<Database>) -> Result<bool> {
        if !database.holds_lease() {
            return Ok(false);
        }
        self.inner.bridge.wait(async {
            database.checkpoint().await?;
            database.release_lease().await?;
            // It stays while somebody writes or locks exclusively.
            Ok(!database.needs_lease())
        })
    }

    /// Whether some connection of this process has a database of this name open.
    pub fn is_open(&self, name: &str) -> bool {
        self.inner.registry.is_open(name)
    }

    /// The store, behind the layer that counts.
    pub fn store(&self) -> &Arc<dyn PageStore> {
        &self.inner.store
    }

    /// Round trips, bytes and errors so far.
    pub fn counters(&self) -> &StoreCounters {
        self.inner.metered.counters()
    }

    /// What the page cache did so far.
    pub fn cache(&self) -> CacheCounters {
        self.inner.cache.counters()
    }

    /// The settings.
    pub fn settings(&self) -> &FleetSettings {
        &self.inner.settings
    }

    /// Whether both are handles of one fleet.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn wait<F: std::future::Future>(&self, future: F) -> F::Output {
        self.inner.bridge.wait(future)
    }

    /// Checkpoints what is open, gives every lease back and ends the session. Connections that are still open get their
    /// leases anew when they are used.
    pub fn shutdown(&self) -> Result<()> {
        self.wait(async {
            let mut first = Ok(());
            for database in self.inner.registry.all() {
                if database.holds_lease() && !database.needs_lease() {
                    let checkpoint = database.checkpoint_at_close().await;
                    first = first.and(checkpoint).and(database.release_lease().await);
                }
            }
            first.and(self.inner.session.end().await)
        })
    }
}

fn default_label() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}:{}", if host.is_empty() { "host" } else { host }, std::process::id())
}

/// Renews the session for as long as the fleet lives.
async fn keep_session(fleet: Weak<FleetInner>, pace: Duration) {
    let mut pause = pace;
    loop {
        tokio::time::sleep(pause).await;
        let Some(fleet) = fleet.upgrade() else { return };
        // A time-out that is short for those who wait would only lose the session.
        let deadline = Deadline::after(fleet.settings.database.store_timeout.max(pace));
        pause = match deadline::scope(deadline, fleet.session.renew()).await {
            Ok(_) => pace,
            Err(error) => {
                tracing::warn!(%error, "the session could not be renewed; it is tried again");
                // The call may have taken long, and the session has an end.
                pace / 8
            }
        };
    }
}

/// Looks after databases that are idle.
async fn sweep(fleet: Weak<FleetInner>) {
    let mut rounds = 0u32;
    let mut told = CacheCounters::default();
    let mut looking = JoinSet::new();
    let mut returning = JoinSet::new();
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(fleet) = fleet.upgrade() else { return };
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(PURGE_ROUNDS)
            && let Err(error) = fleet.store.purge(PURGE_STEP).await
        {
            tracing::warn!(%error, "the store could not be purged; it is tried again");
        }
        // Counted here, so that a read that finds its page costs no more.
        let cache = fleet.cache.counters();
        metrics::counter!("litefleet_cache_hits_total").increment(cache.hits - told.hits);
        metrics::counter!("litefleet_cache_misses_total").increment(cache.misses - told.misses);
        told = cache;
        // First what waits for nothing, for all.
        for database in fleet.registry.all() {
            database.expire_snapshots();
        }
        while returning.try_join_next().is_some() {}
        if returning.is_empty() && !fleet.unreturned.is_empty() {
            let fleet = Arc::clone(&fleet);
            returning.spawn(async move { fleet.return_leases().await });
        }
        // Each may wait for a store that is away, or for something large: one does not stand in the way of all others, in this
        // round or the next. One that panicked leaves the rest to the others.
        while looking.try_join_next().is_some() {}
        let databases = Arc::new(Mutex::new(fleet.registry.all().into_iter()));
        for _ in looking.len()..LOOKING {
            looking.spawn(look_after(Arc::clone(&databases)));
        }
    }
}

async fn look_after(databases: Arc<Mutex<vec::IntoIter<Arc<Database>>>>) {
    loop {
        let next = databases.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(database) = next else { return };
        if let Some(_alone) = database.begin_looking()
            && let Err(error) = database.look_after().await
        {
            tracing::warn!(database = %database.name(), %error, "looking after an idle database failed");
        }
    }
}
