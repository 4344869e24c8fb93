//! Changes that are conditional on the head, the staging entry and the lease: commits, stagings, and what else needs no
//! other reads. Where this instance knows how the databases stand they take one exchange, the commit itself; else the
//! three of any transaction.

use std::time::Duration;

use futures_util::future::try_join_all;
use litefleet::{CommitId, DatabaseId, Epoch, Error, Result, SessionId, Txid};

use super::FdbStore;
use super::read::missing;
use crate::chunk;
use crate::error::{Fault, Outcome};
use crate::keys::Key;
use crate::knowledge::{Core, Known, Touch, Witness};
use crate::transact::{Attempts, Failed, Priority, Tx, only, says_read_first};
use crate::values::{EpochEndValue, FenceValue, HeadValue, LeaseValue, StagingValue};

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds: make the change.
    Apply,
    /// The change was made before.
    Done,
}

/// One change of one database.
pub(super) trait Change: Sync {
    fn database(&self) -> DatabaseId;

    /// Whether the change may be made. Nothing is written when it may not.
    fn judge(&self, core: &Core) -> Result<Verdict>;

    /// Writes it, head, staging entry and lease included, and says how these stand then.
    fn apply(&self, store: &FdbStore, tx: &Tx, core: &Core) -> Outcome<Core>;

    /// The commit that it makes, if it makes one.
    fn commit(&self) -> Option<Commit>;
}

/// A commit: enough to find out whether it has happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    pub(super) epoch: Epoch,
    pub(super) expected: Txid,
    pub(super) id: CommitId,
}

/// How a call ended that did not give an outcome to each change.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nothing took effect.
    Undone(Fault),
    /// Everything may have.
    Unknown(Fault),
}

/// What a transaction found for one change.
struct Found {
    /// Its conditions, and whether the fence of the holder's session has been read.
    core: Option<Core>,
    witness: Option<Witness>,
}

impl FdbStore {
    /// Makes changes of different databases in one transaction. With `atomic` all or none; else those that may not be
    /// made are left out, and the others do not suffer from it.
    pub(super) async fn change<C: Change>(
        &self,
        what: &'static str,
        changes: &[C],
        atomic: bool,
    ) -> Result<Vec<Result<()>>, Ended> {
        let mut touches: Vec<Touch> = changes.iter().map(|change| self.knowledge.begin(change.database())).collect();
        let mut attempts = self.cluster.attempts(what, Priority::Normal);
        match self.change_as_known(&mut attempts, changes, &mut touches).await {
            Ok(true) => return Ok(changes.iter().map(|_| Ok(())).collect()),
            Ok(false) => {}
            Err(fault) => return Err(ended(&attempts, fault)),
        }
        loop {
            let outcome = self.try_change(&mut attempts, changes, &mut touches, atomic).await;
            let failed = match outcome {
                Ok(outcomes) => return Ok(outcomes),
                Err(failed) => failed,
            };
            attempts.again(failed).await.map_err(|fault| ended(&attempts, fault))?;
        }
    }

    /// Makes the changes without reading anything, when a chain vouches for all of their databases. False when it does
    /// not, or when it has turned out not to.
    async fn change_as_known<C: Change>(
        &self,
        attempts: &mut Attempts<'_>,
        changes: &[C],
        touches: &mut [Touch],
    ) -> Outcome<bool> {
        let Some((session, chain, version)) = common_chain(touches, self.cluster.now()) else { return Ok(false) };
        let mut cores = Vec::with_capacity(changes.len());
        for (change, touch) in changes.iter().zip(touches.iter()) {
            match &touch.state {
                Some(known) if matches!(change.judge(&known.core), Ok(Verdict::Apply)) => {
                    cores.push(known.core.clone());
                }
                // What it will be told must be true now.
                Some(_) | None => return Ok(false),
            }
        }
        let tx = attempts.begin()?;
        tx.read_at(version);
        tx.conflict_with_writers(&only(self.keys.session_fence(session)))?;
        for (change, core) in changes.iter().zip(&mut cores) {
            self.rely_on(&tx, change.database(), core)?;
            self.leave(&tx, change.database(), core)?;
            *core = change.apply(self, &tx, core)?;
        }
        match attempts.commit(tx).await {
            Ok(committed) => {
                self.knowledge.extended(session, chain, committed);
                self.note(committed, touches.iter_mut().zip(cores).map(|(touch, core)| (touch, core, Some(chain))));
                Ok(true)
            }
            // The second look will tell: at once, since waiting helps nobody.
            Err(failed) if says_read_first(&failed.fault) => attempts.at_once(failed).map(|()| false),
            Err(failed) => attempts.again(failed).await.map(|()| false),
        }
    }

    /// Makes the changes on fresh reads.
    async fn try_change<C: Change>(
        &self,
        attempts: &mut Attempts<'_>,
        changes: &[C],
        touches: &mut [Touch],
        atomic: bool,
    ) -> Result<Vec<Result<()>>, Failed> {
        let tx = attempts.begin().map_err(Failed::at_once)?;
        let unknown = attempts.unknown();
        let prepared = self.prepare(tx.clone(), changes, touches, atomic, unknown).await;
        let (outcomes, cores, witnesses) = match prepared {
            Ok(prepared) => prepared,
            Err(fault) => return Err(Failed::reading(tx, fault)),
        };
        if cores.iter().all(Option::is_none) {
            return Ok(outcomes);
        }
        let committed = attempts.commit(tx).await?;
        let chains: Vec<(SessionId, Option<u64>)> =
            witnesses.iter().map(|witness| (witness.session, self.knowledge.witnessed(witness, committed))).collect();
        let made = touches.iter_mut().zip(cores).filter_map(|(touch, core)| {
            let core = core?;
            let chain = core
                .holder()
                .and_then(|holder| chains.iter().find(|(session, _)| *session == holder).and_then(|(_, chain)| *chain));
            Some((touch, core, chain))
        });
        self.note(committed, made);
        Ok(outcomes)
    }

    /// Reads, judges and writes. Returns the outcome of each change, how the databases stand that are written to, and
    /// what is known of the fences.
    async fn prepare<C: Change>(
        &self,
        tx: Tx,
        changes: &[C],
        touches: &mut [Touch],
        atomic: bool,
        unknown: bool,
    ) -> Outcome<(Vec<Result<()>>, Vec<Option<Core>>, Vec<Witness>)> {
        let found = self.find(&tx, changes, touches).await?;
        for (touch, found) in touches.iter_mut().zip(&found) {
            if touch.session.is_some() && found.core.as_ref().and_then(Core::holder) != touch.session {
                touch.not_held();
            }
        }
        let mut verdicts = Vec::with_capacity(changes.len());
        for (change, found) in changes.iter().zip(&found) {
            let verdict = match &found.core {
                Some(core) => change.judge(core),
                None => Err(missing(change.database())),
            };
            verdicts.push(match (verdict, change.commit()) {
                (Err(error), Some(commit)) if unknown => self.look_back(&tx, change, commit, found, error).await?,
                (verdict, _) => verdict,
            });
        }
        if atomic && verdicts.iter().any(Result::is_err) {
            let failed = |verdict: Result<Verdict>| {
                Err(verdict.err().unwrap_or_else(|| Error::conflict("another commit of the atomic set failed")))
            };
            let outcomes = verdicts.into_iter().map(failed).collect();
            return Ok((outcomes, changes.iter().map(|_| None).collect(), Vec::new()));
        }
        let mut cores = Vec::with_capacity(changes.len());
        let mut witnesses: Vec<Witness> = Vec::new();
        for ((change, found), verdict) in changes.iter().zip(found).zip(&verdicts) {
            let (Some(core), Ok(Verdict::Apply)) = (found.core, verdict) else {
                cores.push(None);
                continue;
            };
            let witness = found.witness;
            self.announce(&tx, &core, witness.map(|witness| (witness.session, witness.fence)))?;
            self.leave(&tx, change.database(), &core)?;
            cores.push(Some(change.apply(self, &tx, &core)?));
            if let Some(witness) = witness.filter(|new| witnesses.iter().all(|old| old.session != new.session)) {
                tx.conflict_with_writers(&only(self.keys.session_fence(witness.session)))?;
                witnesses.push(witness);
            }
        }
        Ok((verdicts.into_iter().map(|verdict| verdict.map(|_| ())).collect(), cores, witnesses))
    }

    /// Reads the conditions of each change, and the fences of the sessions that should hold their databases.
    async fn find<C: Change>(&self, tx: &Tx, changes: &[C], touches: &[Touch]) -> Outcome<Vec<Found>> {
        let mut sessions: Vec<SessionId> = touches.iter().filter_map(|touch| touch.session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let cores = try_join_all(changes.iter().map(|change| self.core(tx, change.database())));
        let fences = try_join_all(sessions.iter().map(|session| self.fence_of(tx, *session)));
        let (cores, fences) = futures_util::try_join!(cores, fences)?;
        let version = tx.read_version().await?;
        for change in changes {
            self.knowledge.telling(change.database(), version);
        }
        let found = cores.into_iter().map(|core| {
            let holder = core.as_ref().and_then(Core::holder);
            let index = holder.and_then(|holder| sessions.iter().position(|session| *session == holder));
            let fence = index.and_then(|index| fences.get(index).copied().flatten());
            let witness = holder.zip(fence).map(|(session, fence)| Witness { session, fence, version });
            Found { core, witness }
        });
        Ok(found.collect())
    }

    async fn fence_of(&self, tx: &Tx, session: SessionId) -> Outcome<Option<FenceValue>> {
        tx.peek(&self.keys.session_fence(session)).await
    }

    /// The session that should hold a database, with its fence.
    pub(super) async fn fence_of_touch(&self, tx: &Tx, touch: &Touch) -> Outcome<Option<(SessionId, FenceValue)>> {
        let Some(session) = touch.session else { return Ok(None) };
        Ok(self.fence_of(tx, session).await?.map(|fence| (session, fence)))
    }

    /// When this instance does not own the session that holds a database, the one that does is told that the database
    /// is changed behind its back.
    pub(super) fn announce(&self, tx: &Tx, core: &Core, found: Option<(SessionId, FenceValue)>) -> Outcome<()> {
        let Some(holder) = core.holder() else { return Ok(()) };
        let nobody = [0; 8];
        match found {
            Some((session, fence))
                if session == holder && (fence.owner == self.knowledge.owner() || fence.owner == nobody) =>
            {
                Ok(())
            }
            Some(_) | None => self.disown(tx, holder),
        }
    }

    /// A commit may have happened, and its conditions hold no more: because it has, or because it never will. Its record
    /// tells, and where that was collected, the end of its epoch.
    async fn look_back<C: Change>(
        &self,
        tx: &Tx,
        change: &C,
        commit: Commit,
        found: &Found,
        error: Error,
    ) -> Outcome<Result<Verdict>> {
        let Some(core) = &found.core else { return Ok(Err(error)) };
        let id = change.database();
        let (record, end) = (self.keys.log(id, commit.expected.next(), 0), self.keys.epoch_end(id, commit.epoch));
        let (record, end) = futures_util::try_join!(tx.peek_bytes(&record), tx.peek::<EpochEndValue>(&end))?;
        let whose = record.as_deref().and_then(chunk::commit_of);
        if whose == Some(commit.id) || end.is_some_and(|found| found.end.commit_id == commit.id) {
            return Ok(Ok(Verdict::Done));
        }
        // The record may be gone because a later commit of the same epoch was checkpointed.
        let went_on = match end {
            Some(found) => found.end.txid > commit.expected.next(),
            None => core.head.txid > commit.expected,
        };
        if whose.is_none() && went_on {
            return Ok(Err(Error::commit_unknown("the reply was lost, and the record was collected meanwhile")));
        }
        Ok(Err(error))
    }

    /// Takes note of changes that were made.
    pub(super) fn note<'t>(
        &self,
        committed: (i64, Duration),
        made: impl IntoIterator<Item = (&'t mut Touch, Core, Option<u64>)>,
    ) {
        self.knowledge.committed(committed);
        for (touch, core, chain) in made {
            self.knowledge.changed(touch.database, committed.0);
            match (core.holder(), chain) {
                (None, _) => touch.not_held(),
                (Some(session), Some(chain)) => touch.made(Known { core, session, chain }),
                (Some(_), None) => {}
            }
        }
    }

    /// Head, staging entry and lease, if the database exists; conflicts with whoever changes them.
    pub(super) async fn core(&self, tx: &Tx, database: DatabaseId) -> Outcome<Option<Core>> {
        let core = self.peek_core(tx, database).await?;
        match &core {
            Some(core) => self.rely_on_read(tx, database, core)?,
            None => tx.conflict_with_writers(&self.keys.core(database))?,
        }
        Ok(core)
    }

    /// As [`core`](Self::core), without the conflict.
    pub(super) async fn peek_core(&self, tx: &Tx, database: DatabaseId) -> Outcome<Option<Core>> {
        let values = tx.peek_all(&self.keys.core(database)).await?;
        let singles = super::read::Singles::of(&self.keys, database, &values);
        if singles.is_empty() {
            return Ok(None);
        }
        singles.core().map(Some).map_err(Into::into)
    }

    fn slot(&self, database: DatabaseId, core: &Core) -> Key {
        self.keys.slot(database, &core.identity())
    }

    /// A transaction relies on this state of a database, whether it has read it or knows of it: it conflicts with whoever
    /// changes the database from there.
    pub(super) fn rely_on(&self, tx: &Tx, database: DatabaseId, core: &Core) -> Outcome<()> {
        tx.conflict_with_writers(&only(self.slot(database, core)))
    }

    /// The same for a state that was read: also with whoever takes the lease away without knowing the state. Whoever knows
    /// of it conflicts on the fence, which is written then.
    pub(super) fn rely_on_read(&self, tx: &Tx, database: DatabaseId, core: &Core) -> Outcome<()> {
        self.rely_on(tx, database, core)?;
        tx.conflict_with_writers(&only(self.keys.of(database, crate::keys::Kind::Lease)))
    }

    /// A transaction changes the database from this state. Every one does this, unless it only takes the lease away: so
    /// whoever relies on the state conflicts, however late its request arrives. Hence nobody needs to conflict on the
    /// head or the staging entry.
    pub(super) fn leave(&self, tx: &Tx, database: DatabaseId, core: &Core) -> Outcome<()> {
        tx.conflict_with_readers(&self.slot(database, core))
    }

    /// Writes a head.
    pub(super) fn put_head(&self, tx: &Tx, database: DatabaseId, head: &HeadValue) -> Outcome<()> {
        tx.put_quietly(&self.keys.of(database, crate::keys::Kind::Head), head)
    }

    /// Writes a staging entry.
    pub(super) fn put_staging(&self, tx: &Tx, database: DatabaseId, staging: &StagingValue) -> Outcome<()> {
        tx.put_quietly(&self.keys.of(database, crate::keys::Kind::Staging), staging)
    }

    /// Writes a lease. Checkpoints and collections conflict on it.
    pub(super) fn put_lease(&self, tx: &Tx, database: DatabaseId, lease: &LeaseValue) -> Outcome<()> {
        tx.put(&self.keys.of(database, crate::keys::Kind::Lease), lease)
    }
}

/// The session and chain that vouch for all of them, and the version to read at.
fn common_chain(touches: &[Touch], now: Duration) -> Option<(SessionId, u64, i64)> {
    let mut chains = touches.iter().map(|touch| touch.state.as_ref().map(|known| (known.session, known.chain)));
    let (session, chain) = chains.next()??;
    if chains.any(|other| other != Some((session, chain))) {
        return None;
    }
    let versions = touches.iter().map(|touch| touch.read_version(now)).collect::<Option<Vec<i64>>>()?;
    Some((session, chain, versions.into_iter().min()?))
}

fn ended(attempts: &Attempts<'_>, fault: Fault) -> Ended {
    if attempts.unknown() { Ended::Unknown(fault) } else { Ended::Undone(fault) }
}
