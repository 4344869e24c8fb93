//! The cluster: one store, one clock of versions, and the rules of who may read and commit what.
//!
//! Everything goes through [`Cluster::call`], which is what a client's exchange with a real cluster is: it can be slow,
//! it can fail, it is counted.

mod atomic;
mod commands;
mod commit;
mod counters;
mod faults;
pub(crate) mod protocol;
mod resolver;
mod store;
mod watches;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::code::{self, Code};
pub(crate) use atomic::{VALUE_LIMIT, apply as apply_atomic};
use commit::Queued;
use counters::Counters;
pub(crate) use faults::Random;
use faults::{Fault, Faults, Kind};
use protocol::{Reply, Request, Version};
use resolver::Resolver;
use store::Store;
pub(crate) use store::{single, stamped};
use watches::Watches;

/// How many versions back a read or a commit may reach: five seconds at a million versions a second. Source:
/// "Developer Guide", long-running transactions; "Known Limitations".
const WINDOW: Version = 5_000_000;
/// How far the versions jump when the cluster recovers. Source: the figure usually given for it, 100 seconds' worth.
const RECOVERY_JUMP: Version = 100_000_000;
/// How far the newest version may lag behind the clock while nobody commits: commit proxies then send empty batches.
const IDLE_LAG: Version = 500_000;
/// How long a read waits for a version that has not been reached, before it fails with `future_version`.
const FUTURE_WAIT: Version = 1_000_000;

/// An in-memory cluster. Cheap to share; lives as long as the process.
#[derive(Debug)]
pub(crate) struct Cluster {
    state: Mutex<State>,
    started: Instant,
}

#[derive(Debug)]
struct State {
    store: Store,
    resolver: Resolver,
    watches: Watches,
    counters: Counters,
    faults: Faults,
    latency: Latency,
    queue: Vec<Queued>,
    /// A task is on its way that will commit what is queued.
    batching: bool,
    /// The next batch waits until so many commits are queued.
    gather: usize,
    /// The newest version that anybody may have seen.
    committed: Version,
    /// What the clock of versions is ahead of the time since the start.
    ahead: Version,
    window: Version,
    /// Raised by a recovery: commits that began before it do not take effect after it.
    generation: u64,
}

/// How long requests take without any fault.
#[derive(Debug, Default)]
struct Latency {
    read_version: Duration,
    read: Duration,
    commit: Duration,
    /// The longest time by which a commit with the fate "late" is late.
    late: Duration,
}

impl Cluster {
    pub(crate) fn new() -> Arc<Self> {
        let latency = Latency { late: Duration::from_millis(200), ..Latency::default() };
        Arc::new(Self {
            state: Mutex::new(State {
                store: Store::default(),
                resolver: Resolver::default(),
                watches: Watches::default(),
                counters: Counters::default(),
                faults: Faults::default(),
                latency,
                queue: Vec::new(),
                batching: false,
                gather: 0,
                committed: 1,
                // A cluster that has run for a while: a read version just below the first one is not negative.
                ahead: 10 * WINDOW,
                window: WINDOW,
                generation: 0,
            }),
            started: Instant::now(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held is a bug of this crate that has already been reported.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of versions.
    fn now(&self, state: &State) -> Version {
        state.ahead + Version::try_from(self.started.elapsed().as_micros()).unwrap_or(Version::MAX / 2)
    }

    /// A client has made a transaction.
    pub(crate) fn count_transaction(&self) {
        self.lock().counters.transactions += 1;
    }

    /// One exchange with the cluster.
    pub(crate) async fn call(self: &Arc<Self>, request: Request) -> Result<Reply, Code> {
        match request {
            Request::Commit(request) => self.commit(request).await,
            Request::Watch { key, value } => self.watch(key, value).await,
            Request::ReadVersion { batch_priority } => {
                {
                    let counters = &mut self.lock().counters;
                    counters.read_versions += 1;
                    counters.batch_read_versions += u64::from(batch_priority);
                }
                self.delay(Kind::ReadVersion).await?;
                Ok(Reply::Version(self.read_version()))
            }
            Request::Get { version, key } => {
                self.lock().counters.gets += 1;
                self.readable(version).await?;
                Ok(Reply::Value(self.lock().store.get(&key, version).cloned()))
            }
            Request::GetKey { version, selector, bound } => {
                self.lock().counters.get_keys += 1;
                self.readable(version).await?;
                let found = self.lock().store.resolve(&selector, &bound, version);
                Ok(found.map_or_else(Reply::Further, Reply::Key))
            }
            Request::GetRange(request) => {
                self.lock().counters.ranges += 1;
                self.readable(request.version).await?;
                let mut state = self.lock();
                let State { store, faults, counters, .. } = &mut *state;
                let mut cut = false;
                let rows = store.range(&request, || {
                    cut = faults.cuts();
                    cut
                });
                counters.ranges_cut += u64::from(cut);
                counters.range_rows += rows.pairs.len() as u64;
                let bytes: usize = rows.pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
                counters.range_bytes += bytes as u64;
                Ok(Reply::Rows(rows))
            }
            Request::RangeSize(range) => {
                self.delay(Kind::Read).await?;
                let state = self.lock();
                Ok(Reply::Size(state.store.size(&range, state.committed)))
            }
            Request::SplitPoints { range, chunk } => {
                self.delay(Kind::Read).await?;
                let state = self.lock();
                Ok(Reply::Keys(state.store.split_points(&range, chunk, state.committed)))
            }
            Request::Refused => {
                self.lock().counters.refused_for_size += 1;
                Ok(Reply::Done)
            }
            Request::Command(command) => self.command(&command),
            Request::Counter(name) => self.counter(&name).map(Reply::Size),
        }
    }

    /// Draws a fault for a request that changes nothing, and waits as long as the request takes.
    async fn delay(&self, kind: Kind) -> Result<(), Code> {
        let (latency, fault) = {
            let mut state = self.lock();
            let latency = match kind {
                Kind::ReadVersion => state.latency.read_version,
                Kind::Read | Kind::Watch => state.latency.read,
                Kind::Commit => state.latency.commit,
            };
            (latency, state.draw(kind))
        };
        if !latency.is_zero() {
            sleep(latency).await;
        }
        match fault {
            None => {}
            Some(Fault::Slow(time)) => sleep(time).await,
            Some(Fault::Restart) => self.restart(),
            Some(Fault::Error(code, _)) => return Err(code),
        }
        Ok(())
    }

    /// A version at which every commit is visible that has been acknowledged.
    fn read_version(&self) -> Version {
        let mut state = self.lock();
        let now = self.now(&state);
        if now - state.committed > IDLE_LAG {
            state.committed = now;
        }
        state.committed
    }

    /// Waits until reads at this version are possible.
    async fn readable(&self, version: Version) -> Result<(), Code> {
        self.delay(Kind::Read).await?;
        let early = {
            let state = self.lock();
            version - self.now(&state).max(state.committed)
        };
        if early > 0 {
            sleep(Duration::from_micros(early.min(FUTURE_WAIT).unsigned_abs())).await;
        }
        let mut state = self.lock();
        let now = self.now(&state).max(state.committed);
        if version < now - state.window {
            state.counters.too_old += 1;
            return Err(code::TRANSACTION_TOO_OLD);
        }
        if version > now {
            state.counters.future_version += 1;
            return Err(code::FUTURE_VERSION);
        }
        state.counters.oldest_read = state.counters.oldest_read.max(now.abs_diff(version));
        // What has been read at a version must not change any more: commits from now on are above it.
        state.committed = state.committed.max(version);
        Ok(())
    }

    /// A recovery of the cluster: versions jump, commits under way end with an unknown result.
    fn restart(&self) {
        let mut state = self.lock();
        state.ahead += RECOVERY_JUMP;
        state.generation += 1;
        state.counters.restarts += 1;
    }
}

impl State {
    fn draw(&mut self, kind: Kind) -> Option<Fault> {
        let fault = self.faults.draw(kind);
        self.counters.faults += u64::from(fault.is_some());
        fault
    }
}
