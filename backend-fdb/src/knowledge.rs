//! What this instance knows without asking: how the databases that it holds stand, and up to which version nobody else
//! can have changed them. This is what lets a commit go out without a read (`docs/decisions/0011`).
//!
//! Every write to a database by anybody but the instance that owns the holder's session also writes that session's
//! *fence*. A transaction of ours that conflicts on the fence, with a read version just below the version of an earlier
//! one, proves by its success that the fence was not written between the two: also not in the earlier one's own batch,
//! all commits of which have one version. A *chain* of such transactions therefore vouches for all databases of the
//! session at once, from the moment each was last read or written by us.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefleet::store::Head;
use litefleet::{DatabaseId, Epoch, Error, Result, SessionId, Txid};

use crate::keys::put_number;
use crate::values::{Entry, FenceValue, HeadValue, LeaseValue, ProgressValue, StagingValue, Tenure};

/// For how long a version of ours serves as a read version of a commit. FoundationDB forgets after five seconds; what is
/// over is for the commit to arrive in. It is a little longer than from one renewal of a session to the next, by the
/// fleet's usual settings: so a process that rests keeps its chains.
const FRESH: Duration = Duration::from_millis(4_400);

/// The same for versions that are read at: the reading itself takes time too.
const FRESH_FOR_READING: Duration = Duration::from_secs(3);

/// What every write to a database is conditional on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Core {
    pub(crate) head: HeadValue,
    pub(crate) staging: StagingValue,
    pub(crate) lease: LeaseValue,
}

impl Core {
    /// A new database.
    pub(crate) fn empty() -> Self {
        Self { head: HeadValue::default(), staging: StagingValue::default(), lease: LeaseValue::default() }
    }

    pub(crate) fn holder(&self) -> Option<SessionId> {
        self.lease.holder().map(|holder| holder.session)
    }

    /// Bytes that say which state of the database this is, and that no other of its states has: epochs, txids and
    /// generations only grow, within an epoch a lease is held and then free, and within a generation a staging entry is
    /// being discarded, then none, then open with a sequence that grows.
    pub(crate) fn identity(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        put_number(&mut out, self.lease.epoch.get());
        put_number(&mut out, self.head.txid.get());
        put_number(&mut out, self.staging.generation);
        let held = u8::from(self.lease.holder().is_some());
        match self.staging.entry {
            Entry::Discarding => out.push(held),
            Entry::None => out.push(2 | held),
            Entry::Open { last } => {
                out.push(4 | held);
                put_number(&mut out, last);
            }
        }
        out
    }

    /// `Fenced` unless the epoch is the current one, and held.
    pub(crate) fn fence(&self, epoch: Epoch) -> Result<()> {
        let current = self.lease.epoch;
        if current != epoch {
            return Err(Error::fenced(format!("epoch {epoch} is over, the current one is {current}")));
        }
        match self.lease.tenure {
            Tenure::Held(_) => Ok(()),
            Tenure::Free => Err(Error::fenced(format!("the lease of epoch {epoch} was released"))),
            Tenure::Deposed(_) => Err(Error::fenced(format!("the lease of epoch {epoch} was taken away"))),
        }
    }

    /// `Conflict` unless the head is where it is expected.
    pub(crate) fn expect(&self, txid: Txid) -> Result<()> {
        if self.head.txid == txid {
            Ok(())
        } else {
            Err(Error::conflict(format!("expected txid {txid}, the head is at {}", self.head.txid)))
        }
    }

    /// The head as the contract has it.
    pub(crate) fn public(&self, progress: &ProgressValue) -> Head {
        Head {
            epoch: self.lease.epoch,
            holder: self.lease.holder().map(|holder| litefleet::store::Holder {
                session: holder.session,
                label: holder.label.clone(),
                expires_in: None,
            }),
            txid: self.head.txid,
            commit_id: self.head.commit_id,
            size: self.head.size,
            checkpoint: progress.checkpoint,
            horizon: progress.horizon,
            generation: self.staging.generation,
            staged: self.staging.entry != Entry::None,
        }
    }
}

/// A database whose state is known.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) core: Core,
    pub(crate) session: SessionId,
    /// The chain that vouches for it.
    pub(crate) chain: u64,
}

#[derive(Debug, Default)]
struct Tracked {
    /// Changes under way.
    in_flight: u32,
    /// How many changes were begun.
    begun: u64,
    /// The session that this instance was granted the lease for last.
    session: Option<SessionId>,
    state: Option<Known>,
    /// The newest version that anything this instance has said of the database is of. Its pages are read at that one, or
    /// a later one: else a checkpoint whose records the caller has given up could be missed.
    told: i64,
    view: Option<View>,
}

/// How far checkpoints and collections have got, as far as those who read pages are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) checkpoint: Txid,
    pub(crate) horizon: Txid,
}

/// The database at one version, with what needs not be read there again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) version: i64,
    /// When it was asked for, or its commit was begun.
    pub(crate) at: Duration,
    pub(crate) reached: Reached,
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    id: u64,
    fence: FenceValue,
    /// The newest version that the fence is known to be unchanged at.
    version: i64,
    /// When the commit that got it was begun.
    at: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    databases: HashMap<DatabaseId, Tracked>,
    chains: HashMap<SessionId, Chain>,
    last_chain: u64,
    /// The newest version that a commit of this instance got, and when that was begun.
    newest: Option<(i64, Duration)>,
    /// The newest version that this instance has changed any database at, and which it changed there.
    changed: (i64, HashSet<DatabaseId>),
}

/// What this instance knows.
#[derive(Debug)]
pub(crate) struct Knowledge {
    /// This instance, in fences.
    owner: [u8; 8],
    inner: Mutex<Inner>,
}

/// What a transaction has read of a session's fence, and at which version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    pub(crate) session: SessionId,
    pub(crate) fence: FenceValue,
    pub(crate) version: i64,
}

impl Knowledge {
    pub(crate) fn new(owner: [u8; 8]) -> Self {
        Self { owner, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one step, so a panic leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who this instance is, in the fences of its sessions.
    pub(crate) fn owner(&self) -> [u8; 8] {
        self.owner
    }

    /// A change of the database begins. What is known of it is taken out, and comes back when the change is known to
    /// have been made and no other was begun meanwhile: whatever happens to this one, nobody relies on what it may have
    /// changed.
    pub(crate) fn begin(self: &Arc<Self>, database: DatabaseId) -> Touch {
        let mut inner = self.lock();
        let tracked = inner.databases.entry(database).or_default();
        let alone = tracked.in_flight == 0;
        tracked.in_flight += 1;
        tracked.begun += 1;
        let (begun, session, state) = (tracked.begun, tracked.session, tracked.state.take());
        // Not later: the version must not be newer than a change of ours that begins after this one, which this one has
        // to see.
        let vouched = state.as_ref().and_then(|known| {
            let chain = inner.chains.get(&known.session)?;
            (chain.id == known.chain).then_some((chain.version, chain.at))
        });
        Touch { knowledge: Arc::clone(self), database, begun, alone, session, state, vouched, learned: None }
    }

    /// Whose the lease of a database is likely to be: the session that this instance was granted it for last.
    pub(crate) fn likely_holder(&self, database: DatabaseId) -> Option<SessionId> {
        self.lock().databases.get(&database)?.session
    }

    /// A version to read the pages of a database at that we hold, when it was asked for, and what was reached then, if
    /// known.
    pub(crate) fn version_for_reading(
        &self,
        database: DatabaseId,
        now: Duration,
    ) -> Option<(i64, Duration, Option<Reached>)> {
        let inner = self.lock();
        let tracked = inner.databases.get(&database).filter(|tracked| tracked.session.is_some())?;
        let may_be = |version: i64, at: Duration| version >= tracked.told && now.saturating_sub(at) < FRESH_FOR_READING;
        if let Some(view) = tracked.view.filter(|view| may_be(view.version, view.at)) {
            return Some((view.version, view.at, Some(view.reached)));
        }
        inner.newest.filter(|(version, at)| may_be(*version, *at)).map(|(version, at)| (version, at, None))
    }

    /// The newest version that a commit of ours got, while a change that reads at it can still be committed.
    pub(crate) fn version_for_changing(&self, now: Duration) -> Option<i64> {
        let (version, at) = self.lock().newest?;
        (now.saturating_sub(at) < FRESH_FOR_READING).then_some(version)
    }

    /// A version for a grant to read at, and what the fence of the asking session is there, when a chain vouches for that:
    /// just below the chain's, as for any change. Not where the database was changed by this instance since: a grant
    /// from before that could not be committed.
    pub(crate) fn version_for_granting(
        &self,
        session: SessionId,
        database: Option<DatabaseId>,
        now: Duration,
    ) -> Option<(i64, FenceValue)> {
        let inner = self.lock();
        let chain = inner.chains.get(&session)?;
        let (version, changed) = &inner.changed;
        let hidden = *version >= chain.version && database.is_some_and(|database| changed.contains(&database));
        let fresh = now.saturating_sub(chain.at) < FRESH_FOR_READING;
        (fresh && !hidden).then_some((chain.version - 1, chain.fence))
    }

    /// A transaction of ours was committed.
    pub(crate) fn committed(&self, (version, at): (i64, Duration)) {
        let mut inner = self.lock();
        if inner.newest.is_none_or(|(newest, _)| newest < version) {
            inner.newest = Some((version, at));
        }
    }

    /// A database was changed by a transaction of ours that was committed at this version.
    pub(crate) fn changed(&self, database: DatabaseId, version: i64) {
        {
            let (newest, changed) = &mut self.lock().changed;
            if *newest < version {
                *newest = version;
                changed.clear();
            }
            if *newest == version {
                changed.insert(database);
            }
        }
        self.telling(database, version);
    }

    /// What a caller is about to be told of a database is of this version.
    pub(crate) fn telling(&self, database: DatabaseId, version: i64) {
        if let Some(tracked) = self.lock().databases.get_mut(&database) {
            tracked.told = tracked.told.max(version);
        }
    }

    /// A database was read at this version.
    pub(crate) fn viewed(&self, database: DatabaseId, view: View) {
        if let Some(tracked) = self.lock().databases.get_mut(&database)
            && tracked.view.is_none_or(|old| old.version < view.version)
        {
            tracked.view = Some(view);
        }
    }

    /// A transaction was committed that conflicts on the fence it has read. Returns the chain that vouches now, if this
    /// instance owns the session.
    pub(crate) fn witnessed(&self, witness: &Witness, (version, at): (i64, Duration)) -> Option<u64> {
        let mut inner = self.lock();
        if witness.fence.owner != self.owner {
            inner.chains.remove(&witness.session);
            return None;
        }
        if let Some(chain) = inner.chains.get_mut(&witness.session) {
            if chain.fence == witness.fence {
                if chain.version < version {
                    (chain.version, chain.at) = (version, at);
                }
                return Some(chain.id);
            }
            if chain.version > witness.version {
                // It is older than what is known.
                return None;
            }
        }
        inner.last_chain += 1;
        let id = inner.last_chain;
        inner.chains.insert(witness.session, Chain { id, fence: witness.fence, version, at });
        Some(id)
    }

    /// A transaction on a chain was committed.
    pub(crate) fn extended(&self, session: SessionId, id: u64, (version, at): (i64, Duration)) {
        let mut inner = self.lock();
        if let Some(chain) = inner.chains.get_mut(&session)
            && chain.id == id
            && chain.version < version
        {
            (chain.version, chain.at) = (version, at);
        }
    }

    /// A session is over, and with it what was known of its databases: nobody may ever ask for them again.
    pub(crate) fn forget(&self, session: SessionId) {
        let mut inner = self.lock();
        inner.chains.remove(&session);
        inner.databases.retain(|_, tracked| {
            if tracked.session == Some(session) {
                (tracked.session, tracked.state) = (None, None);
            }
            tracked.in_flight > 0 || tracked.session.is_some()
        });
    }
}

/// A change of a database that is under way.
#[derive(Debug)]
pub(crate) struct Touch {
    knowledge: Arc<Knowledge>,
    pub(crate) database: DatabaseId,
    begun: u64,
    /// Whether no other was under way when it began. One that was may have been made after it, and learned of before.
    alone: bool,
    /// The session that this instance was granted the lease for last.
    pub(crate) session: Option<SessionId>,
    /// What was known before.
    pub(crate) state: Option<Known>,
    /// The version of the chain that vouches for it, and when the commit that got it was begun.
    vouched: Option<(i64, Duration)>,
    learned: Option<Learned>,
}

#[derive(Debug)]
enum Learned {
    State(Known),
    Session(SessionId),
    NotHeld,
}

impl Touch {
    /// The read version for a change that relies on what is known: just below the chain's, because what others have
    /// committed in the same batch has the same version, and must be seen.
    pub(crate) fn read_version(&self, now: Duration) -> Option<i64> {
        let (version, at) = self.vouched?;
        (now.saturating_sub(at) < FRESH).then_some(version - 1)
    }

    /// The change was made, and this is how the database stands.
    pub(crate) fn made(&mut self, known: Known) {
        self.learned = Some(Learned::State(known));
    }

    /// The lease was granted for a session, and no chain vouches for it.
    pub(crate) fn granted(&mut self, session: SessionId) {
        self.learned = Some(Learned::Session(session));
    }

    /// We do not hold the database.
    pub(crate) fn not_held(&mut self) {
        self.learned = Some(Learned::NotHeld);
    }
}

impl Drop for Touch {
    fn drop(&mut self) {
        let mut inner = self.knowledge.lock();
        let inner = &mut *inner;
        let Some(tracked) = inner.databases.get_mut(&self.database) else { return };
        tracked.in_flight = tracked.in_flight.saturating_sub(1);
        let alone = self.alone && tracked.begun == self.begun;
        match self.learned.take() {
            // Unless the session was lost meanwhile.
            Some(Learned::State(known)) if inner.chains.contains_key(&known.session) => {
                tracked.session = Some(known.session);
                if alone {
                    tracked.state = Some(known);
                }
            }
            Some(Learned::Session(session)) => tracked.session = Some(session),
            // One that began later may have taken the lease again.
            Some(Learned::NotHeld) if alone => tracked.session = None,
            Some(Learned::NotHeld | Learned::State(_)) | None => {}
        }
        if tracked.in_flight == 0 && tracked.session.is_none() {
            inner.databases.remove(&self.database);
        }
    }
}

#[cfg(test)]
#[path = "knowledge_tests.rs"]
mod tests;
