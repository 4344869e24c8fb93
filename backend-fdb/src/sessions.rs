//! Which sessions are alive. FoundationDB has no clock, so this process goes by its own: for its own sessions by when it
//! last renewed them, for others by how long it has seen their records unchanged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefleet::SessionId;
use litefleet::clock::Clock;

use crate::values::SessionValue;

/// More sightings than a process ever needs at once. Past them one is forgotten, and watched anew.
const SIGHTINGS: usize = 10_000;

#[derive(Debug)]
struct Own {
    lifetime: Duration,
    /// When the last start or renewal that succeeded was sent.
    sent: Duration,
    /// The label that it was started with, where that was here.
    label: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    renewals: u64,
    /// When it was first seen with that many renewals.
    since: Duration,
    /// When it was looked at last.
    last: Duration,
    lifetime: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    own: HashMap<SessionId, Own>,
    seen: HashMap<SessionId, Sighting>,
}

impl Inner {
    /// Forgets the sighting that is missed least: one that nobody has looked at for a whole lifetime, else the youngest,
    /// which has the longest way to go. The oldest are about to show that their sessions have expired.
    fn forget_one(&mut self, now: Duration) {
        let idle = |sighting: &Sighting| now.saturating_sub(sighting.last) > sighting.lifetime;
        let least = self.seen.iter().max_by_key(|(_, sighting)| (idle(sighting), sighting.since));
        if let Some(session) = least.map(|(session, _)| *session) {
            self.seen.remove(&session);
        }
    }
}

/// What this process knows of sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

/// What is to be said of a session whose record is there and has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may be alive. It has been seen unchanged for this long.
    Unchanged(Duration),
    /// It has expired.
    Expired,
}

impl Sessions {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one step, so a panic leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// A session was started by a call that was sent at `sent`.
    pub(crate) fn started(&self, session: SessionId, label: String, lifetime: Duration, sent: Duration) {
        self.lock().own.insert(session, Own { lifetime, sent, label: Some(label) });
    }

    /// A renewal of this process succeeded that was sent at `sent`.
    pub(crate) fn renewed(&self, session: SessionId, lifetime: Duration, sent: Duration) {
        let mut inner = self.lock();
        let own = inner.own.entry(session).or_insert(Own { lifetime, sent, label: None });
        (own.lifetime, own.sent) = (lifetime, sent);
    }

    /// The label of a session that was started here.
    pub(crate) fn label(&self, session: SessionId) -> Option<String> {
        self.lock().own.get(&session).and_then(|own| own.label.clone())
    }

    /// A session is over.
    pub(crate) fn forget(&self, session: SessionId) {
        let mut inner = self.lock();
        inner.own.remove(&session);
        inner.seen.remove(&session);
    }

    /// Whether this process started the session, and has not renewed it for its whole lifetime. By the same clock its
    /// user stopped relying on it before.
    pub(crate) fn is_expired_here(&self, session: SessionId) -> bool {
        let now = self.now();
        self.lock().own.get(&session).is_some_and(|own| now.saturating_sub(own.sent) >= own.lifetime)
    }

    /// Judges a record that a transaction has read. `before` is the time before the transaction asked for its read
    /// version, so the record was like this then, or later.
    pub(crate) fn judge(&self, session: SessionId, record: &SessionValue, before: Duration) -> Standing {
        if self.is_expired_here(session) {
            return Standing::Expired;
        }
        let now = self.now();
        let mut inner = self.lock();
        if inner.seen.len() >= SIGHTINGS && !inner.seen.contains_key(&session) {
            inner.forget_one(now);
        }
        // Counted from now, after the reply: whenever the renewal was made that wrote this, it was before.
        let fresh = Sighting { renewals: record.renewals, since: now, last: now, lifetime: record.lifetime };
        let sighting = inner.seen.entry(session).or_insert(fresh);
        sighting.last = now;
        if sighting.renewals != record.renewals {
            *sighting = fresh;
        }
        let unchanged = before.saturating_sub(sighting.since);
        if unchanged >= record.lifetime { Standing::Expired } else { Standing::Unchanged(unchanged) }
    }
}

#[cfg(test)]
mod tests {
    use litefleet::clock::ManualClock;

    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);
    const LIFETIME: Duration = Duration::from_secs(10);

    fn record(renewals: u64) -> SessionValue {
        SessionValue { lifetime: LIFETIME, renewals, ended: None, label: String::new() }
    }

    #[test]
    fn others_expire_when_they_were_seen_unchanged_for_a_lifetime() {
        let clock = Arc::new(ManualClock::default());
        let sessions = Sessions::new(clock.clone());
        clock.advance(LIFETIME * 100);
        let judge = |renewals| sessions.judge(SESSION, &record(renewals), sessions.now());
        assert_eq!(judge(1), Standing::Unchanged(Duration::ZERO), "however old it is");
        clock.advance(LIFETIME * 9 / 10);
        assert_eq!(judge(1), Standing::Unchanged(LIFETIME * 9 / 10));
        assert_eq!(judge(2), Standing::Unchanged(Duration::ZERO), "renewed");
        clock.advance(LIFETIME);
        // A transaction that was begun before is no proof of what was true at its end.
        let before = sessions.now().saturating_sub(LIFETIME / 10);
        assert_eq!(sessions.judge(SESSION, &record(2), before), Standing::Unchanged(LIFETIME * 9 / 10));
        assert_eq!(judge(2), Standing::Expired);
        sessions.forget(SESSION);
        assert_eq!(judge(2), Standing::Unchanged(Duration::ZERO));
    }

    #[test]
    fn own_sessions_expire_by_their_last_renewal() {
        let clock = Arc::new(ManualClock::default());
        let sessions = Sessions::new(clock.clone());
        assert!(!sessions.is_expired_here(SESSION), "not known here");
        sessions.renewed(SESSION, LIFETIME, sessions.now());
        clock.advance(LIFETIME / 2);
        sessions.renewed(SESSION, LIFETIME, sessions.now());
        clock.advance(LIFETIME / 2);
        assert!(!sessions.is_expired_here(SESSION));
        assert_eq!(sessions.judge(SESSION, &record(2), sessions.now()), Standing::Unchanged(Duration::ZERO));
        clock.advance(LIFETIME / 2);
        assert!(sessions.is_expired_here(SESSION));
        assert_eq!(sessions.judge(SESSION, &record(2), sessions.now()), Standing::Expired);
    }

    #[test]
    fn sightings_are_bounded() {
        let sessions = Sessions::new(Arc::new(ManualClock::default()));
        for number in 0..SIGHTINGS as u128 + 10 {
            sessions.judge(SessionId(number.to_be_bytes()), &record(1), Duration::ZERO);
        }
        assert_eq!(sessions.lock().seen.len(), SIGHTINGS);
    }

    #[test]
    fn those_that_were_watched_for_long_are_not_forgotten() {
        let clock = Arc::new(ManualClock::default());
        let sessions = Sessions::new(clock.clone());
        let id = |number: u128| SessionId((number + 1).to_be_bytes());
        let judge = |session| sessions.judge(session, &record(1), sessions.now());
        let unwatched = SessionId([9; 16]);
        judge(unwatched);
        clock.advance(LIFETIME * 2);
        // More than there is room for, one after the other, while one of them is looked at again and again.
        for number in 0..SIGHTINGS as u128 + 100 {
            judge(id(number));
            judge(id(0));
            clock.advance(LIFETIME / 40_000);
        }
        assert!(!sessions.lock().seen.contains_key(&unwatched), "nobody waits for it");
        let Standing::Unchanged(time) = judge(id(0)) else { panic!("not for a lifetime yet") };
        assert!(time > LIFETIME / 5, "{time:?}");
    }
}
