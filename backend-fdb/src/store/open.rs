//! Opening, granting, and giving back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use litefleet::store::{EpochEnd, LeaseRequest, OpenRequest, Opened, ReadRow};
use litefleet::{DatabaseId, Epoch, Error, PageNo, PageSet, Result, SessionId, Txid};

use super::FdbStore;
use super::change::{Change, Commit, Verdict};
use super::read::{Records, Singles, tail};
use super::sessions::{over, version_of};
use crate::error::Outcome;
use crate::keys::Kind;
use crate::knowledge::{Core, Known, Touch, Witness};
use crate::sessions::Standing;
use crate::transact::{Priority, Step, Tx};
use crate::values::{EpochEndValue, FenceValue, HolderValue, LeaseValue, ProgressValue, SessionValue};

/// For how long the ends of epochs are kept, in FoundationDB's versions, of which there are a million in a second, and
/// more only where a recovery jumps ahead by a hundred seconds' worth: two days, so that it is a day at least.
const EPOCH_END_VERSIONS: u64 = 2 * 24 * 3600 * 1_000_000;

/// How many warm pages are kept: their list must fit into one value, and their rows into one open.
const WARM_PAGES: usize = 1_024;

/// How many ends of epochs a grant looks at, to remove those that are old enough.
const EPOCH_ENDS: usize = 8;

/// What an open has done that its tries share.
#[derive(Default)]
struct Progress {
    /// The id for a database that has to be created, once one was needed.
    fresh: Option<DatabaseId>,
    touch: Option<Touch>,
    /// What the last try wrote.
    granted: Option<(Core, Option<Witness>)>,
    /// Sessions that the last try has ended.
    ended: Vec<SessionId>,
}

/// The asking session as it was found.
struct Asking {
    lease: LeaseRequest,
    record: SessionValue,
    fence: Option<FenceValue>,
}

/// A database as it was found.
struct Standings {
    core: Core,
    progress: ProgressValue,
    warm: PageSet,
}

impl FdbStore {
    pub(super) async fn open_database(&self, request: &OpenRequest) -> Result<Opened> {
        if let Some(lease) = request.lease
            && self.sessions.is_expired_here(lease.session)
        {
            self.end(lease.session).await?;
            return Err(over(lease.session));
        }
        let shared = Mutex::new(Progress::default());
        let before = self.sessions.now();
        let tries = &shared;
        let body = |tx, _| self.try_open(tx, request, tries, before);
        let done = self.cluster.run("open", Priority::Normal, body).await?;
        let Progress { touch, granted, ended, .. } = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
            ended.into_iter().for_each(|session| self.forget(session));
            if let (Some(mut touch), Some((core, witness)), Some(lease)) = (touch, granted, request.lease) {
                let chain = witness.and_then(|witness| self.knowledge.witnessed(&witness, committed));
                match chain {
                    Some(chain) => touch.made(Known { core, session: lease.session, chain }),
                    None => touch.granted(lease.session),
                }
            }
        }
        self.names.remember(&request.name, done.value.database);
        Ok(done.value)
    }

    async fn try_open(
        &self,
        tx: Tx,
        request: &OpenRequest,
        shared: &Mutex<Progress>,
        before: Duration,
    ) -> Outcome<Step<Opened>> {
        // While the id is looked up, what it was the last time is read too.
        let guess = request.known.map(|(id, _)| id).or_else(|| self.names.recall(&request.name));
        let name_key = self.keys.name(&request.name);
        let guessed = async {
            match guess {
                Some(id) => self.everything_of(&tx, request, id).await.map(Some),
                None => Ok(None),
            }
        };
        let (found, asking, guessed) =
            futures_util::try_join!(tx.get::<u64>(&name_key), self.asking(&tx, request.lease), guessed)?;
        let Some(id) = found.map(DatabaseId) else {
            return self.create(tx, request, asking, shared).await;
        };
        let found = match guessed {
            Some(found) if guess == Some(id) => found,
            _ => self.everything_of(&tx, request, id).await?,
        };
        let (standings, known_records) = found.ok_or_else(|| {
            Error::corrupt(format!("the name {} leads to database {id}, which does not exist", request.name))
        })?;
        let after = request.known.filter(|(known, _)| *known == id).map(|(_, txid)| txid);
        let records = async {
            match known_records {
                Some(records) => Ok(records),
                None => {
                    let Standings { core, progress, .. } = &standings;
                    self.records(&tx, id, progress.checkpoint, core.head.txid, request.tail_bytes).await
                }
            }
        };
        let warm = async {
            match after {
                None if !standings.warm.is_empty() => {
                    self.newest(&tx, id, &standings.warm, standings.progress.checkpoint).await
                }
                Some(_) | None => Ok(Vec::new()),
            }
        };
        let grant = async {
            match &asking {
                Some(asking) => self.grant(&tx, &request.name, id, &standings.core, asking, shared, before).await.map(Some),
                None => Ok(None),
            }
        };
        let (granted, records, warm) = futures_util::try_join!(grant, records, warm)?;
        let Standings { core, progress, .. } = standings;
        let warm: Vec<ReadRow> = warm.into_iter().flat_map(|(_, found)| found.rows(id)).collect();
        let tail = tail(records, after.unwrap_or(progress.checkpoint), core.head.txid, &progress, request.tail_bytes)?;
        let opened = |core: &Core| Opened { database: id, created: self.is_fresh(shared, id), head: core.public(&progress), tail, warm };
        Ok(match granted {
            Some(core) => Step::Commit(opened(&core)),
            None => Step::Return(opened(&core)),
        })
    }

    /// Whether this call has created the database: a try whose reply was lost may have.
    fn is_fresh(&self, shared: &Mutex<Progress>, id: DatabaseId) -> bool {
        shared.lock().unwrap_or_else(PoisonError::into_inner).fresh == Some(id)
    }

    /// The small values of a database that may exist, and the log after what is known of it.
    async fn everything_of(
        &self,
        tx: &Tx,
        request: &OpenRequest,
        id: DatabaseId,
    ) -> Outcome<Option<(Standings, Option<Records>)>> {
        let after = request.known.filter(|(known, _)| *known == id).map(|(_, txid)| txid);
        let records = async {
            match after {
                Some(after) => self.records(tx, id, after, Txid::MAX, request.tail_bytes).await.map(Some),
                None => Ok(None),
            }
        };
        if request.lease.is_some() {
            tx.conflict_with_writers(&self.keys.core(id))?;
        }
        let range = self.keys.singles(id);
        let (piece, records) = futures_util::try_join!(tx.peek_range(&range, 0), records)?;
        let singles = Singles::of(&self.keys, id, piece.pairs());
        if singles.is_empty() {
            return Ok(None);
        }
        let standings = Standings { core: singles.core()?, progress: singles.progress()?, warm: singles.warm()? };
        Ok(Some((standings, records)))
    }

    /// The asking session, which must be alive when this transaction commits.
    async fn asking(&self, tx: &Tx, lease: Option<LeaseRequest>) -> Outcome<Option<Asking>> {
        let Some(lease) = lease else { return Ok(None) };
        let (record, fence) = (self.keys.session_record(lease.session), self.keys.session_fence(lease.session));
        // Renewals change the record, and only the end changes the fence.
        let (record, fence) = futures_util::try_join!(tx.peek::<SessionValue>(&record), tx.get::<FenceValue>(&fence))?;
        match record.filter(|record| record.ended.is_none()) {
            Some(record) => Ok(Some(Asking { lease, record, fence })),
            None => Err(over(lease.session).into()),
        }
    }

    async fn create(
        &self,
        tx: Tx,
        request: &OpenRequest,
        asking: Option<Asking>,
        shared: &Mutex<Progress>,
    ) -> Outcome<Step<Opened>> {
        if !request.create {
            return Err(Error::not_found(format!("there is no database named {}", request.name)).into());
        }
        let reserved = shared.lock().unwrap_or_else(PoisonError::into_inner).fresh;
        let id = match reserved {
            Some(id) => id,
            None => self.next_id().await?,
        };
        shared.lock().unwrap_or_else(PoisonError::into_inner).fresh = Some(id);
        let (core, progress) = (Core::empty(), ProgressValue::default());
        tx.put(&self.keys.name(&request.name), &id.get())?;
        tx.put(&self.keys.of(id, Kind::Name), &request.name.as_str().to_owned())?;
        self.put_head(&tx, id, &core.head)?;
        self.put_staging(&tx, id, &core.staging)?;
        tx.put(&self.keys.of(id, Kind::Progress), &progress)?;
        let core = match asking {
            Some(asking) => self.grant_to(&tx, id, &core, &asking, shared).await?,
            None => {
                tx.put(&self.keys.of(id, Kind::Lease), &core.lease)?;
                core
            }
        };
        let tail = litefleet::store::Tail::Complete(Vec::new());
        Ok(Step::Commit(Opened { database: id, created: true, head: core.public(&progress), tail, warm: Vec::new() }))
    }

    /// Grants the lease if it is free, and says how the database stands then.
    #[expect(clippy::too_many_arguments, reason = "what a grant depends on")]
    async fn grant(
        &self,
        tx: &Tx,
        name: &litefleet::DatabaseName,
        id: DatabaseId,
        core: &Core,
        asking: &Asking,
        shared: &Mutex<Progress>,
        before: Duration,
    ) -> Outcome<Core> {
        let other = core.lease.holder.as_ref().filter(|holder| holder.session != asking.lease.session);
        let mut ended = Vec::new();
        if let Some(holder) = other {
            let record = tx.get::<SessionValue>(&self.keys.session_record(holder.session)).await?;
            if let Some(record) = record.filter(|record| record.ended.is_none()) {
                let standing = self.sessions.judge(holder.session, &record, before);
                if let Standing::Unchanged(unchanged) = standing
                    && !asking.lease.force
                {
                    let held = format!(
                        "{name} is held by {}; the lease is free when it is given back, or when its session has not been \
                         renewed for {:.1} s, of which {:.1} s have passed",
                        holder.label,
                        record.lifetime.as_secs_f64(),
                        unchanged.as_secs_f64()
                    );
                    return Err(Error::lease_held(held).into());
                }
                // Its process learns of it at its next renewal.
                self.end_within(tx, holder.session, record).await?;
                ended.push(holder.session);
            } else {
                self.disown(tx, holder.session)?;
            }
        }
        shared.lock().unwrap_or_else(PoisonError::into_inner).ended = ended;
        self.forget_old_ends(tx, id, core.lease.epoch).await?;
        self.grant_to(tx, id, core, asking, shared).await
    }

    async fn forget_old_ends(&self, tx: &Tx, id: DatabaseId, below: Epoch) -> Outcome<()> {
        let piece = tx.peek_range(&self.keys.epoch_ends(id, below), EPOCH_ENDS).await?;
        let now = version_of(tx).await?;
        for pair in piece.pairs() {
            let end = <EpochEndValue as crate::values::Value>::decode(pair.key(), pair.value())?;
            if now.saturating_sub(end.version) > EPOCH_END_VERSIONS {
                tx.clear(pair.key());
            }
        }
        Ok(())
    }

    async fn grant_to(
        &self,
        tx: &Tx,
        id: DatabaseId,
        core: &Core,
        asking: &Asking,
        shared: &Mutex<Progress>,
    ) -> Outcome<Core> {
        let version = tx.read_version().await?;
        let session = asking.lease.session;
        let end = EpochEnd { epoch: core.lease.epoch, txid: core.head.txid, commit_id: core.head.commit_id };
        let end = EpochEndValue { end, version: version_of(tx).await? };
        tx.put(&self.keys.epoch_end(id, core.lease.epoch), &end)?;
        let holder = HolderValue { session, label: asking.record.label.clone() };
        let lease = LeaseValue { epoch: core.lease.epoch.next(), holder: Some(holder) };
        self.put_lease(tx, id, &lease)?;
        let core = Core { lease, ..core.clone() };
        let witness = asking.fence.map(|fence| Witness { session, fence, version });
        let owned = witness.is_some_and(|witness| witness.fence.owner == self.knowledge.owner());
        if !owned && asking.fence.is_none_or(|fence| fence.owner != [0; 8]) {
            // Granted behind the back of the instance that owns the session.
            self.disown(tx, session)?;
        }
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.touch.as_ref().is_none_or(|touch| touch.database != id) {
            shared.touch = Some(self.knowledge.begin(id));
        }
        shared.granted = Some((core.clone(), witness.filter(|_| owned)));
        Ok(core)
    }

    pub(super) async fn release_lease(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        let warm = warm.into_iter().take(WARM_PAGES).collect();
        self.change_one("release", Release { database, epoch, warm }).await
    }
}

/// Gives a lease back.
struct Release {
    database: DatabaseId,
    epoch: Epoch,
    warm: PageSet,
}

impl Change for Release {
    fn database(&self) -> DatabaseId {
        self.database
    }

    fn judge(&self, core: &Core) -> Result<Verdict> {
        if core.lease.epoch == self.epoch && core.lease.holder.is_none() {
            return Ok(Verdict::Done);
        }
        core.fence(self.epoch)?;
        Ok(Verdict::Apply)
    }

    fn apply(&self, store: &FdbStore, tx: &Tx, core: &Core) -> Outcome<Core> {
        let lease = LeaseValue { epoch: core.lease.epoch, holder: None };
        store.put_lease(tx, self.database, &lease)?;
        tx.put(&store.keys.of(self.database, Kind::Warm), &self.warm)?;
        Ok(Core { lease, ..core.clone() })
    }

    fn commit(&self) -> Option<Commit> {
        None
    }
}
