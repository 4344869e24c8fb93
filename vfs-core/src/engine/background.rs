//! Work in the background: the session is renewed, idle databases are looked after, leases are given back. After a shutdown all of
//! it rests and none of it holds the store, so that whoever drops the fleet then can open the same store again at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use std::vec;

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::task::JoinSet;

use super::cache::CacheCounters;
use super::database::Database;
use super::fleet::FleetInner;
use crate::store::deadline::{self, Deadline};

/// How often idle databases are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Idle databases that are looked after at once.
const LOOKING: usize = 8;
/// A step of a purge comes with every so many looks.
const PURGE_ROUNDS: u32 = 600;
/// Rows removed in one step of a purge.
pub(super) const PURGE_STEP: usize = 4096;

/// Held by work in the background for as long as it holds the fleet.
pub(super) type Working = Arc<OwnedRwLockReadGuard<()>>;

/// The work in the background of a fleet.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// Read by each that works, written by who waits for all of them.
    work: Arc<RwLock<()>>,
    /// Held while the session is renewed, which goes on while all other work is waited for.
    renewing: tokio::sync::Mutex<()>,
    /// The fleet was shut down and not used since.
    resting: AtomicBool,
}

impl Background {
    /// Begins to work. `None`: there is nothing to do.
    pub(super) async fn begin(&self) -> Option<Working> {
        let working = Arc::clone(&self.work).read_owned().await;
        (!self.resting.load(Ordering::Acquire)).then(|| Arc::new(working))
    }

    /// As [`begin`](Self::begin), to renew the session.
    async fn begin_renewing(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let renewing = self.renewing.lock().await;
        (!self.resting.load(Ordering::Acquire)).then_some(renewing)
    }

    /// As [`begin`](Self::begin), for work that somebody asked for. `None`: all of it is being waited for.
    pub(super) fn begin_now(&self) -> Option<Working> {
        Arc::clone(&self.work).try_read_owned().ok().map(Arc::new)
    }

    /// Waits until nobody works, but not for longer than `most`. From then on nobody does until the fleet is used again.
    pub(super) async fn rest(&self, most: Duration) {
        let nobody = async { (self.work.write().await, self.renewing.lock().await) };
        let Ok(_nobody) = tokio::time::timeout(most, nobody).await else {
            tracing::warn!("shut down while work in the background goes on: the store is slow, or away");
            return;
        };
        self.resting.store(true, Ordering::Release);
    }

    /// The fleet is used.
    pub(super) fn wake(&self) {
        if self.resting.load(Ordering::Relaxed) {
            self.resting.store(false, Ordering::Release);
        }
    }
}

/// Renews the session for as long as the fleet lives.
pub(super) async fn keep_session(background: Arc<Background>, fleet: Weak<FleetInner>, pace: Duration) {
    let mut pause = pace;
    while fleet.strong_count() > 0 {
        tokio::time::sleep(pause).await;
        let Some(_renewing) = background.begin_renewing().await else { continue };
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
pub(super) async fn sweep(background: Arc<Background>, fleet: Weak<FleetInner>) {
    let mut rounds = 0u32;
    let mut told = CacheCounters::default();
    let mut looking = JoinSet::new();
    let mut returning = JoinSet::new();
    let mut purging = JoinSet::new();
    while fleet.strong_count() > 0 {
        tokio::time::sleep(SWEEP).await;
        let Some(working) = background.begin().await else { continue };
        let Some(fleet) = fleet.upgrade() else { return };
        rounds = rounds.wrapping_add(1);
        while purging.try_join_next().is_some() {}
        if purging.is_empty() && rounds.is_multiple_of(PURGE_ROUNDS) {
            purging.spawn(purge(Arc::clone(&working), Arc::clone(&fleet)));
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
            returning.spawn(return_leases(Arc::clone(&working), Arc::clone(&fleet)));
        }
        // Each may wait for a store that is away, or for something large: one does not stand in the way of all others, in this
        // round or the next. One that panicked leaves the rest to the others.
        while looking.try_join_next().is_some() {}
        let databases = Arc::new(Mutex::new(fleet.registry.all().into_iter()));
        for _ in looking.len()..LOOKING {
            looking.spawn(look_after(Arc::clone(&working), Arc::clone(&databases)));
        }
    }
}

async fn purge(working: Working, fleet: Arc<FleetInner>) {
    if let Err(error) = fleet.store.purge(PURGE_STEP).await {
        tracing::warn!(%error, "the store could not be purged; it is tried again");
    }
    drop(fleet);
    drop(working);
}

async fn return_leases(working: Working, fleet: Arc<FleetInner>) {
    fleet.return_leases().await;
    drop(fleet);
    drop(working);
}

async fn look_after(working: Working, databases: Arc<Mutex<vec::IntoIter<Arc<Database>>>>) {
    look_after_each(&databases).await;
    // Those that are left to the others, too.
    drop(databases);
    drop(working);
}

async fn look_after_each(databases: &Mutex<vec::IntoIter<Arc<Database>>>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::config::FleetSettings;
    use crate::engine::Fleet;
    use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation, PageStore};

    /// The session of a thread that went on during a shutdown was not renewed until its next call.
    #[test]
    fn a_shutdown_beside_a_thread_that_goes_on_leaves_its_session_renewed() {
        let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
        let resting = || fleet.wait(fleet.inner.background.begin()).is_none();
        fleet.wait(fleet.inner.session.ensure()).unwrap();
        let work = loop {
            // The sweep may be waiting to begin.
            if let Some(work) = fleet.inner.background.begin_now() {
                break work;
            }
        };
        let session = fleet.inner.session.current();
        std::thread::scope(|scope| {
            let ended = scope.spawn(|| fleet.shutdown());
            while fleet.inner.session.current() == session {
                std::thread::yield_now();
            }
            fleet.wait(fleet.inner.session.ensure()).unwrap();
            drop(work);
            ended.join().unwrap().unwrap();
        });
        assert!(!resting());
        fleet.shutdown().unwrap();
        assert!(resting());
    }

    /// It was not renewed for as long as the shutdown waited for work that takes long, and another process could take its leases.
    #[test]
    fn a_session_is_renewed_while_a_shutdown_waits() {
        const HOUR: Duration = Duration::from_secs(3600);
        let plan = Arc::new(FaultPlan::default());
        let renewals = Some(Operation::RenewSession);
        // Where no time passes no session ends.
        let memory = MemoryStore::new(Arc::new(ManualClock::default()));
        let store = FaultLayer::new(Arc::new(memory) as Arc<dyn PageStore>, Arc::clone(&plan));
        let mut settings = FleetSettings { session_lifetime: Duration::from_millis(60), ..FleetSettings::default() };
        settings.database.store_timeout = HOUR;
        let fleet = Fleet::builder(Arc::new(store)).settings(settings).build().unwrap();
        let background = &fleet.inner.background;
        fleet.wait(fleet.inner.session.ensure()).unwrap();
        let work = fleet.wait(background.begin()).unwrap();
        std::thread::scope(|scope| {
            let resting = scope.spawn(|| fleet.wait(background.rest(HOUR)));
            while background.begin_now().is_some() {
                std::thread::yield_now();
            }
            plan.arm(Fault { operation: renewals, after: 0, times: u64::MAX, effect: Effect::Delay(0) });
            let clock = &fleet.inner.clock;
            let end = clock.monotonic() + Duration::from_secs(60);
            while plan.hits() < 2 && clock.monotonic() < end {
                std::thread::yield_now();
            }
            let renewed = plan.hits();
            drop(work);
            resting.join().unwrap();
            assert!(renewed >= 2, "{renewed}");
        });
        assert!(fleet.wait(background.begin()).is_none());
    }
}
