//! Removing what nobody needs: rows and records of deleted databases, and sessions that ended long ago.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use litefleet::store::Purged;
use litefleet::{DatabaseId, Result, SessionId};

use super::FdbStore;
use super::sessions::version_of;
use crate::error::Outcome;
use crate::keys::{Key, after_key};
use crate::sessions::Standing;
use crate::transact::{Piece, Priority, Step, Tx};
use crate::values::{SessionValue, Value};

/// The most keys that one transaction removes: their values come along when they are read.
const KEYS: usize = 1_000;

/// For how long ended sessions are kept, in FoundationDB's versions, of which there are a million in a second: a day.
/// Until then a late request cannot start them again.
const SESSION_VERSIONS: u64 = 24 * 3600 * 1_000_000;

/// The most sessions that one purge looks at.
const SESSIONS: usize = 500;

/// What a step of a purge has done.
struct Removed {
    count: usize,
    /// Whether there was no deleted database left.
    none: bool,
}

/// What a try has found, and would remove.
struct Tried {
    found: (Option<DatabaseId>, Option<Key>),
    count: usize,
}

impl FdbStore {
    pub(super) async fn purge_deleted(&self, limit: usize) -> Result<Purged> {
        let mut removed = 0;
        let done = loop {
            let left = limit.saturating_sub(removed).min(KEYS);
            if left == 0 {
                break false;
            }
            let last = Mutex::default();
            let last = &last;
            let body = |tx, unknown| self.try_purge(tx, left, last, unknown);
            let step = self.cluster.run("purge", Priority::Background, body).await?.value;
            removed += step.count;
            if step.none {
                break true;
            }
        };
        if done {
            self.purge_sessions().await?;
        }
        Ok(Purged { removed: removed as u64, done })
    }

    async fn try_purge(
        &self,
        tx: Tx,
        limit: usize,
        last: &Mutex<Option<Tried>>,
        unknown: bool,
    ) -> Outcome<Step<Removed>> {
        let first = tx.peek_range(&self.keys.all_deleted(), 1).await?;
        let mark = match first.pairs().first() {
            Some(mark) => Some((self.keys.deleted_in(mark.key())?, mark.key())),
            None => None,
        };
        let (range, piece) = match mark {
            Some((id, _)) => {
                let range = self.keys.bulk(id);
                let piece = tx.peek_range(&range, limit).await?;
                (range, piece)
            }
            None => ((Vec::new(), Vec::new()), Piece::default()),
        };
        let beginning = piece.pairs().first().map(|pair| pair.key().to_vec());
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (mark.map(|(id, _)| id), beginning);
        if let Some(tried) = last.as_ref().filter(|tried| unknown && tried.found != now) {
            // The try whose reply was lost has removed what it found.
            return Ok(Step::Return(Removed { count: tried.count, none: false }));
        }
        let Some((id, mark)) = mark else { return Ok(Step::Return(Removed { count: 0, none: true })) };
        if let Some(end) = piece.pairs().last() {
            tx.clear_range(&(range.0, after_key(end.key().to_vec())));
        }
        if !piece.more && piece.pairs().len() < limit {
            tx.clear(mark);
        }
        let count = piece.pairs().iter().filter(|pair| self.keys.counts(id, pair.key())).count();
        *last = Some(Tried { found: now, count });
        Ok(Step::Commit(Removed { count, none: false }))
    }

    /// Looks at some of the sessions: where it left off the last time.
    async fn purge_sessions(&self) -> Result<()> {
        let before = self.sessions.now();
        let after = *self.purged_up_to();
        let body = |tx, _| self.try_purge_sessions(tx, after, before);
        let next = self.cluster.run("purge sessions", Priority::Background, body).await?.value;
        *self.purged_up_to() = next;
        Ok(())
    }

    async fn try_purge_sessions(
        &self,
        tx: Tx,
        after: Option<SessionId>,
        before: Duration,
    ) -> Outcome<Step<Option<SessionId>>> {
        let piece = tx.peek_range(&self.keys.sessions(after), SESSIONS).await?;
        let now = version_of(&tx).await?;
        let mut last = None;
        let mut changed = false;
        for pair in piece.pairs() {
            let Some((session, is_record)) = self.keys.session_in(pair.key()) else { continue };
            last = Some(session);
            if !is_record {
                continue;
            }
            let record = SessionValue::decode(pair.key(), pair.value())?;
            match record.ended {
                Some(version) if now.saturating_sub(version) > SESSION_VERSIONS => {
                    tx.clear_range(&self.keys.session_all(session));
                    changed = true;
                }
                None if self.sessions.judge(session, &record, before) == Standing::Expired => {
                    tx.conflict_with_writers(&crate::transact::only(pair.key().to_vec()))?;
                    self.end_within(&tx, session, record).await?;
                    changed = true;
                }
                Some(_) | None => {}
            }
        }
        let all = !piece.more && piece.pairs().len() < SESSIONS;
        let next = last.filter(|_| !all);
        Ok(if changed { Step::Commit(next) } else { Step::Return(next) })
    }
}
