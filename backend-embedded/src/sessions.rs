//! Sessions: kept in memory, since nobody else can open the directory while this process lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefleet::clock::Clock;
use litefleet::store::{Holder, SessionRequest};
use litefleet::{Error, Result, SessionId};

/// How long a session that ended is remembered, so that it cannot come back.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
struct Session {
    label: String,
    lifetime: Duration,
    expires: Duration,
    ended: bool,
}

/// The sessions of this process.
#[derive(Debug)]
pub(crate) struct Sessions {
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<SessionId, Session>>,
}

impl Session {
    fn live(&self, now: Duration) -> bool {
        !self.ended && self.expires > now
    }
}

impl Sessions {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        // Every change is one step, so a panic leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn start(&self, request: SessionRequest) -> Result<()> {
        let now = self.clock.monotonic();
        let mut known = self.lock();
        if known.get(&request.session).is_some_and(|s| !s.live(now)) {
            return Err(Error::invalid(format!("session {} has ended, start one with a new id", request.session)));
        }
        let session = Session {
            label: request.label,
            lifetime: request.lifetime,
            expires: now.saturating_add(request.lifetime),
            ended: false,
        };
        known.insert(request.session, session);
        Ok(())
    }

    pub(crate) fn renew(&self, session: SessionId) -> Result<()> {
        let now = self.clock.monotonic();
        match self.lock().get_mut(&session) {
            Some(found) if found.live(now) => {
                found.expires = now.saturating_add(found.lifetime);
                Ok(())
            }
            Some(_) | None => {
                Err(Error::fenced(format!("session {session} has expired; its leases may be others' now")))
            }
        }
    }

    pub(crate) fn end(&self, session: SessionId) {
        if let Some(found) = self.lock().get_mut(&session) {
            found.ended = true;
        }
    }

    pub(crate) fn check_live(&self, session: SessionId) -> Result<()> {
        if self.live(session) {
            return Ok(());
        }
        Err(Error::fenced(format!("session {session} has expired or was never started")))
    }

    pub(crate) fn live(&self, session: SessionId) -> bool {
        let now = self.clock.monotonic();
        self.lock().get(&session).is_some_and(|s| s.live(now))
    }

    /// Who that is. A session of a former process has no label and no time left.
    pub(crate) fn holder(&self, session: SessionId) -> Holder {
        let now = self.clock.monotonic();
        let known = self.lock();
        let found = known.get(&session);
        Holder {
            session,
            label: found.map_or_else(String::new, |s| s.label.clone()),
            expires_in: Some(found.filter(|s| !s.ended).map_or(Duration::ZERO, |s| s.expires.saturating_sub(now))),
        }
    }

    /// Forgets those that are over for long.
    pub(crate) fn forget_old(&self) {
        let now = self.clock.monotonic();
        self.lock().retain(|_, s| now.saturating_sub(s.expires) < REMEMBERED);
    }
}
