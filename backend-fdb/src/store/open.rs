//! Opening: a name leads to an id, that to the small values and the newest records, and these to the warm pages. What can
//! be guessed saves a step: the id, that the newest records are the tail, and, for a grant, a version to read at. A grant
//! conflicts with whoever changes what it was read from, so it proves by being committed that an older version was as
//! good as the newest; when it says no, it is asked again at the newest. Warm pages are read beside the commit.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join;
use litefleet::store::{LeaseRequest, Lineage, OpenRequest, Opened, ReadRow};
use litefleet::{DatabaseId, Error, PageSet, Result, SessionId, Txid};
use tokio::time::Instant;

use super::FdbStore;
use super::read::{Records, Singles, tail};
use super::sessions::over;
use crate::error::{Fault, Outcome};
use crate::keys::Kind;
use crate::knowledge::{Core, Known, Touch, Witness};
use crate::transact::{Cluster, Failed, Piece, Priority, Step, Tx, lost_a_race, only, says_read_first};
use crate::values::{EpochEndValue, FenceValue, ProgressValue, SessionValue};

/// For how long an open waits for its warm pages, however often they are asked for.
const WARM_TIME: Duration = Duration::from_secs(2);

/// One call, and what its tries share.
pub(super) struct Call<'r> {
    pub(super) request: &'r OpenRequest,
    /// The time, by the sessions' clock, before anything was asked.
    pub(super) before: Duration,
    /// Until when it is tried, by the cluster's clock.
    pub(super) deadline: Duration,
    tries: Mutex<Tries>,
}

#[derive(Default)]
pub(super) struct Tries {
    /// What the name led to at the last try, and whose the lease was.
    pub(super) found: Option<DatabaseId>,
    pub(super) holder: Option<SessionId>,
    /// The id for a database that has to be created, once one was needed.
    pub(super) fresh: Option<DatabaseId>,
    /// The ids under which a try may have created it.
    pub(super) made: Vec<DatabaseId>,
    pub(super) touch: Option<Touch>,
    /// How the database stands after the last try, and what that has read of the asking session's fence.
    pub(super) granted: Option<(Core, Option<Witness>)>,
    /// What the last try returns if it has been committed.
    pub(super) answer: Option<Answer>,
    /// Sessions that the last try has ended.
    pub(super) ended: Vec<SessionId>,
}

/// What a call returns, and the warm pages that are still to be read for it.
pub(super) type Answer = (Opened, PageSet);

impl Call<'_> {
    pub(super) fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id that a database of this name gets, where one was taken for it that no try may have used.
    pub(super) fn unspent(&self, unknown: bool) -> Option<DatabaseId> {
        self.tries().fresh.filter(|_| !unknown)
    }

    /// The txid after which the log is wanted, when the caller knows the database.
    fn known(&self, id: DatabaseId) -> Option<Txid> {
        self.request.known.filter(|(known, _)| *known == id).map(|(_, txid)| txid)
    }
}

/// A version that need not be the newest, for a grant to read at.
pub(super) struct Assumed {
    version: i64,
    /// The fence and the label of the asking session, where a chain vouches for it.
    session: Option<(FenceValue, String)>,
}

/// The asking session as it was found, alive.
pub(super) struct Asking {
    pub(super) lease: LeaseRequest,
    pub(super) label: String,
    pub(super) fence: Option<FenceValue>,
    /// Whether all is read at a version that need not be the newest.
    pub(super) assumed: bool,
    /// The session that the lease was of at the last try, with its record now.
    pub(super) holder: Option<(SessionId, Option<SessionValue>)>,
}

/// A database as it was found.
struct Standing {
    core: Core,
    progress: ProgressValue,
    warm: PageSet,
    /// The log after what the caller knows, or after the checkpoint, unless it is longer than was guessed.
    records: Option<Records>,
    /// About the bytes of a record.
    size: Option<usize>,
}

impl FdbStore {
    pub(super) async fn open_database(&self, request: &OpenRequest) -> Result<Opened> {
        if let Some(lease) = request.lease
            && self.sessions.is_expired_here(lease.session)
        {
            self.end(lease.session).await?;
            return Err(over(lease.session));
        }
        let deadline = self.cluster.deadline(Priority::Normal);
        let call = Call { request, before: self.sessions.now(), deadline, tries: Mutex::default() };
        let (opened, committed) = self.open_in_tries(&call).await?;
        self.names.remember(&request.name, opened.database);
        let mut tries = call.tries();
        let Tries { touch, granted, ended, .. } = &mut *tries;
        let (Some(touch), Some(lease)) = (touch, request.lease) else { return Ok(opened) };
        // At the least whose the lease is is known.
        touch.granted(lease.session);
        if let (Some(committed), Some((core, witness))) = (committed, granted.take()) {
            self.knowledge.committed(committed);
            self.knowledge.changed(opened.database, committed.0);
            for session in ended.drain(..) {
                self.forget(session);
            }
            if let Some(chain) = witness.and_then(|witness| self.knowledge.witnessed(&witness, committed)) {
                touch.made(Known { core, session: lease.session, chain });
            }
        }
        Ok(opened)
    }

    /// Tries until it is open. Says at which version the lease was granted, if it was by the last try.
    async fn open_in_tries(&self, call: &Call<'_>) -> Outcome<(Opened, Option<(i64, Duration)>)> {
        let mut attempts = self.cluster.attempts_until("open", Priority::Normal, call.deadline);
        let mut assumption = self.assume(call);
        loop {
            let tx = attempts.begin()?;
            let assumed = assumption.take();
            if let Some(assumed) = &assumed {
                tx.read_at(assumed.version);
            }
            let failed = match self.try_open(&tx, call, attempts.unknown(), assumed.as_ref()).await {
                Ok(Step::Return((mut opened, warm))) => {
                    let (id, at, deadline) = (opened.database, opened.head.checkpoint, self.warm_deadline(call));
                    opened.warm.extend(self.warm_rows(id, at, &warm, deadline, call).await);
                    return Ok((opened, None));
                }
                Ok(Step::Commit((mut opened, warm))) => {
                    let (id, at) = (opened.database, opened.head.checkpoint);
                    let beside = if warm.is_empty() { None } else { Some(attempts.beside(tx.read_version().await?)?) };
                    let rows = async {
                        match &beside {
                            Some(beside) => self.newest(beside, id, &warm, at).await,
                            None => Ok(Vec::new()),
                        }
                    };
                    // A lease that was granted is not kept back for what is only a convenience, nor is the next try.
                    let deadline = self.warm_deadline(call);
                    let rows = async { Ok(tokio::time::timeout_at(deadline, rows).await) };
                    match try_join(attempts.commit(tx), rows).await {
                        Ok((committed, rows)) => {
                            match rows {
                                Ok(Ok(rows)) => {
                                    opened.warm = rows.into_iter().flat_map(|(_, found)| found.rows(id)).collect();
                                }
                                Ok(Err(_)) => opened.warm = self.warm_rows(id, at, &warm, deadline, call).await,
                                Err(_) => {}
                            }
                            return Ok((opened, Some(committed)));
                        }
                        Err(failed) => failed,
                    }
                }
                Err(fault) => Failed::reading(tx, fault),
            };
            // It was said of an older version: what of the newest?
            if assumed.is_some() && (matches!(failed.fault, Fault::Refused(_)) || says_read_first(&failed.fault)) {
                attempts.at_once(failed)?;
            } else {
                let lost = lost_a_race(&failed.fault);
                attempts.again(failed).await?;
                if lost {
                    self.depose(call, attempts.unknown()).await?;
                }
            }
        }
    }

    /// Until when warm pages are waited for.
    fn warm_deadline(&self, call: &Call<'_>) -> Instant {
        Instant::now() + WARM_TIME.min(call.deadline.saturating_sub(self.cluster.now()))
    }

    /// The rows of warm pages, read with the rest, which does not fail with them, nor wait for them long.
    async fn warm_beside(
        &self,
        tx: &Tx,
        database: DatabaseId,
        at: Txid,
        warm: &PageSet,
        call: &Call<'_>,
    ) -> Vec<ReadRow> {
        let deadline = self.warm_deadline(call);
        match tokio::time::timeout_at(deadline, self.newest(tx, database, warm, at)).await {
            Ok(Ok(found)) => found.into_iter().flat_map(|(_, found)| found.rows(database)).collect(),
            Ok(Err(_)) => self.warm_rows(database, at, warm, deadline, call).await,
            Err(_) => Vec::new(),
        }
    }

    /// The rows of warm pages, when they were not read with the rest. They are a convenience: none if it takes too long.
    async fn warm_rows(
        &self,
        database: DatabaseId,
        at: Txid,
        warm: &PageSet,
        deadline: Instant,
        call: &Call<'_>,
    ) -> Vec<ReadRow> {
        if warm.is_empty() {
            return Vec::new();
        }
        let lineage = &[Lineage { database, max_txid: Txid::MAX }];
        let body = |tx, _| self.try_pages(tx, lineage, warm, at, self.cluster.now(), None);
        let attempts = self.cluster.attempts_until("read warm pages", Priority::Normal, call.deadline);
        let fault = match tokio::time::timeout_at(deadline, Cluster::run_with(attempts, body)).await {
            Ok(Ok(done)) => return done.value.rows,
            Ok(Err(fault)) => Some(fault),
            Err(_) => None,
        };
        tracing::debug!(%database, ?fault, "opened without warm pages");
        Vec::new()
    }

    /// What is likely to be the database, before its name was read.
    fn guess(&self, call: &Call<'_>) -> Option<DatabaseId> {
        let known = call.request.known.map(|(id, _)| id);
        known.or_else(|| call.tries().found).or_else(|| self.names.recall(&call.request.name))
    }

    /// A version to try a grant at, if there is one that is likely to be as good as the newest.
    fn assume(&self, call: &Call<'_>) -> Option<Assumed> {
        let session = call.request.lease?.session;
        let now = self.cluster.now();
        let vouched = self.knowledge.version_for_granting(session, self.guess(call), now);
        if let Some(((version, fence), label)) = vouched.zip(self.sessions.label(session)) {
            return Some(Assumed { version, session: Some((fence, label)) });
        }
        self.knowledge.version_for_changing(now).map(|version| Assumed { version, session: None })
    }

    async fn try_open(
        &self,
        tx: &Tx,
        call: &Call<'_>,
        unknown: bool,
        assumed: Option<&Assumed>,
    ) -> Outcome<Step<Answer>> {
        let request = call.request;
        if unknown && let Some(answer) = self.was_granted(tx, call).await? {
            return Ok(Step::Return(answer));
        }
        // While the id is looked up, what it was the last time is read too.
        let guess = self.guess(call);
        let guessed = async {
            match guess {
                Some(id) => self.standing(tx, call, id).await,
                None => Ok(None),
            }
        };
        let name_key = self.keys.name(&request.name);
        let unused = async { if guess.is_none() { self.look_at_id(tx, call, unknown).await } else { Ok(None) } };
        let (found, asking, guessed, unused) =
            futures_util::try_join!(tx.get::<u64>(&name_key), self.asking(tx, call, assumed), guessed, unused)?;
        let Some(id) = found.map(DatabaseId) else { return self.create(tx, call, asking, unknown, unused).await };
        call.tries().found = Some(id);
        let found = if guess == Some(id) { guessed } else { self.standing(tx, call, id).await? };
        let Some(Standing { core, progress, mut warm, records, size }) = found else {
            let message = format!("the name {} leads to database {id}, which does not exist", request.name);
            return Err(Error::corrupt(message).into());
        };
        if let Some(asking) = &asking {
            self.rely_on_read(tx, id, &core)?;
            if asking.assumed {
                // Else a checkpoint or collection meanwhile makes what is read no less true.
                tx.conflict_with_writers(&only(self.keys.of(id, Kind::Progress)))?;
            }
        }
        self.knowledge.telling(id, tx.read_version().await?);
        let known = call.known(id);
        let records = async {
            if let Some(records) = records {
                return Ok(records);
            }
            let (from, to) = (progress.checkpoint, core.head.txid);
            self.records(tx, id, from, to, request.tail_bytes, size).await
        };
        if known.is_some() {
            warm = PageSet::new();
        }
        // A grant leaves them for while it is committed.
        let now = if asking.is_none() { std::mem::take(&mut warm) } else { PageSet::new() };
        let rows = async { Ok(self.warm_beside(tx, id, progress.checkpoint, &now, call).await) };
        let grant = async {
            match &asking {
                Some(asking) => self.grant(tx, call, id, &core, asking).await.map(Some),
                None => Ok(None),
            }
        };
        let (granted, records, rows) = futures_util::try_join!(grant, records, rows)?;
        let after = known.unwrap_or(progress.checkpoint);
        let tail = tail(records, after, core.head.txid, &progress, request.tail_bytes)?;
        let head = granted.as_ref().unwrap_or(&core).public(&progress);
        let mut tries = call.tries();
        // A try whose reply was lost may have created it.
        let opened = Opened { database: id, created: tries.made.contains(&id), head, tail, warm: rows };
        if granted.is_none() {
            return Ok(Step::Return((opened, warm)));
        }
        // What an older version led to may be an epoch that the same session got by an earlier call: were the reply to this
        // try lost, nobody could tell the two apart. Then it is granted again.
        tries.answer = assumed.is_none().then(|| (opened.clone(), warm.clone()));
        Ok(Step::Commit((opened, warm)))
    }

    /// What the last try has returned, if it was committed and its reply was lost: then the lease was granted, whoever has
    /// it now.
    pub(super) async fn was_granted(&self, tx: &Tx, call: &Call<'_>) -> Outcome<Option<Answer>> {
        let last = call.tries().answer.clone();
        let (Some(last), Some(lease)) = (last, call.request.lease) else { return Ok(None) };
        let (id, epoch) = (last.0.database, last.0.head.epoch);
        let end = self.keys.epoch_end(id, epoch);
        let (core, end) = futures_util::try_join!(self.peek_core(tx, id), tx.peek::<EpochEndValue>(&end))?;
        self.knowledge.telling(id, tx.read_version().await?);
        let now = core.filter(|core| core.lease.epoch == epoch).and_then(|core| core.lease.granted_to());
        let holder = now.or(end.and_then(|end| end.holder));
        Ok((holder == Some(lease.session)).then_some(last))
    }

    /// The small values of a database that may exist, and the log after what the caller knows of it.
    async fn standing(&self, tx: &Tx, call: &Call<'_>, id: DatabaseId) -> Outcome<Option<Standing>> {
        let known = call.known(id);
        let records = async {
            match known {
                Some(after) => self.first_records(tx, id, after).await.map(Some),
                None => Ok(None),
            }
        };
        let newest = async { if known.is_some() { Ok(Piece::default()) } else { self.newest_records(tx, id).await } };
        let range = self.keys.singles(id);
        let (values, records, newest) = futures_util::try_join!(tx.peek_all(&range), records, newest)?;
        let singles = Singles::of(&self.keys, id, &values);
        if singles.is_empty() {
            return Ok(None);
        }
        let (core, progress, warm) = (singles.core()?, singles.progress()?, singles.warm()?);
        let records = match records {
            Some(first) => Some(self.with_the_rest(tx, id, first, core.head.txid, call.request.tail_bytes).await?),
            None => self.if_it_reaches(id, &newest, progress.checkpoint)?,
        };
        let size =
            newest.pairs().iter().map(|pair| pair.value().len()).sum::<usize>().checked_div(newest.pairs().len());
        Ok(Some(Standing { core, progress, warm, records, size }))
    }

    /// The asking session, which must still be alive when this transaction commits.
    pub(super) async fn asking(&self, tx: &Tx, call: &Call<'_>, assumed: Option<&Assumed>) -> Outcome<Option<Asking>> {
        let Some(lease) = call.request.lease else { return Ok(None) };
        if let Some((fence, label)) = assumed.and_then(|assumed| assumed.session.clone()) {
            // Whatever ends a session changes its fence.
            tx.conflict_with_writers(&only(self.keys.session_fence(lease.session)))?;
            return Ok(Some(Asking { lease, label, fence: Some(fence), assumed: true, holder: None }));
        }
        let (record, fence) = (self.keys.session_record(lease.session), self.keys.session_fence(lease.session));
        let holder = call.tries().holder;
        let holder = async {
            match holder {
                Some(session) => self.record_of_holder(tx, call, session).await.map(|record| Some((session, record))),
                None => Ok(None),
            }
        };
        // Renewals change the record, and the end changes the fence too: renewals need not be waited for.
        let (record, fence, holder) =
            futures_util::try_join!(tx.peek::<SessionValue>(&record), tx.get::<FenceValue>(&fence), holder)?;
        match record.filter(|record| record.ended.is_none()) {
            Some(SessionValue { label, .. }) => {
                Ok(Some(Asking { lease, label, fence, assumed: assumed.is_some(), holder }))
            }
            None => Err(over(lease.session).into()),
        }
    }
}
