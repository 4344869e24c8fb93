//! Removing what nobody needs: rows and records of deleted databases, and sessions that ended long ago.

use litefleet::store::Purged;
use litefleet::{Result, SessionId};

use super::FdbStore;
use super::sessions::version_of;
use crate::error::Outcome;
use crate::keys::after_key;
use crate::sessions::Standing;
use crate::transact::{Priority, Step, Tx};
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

impl FdbStore {
    pub(super) async fn purge_deleted(&self, limit: usize) -> Result<Purged> {
        let mut removed = 0;
        let done = loop {
            let left = limit.saturating_sub(removed).min(KEYS);
            if left == 0 {
                break false;
            }
            // A try that may have been committed has removed what the next does not find.
            let most = std::sync::atomic::AtomicUsize::new(0);
            let most = &most;
            let body = |tx, _| self.try_purge(tx, left, most);
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
        most: &std::sync::atomic::AtomicUsize,
    ) -> Outcome<Step<Removed>> {
        use std::sync::atomic::Ordering;
        let first = tx.peek_range(&self.keys.all_deleted(), 1).await?;
        let Some(mark) = first.pairs().first() else {
            let count = most.load(Ordering::Relaxed);
            return Ok(Step::Return(Removed { count, none: true }));
        };
        let id = self.keys.deleted_in(mark.key())?;
        let (from, to) = self.keys.bulk(id);
        let range = (from.clone(), to);
        let piece = tx.peek_range(&range, limit).await?;
        let done = !piece.more && piece.pairs().len() < limit;
        if let Some(last) = piece.pairs().last() {
            tx.clear_range(&(from, after_key(last.key().to_vec())));
        }
        if done {
            tx.clear(mark.key());
        }
        let count = piece.pairs().iter().filter(|pair| self.keys.counts(id, pair.key())).count();
        let count = most.fetch_max(count, Ordering::Relaxed).max(count);
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
        before: std::time::Duration,
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
                Some(_) => {}
                None if self.sessions.judge(session, &record, before) == Standing::Expired => {
                    tx.conflict_with_writers(&crate::transact::only(pair.key().to_vec()))?;
                    self.end_within(&tx, session, record).await?;
                    changed = true;
                }
                None => {}
            }
        }
        let all = !piece.more && piece.pairs().len() < SESSIONS;
        let next = last.filter(|_| !all);
        Ok(if changed { Step::Commit(next) } else { Step::Return(next) })
    }
}
