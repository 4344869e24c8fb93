//! A fleet: one store, one session, one cache and one commit queue for all databases of the process.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::background::{Background, keep_session, sweep};
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
    pub(super) background: Arc<Background>,
    instances: AtomicU64,
    /// Calls that were given up because the store was not reached for as long as it is tried for.
    given_up: AtomicU64,
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

    /// Calls the store until it can be reached, or the time for it is over, which the store is told too. Nearly every call comes
    /// by here; in a forked process none goes out.
    pub(super) async fn retry<T, F, Fut>(&self, limit: Duration, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.check_process()?;
        self.background.wake();
        let start = self.clock.monotonic();
        let deadline = Deadline::after(limit);
        let mut pause = FIRST_PAUSE;
        loop {
            match deadline::scope(deadline, call()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let waited = self.clock.monotonic().saturating_sub(start);
                    if waited + pause > limit {
                        self.given_up.fetch_add(1, Ordering::Relaxed);
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
            background: Arc::default(),
            instances: AtomicU64::new(1),
            given_up: AtomicU64::new(0),
            process: std::process::id(),
        });
        let background = || Arc::clone(&inner.background);
        inner.bridge.spawn(keep_session(background(), Arc::downgrade(&inner), inner.session.pace()));
        inner.bridge.spawn(sweep(background(), Arc::downgrade(&inner)));
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
        self.check_process()?;
        self.inner.bridge.wait(async {
            let txid = database.checkpoint().await;
            let collected = database.collect().await;
            database.give_back().await;
            collected.and(txid)
        })
    }

    /// Makes a checkpoint and gives the lease back. False when it is not held here.
    pub fn release(&self, database: &Arc<Database>) -> Result<bool> {
        self.check_process()?;
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

    /// Checkpoints what is open, gives every lease back, ends the session, and waits for the work in the background, for as long
    /// as for the store. Where the store is away the rest gets no checkpoint, and its leases end with the session. When the fleet
    /// and its connections are gone then, so is its hold on the store. Connections that are still open get their leases anew when
    /// they are used.
    pub fn shutdown(&self) -> Result<()> {
        self.check_process()?;
        self.wait(async {
            let mut first = Ok(());
            let given_up = || self.inner.given_up.load(Ordering::Relaxed);
            let mut away = false;
            for database in self.inner.registry.all() {
                if !database.holds_lease() || database.needs_lease() {
                    continue;
                }
                let before = given_up();
                // `Unavailable` alone does not tell: it is also what comes of a lease that another thread gave back meanwhile.
                let is_away = |reply: &Result<()>| is_unavailable(reply) && given_up() > before;
                // Each would be waited for as long as the first, and behind them all the session, which ends every lease by itself.
                let checkpoint = if away { Ok(()) } else { database.checkpoint_at_close().await };
                away |= is_away(&checkpoint);
                let released = if away {
                    database.forgo_lease();
                    Ok(())
                } else {
                    database.release_lease().await
                };
                away |= is_away(&released);
                first = first.and(checkpoint).and(released);
            }
            let ended = self.inner.session.end().await;
            self.inner.background.rest(self.inner.settings.database.store_timeout).await;
            if self.inner.session.current().is_some() {
                // Another thread went on meanwhile, and its session is to be renewed.
                self.inner.background.wake();
            }
            first.and(ended)
        })
    }
}

fn is_unavailable(reply: &Result<()>) -> bool {
    reply.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable)
}

fn default_label() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}:{}", if host.is_empty() { "host" } else { host }, std::process::id())
}
