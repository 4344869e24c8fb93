//! The session of this process: one record in the store that all its leases are bound to.
//!
//! A deadline counts from when the renewal was *sent*: the store's own count begins later, so ours ends first.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::clock::{Clock, Randomness};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{PageStore, SessionRequest, deadline};
use crate::types::SessionId;

/// So long everybody waits for a call under way: with a shorter time-out many that need their first session at the same moment
/// would give up while one of them starts it.
const LEAST_TURN: Duration = Duration::from_secs(1);

/// How often a lease is asked for under one session after the other: those that were over when the store answered.
const SESSIONS: usize = 8;

/// Sessions that have ended before anything could be done under them.
#[derive(Debug, Default)]
pub(crate) struct Ended(usize);

impl Ended {
    /// One more has.
    pub(crate) fn note(&mut self) -> Result<()> {
        self.0 += 1;
        if self.0 < SESSIONS {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "the session of this process was over before the store had answered, {SESSIONS} times over: raise session_lifetime"
        )))
    }
}

/// A session that was alive when this was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) session: SessionId,
    /// Until when this process may rely on it, by its own monotonic clock.
    pub(crate) deadline: Duration,
}

#[derive(Debug)]
pub(crate) struct Session {
    store: Arc<dyn PageStore>,
    clock: Arc<dyn Clock>,
    randomness: Arc<Randomness>,
    label: String,
    lifetime: Duration,
    margin: Duration,
    /// Every lock of every database looks at it, and reads of connections that lock exclusively: none of them waits for another.
    current: RwLock<Option<Live>>,
    /// One start or renewal at a time.
    working: tokio::sync::Mutex<()>,
}

impl Session {
    pub(crate) fn new(
        store: Arc<dyn PageStore>,
        clock: Arc<dyn Clock>,
        randomness: Arc<Randomness>,
        label: String,
        lifetime: Duration,
        margin: Duration,
    ) -> Self {
        let margin = margin.min(lifetime / 2);
        let (current, working) = (RwLock::new(None), tokio::sync::Mutex::new(()));
        Self { store, clock, randomness, label, lifetime, margin, current, working }
    }

    fn look(&self) -> RwLockReadGuard<'_, Option<Live>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Option<Live>> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, when it can be relied on now.
    pub(crate) fn live(&self) -> Option<Live> {
        let now = self.clock.monotonic();
        self.look().filter(|live| now < live.deadline)
    }

    /// The session that is renewed, whether or not it can be relied on now.
    pub(crate) fn current(&self) -> Option<SessionId> {
        self.look().map(|live| live.session)
    }

    fn deadline(&self, sent: Duration) -> Duration {
        sent.saturating_add(self.lifetime.saturating_sub(self.margin))
    }

    /// Waits for its turn to start or renew, for as long as its caller does, and a little.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let Some(left) = deadline::left() else { return Ok(self.working.lock().await) };
        let over = |_| Error::unavailable("another call that renews the session has had no answer yet");
        tokio::time::timeout(left.max(LEAST_TURN), self.working.lock()).await.map_err(over)
    }

    /// The session, renewed or started where it cannot be relied on.
    pub(crate) async fn ensure(&self) -> Result<Live> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let _one = self.turn().await?;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        if let Some(live) = self.renew_now().await? {
            return Ok(live);
        }
        let session = SessionId(self.randomness.id());
        let sent = self.clock.monotonic();
        let request = SessionRequest { session, label: self.label.clone(), lifetime: self.lifetime };
        self.store.start_session(request).await?;
        let live = Live { session, deadline: self.deadline(sent) };
        *self.change() = Some(live);
        tracing::debug!(%session, "session started");
        Ok(live)
    }

    /// Renews the session, if there is one. `None` when there is none, or when it has expired.
    pub(crate) async fn renew(&self) -> Result<Option<Live>> {
        let _one = self.turn().await?;
        self.renew_now().await
    }

    async fn renew_now(&self) -> Result<Option<Live>> {
        let Some(old) = *self.look() else { return Ok(None) };
        let sent = self.clock.monotonic();
        match self.store.renew_session(old.session).await {
            Ok(()) => {
                let live = Live { session: old.session, deadline: self.deadline(sent) };
                *self.change() = Some(live);
                Ok(Some(live))
            }
            Err(error) if error.kind() == ErrorKind::Fenced => {
                *self.change() = None;
                metrics::counter!("litefleet_sessions_lost_total").increment(1);
                tracing::warn!(session = %old.session, %error, "session lost: every database is checked again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How long to wait between renewals.
    pub(crate) fn pace(&self) -> Duration {
        (self.lifetime.saturating_sub(self.margin) / 3).max(Duration::from_millis(10))
    }

    /// Ends a session, if it still is this process's: all its leases are free, and who uses one takes it anew, under another.
    pub(crate) async fn give_up(&self, session: SessionId) -> Result<()> {
        let _one = self.turn().await?;
        if self.current() == Some(session) {
            // First of all nobody here relies on it any more, whatever becomes of the call: what nobody renews ends by itself.
            *self.change() = None;
            self.store.end_session(session).await?;
        }
        Ok(())
    }

    /// Ends the session: every lease of this process is free.
    pub(crate) async fn end(&self) -> Result<()> {
        let _one = self.turn().await?;
        let old = self.change().take();
        match old {
            Some(live) => self.store.end_session(live.session).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::deadline::Deadline;
    use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation};

    /// A lock waited for as long as a renewal in the background, whatever its own time-out was.
    #[test]
    fn who_needs_the_session_does_not_wait_for_a_renewal_without_an_end() {
        let plan = Arc::new(FaultPlan::default());
        let renewals = Some(Operation::RenewSession);
        plan.arm(Fault { operation: renewals, after: 0, times: u64::MAX, effect: Effect::Delay(1_000_000_000) });
        let store = Arc::new(FaultLayer::new(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>, plan));
        let clock = Arc::new(SystemClock::default());
        let randomness = Arc::new(Randomness::from_os());
        // It cannot be relied on for a moment.
        let session = Session::new(store, clock, randomness, "here".into(), Duration::ZERO, Duration::ZERO);
        let session = Arc::new(session);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            session.ensure().await.unwrap();
            let renewed = Arc::clone(&session);
            let renewal = tokio::spawn(async move { renewed.renew().await });
            while session.working.try_lock().is_ok() {
                yield_now().await;
            }
            let soon = Deadline::after(Duration::from_millis(10));
            let ensured = timeout(Duration::from_secs(20), deadline::scope(soon, session.ensure())).await;
            assert_eq!(ensured.expect("it ends").unwrap_err().kind(), ErrorKind::Unavailable);
            renewal.abort();
        });
    }
}
