//! Removing what nobody needs: rows and records of deleted databases, and sessions that ended long ago.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use litefleet::store::Purged;
use litefleet::{DatabaseId, Error, Result, SessionId};

use super::sessions::version_of;
use super::{DELETION_BYTES, FdbStore};
use crate::error::Outcome;
use crate::keys::{Key, Range};
use crate::sessions::Standing;
use crate::transact::{Priority, Step, Tx};
use crate::values::{SessionValue, Value};

/// The most keys that one transaction removes. FoundationDB walks along them to find the last, and sends none but that.
const KEYS: usize = 1_000;

/// For how long ended sessions are kept, in FoundationDB's versions, of which there are a million in a second: a day.
/// Until then a late request cannot start them again.
const SESSION_VERSIONS: u64 = 24 * 3600 * 1_000_000;

/// The most keys of sessions that one purge looks at.
const SESSION_KEYS: usize = 1_000;
/// What the end of a session takes of a transaction besides its keys: its record and its fence.
const SESSION_BYTES: usize = 600;

/// How many keys a range has that has one at least, and fewer than `most`, or as many: by halves, since to list them would
/// bring their values along.
async fn count_keys(tx: &Tx, range: &Range, most: usize) -> Outcome<usize> {
    let (mut there, mut gone) = (0, most);
    while gone - there > 1 {
        let middle = there + (gone - there) / 2;
        if tx.peek_key(range, middle).await?.is_some() {
            there = middle;
        } else {
            gone = middle;
        }
    }
    Ok(there + 1)
}

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
        let range = mark.map_or_else(Default::default, |(id, _)| self.keys.bulk(id));
        let (beginning, after) = match mark {
            Some((id, _)) => {
                let keys = async { futures_util::try_join!(tx.peek_key(&range, 0), tx.peek_key(&range, limit)) };
                let (core, keys) = futures_util::try_join!(self.peek_core(&tx, id), keys)?;
                if core.is_some() {
                    let message =
                        format!("database {id} is marked as deleted, and exists: copy what is in it to a new one");
                    return Err(Error::corrupt(message).into());
                }
                keys
            }
            None => (None, None),
        };
        let count = match (&beginning, &after) {
            (None, _) => 0,
            (Some(_), Some(_)) => limit,
            (Some(_), None) => count_keys(&tx, &range, limit).await?,
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (mark.map(|(id, _)| id), beginning);
        if let Some(tried) = last.as_ref().filter(|tried| unknown && tried.found != now) {
            // The try whose reply was lost has removed what it found.
            return Ok(Step::Return(Removed { count: tried.count, none: false }));
        }
        let Some((_, mark)) = mark else { return Ok(Step::Return(Removed { count: 0, none: true })) };
        if let Some(after) = after {
            tx.clear_range(&(range.0, after));
        } else {
            tx.clear_range(&range);
            tx.clear(mark);
        }
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
        // A session that has ended is written twice, and read: its key eight times.
        let fit = DELETION_BYTES / (8 * self.keys.key_bytes() + SESSION_BYTES);
        // Two keys are one session.
        let keys = SESSION_KEYS.min(2 * fit.max(1));
        let piece = tx.peek_range(&self.keys.sessions(after), keys).await?;
        let now = version_of(&tx).await?;
        let mut last = None;
        let mut changed = false;
        for pair in piece.pairs() {
            let Some((session, is_record)) = self.keys.session_in(pair.key()) else { continue };
            let known = last.replace(session) == Some(session);
            if !is_record {
                if !known {
                    // Whoever took a lease of a session that was forgotten has left it. Its record would have come before
                    // it; should that be made just now, the session is alive.
                    let all = self.keys.session_all(session);
                    tx.conflict_with_writers(&all)?;
                    tx.clear_range(&all);
                    changed = true;
                }
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
        let all = !piece.more && piece.pairs().len() < keys;
        let next = last.filter(|_| !all);
        Ok(if changed { Step::Commit(next) } else { Step::Return(next) })
    }
}
