//! All databases and sessions of the store, and the rules of leases, which need both.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::database::Database;
use crate::error::{Error, Result};
use crate::store::model::{EpochEnd, Head, HeadReply, HeadRequest, Holder, SharedLock};
use crate::types::{DatabaseId, DatabaseName, Epoch, SessionId};

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) last_id: u64,
    pub(super) names: BTreeMap<DatabaseName, DatabaseId>,
    pub(super) databases: HashMap<DatabaseId, Database>,
    pub(super) condemned: Vec<Database>,
    pub(super) sessions: HashMap<SessionId, Session>,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) label: String,
    pub(super) lifetime: Duration,
    /// `None` once it was ended.
    pub(super) expires: Option<Duration>,
}

impl State {
    pub(super) fn database(&self, id: DatabaseId) -> Result<&Database> {
        self.databases.get(&id).ok_or_else(|| missing(id))
    }

    pub(super) fn database_mut(&mut self, id: DatabaseId) -> Result<&mut Database> {
        self.databases.get_mut(&id).ok_or_else(|| missing(id))
    }

    pub(super) fn live(&self, session: SessionId, now: Duration) -> bool {
        self.sessions.get(&session).is_some_and(|s| s.expires.is_some_and(|at| at > now))
    }

    pub(super) fn head(&self, database: &Database, now: Duration) -> Head {
        let holder = database.holder.map(|session| {
            let known = self.sessions.get(&session);
            Holder {
                session,
                label: known.map_or_else(String::new, |s| s.label.clone()),
                expires_in: Some(known.and_then(|s| s.expires).map_or(Duration::ZERO, |at| at.saturating_sub(now))),
            }
        });
        Head {
            epoch: database.epoch,
            holder,
            txid: database.txid,
            commit_id: database.commit_id,
            size: database.size,
            checkpoint: database.checkpoint,
            horizon: database.horizon,
            generation: database.generation,
            staged: database.is_staged(),
        }
    }

    pub(super) fn look(&self, request: HeadRequest, now: Duration) -> Result<HeadReply> {
        let database = self.database(request.database)?;
        let ended = request.epoch.filter(|epoch| *epoch < database.epoch);
        Ok(HeadReply {
            name: database.name.clone(),
            head: self.head(database, now),
            tail: database.tail_after(request.known, request.tail_bytes),
            ended: ended.and_then(|epoch| database.ends.get(&epoch)).map(|(end, _)| *end),
        })
    }

    pub(super) fn lock_shared(&mut self, id: DatabaseId, lock: SharedLock, now: Duration) -> Result<()> {
        let database = self.database(id)?;
        self.check_live(lock.session, now)?;
        let (epoch, holder) = (database.epoch, database.holder.filter(|holder| self.live(*holder, now)));
        let locked = self.database_mut(id)?.locks.lock_shared(lock, epoch, holder);
        locked.map_err(|other| self.locked(id, "exclusively", other))
    }

    pub(super) fn lock_exclusive(&mut self, id: DatabaseId, epoch: Epoch, now: Duration) -> Result<()> {
        let database = self.database(id)?;
        database.fence(epoch)?;
        let Some(holder) = database.holder else { return Err(Error::internal("a lease that is held has no holder")) };
        self.check_live(holder, now)?;
        let mut locks = database.locks.clone();
        let locked = locks.lock_exclusive(epoch, holder, |session| self.live(session, now));
        self.database_mut(id)?.locks = locks;
        locked.map_err(|other| self.locked(id, "for reading", other))
    }

    fn locked(&self, id: DatabaseId, how: &str, by: SessionId) -> Error {
        let name = self.databases.get(&id).map_or("the database", |database| database.name.as_str());
        let label = self.sessions.get(&by).map_or("unknown", |session| session.label.as_str());
        Error::lease_held(format!("{name} is locked {how} by {label}"))
    }

    pub(super) fn check_live(&self, session: SessionId, now: Duration) -> Result<()> {
        if self.live(session, now) {
            return Ok(());
        }
        Err(Error::fenced(format!("session {session} has expired or was never started")))
    }

    pub(super) fn grant(&mut self, id: DatabaseId, session: SessionId, force: bool, now: Duration) -> Result<()> {
        self.check_live(session, now)?;
        let database = self.database(id)?;
        let other = database.holder.filter(|holder| *holder != session && self.live(*holder, now));
        if let Some(holder) = other
            && !force
        {
            let held = self.sessions.get(&holder);
            let label = held.map_or("unknown", |s| s.label.as_str());
            let left = held.and_then(|s| s.expires).unwrap_or_default().saturating_sub(now);
            return Err(Error::lease_held(format!(
                "{} is held by {label} for at least {:.1} s more unless it is released",
                database.name,
                left.as_secs_f64()
            )));
        }
        if let Some(deposed) = other.and_then(|holder| self.sessions.get_mut(&holder)) {
            deposed.expires = None;
        }
        let database = self.database_mut(id)?;
        let end = EpochEnd { epoch: database.epoch, txid: database.txid, commit_id: database.commit_id };
        database.ends.insert(end.epoch, (end, now));
        database.epoch = database.epoch.next();
        database.holder = Some(session);
        Ok(())
    }
}

pub(super) fn missing(id: DatabaseId) -> Error {
    Error::not_found(format!("there is no database with id {id}"))
}
