//! Removing what nobody needs: rows and records of deleted databases, and sessions and epochs that ended long ago.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use litefleet::store::Purged;
use litefleet::{DatabaseId, Epoch, Error, ErrorKind, Result, SessionId};

use super::read::Singles;
use super::sessions::version_of;
use super::{DELETION_BYTES, FdbStore};
use crate::error::Outcome;
use crate::keys::{Key, Range, after_key};
use crate::sessions::Standing;
use crate::transact::{Pair, Priority, Step, Tx};
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

/// The most databases that one purge looks at for ends of epochs, and how many of them at once. Each process has one made
/// every ten minutes: ten of them come by each of a million databases every three days.
const DATABASES: u64 = 256;
const AT_ONCE: usize = 64;

/// How many keys a range has that has one at least, and fewer than `most`, or as many: by halves, since to list them would
/// bring their values along. Each step begins where one has found a key, so that no key is walked over again and again.
async fn count_keys(tx: &Tx, range: &Range, most: usize) -> Outcome<usize> {
    let (mut rest, mut passed, mut most) = (range.clone(), 0, most);
    while most > 1 {
        let half = most / 2;
        match tx.peek_key(&rest, half).await? {
            Some(key) => {
                rest.0 = key;
                passed += half;
                most -= half;
            }
            None => most = half,
        }
    }
    Ok(passed + 1)
}

/// What a step of a purge has come to.
enum Purging {
    /// So many keys were removed.
    Removed(usize),
    /// Something that can be read no more, or must not be removed. What comes after it, by keys, can be.
    Damaged(Error, Key),
    /// No deleted database is left.
    Nothing,
}

/// What a try has found, and would remove.
struct Tried {
    found: (Option<DatabaseId>, Option<Key>),
    count: usize,
}

/// How many damaged entries a purge names.
const NAMED: usize = 8;

/// What a purge says in the end of what it could not remove.
fn left_over(damaged: &[Error]) -> Error {
    let named: Vec<&str> = damaged.iter().take(NAMED).map(Error::message).collect();
    let more = match damaged.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Error::corrupt(format!("all that can be removed is, and this is left: {}{more}", named.join("; ")))
}

/// Where the last try was made and its reply was lost, it has removed what it had found: that is there no more.
fn count_of_lost(
    last: &Mutex<Option<Tried>>,
    unknown: bool,
    now: &(Option<DatabaseId>, Option<Key>),
) -> Option<Purging> {
    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
    last.as_ref().filter(|tried| unknown && tried.found != *now).map(|tried| Purging::Removed(tried.count))
}

impl FdbStore {
    pub(super) async fn purge_deleted(&self, limit: usize) -> Result<Purged> {
        let (mut removed, mut damaged, mut range) = (0, Vec::new(), self.keys.all_deleted());
        loop {
            let left = limit.saturating_sub(removed).min(KEYS);
            if left == 0 {
                return Ok(Purged { removed: removed as u64, done: false });
            }
            let last = Mutex::default();
            let (last, marks) = (&last, &range);
            let body = |tx, unknown| self.try_purge(tx, marks, left, last, unknown);
            match self.cluster.run("purge", Priority::Background, body).await?.value {
                Purging::Removed(count) => {
                    // What has no keys of its own costs a transaction all the same, and is progress.
                    removed = removed.saturating_add(count.max(1));
                }
                Purging::Damaged(error, after) => {
                    damaged.push(error);
                    range.0 = after;
                }
                Purging::Nothing => break,
            }
        }
        let looked_at = *self.purged_up_to();
        damaged.extend(self.purge_sessions().await?);
        match self.purge_ends().await {
            Err(error) if error.kind() == ErrorKind::Corrupt => damaged.push(error),
            purged => purged?,
        }
        match damaged.as_slice() {
            [] => Ok(Purged { removed: removed as u64, done: true }),
            // With an error nobody would learn of what was removed just now: the next call says it.
            _ if removed > 0 => {
                *self.purged_up_to() = looked_at;
                Ok(Purged { removed: removed as u64, done: false })
            }
            damaged => Err(left_over(damaged)),
        }
    }

    async fn try_purge(
        &self,
        tx: Tx,
        marks: &Range,
        limit: usize,
        last: &Mutex<Option<Tried>>,
        unknown: bool,
    ) -> Outcome<Step<Purging>> {
        let first = tx.peek_range(marks, 1).await?;
        let Some(mark) = first.pairs().first().map(Pair::key) else {
            return Ok(Step::Return(count_of_lost(last, unknown, &(None, None)).unwrap_or(Purging::Nothing)));
        };
        let passed = |error| Ok(Step::Return(Purging::Damaged(error, after_key(mark.to_vec()))));
        let id = match self.keys.deleted_in(mark) {
            Ok(id) => id,
            Err(error) => return passed(error),
        };
        let range = self.keys.bulk(id);
        let keys = async { futures_util::try_join!(tx.peek_key(&range, 0), tx.peek_key(&range, limit)) };
        let (exists, (beginning, after)) = futures_util::try_join!(self.exists(&tx, id), keys)?;
        let now = (Some(id), beginning);
        if let Some(removed) = count_of_lost(last, unknown, &now) {
            return Ok(Step::Return(removed));
        }
        if let Some(error) = exists {
            return passed(error);
        }
        let count = match (&now.1, &after) {
            (None, _) => 0,
            (Some(_), Some(_)) => limit,
            (Some(_), None) => count_keys(&tx, &range, limit).await?,
        };
        if let Some(after) = after {
            tx.clear_range(&(range.0, after));
        } else {
            tx.clear_range(&range);
            tx.clear(mark);
        }
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tried { found: now, count });
        Ok(Step::Commit(Purging::Removed(count)))
    }

    /// What is to be said of a database that is marked as deleted, and has more than rows and records.
    async fn exists(&self, tx: &Tx, id: DatabaseId) -> Outcome<Option<Error>> {
        let values = tx.peek_all(&self.keys.singles(id)).await?;
        let singles = Singles::of(&self.keys, id, &values);
        if singles.is_empty() {
            return Ok(None);
        }
        let name = singles.name().map_or_else(|_| "whose name is lost".to_owned(), |name| format!("named {name}"));
        let message =
            format!("database {id}, {name}, is marked as deleted, and exists: copy what is in it to a new one");
        Ok(Some(Error::corrupt(message)))
    }

    /// Forgets the ends of epochs that are old enough, of some databases: of those that come next. Grants do so too, but
    /// seldom, and not for who is not opened any more.
    async fn purge_ends(&self) -> Result<()> {
        let from = self.purged_ends.load(Ordering::Relaxed);
        let body = |tx, _| self.try_purge_ends(tx, from);
        let next = self.cluster.run("purge ends of epochs", Priority::Background, body).await?.value;
        self.purged_ends.store(next, Ordering::Relaxed);
        Ok(())
    }

    async fn try_purge_ends(&self, tx: Tx, from: u64) -> Outcome<Step<u64>> {
        let largest = tx.peek::<u64>(&self.keys.counter()).await?.unwrap_or_default();
        let Some(from) = from.checked_rem(largest) else { return Ok(Step::Return(from)) };
        let each = Tx::size_of_clearing(&self.keys.epoch_ends(DatabaseId(largest), Epoch(u64::MAX)));
        let fit = u64::try_from(DELETION_BYTES / each).unwrap_or(u64::MAX);
        let count = DATABASES.min(fit).min(largest);
        let ids = (from..from + count).map(|place| DatabaseId(place % largest + 1));
        let looks = stream::iter(ids.map(|id| self.forget_ends_of(&tx, id))).buffer_unordered(AT_ONCE);
        let changed = looks.try_fold(false, |changed, some| async move { Ok(changed || some) }).await?;
        let next = from + count;
        Ok(if changed { Step::Commit(next) } else { Step::Return(next) })
    }

    /// Looks at some of the sessions: where it left off the last time. Returns what can be read of none.
    async fn purge_sessions(&self) -> Result<Vec<Error>> {
        let before = self.sessions.now();
        let after = *self.purged_up_to();
        let body = |tx, _| self.try_purge_sessions(tx, after, before);
        let (next, damaged) = self.cluster.run("purge sessions", Priority::Background, body).await?.value;
        *self.purged_up_to() = next;
        Ok(damaged)
    }

    async fn try_purge_sessions(
        &self,
        tx: Tx,
        after: Option<SessionId>,
        before: Duration,
    ) -> Outcome<Step<(Option<SessionId>, Vec<Error>)>> {
        // A session that has ended is written twice, and read: its key eight times.
        let fit = DELETION_BYTES / (8 * self.keys.key_bytes() + SESSION_BYTES);
        // Two keys are one session.
        let keys = SESSION_KEYS.min(2 * fit.max(1));
        let piece = tx.peek_range(&self.keys.sessions(after), keys).await?;
        let now = version_of(&tx).await?;
        let (mut last, mut damaged, mut changed) = (None, Vec::new(), false);
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
            let record = match SessionValue::decode(pair.key(), pair.value()) {
                Ok(record) => record,
                Err(error) => {
                    damaged.push(error.context(format_args!("session {session}")));
                    continue;
                }
            };
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
        let found = (next, damaged);
        Ok(if changed { Step::Commit(found) } else { Step::Return(found) })
    }
}
