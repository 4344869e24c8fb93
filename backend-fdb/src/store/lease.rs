//! Granting leases, and giving them back.

use litefleet::store::EpochEnd;
use litefleet::{DatabaseId, Epoch, Error, ErrorKind, PageNo, PageSet, Result, SessionId};

use super::FdbStore;
use super::change::{Change, Commit, Verdict};
use super::open::{Asking, Call};
use super::sessions::version_of;
use crate::error::{Fault, Outcome};
use crate::keys::{Kind, after_key};
use crate::knowledge::{Core, Witness};
use crate::sessions::Standing;
use crate::transact::{Cluster, Priority, Step, Tx};
use crate::values::{EpochEndValue, HolderValue, LeaseValue, SessionValue, Tenure, Value};

/// For how long the ends of epochs are kept, in FoundationDB's versions, of which there are a million in a second, and
/// more only where a recovery skips a hundred seconds' worth: two days, so that it is a day at least.
const EPOCH_END_VERSIONS: u64 = 2 * 24 * 3600 * 1_000_000;

/// Each so many epochs of a database the ends of those before are looked through, the oldest ones first, twice as many:
/// so an open hardly ever pays for it, and where leases do not come in bursts, one look is enough.
const EPOCH_ENDS: u64 = 64;
const ENDS_READ: usize = 128;

/// How many warm pages are kept: their list must fit into one value, and their rows into one open.
const WARM_PAGES: usize = 1_024;

impl FdbStore {
    /// Grants the lease if it is free, and says how the database stands then.
    pub(super) async fn grant(
        &self,
        tx: &Tx,
        call: &Call<'_>,
        id: DatabaseId,
        core: &Core,
        asking: &Asking,
    ) -> Outcome<Core> {
        let other = core.lease.holder().filter(|holder| holder.session != asking.lease.session);
        call.tries().holder = other.map(|holder| holder.session);
        let deposed = matches!(core.lease.tenure, Tenure::Deposed(_));
        if (other.is_some() || deposed) && asking.assumed {
            // Whether its session is alive can only be told of now. And where others want the lease too, a grant whose reply
            // was lost must be known again, which it is not when it was read at an older version.
            return Err(Error::lease_held(format!("{} was held a moment ago", call.request.name)).into());
        }
        call.tries().ended.clear();
        if let Some(holder) = other {
            self.end_holder(tx, call, asking, holder).await?;
        }
        if core.lease.epoch.get() % EPOCH_ENDS == EPOCH_ENDS - 1 {
            self.forget_old_ends(tx, id, core.lease.epoch).await?;
        }
        self.grant_to(tx, call, id, core, asking).await
    }

    /// The record of the session that holds the lease. By force a session ends also where its record cannot be read.
    pub(super) async fn record_of_holder(
        &self,
        tx: &Tx,
        call: &Call<'_>,
        session: SessionId,
    ) -> Outcome<Option<SessionValue>> {
        match self.session(tx, session).await {
            Err(Fault::Refused(error)) if error.kind() == ErrorKind::Corrupt => {
                if call.request.lease.is_none_or(|lease| !lease.force) {
                    let name = &call.request.name;
                    let message = format!(
                        "{name} is held by session {session}, whose record is damaged: take the lease by force, which ends \
                         that session"
                    );
                    return Err(Error::corrupt(message).with_source(error).into());
                }
                tracing::warn!(%session, %error, "a session is ended by force, whose record is damaged");
                Ok(Some(SessionValue::unreadable()))
            }
            found => found,
        }
    }

    /// Ends the session of the holder, if the lease may be taken from it: because the session has ended or expired, or by
    /// force.
    async fn end_holder(&self, tx: &Tx, call: &Call<'_>, asking: &Asking, holder: &HolderValue) -> Outcome<()> {
        let record = match &asking.holder {
            Some((session, record)) if holder.session == *session => record.clone(),
            Some(_) | None => self.record_of_holder(tx, call, holder.session).await?,
        };
        let Some(record) = record.filter(|record| record.ended.is_none()) else {
            // It has ended, or was forgotten.
            return self.disown(tx, holder.session);
        };
        let standing = self.sessions.judge(holder.session, &record, call.before);
        if let Standing::Unchanged(unchanged) = standing
            && !asking.lease.force
        {
            return Err(Error::lease_held(format!(
                "{} is held by {}; the lease is free when it is given back, or when its session has not been renewed for \
                 {:.1} s, of which {:.1} s have passed",
                call.request.name,
                holder.label,
                record.lifetime.as_secs_f64(),
                unchanged.as_secs_f64()
            ))
            .into());
        }
        // Its process learns of it at its next renewal.
        self.end_within(tx, holder.session, record).await?;
        call.tries().ended.push(holder.session);
        Ok(())
    }

    /// After a grant that somebody was quicker than: takes the lease away from its holder, before it is granted by the
    /// next try. A holder that commits without a pause is always quicker than a grant, which relies on the state that the
    /// last commit led to. This relies on the lease alone, so a commit is not in its way; and whatever is committed under
    /// that epoch after it conflicts on the fence, or on the lease where it has read that. `unknown` is whether a grant of
    /// this call may have been made.
    pub(super) async fn depose(&self, call: &Call<'_>, unknown: bool) -> Outcome<()> {
        let (found, holder) = {
            let tries = call.tries();
            (tries.found, tries.holder)
        };
        let (Some(id), Some(_)) = (found, holder) else { return Ok(()) };
        let attempts = self.cluster.attempts_until("depose a holder", Priority::Normal, call.deadline);
        let done = Cluster::run_with(attempts, |tx, _| self.try_depose(tx, call, id, unknown)).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
        }
        call.tries().ended.clear();
        if let Some(session) = done.value {
            self.forget(session);
        }
        Ok(())
    }

    /// Says which session has ended, whether by this try or by one whose reply was lost.
    async fn try_depose(
        &self,
        tx: Tx,
        call: &Call<'_>,
        id: DatabaseId,
        unknown: bool,
    ) -> Outcome<Step<Option<SessionId>>> {
        if unknown && self.was_granted(&tx, call).await?.is_some() {
            // Whoever holds it now has taken it from us.
            return Ok(Step::Return(None));
        }
        let (name, lease) = (self.keys.name(&call.request.name), self.keys.of(id, Kind::Lease));
        let (found, asking, lease) =
            futures_util::try_join!(tx.get::<u64>(&name), self.asking(&tx, call, None), tx.get::<LeaseValue>(&lease))?;
        let (Some(asking), Some(lease)) = (asking, lease) else { return Ok(Step::Return(None)) };
        let holder = lease.holder().filter(|holder| holder.session != asking.lease.session && found == Some(id.get()));
        let Some(holder) = holder else {
            let ended = asking.holder.filter(|(_, record)| record.as_ref().is_none_or(|record| record.ended.is_some()));
            return Ok(Step::Return(ended.map(|(session, _)| session)));
        };
        self.end_holder(&tx, call, &asking, holder).await?;
        self.put_lease(&tx, id, &LeaseValue { epoch: lease.epoch, tenure: Tenure::Deposed(holder.session) })?;
        Ok(Step::Commit(Some(holder.session)))
    }

    /// Grants a lease that is free.
    pub(super) async fn grant_to(
        &self,
        tx: &Tx,
        call: &Call<'_>,
        id: DatabaseId,
        core: &Core,
        asking: &Asking,
    ) -> Outcome<Core> {
        let version = tx.read_version().await?;
        let session = asking.lease.session;
        let end = EpochEnd { epoch: core.lease.epoch, txid: core.head.txid, commit_id: core.head.commit_id };
        let end = EpochEndValue { end, version: version_of(tx).await?, holder: core.lease.granted_to() };
        tx.put_quietly(&self.keys.epoch_end(id, core.lease.epoch), &end)?;
        self.leave(tx, id, core)?;
        let tenure = Tenure::Held(HolderValue { session, label: asking.label.clone() });
        let lease = LeaseValue { epoch: core.lease.epoch.next(), tenure };
        self.put_lease(tx, id, &lease)?;
        let core = Core { lease, ..core.clone() };
        let owned = asking.fence.is_some_and(|fence| fence.owner == self.knowledge.owner());
        if !owned && asking.fence.is_none_or(|fence| fence.owner != [0; 8]) {
            // Granted behind the back of the instance that owns the session.
            self.disown(tx, session)?;
        }
        let witness = asking.fence.filter(|_| owned).map(|fence| Witness { session, fence, version });
        let mut tries = call.tries();
        if tries.touch.as_ref().is_none_or(|touch| touch.database != id) {
            tries.touch = Some(self.knowledge.begin(id));
        }
        tries.granted = Some((core.clone(), witness));
        Ok(core)
    }

    pub(super) async fn release_lease(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        self.change_one("release", Release { database, epoch, warm }).await
    }

    /// The pages that the next open should get along with it, unless there are none.
    pub(super) fn put_warm(&self, tx: &Tx, database: DatabaseId, warm: &[PageNo]) -> Outcome<()> {
        if warm.is_empty() {
            return Ok(());
        }
        let pages: PageSet = warm.iter().copied().take(WARM_PAGES).collect();
        tx.put_quietly(&self.keys.of(database, Kind::Warm), &pages)
    }

    /// As [`forget_old_ends`](Self::forget_old_ends), for a purge, which does not know how the database stands. Says whether
    /// there is something to commit.
    pub(super) async fn forget_ends_of(&self, tx: &Tx, id: DatabaseId) -> Outcome<bool> {
        let now = version_of(tx).await?;
        let first = tx.peek_range(&self.keys.epoch_ends(id, Epoch(u64::MAX)), 1).await?;
        let Some(pair) = first.pairs().first() else { return Ok(false) };
        if EpochEndValue::decode(pair.key(), pair.value()).is_ok_and(|end| !is_old(&end, now)) {
            return Ok(false);
        }
        match tx.peek::<LeaseValue>(&self.keys.of(id, Kind::Lease)).await {
            Ok(Some(lease)) => self.forget_old_ends(tx, id, lease.epoch).await,
            // It was deleted meanwhile, or is damaged, as whoever opens it is told.
            Ok(None) | Err(Fault::Refused(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Removes the ends of epochs that are old enough. Each epoch before the present one has left its end, the later the
    /// newer. Says whether there were any.
    async fn forget_old_ends(&self, tx: &Tx, id: DatabaseId, present: Epoch) -> Outcome<bool> {
        let now = version_of(tx).await?;
        let (first, end) = self.keys.epoch_ends(id, present);
        let found = tx.peek_range(&(first.clone(), end), ENDS_READ).await?;
        let mut last = None;
        for pair in found.pairs() {
            match EpochEndValue::decode(pair.key(), pair.value()) {
                Ok(end) if is_old(&end, now) => last = Some(end.end.epoch),
                Ok(_) => break,
                // Nobody needs it: it goes when one after it does. A lease is granted all the same.
                Err(error) => tracing::warn!(database = %id, %error, "the end of an epoch is passed over"),
            }
        }
        let Some(mut old) = last else { return Ok(false) };
        let reached = found.pairs().last().is_some_and(|pair| pair.key() == self.keys.epoch_end(id, old).as_slice());
        // After a burst there may be millions: the last of the old ones is found by halves.
        let mut young = if reached { present } else { old.next() };
        while young.get() - old.get() > 1 {
            let middle = Epoch(old.get() + (young.get() - old.get()) / 2);
            match tx.peek::<EpochEndValue>(&self.keys.epoch_end(id, middle)).await {
                Ok(Some(end)) if is_old(&end, now) => old = middle,
                Ok(_) | Err(Fault::Refused(_)) => young = middle,
                Err(fault) => return Err(fault),
            }
        }
        tx.clear_range(&(first, after_key(self.keys.epoch_end(id, old))));
        Ok(true)
    }
}

/// Whether the end of an epoch may be forgotten, at a version.
fn is_old(end: &EpochEndValue, now: u64) -> bool {
    now.saturating_sub(end.version) > EPOCH_END_VERSIONS
}

/// Gives a lease back.
struct Release {
    database: DatabaseId,
    epoch: Epoch,
    warm: Vec<PageNo>,
}

impl Change for Release {
    fn database(&self) -> DatabaseId {
        self.database
    }

    fn judge(&self, core: &Core) -> Result<Verdict> {
        if core.lease.epoch == self.epoch && core.lease.tenure == Tenure::Free {
            return Ok(Verdict::Done);
        }
        core.fence(self.epoch)?;
        Ok(Verdict::Apply)
    }

    fn apply(&self, store: &FdbStore, tx: &Tx, core: &Core) -> Outcome<Core> {
        let lease = LeaseValue { epoch: core.lease.epoch, tenure: Tenure::Free };
        store.put_lease(tx, self.database, &lease)?;
        store.put_warm(tx, self.database, &self.warm)?;
        Ok(Core { lease, ..core.clone() })
    }

    fn commit(&self) -> Option<Commit> {
        None
    }
}
