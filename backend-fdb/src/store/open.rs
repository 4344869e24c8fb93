//! Opening: a name leads to an id, that to the small values, and these to the tail and the warm pages. Guesses save the
//! steps between.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefleet::store::{LeaseRequest, OpenRequest, Opened, ReadRow, Tail};
use litefleet::{DatabaseId, Error, PageSet, Result, SessionId, Txid};

use super::FdbStore;
use super::read::{Records, Singles, tail};
use super::sessions::over;
use crate::error::Outcome;
use crate::keys::Kind;
use crate::knowledge::{Core, Known, Touch, Witness};
use crate::transact::{Priority, Step, Tx};
use crate::values::{EpochEndValue, FenceValue, ProgressValue, SessionValue};

/// One call, and what its tries share.
pub(super) struct Call<'r> {
    pub(super) request: &'r OpenRequest,
    /// The time, by the sessions' clock, before anything was asked.
    pub(super) before: Duration,
    tries: Mutex<Tries>,
}

#[derive(Default)]
pub(super) struct Tries {
    /// The id for a database that has to be created, once one was needed.
    fresh: Option<DatabaseId>,
    pub(super) touch: Option<Touch>,
    /// How the database stands after the last try, and what that has read of the asking session's fence.
    pub(super) granted: Option<(Core, Option<Witness>)>,
    /// What the last try returns if it has been committed.
    opened: Option<Opened>,
    /// Sessions that the last try has ended.
    pub(super) ended: Vec<SessionId>,
}

impl Call<'_> {
    pub(super) fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The txid after which the log is wanted, when the caller knows the database.
    fn known(&self, id: DatabaseId) -> Option<Txid> {
        self.request.known.filter(|(known, _)| *known == id).map(|(_, txid)| txid)
    }
}

/// The asking session as it was found, alive.
pub(super) struct Asking {
    pub(super) lease: LeaseRequest,
    pub(super) record: SessionValue,
    pub(super) fence: Option<FenceValue>,
}

/// A database as it was found.
struct Standing {
    core: Core,
    progress: ProgressValue,
    warm: PageSet,
    /// The log after what the caller knows.
    records: Option<Records>,
}

impl FdbStore {
    pub(super) async fn open_database(&self, request: &OpenRequest) -> Result<Opened> {
        if let Some(lease) = request.lease
            && self.sessions.is_expired_here(lease.session)
        {
            self.end(lease.session).await?;
            return Err(over(lease.session));
        }
        let call = Call { request, before: self.sessions.now(), tries: Mutex::default() };
        let shared = &call;
        let body = |tx, unknown| self.try_open(tx, shared, unknown);
        let done = self.cluster.run("open", Priority::Normal, body).await?;
        self.names.remember(&request.name, done.value.database);
        let mut tries = call.tries();
        let Tries { touch, granted, ended, .. } = &mut *tries;
        let (Some(touch), Some(lease)) = (touch, request.lease) else { return Ok(done.value) };
        // At the least whose the lease is is known.
        touch.granted(lease.session);
        if let (Some(committed), Some((core, witness))) = (done.committed, granted.take()) {
            self.knowledge.committed(committed);
            for session in ended.drain(..) {
                self.forget(session);
            }
            if let Some(chain) = witness.and_then(|witness| self.knowledge.witnessed(&witness, committed)) {
                touch.made(Known { core, session: lease.session, chain });
            }
        }
        Ok(done.value)
    }

    async fn try_open(&self, tx: Tx, call: &Call<'_>, unknown: bool) -> Outcome<Step<Opened>> {
        let request = call.request;
        if unknown && let Some(opened) = self.was_granted(&tx, call).await? {
            return Ok(Step::Return(opened));
        }
        // While the id is looked up, what it was the last time is read too.
        let guess = request.known.map(|(id, _)| id).or_else(|| self.names.recall(&request.name));
        let guessed = async {
            match guess {
                Some(id) => self.standing(&tx, call, id).await,
                None => Ok(None),
            }
        };
        let name_key = self.keys.name(&request.name);
        let (found, asking, guessed) =
            futures_util::try_join!(tx.get::<u64>(&name_key), self.asking(&tx, request.lease), guessed)?;
        let Some(id) = found.map(DatabaseId) else { return self.create(tx, call, asking).await };
        let found = if guess == Some(id) { guessed } else { self.standing(&tx, call, id).await? };
        let Some(Standing { core, progress, warm, records }) = found else {
            let message = format!("the name {} leads to database {id}, which does not exist", request.name);
            return Err(Error::corrupt(message).into());
        };
        let known = call.known(id);
        let records = async {
            match records {
                Some(records) => Ok(records),
                None => self.records(&tx, id, progress.checkpoint, core.head.txid, request.tail_bytes).await,
            }
        };
        let warm = async {
            if known.is_some() || warm.is_empty() {
                return Ok(Vec::new());
            }
            self.newest(&tx, id, &warm, progress.checkpoint).await
        };
        let grant = async {
            match &asking {
                Some(asking) => self.grant(&tx, call, id, &core, asking).await.map(Some),
                None => Ok(None),
            }
        };
        let (granted, records, warm) = futures_util::try_join!(grant, records, warm)?;
        let warm: Vec<ReadRow> = warm.into_iter().flat_map(|(_, found)| found.rows(id)).collect();
        let after = known.unwrap_or(progress.checkpoint);
        let tail = tail(records, after, core.head.txid, &progress, request.tail_bytes)?;
        let head = granted.as_ref().unwrap_or(&core).public(&progress);
        let mut tries = call.tries();
        // A try whose reply was lost may have created it.
        let opened = Opened { database: id, created: tries.fresh == Some(id), head, tail, warm };
        if granted.is_none() {
            return Ok(Step::Return(opened));
        }
        tries.opened = Some(opened.clone());
        Ok(Step::Commit(opened))
    }

    /// What the last try has returned, if it was committed and its reply was lost: then the lease was granted, whoever has
    /// it now.
    async fn was_granted(&self, tx: &Tx, call: &Call<'_>) -> Outcome<Option<Opened>> {
        let last = call.tries().opened.clone();
        let (Some(last), Some(lease)) = (last, call.request.lease) else { return Ok(None) };
        let (id, epoch) = (last.database, last.head.epoch);
        let end = self.keys.epoch_end(id, epoch);
        let (core, end) = futures_util::try_join!(self.peek_core(tx, id), tx.peek::<EpochEndValue>(&end))?;
        let now = core.filter(|core| core.lease.epoch == epoch).and_then(|core| core.holder());
        let holder = now.or(end.and_then(|end| end.holder));
        Ok((holder == Some(lease.session)).then_some(last))
    }

    /// The small values of a database that may exist, and the log after what the caller knows of it.
    async fn standing(&self, tx: &Tx, call: &Call<'_>, id: DatabaseId) -> Outcome<Option<Standing>> {
        let records = async {
            match call.known(id) {
                Some(after) => self.records(tx, id, after, Txid::MAX, call.request.tail_bytes).await.map(Some),
                None => Ok(None),
            }
        };
        if call.request.lease.is_some() {
            tx.conflict_with_writers(&self.keys.core(id))?;
        }
        let range = self.keys.singles(id);
        let (piece, records) = futures_util::try_join!(tx.peek_range(&range, 0), records)?;
        let singles = Singles::of(&self.keys, id, piece.pairs());
        if singles.is_empty() {
            return Ok(None);
        }
        let (core, progress, warm) = (singles.core()?, singles.progress()?, singles.warm()?);
        Ok(Some(Standing { core, progress, warm, records }))
    }

    /// The asking session, which must still be alive when this transaction commits.
    async fn asking(&self, tx: &Tx, lease: Option<LeaseRequest>) -> Outcome<Option<Asking>> {
        let Some(lease) = lease else { return Ok(None) };
        let (record, fence) = (self.keys.session_record(lease.session), self.keys.session_fence(lease.session));
        // Renewals change the record, and the end changes the fence too: renewals need not be waited for.
        let (record, fence) = futures_util::try_join!(tx.peek::<SessionValue>(&record), tx.get::<FenceValue>(&fence))?;
        match record.filter(|record| record.ended.is_none()) {
            Some(record) => Ok(Some(Asking { lease, record, fence })),
            None => Err(over(lease.session).into()),
        }
    }

    async fn create(&self, tx: Tx, call: &Call<'_>, asking: Option<Asking>) -> Outcome<Step<Opened>> {
        let name = &call.request.name;
        if !call.request.create {
            return Err(Error::not_found(format!("there is no database named {name}")).into());
        }
        let reserved = call.tries().fresh;
        let id = match reserved {
            Some(id) => id,
            None => self.next_id().await?,
        };
        call.tries().fresh = Some(id);
        let (core, progress) = (Core::empty(), ProgressValue::default());
        tx.put(&self.keys.name(name), &id.get())?;
        tx.put(&self.keys.of(id, Kind::Name), &name.as_str().to_owned())?;
        self.put_head(&tx, id, &core.head)?;
        self.put_staging(&tx, id, &core.staging)?;
        tx.put(&self.keys.of(id, Kind::Progress), &progress)?;
        let core = if let Some(asking) = &asking {
            self.grant_to(&tx, call, id, &core, asking).await?
        } else {
            self.put_lease(&tx, id, &core.lease)?;
            core
        };
        let (tail, head) = (Tail::Complete(Vec::new()), core.public(&progress));
        let opened = Opened { database: id, created: true, head, tail, warm: Vec::new() };
        call.tries().opened = Some(opened.clone());
        Ok(Step::Commit(opened))
    }
}
