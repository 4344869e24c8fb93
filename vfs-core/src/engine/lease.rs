//! Taking the lease and giving it back.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::core::Lease;
use super::database::{Database, Role};
use super::session::Ended;
use super::turn::Try;
use super::unreturned::Whose;
use crate::config::LeaseMode;
use crate::error::{Error, ErrorKind, Result};
use crate::store::deadline::{self, Deadline};
use crate::store::{LeaseRequest, OpenRequest};
use crate::types::{DatabaseId, PageNo, Txid};

/// How often a load that raced with others is tried again.
pub(super) const LOAD_TRIES: usize = 5;
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(5);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Database {
    /// Calls the store until it can be reached, or the time for it is over.
    pub(super) async fn retry<T, F, Fut>(&self, call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let limit = self.settings().store_timeout;
        self.fleet.retry(limit, call).await
    }

    /// As [`retry`](Self::retry). Also whether some try had no answer, and may yet arrive after one that had.
    pub(super) async fn retry_noting<T, F, Fut>(&self, call: F) -> (Result<T>, bool)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let astray = AtomicBool::new(false);
        let note = |error: &Error| astray.fetch_or(error.kind() == ErrorKind::Unavailable, Ordering::Relaxed);
        let reply = self.retry(|| async { call().await.inspect_err(|error| _ = note(error)) }).await;
        (reply, astray.into_inner())
    }

    /// Takes the lease unless it is held and the session is alive.
    pub(super) async fn ensure_lease(&self) -> Result<()> {
        if self.role == Role::Follower {
            return Err(Error::invalid("opened read-only: it holds no lease"));
        }
        if self.has_lease()? {
            return Ok(());
        }
        let ensured = self.ensure_lease_by_the_store().await;
        self.learn_holder(ensured.as_ref().err()).await;
        ensured
    }

    async fn ensure_lease_by_the_store(&self) -> Result<()> {
        let turn = self.turn().await;
        if self.has_lease()? {
            return Ok(());
        }
        // Work in the background may outlive the last connection. A grant would fence whoever opened it since.
        if !self.is_connected() {
            return Err(Error::fenced("it was closed, and its lease given back"));
        }
        turn.make(Try::Lease, self.acquire_lease_since(turn.since)).await
    }

    /// Whether the lease is held, can be relied on, and is not on its way back with a commit.
    pub(super) fn has_lease(&self) -> Result<bool> {
        Ok(self.lease_and_head()?.0)
    }

    /// The same, and the head that was known then.
    pub(super) fn lease_and_head(&self) -> Result<(bool, Txid)> {
        let live = self.fleet.session.live();
        let core = self.core();
        core.check()?;
        let held = core.lease.is_some_and(|lease| live.is_some_and(|live| live.session == lease.session));
        Ok((held && !core.releasing, core.head))
    }

    /// Gives the lease back where the mode says so, unless somebody writes, or a checkpoint or a collection uses it: whoever
    /// asked for that gives it back.
    pub(super) async fn give_back(&self) {
        if self.lease_mode() == LeaseMode::Transaction
            && !self.is_maintained()
            && let Err(error) = self.release_lease().await
        {
            tracing::warn!(database = %self.name, %error, "the lease could not be given back; it is tried again");
        }
    }

    /// A connection locks exclusively from now on, or does not any more: its lock stays between transactions, so the lease
    /// does. Each `true` needs its `false`.
    pub fn keep_lease(&self, keep: bool) {
        if keep {
            self.keepers.fetch_add(1, Ordering::AcqRel);
        } else if self.keepers.fetch_sub(1, Ordering::AcqRel) == 1 && self.core().lease.is_some() {
            self.fleet.bridge.wait(self.give_back());
        }
    }

    /// Gives the lease back, if it is held and nobody writes or locks exclusively.
    pub(super) async fn release_lease(&self) -> Result<()> {
        let Some((database, lease, warm)) = self.forgo_lease() else { return Ok(()) };
        metrics::counter!("litefleet_leases_released_total").increment(1);
        let fleet = &self.fleet;
        let released = match self.retry(|| fleet.store.release(database, lease.epoch, warm.clone())).await {
            // Somebody else has it already, or a late request of our own was granted.
            Err(error) if error.kind() == ErrorKind::Fenced => {
                fleet.return_lease(&Whose::Database(database), lease.session).await
            }
            // The database is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            released => released.map(|()| true),
        };
        if !matches!(released, Ok(true)) {
            fleet.unreturned.kept(database, lease.session);
        }
        released.map(|_| ())
    }

    /// Does not rely on the lease any more, unless somebody writes or locks exclusively. Returns what it is to be given back with;
    /// it ends with its session, too.
    pub(super) fn forgo_lease(&self) -> Option<(DatabaseId, Lease, Vec<PageNo>)> {
        let mut core = self.core();
        if core.needs_lease() {
            return None;
        }
        let (database, lease) = (core.database?, core.lease.take()?);
        core.shared = true;
        core.holder = None;
        core.locks.exclusive = None;
        Some((database, lease, core.warm_set()))
    }

    /// Takes the lease even from a live holder, this once.
    pub(super) async fn seize_lease(&self) -> Result<()> {
        let _one = self.acquiring.lock().await;
        let live = self.fleet.session.live();
        if self.core().lease.is_some_and(|lease| live.is_some_and(|live| live.session == lease.session)) {
            return Ok(());
        }
        self.acquire(true, self.fleet.clock.monotonic()).await
    }

    /// Opens the database with its lease. The caller holds `acquiring`.
    pub(super) async fn acquire_lease(&self) -> Result<()> {
        self.acquire_lease_since(self.fleet.clock.monotonic()).await
    }

    /// The same for somebody who waits for it since then, and does until `busy` is over.
    pub(super) async fn acquire_lease_since(&self, start: Duration) -> Result<()> {
        self.acquire(false, start).await
    }

    async fn acquire(&self, seize: bool, start: Duration) -> Result<()> {
        // One that has stopped may have been replaced: what it were granted would be the other's.
        self.core().check()?;
        let mut unused = None;
        let acquired = self.acquire_noting(seize, start, &mut unused).await;
        if let Some((database, lease)) = unused {
            self.hand_back(database, lease).await;
        }
        acquired
    }

    /// Leaves in `unused` what was granted and is of no use.
    async fn acquire_noting(
        &self,
        mut seize: bool,
        start: Duration,
        unused: &mut Option<(DatabaseId, Lease)>,
    ) -> Result<()> {
        let settings = self.settings();
        // Who reads under a lock keeps the other writer from its commit: to wait for that one within the lock helps neither.
        let busy = if self.core().locks.has_readers() { Duration::ZERO } else { settings.busy };
        let mut pause = FIRST_PAUSE;
        let mut ended = Ended::default();
        for _ in 0..LOAD_TRIES {
            let (opened, session) = loop {
                let live = self.retry(|| self.fleet.session.ensure()).await?;
                let known = self.known();
                // By force only at first: two that took over from each other for ever would help nobody.
                let force = std::mem::take(&mut seize) || settings.takeover && !self.is_known();
                let lease = Some(LeaseRequest { session: live.session, force });
                let (opened, astray) =
                    self.retry_noting(|| self.fleet.store.open(self.open_request(lease, known))).await;
                if astray {
                    self.fleet.unreturned.perhaps_granted(&self.name, live.session);
                }
                match opened {
                    Ok(opened) => break (opened, live.session),
                    Err(error) if error.kind() == ErrorKind::LeaseHeld => {
                        metrics::counter!("litefleet_leases_refused_total").increment(1);
                        self.check_deposed().await?;
                        if self.fleet.clock.monotonic().saturating_sub(start) + pause > busy {
                            return Err(error);
                        }
                        self.fleet.pause(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Err(error) if error.kind() == ErrorKind::Fenced => {
                        // The session expired on the way: `ensure` finds that out and starts another.
                        if self.retry(|| self.fleet.session.renew()).await?.is_some() {
                            return Err(error);
                        }
                        ended.note()?;
                    }
                    Err(error) => return Err(error),
                }
            };
            metrics::counter!("litefleet_leases_granted_total").increment(1);
            let lease = Lease { epoch: opened.head.epoch, session };
            let staged = opened.head.staged;
            *unused = Some((opened.database, lease));
            if self.take_over_state(opened, Some(lease)).await? {
                self.core().check()?;
                *unused = None;
                if staged && !self.core().writer {
                    self.discard_staged_alone().await?;
                }
                return Ok(());
            }
        }
        Err(Error::unavailable("the log changed while it was being read, several times over; try again"))
    }

    /// After a refusal: asks who has the lease, where nobody here has heard of one, since somebody will want to know. The
    /// caller does not hold `acquiring`. If the store does not say, it is asked at the next refusal.
    pub(super) async fn learn_holder(&self, refusal: Option<&Error>) {
        if refusal.is_none_or(|error| error.kind() != ErrorKind::LeaseHeld) || self.core().holder.is_some() {
            return;
        }
        let request = OpenRequest { create: false, tail_bytes: 0, ..self.open_request(None, self.known()) };
        let until = Deadline::after(self.settings().store_timeout);
        if let Ok(opened) = deadline::scope(until, self.fleet.store.open(request)).await {
            self.core().holder = opened.head.holder.map(|holder| holder.label);
        }
    }

    /// Gives a lease back that was granted and is of no use. From then on others may write, so it is not held here either,
    /// under this epoch or an older one. It stays where another connection of this process uses it: one that was opened
    /// when this one had stopped.
    async fn hand_back(&self, database: DatabaseId, lease: Lease) {
        self.core().lease = None;
        if !matches!(self.fleet.release_unused(database, lease.epoch, Some(self)).await, Ok(true)) {
            self.fleet.unreturned.kept(database, lease.session);
        }
    }
}
