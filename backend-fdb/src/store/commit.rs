//! Commits: of one database, or of many in one transaction.

use futures_util::future::join_all;
use litefleet::store::{CommitMode, CommitRequest};
use litefleet::{DatabaseId, Error, Result};

use super::FdbStore;
use super::change::{Change, Commit, Ended, Verdict};
use crate::chunk;
use crate::config::commit_bytes;
use crate::error::{Fault, Outcome};
use crate::knowledge::Core;
use crate::transact::Tx;
use crate::values::{Entry, HeadValue, LeaseValue, StagingValue, Tenure};

/// The most bytes that commits are gathered to in one transaction. A larger one goes alone.
const SHARED_BYTES: usize = 400_000;

/// One commit. The `usize` is its place among the requests of the call.
struct Committing<'r>(usize, &'r CommitRequest);

impl Change for Committing<'_> {
    fn database(&self) -> DatabaseId {
        self.1.database
    }

    fn judge(&self, core: &Core) -> Result<Verdict> {
        let request = self.1;
        let repeated = core.lease.epoch == request.epoch
            && Some(core.head.txid.get()) == request.expected.get().checked_add(1)
            && core.head.commit_id == request.commit_id;
        if repeated {
            return Ok(Verdict::Done);
        }
        core.fence(request.epoch)?;
        core.expect(request.expected)?;
        request.check_follows(core.head.commit_id)?;
        match (core.staging.entry, request.staged) {
            (Entry::None, None) => Ok(Verdict::Apply),
            (Entry::Open { last }, Some(staged)) if staged.generation == core.staging.generation => {
                staged.check_last(last).map(|()| Verdict::Apply)
            }
            (Entry::None, Some(_)) => Err(Error::conflict("the staged rows were discarded")),
            (Entry::Open { .. } | Entry::Discarding, _) => {
                Err(Error::conflict("a staging entry of another transaction exists"))
            }
        }
    }

    fn apply(&self, store: &FdbStore, tx: &Tx, core: &Core) -> Outcome<Core> {
        let request = self.1;
        let id = request.database;
        let txid = request.expected.next();
        for (piece, value) in (0..).zip(chunk::cut(request.commit_id, &request.record)) {
            tx.put_row(&store.keys.log(id, txid, piece), &value)?;
        }
        let head = HeadValue { txid, commit_id: request.commit_id, size: request.size };
        store.put_head(tx, id, &head)?;
        let mut staging = core.staging;
        if staging.entry != Entry::None {
            staging = StagingValue { generation: staging.generation + 1, entry: Entry::None };
            store.put_staging(tx, id, &staging)?;
            tx.clear_range(&store.keys.all_staged(id));
        }
        let mut lease = core.lease.clone();
        if request.release {
            lease = LeaseValue { tenure: Tenure::Free, ..lease };
            store.put_lease(tx, id, &lease)?;
        }
        Ok(Core { head, staging, lease })
    }

    fn commit(&self) -> Option<Commit> {
        let CommitRequest { epoch, expected, commit_id: id, .. } = *self.1;
        Some(Commit { epoch, expected, id })
    }
}

impl FdbStore {
    pub(super) async fn commit_all(&self, requests: &[CommitRequest], mode: CommitMode) -> Result<Vec<Result<()>>> {
        let formal = self.limits.check_commits(requests, mode)?;
        // `None` for what cannot be refused without asking.
        let mut outcomes: Vec<Option<Result<()>>> = formal.into_iter().map(|form| form.err().map(Err)).collect();
        let atomic = mode == CommitMode::Atomic;
        if atomic && outcomes.iter().any(Option::is_some) {
            let other = || Err(Error::conflict("another commit of the atomic set failed"));
            return Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(other)).collect());
        }
        let valid = requests.iter().enumerate().zip(&outcomes).filter(|(_, outcome)| outcome.is_none());
        let valid: Vec<Committing<'_>> = valid.map(|((index, request), _)| Committing(index, request)).collect();
        let groups = if atomic { vec![valid] } else { groups(valid, self.keys.key_bytes()) };
        let calls = groups
            .iter()
            .filter(|group| !group.is_empty())
            .map(|group| async move { (group, self.change("commit", group, atomic).await) });
        let mut failed: Option<(Ended, usize)> = None;
        let mut any_made = false;
        for (group, outcome) in join_all(calls).await {
            match outcome {
                Ok(results) => {
                    any_made = true;
                    for (Committing(index, _), result) in group.iter().zip(results) {
                        if let Some(outcome) = outcomes.get_mut(*index) {
                            *outcome = Some(result);
                        }
                    }
                }
                Err(Ended::Undone(fault)) if failed.is_none() => failed = Some((Ended::Undone(fault), group.len())),
                Err(Ended::Undone(_)) => {}
                Err(unknown @ Ended::Unknown(_)) => failed = Some((unknown, group.len())),
            }
        }
        match failed {
            None => {}
            Some((Ended::Undone(fault), _)) if !any_made => return Err(fault.into()),
            Some((Ended::Undone(fault) | Ended::Unknown(fault), count)) => return Err(unknown(fault, count)),
        }
        let lost = || Err(Error::internal("a commit without an outcome"));
        let outcomes: Vec<Result<()>> = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect();
        // A commit may be unknown alone: only the call as a whole can say so.
        match outcomes.iter().find_map(|outcome| outcome.as_ref().err().filter(|error| is_unknown(error))) {
            Some(error) => Err(error.clone()),
            None => Ok(outcomes),
        }
    }
}

fn is_unknown(error: &Error) -> bool {
    error.kind() == litefleet::ErrorKind::CommitUnknown
}

fn unknown(fault: Fault, count: usize) -> Error {
    let cause: Error = fault.into();
    Error::commit_unknown(format!("the outcome of {count} commits is not known: {cause}")).with_source(cause)
}

/// Gathers commits into transactions of a bounded size, where keys have so many bytes.
fn groups(commits: Vec<Committing<'_>>, key: usize) -> Vec<Vec<Committing<'_>>> {
    let mut groups = vec![Vec::new()];
    let mut bytes = 0;
    for commit in commits {
        // A release writes the lease too, and a staged commit the staging entry, whose lists it clears.
        let more = [commit.1.release, commit.1.staged.is_some()].into_iter().filter(|more| *more).count() * 8 * key;
        let size = commit.1.record.len() + commit_bytes(key) + more;
        if bytes > 0 && bytes + size > SHARED_BYTES {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(group) = groups.last_mut() {
            group.push(commit);
        }
    }
    groups
}
