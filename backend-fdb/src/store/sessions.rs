//! Sessions: their records, and their fences.

use std::time::Duration;

use foundationdb::FdbError;
use litefleet::store::SessionRequest;
use litefleet::{Error, Result, SessionId};

use super::FdbStore;
use crate::error::{Fault, Outcome};
use crate::knowledge::Witness;
use crate::sessions::Standing;
use crate::transact::{Priority, Step, Tx};
use crate::values::{FenceValue, SessionValue};

/// The version of FoundationDB that a transaction reads at, as a plain number.
pub(super) async fn version_of(tx: &Tx) -> Outcome<u64> {
    let version = tx.read_version().await?;
    u64::try_from(version).map_err(|_| Fault::Client(FdbError::from_code(1009)))
}

pub(super) fn over(session: SessionId) -> Error {
    Error::fenced(format!("session {session} has expired or was ended; its leases may be others' now"))
}

/// The lifetime of a session that was renewed, and what was seen of its fence.
type Renewed = (Duration, Option<Witness>);

impl FdbStore {
    /// A value for a fence that it never had before.
    pub(super) fn fence_value(&self, owner: [u8; 8]) -> FenceValue {
        let [nonce @ .., _, _, _, _, _, _, _, _] = self.randomness.id();
        FenceValue { owner, nonce }
    }

    /// The record of a session; conflicts with whoever changes it.
    pub(super) async fn session(&self, tx: &Tx, session: SessionId) -> Outcome<Option<SessionValue>> {
        tx.get(&self.keys.session_record(session)).await
    }

    /// Ends a session within a transaction: nobody relies on its databases any more.
    pub(super) async fn end_within(&self, tx: &Tx, session: SessionId, record: SessionValue) -> Outcome<()> {
        let ended = Some(version_of(tx).await?);
        tx.put(&self.keys.session_record(session), &SessionValue { ended, ..record })?;
        self.disown(tx, session)
    }

    /// From this transaction on no instance relies on what it knows of the session's databases.
    pub(super) fn disown(&self, tx: &Tx, session: SessionId) -> Outcome<()> {
        tx.put(&self.keys.session_fence(session), &self.fence_value([0; 8]))
    }

    pub(super) async fn start(&self, request: &SessionRequest) -> Result<()> {
        let session = request.session;
        let sent = self.sessions.now();
        if self.sessions.is_expired_here(session) {
            self.end(session).await?;
        }
        let call = self.cluster.run("start a session", Priority::Normal, |tx, _| self.try_start(tx, request));
        if let Some(committed) = call.await?.committed {
            self.knowledge.committed(committed);
        }
        self.sessions.started(session, request.label.clone(), request.lifetime, sent);
        Ok(())
    }

    async fn try_start(&self, tx: Tx, request: &SessionRequest) -> Outcome<Step<()>> {
        let (record_key, fence_key) =
            (self.keys.session_record(request.session), self.keys.session_fence(request.session));
        let (record, fence) =
            futures_util::try_join!(tx.get::<SessionValue>(&record_key), tx.get::<FenceValue>(&fence_key))?;
        let renewals = match record {
            Some(SessionValue { ended: Some(_), .. }) => {
                let session = request.session;
                return Err(Error::invalid(format!("session {session} has ended, start one with a new id")).into());
            }
            Some(record) => record.renewals + 1,
            None => 0,
        };
        let value = SessionValue { lifetime: request.lifetime, renewals, ended: None, label: request.label.clone() };
        tx.put(&record_key, &value)?;
        // The last to start it is the one whose knowledge counts.
        if fence.is_none_or(|fence| fence.owner != self.knowledge.owner()) {
            tx.put(&fence_key, &self.fence_value(self.knowledge.owner()))?;
        }
        Ok(Step::Commit(()))
    }

    pub(super) async fn renew(&self, session: SessionId) -> Result<()> {
        let sent = self.sessions.now();
        if self.sessions.is_expired_here(session) {
            // Others need not wait to see it.
            self.end(session).await?;
            return Err(over(session));
        }
        let call = self.cluster.run("renew a session", Priority::Normal, |tx, _| self.try_renew(tx, session, sent));
        let done = call.await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
        }
        let Some((lifetime, witness)) = done.value else {
            self.forget(session);
            return Err(over(session));
        };
        // So the chain stays young while nobody commits.
        if let (Some(witness), Some(committed)) = (witness, done.committed) {
            self.knowledge.witnessed(&witness, committed);
        }
        self.sessions.renewed(session, lifetime, sent);
        Ok(())
    }

    async fn try_renew(&self, tx: Tx, session: SessionId, sent: Duration) -> Outcome<Step<Option<Renewed>>> {
        let (key, fence) = (self.keys.session_record(session), self.keys.session_fence(session));
        let read = futures_util::try_join!(tx.get::<SessionValue>(&key), tx.get::<FenceValue>(&fence));
        let (record, fence) = match read {
            // Only its own process renews it: that goes on with another one, and everybody gets the leases of this.
            Err(fault) if fault.is_damage() => {
                self.end_damaged(&tx, session, &fault).await?;
                return Ok(Step::Commit(None));
            }
            read => read?,
        };
        let Some(record) = record.filter(|record| record.ended.is_none()) else { return Ok(Step::Return(None)) };
        if self.sessions.judge(session, &record, sent) == Standing::Expired {
            self.end_within(&tx, session, record).await?;
            return Ok(Step::Commit(None));
        }
        let lifetime = record.lifetime;
        tx.put(&key, &SessionValue { renewals: record.renewals + 1, ..record })?;
        let version = tx.read_version().await?;
        let witness = fence.map(|fence| Witness { session, fence, version });
        Ok(Step::Commit(Some((lifetime, witness))))
    }

    pub(super) async fn end(&self, session: SessionId) -> Result<()> {
        self.cluster.run("end a session", Priority::Normal, |tx, _| self.try_end(tx, session)).await?;
        self.forget(session);
        Ok(())
    }

    async fn try_end(&self, tx: Tx, session: SessionId) -> Outcome<Step<()>> {
        match self.session(&tx, session).await {
            Ok(Some(record)) if record.ended.is_none() => {
                self.end_within(&tx, session, record).await?;
                Ok(Step::Commit(()))
            }
            Ok(Some(_) | None) => Ok(Step::Return(())),
            Err(fault) if fault.is_damage() => {
                self.end_damaged(&tx, session, &fault).await?;
                Ok(Step::Commit(()))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Ends a session whose record or fence cannot be read, for its own process.
    async fn end_damaged(&self, tx: &Tx, session: SessionId, fault: &Fault) -> Outcome<()> {
        tracing::warn!(%session, %fault, "a session is ended, since what is stored of it is damaged");
        tx.conflict_with_writers(&self.keys.session_all(session))?;
        self.end_within(tx, session, SessionValue::unreadable()).await
    }

    pub(super) fn forget(&self, session: SessionId) {
        self.sessions.forget(session);
        self.knowledge.forget(session);
    }
}
