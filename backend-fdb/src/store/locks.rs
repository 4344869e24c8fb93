//! SQLite's locks between processes: a key for each shared lock, and a mark for the exclusive one. The mark names the epoch of the
//! holder that made it, and means something only while that is the current one and is held, by a session that is not over:
//! so it ends with the lease, whatever ends that, and no commit, release or grant knows of it.
//!
//! Who locks for reading conflicts on the mark, and who locks exclusively on the shared locks of others: of two that ask at the
//! same time the second to be committed fails, looks again, and finds the first. A session that has a shared lock already
//! relies on that one in the mark's place: while it stands nobody has locked exclusively. Both conflict on what they write
//! themselves, and unlocking writes it whether it is there or not: so a lock that was asked for before it, and whose
//! outcome nobody waits for any more, cannot be made after it; nor the other way round.
//!
//! No commit, and no renewal, is in the way of a lock: of those nothing is conflicted on.

use std::time::Duration;

use futures_util::future::try_join_all;
use litefleet::store::{HeadReply, SharedLock, SharedRequest};
use litefleet::{DatabaseId, Epoch, Error, Result, SessionId};

use super::read::missing;
use super::sessions::over;
use super::{DELETION_BYTES, FdbStore};
use crate::error::Outcome;
use crate::keys::Kind;
use crate::knowledge::Core;
use crate::sessions::Standing;
use crate::transact::{Cluster, Piece, Priority, Step, Tx, only};
use crate::values::{HolderValue, SessionValue};

/// How many shared locks one transaction looks at on either side of the holder's own, at the most. Those of so many sessions
/// that are over are removed at once, and so many that do not say whether they are are watched at once.
const LOCKS: usize = 64;

/// What the end of a session and of its locks takes of a transaction besides its keys: its record and its fence.
const SESSION_BYTES: usize = 600;

/// What came of asking for the exclusive lock. The mark is made in any case.
enum Answer {
    Granted,
    Refused(Error),
    /// Those that were looked at are over, and others may not be.
    LookAgain,
}

/// What is read of the session that holds the lease, and of the locks that others have.
struct Others {
    holder: Option<SessionValue>,
    locks: [Piece; 2],
    /// Whether these are all.
    whole: bool,
}

impl FdbStore {
    /// Three exchanges: a read version; all that is read; the commit. Four when the exclusive lock is in the way: the record of its
    /// session. Two when the lock is there already.
    pub(super) async fn lock_for_reading(&self, request: &SharedRequest) -> Result<HeadReply> {
        let session = request.lock.session;
        if self.sessions.is_expired_here(session) {
            self.end(session).await?;
            return Err(over(session));
        }
        let before = self.sessions.now();
        let body = |tx, _| self.try_lock_shared(tx, request, before);
        let done = self.cluster.run("lock for reading", Priority::Normal, body).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
        }
        let (reply, ended) = done.value;
        if let Some(session) = ended {
            self.forget(session);
        }
        Ok(reply)
    }

    /// Says which session has ended with it. The head is read without a conflict: a commit that is made meanwhile is not made
    /// under the exclusive lock, since that would have written the mark, and those before it were made before the read version.
    async fn try_lock_shared(
        &self,
        tx: Tx,
        request: &SharedRequest,
        before: Duration,
    ) -> Outcome<Step<(HeadReply, Option<SessionId>)>> {
        let (id, lock) = (request.head.database, request.lock);
        let (key, own) = (self.keys.shared(id, lock), self.keys.shared_of(id, lock.session));
        let (mark, record) = (self.keys.of(id, Kind::Exclusive), self.keys.session_record(lock.session));
        let ((core, reply), record, locked, own, epoch) = futures_util::try_join!(
            self.look(&tx, &request.head),
            tx.peek::<SessionValue>(&record),
            tx.peek_bytes(&key),
            tx.peek_range(&own, 1),
            tx.peek::<Epoch>(&mark)
        )?;
        if record.is_none_or(|record| record.ended.is_some()) {
            return Err(over(lock.session).into());
        }
        if locked.is_some() {
            return Ok(Step::Return((reply, None)));
        }
        // Whatever ends the session writes its fence. Whoever unlocks, or deletes the database, clears the key.
        tx.conflict_with_writers(&only(self.keys.session_fence(lock.session)))?;
        tx.conflict_with_writers(&only(key.clone()))?;
        let mut ended = None;
        if let Some(other) = own.pairs().first() {
            tx.conflict_with_writers(&only(other.key().to_vec()))?;
        } else {
            tx.conflict_with_writers(&only(mark))?;
            let other = core.lease.holder().filter(|holder| holder.session != lock.session);
            if let Some(holder) = other.filter(|_| epoch == Some(core.lease.epoch)) {
                ended = self.outlive(&tx, (id, &reply), &core, holder, before).await?;
            }
        }
        tx.put_bytes(&key, &[])?;
        Ok(Step::Commit((reply, ended)))
    }

    /// Refuses a shared lock while the session lives that has locked exclusively. Where it has expired it ends, so that it is not
    /// renewed after this; says so.
    async fn outlive(
        &self,
        tx: &Tx,
        (id, reply): (DatabaseId, &HeadReply),
        core: &Core,
        holder: &HolderValue,
        before: Duration,
    ) -> Outcome<Option<SessionId>> {
        let record = self.session(tx, holder.session).await?.filter(|record| record.ended.is_none());
        let Some(record) = record else { return Ok(None) };
        if self.sessions.judge(holder.session, &record, before) != Standing::Expired {
            let name = &reply.name;
            return Err(Error::lease_held(format!("{name} is locked exclusively by {}", holder.label)).into());
        }
        // Until this is committed the lock stands: what is committed under it must be in the head that comes with this one.
        self.rely_on(tx, id, core)?;
        self.end_within(tx, holder.session, record).await?;
        Ok(Some(holder.session))
    }

    /// Three exchanges.
    pub(super) async fn unlock_for_reading(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        let body = |tx, _| self.try_unlock_shared(tx, database, lock);
        let done = self.cluster.run("unlock for reading", Priority::Normal, body).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
        }
        Ok(())
    }

    async fn try_unlock_shared(&self, tx: Tx, database: DatabaseId, lock: SharedLock) -> Outcome<Step<()>> {
        if tx.peek_bytes(&self.keys.of(database, Kind::Head)).await?.is_none() {
            return Err(missing(database).into());
        }
        tx.clear(&self.keys.shared(database, lock));
        Ok(Step::Commit(()))
    }

    /// Three exchanges: a read version; all that is read; the commit. Four when others have locked: the records of their sessions.
    /// As often as that again for each [`LOCKS`] locks of sessions that are over, and twice more where another was quicker.
    pub(super) async fn lock_for_holder(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let before = self.sessions.now();
        let deadline = self.cluster.deadline(Priority::Normal);
        loop {
            let mut first = true;
            let body = |tx, _| {
                let quick = std::mem::take(&mut first);
                self.try_lock_exclusive(tx, (database, epoch), before, quick)
            };
            let attempts = self.cluster.attempts_until("lock exclusively", Priority::Normal, deadline);
            let done = Cluster::run_with(attempts, body).await?;
            if let Some(committed) = done.committed {
                self.knowledge.committed(committed);
            }
            let (answer, ended) = done.value;
            for session in ended {
                self.forget(session);
            }
            match answer {
                Answer::Granted => return Ok(()),
                Answer::Refused(error) => return Err(error),
                Answer::LookAgain => {}
            }
        }
    }

    /// Makes the mark, and says which sessions have ended with it. With `quick` it is granted at once where nobody is in the way,
    /// unless somebody locks or unlocks meanwhile. Without it only the mark is made: where readers come and go without a pause,
    /// one is always quicker, until the mark keeps them out.
    async fn try_lock_exclusive(
        &self,
        tx: Tx,
        (id, epoch): (DatabaseId, Epoch),
        before: Duration,
        quick: bool,
    ) -> Outcome<Step<(Answer, Vec<SessionId>)>> {
        let mark = self.keys.of(id, Kind::Exclusive);
        tx.conflict_with_writers(&only(self.keys.of(id, Kind::Lease)))?;
        // An unlocking that was begun before must not be made after this.
        tx.conflict_with_writers(&only(mark.clone()))?;
        let guess = self.knowledge.likely_holder(id);
        let guessed = async {
            match guess {
                Some(session) => self.others(&tx, id, session).await.map(Some),
                None => Ok(None),
            }
        };
        let name = self.keys.of(id, Kind::Name);
        let (core, name, guessed) =
            futures_util::try_join!(self.peek_core(&tx, id), tx.peek::<String>(&name), guessed)?;
        let core = core.ok_or_else(|| missing(id))?;
        core.fence(epoch)?;
        let holder = core.holder().ok_or_else(|| Error::internal("a lease that is held is nobody's"))?;
        let others = match guessed {
            Some(others) if guess == Some(holder) => others,
            Some(_) | None => self.others(&tx, id, holder).await?,
        };
        // What a session has locked ends with it: then it gets no more. Its end writes the fence.
        if others.holder.is_none_or(|record| record.ended.is_some()) || self.sessions.is_expired_here(holder) {
            return Err(over(holder).into());
        }
        tx.conflict_with_writers(&only(self.keys.session_fence(holder)))?;
        let (living, dead) = self.judge_lockers(&tx, id, &others.locks, before).await?;
        let answer = match living {
            Some(label) => {
                let name = name.unwrap_or_else(|| format!("database {id}"));
                Answer::Refused(Error::lease_held(format!("{name} is locked for reading by {label}")))
            }
            None if quick && others.whole => {
                for range in self.keys.shared_but_of(id, holder) {
                    tx.conflict_with_writers(&range)?;
                }
                Answer::Granted
            }
            None => Answer::LookAgain,
        };
        let mut ended = Vec::new();
        for (session, record) in dead {
            if let Some(record) = record {
                // A renewal that is under way and this end of the session exclude each other.
                tx.conflict_with_writers(&only(self.keys.session_record(session)))?;
                self.end_within(&tx, session, record).await?;
                ended.push(session);
            }
            tx.clear_range(&self.keys.shared_of(id, session));
        }
        // Also where it is there: an unlocking that was begun before this sees it.
        tx.put(&mark, &epoch)?;
        Ok(Step::Commit((answer, ended)))
    }

    /// The record of the session that holds the lease, and the first locks of others on either side of its own.
    async fn others(&self, tx: &Tx, id: DatabaseId, holder: SessionId) -> Outcome<Others> {
        let record = self.keys.session_record(holder);
        let [before, after] = self.keys.shared_but_of(id, holder);
        // Each session that has expired is conflicted on and written, with its fence, and its locks cleared as a range.
        let limit = LOCKS.min(DELETION_BYTES / 2 / (12 * self.keys.key_bytes() + SESSION_BYTES)).max(1);
        let (holder, before, after) = futures_util::try_join!(
            tx.peek::<SessionValue>(&record),
            tx.peek_range(&before, limit),
            tx.peek_range(&after, limit)
        )?;
        let locks = [before, after];
        let whole = locks.iter().all(|piece| !piece.more && piece.pairs().len() < limit);
        Ok(Others { holder, locks, whole })
    }

    /// The label of a session that has one of these locks and may live, and those that do not, with their records where these do not
    /// say so. All are looked at, so that those of which nobody can tell are watched from now on.
    async fn judge_lockers(
        &self,
        tx: &Tx,
        id: DatabaseId,
        locks: &[Piece],
        before: Duration,
    ) -> Outcome<(Option<String>, Vec<(SessionId, Option<SessionValue>)>)> {
        let keys = locks.iter().flat_map(Piece::pairs).map(|pair| self.keys.locker_in(id, pair.key()));
        let mut sessions = keys.collect::<Result<Vec<SessionId>>>()?;
        sessions.dedup();
        let keys: Vec<_> = sessions.iter().map(|session| self.keys.session_record(*session)).collect();
        let records = try_join_all(keys.iter().map(|key| tx.peek::<SessionValue>(key))).await?;
        let (mut living, mut dead) = (None, Vec::new());
        for (session, record) in sessions.into_iter().zip(records) {
            let record = record.filter(|record| record.ended.is_none());
            match &record {
                Some(found) if self.sessions.judge(session, found, before) != Standing::Expired => {
                    living.get_or_insert_with(|| found.label.clone());
                }
                Some(_) | None => dead.push((session, record)),
            }
        }
        Ok((living, dead))
    }

    /// Three exchanges.
    pub(super) async fn unlock_for_holder(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let body = |tx, _| self.try_unlock_exclusive(tx, database, epoch);
        let done = self.cluster.run("unlock exclusively", Priority::Normal, body).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
        }
        Ok(())
    }

    async fn try_unlock_exclusive(&self, tx: Tx, database: DatabaseId, epoch: Epoch) -> Outcome<Step<()>> {
        let mark = self.keys.of(database, Kind::Exclusive);
        tx.conflict_with_writers(&only(self.keys.of(database, Kind::Lease)))?;
        tx.conflict_with_writers(&only(mark.clone()))?;
        let core = self.peek_core(&tx, database).await?.ok_or_else(|| missing(database))?;
        core.fence(epoch)?;
        tx.clear(&mark);
        Ok(Step::Commit(()))
    }
}
