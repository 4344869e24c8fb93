//! Committing.

use litefleet::store::{CommitMode, CommitRequest};
use litefleet::{Error, ErrorKind, Result};

use super::open::epoch_end;
use super::{EmbeddedStore, Writer, stage, stored};
use crate::engine::Engine;
use crate::error::{Fault, Outcome};
use crate::keys::{self, Table};
use crate::values::{HeadValue, Staging};
use crate::view::{Changes, Durability, Purpose, View};

/// The most staging entries that a commit removes; the rest is left to checkpoints.
const ENTRIES_PER_COMMIT: usize = 256;

/// What a commit's check says to do.
enum Verdict {
    Apply(HeadValue),
    Done,
}

/// What became of one commit.
type Verdicts = Vec<Result<()>>;

impl EmbeddedStore {
    pub(super) fn commit_all(&self, requests: &[CommitRequest], mode: CommitMode) -> Result<Verdicts> {
        let formal = self.limits().check_commits(requests, mode)?;
        let outcome = self.write(|engine, writer| apply(engine, writer, requests, &formal, mode));
        match outcome {
            Ok(verdicts) => Ok(verdicts),
            Err(fault @ (Fault::Write(_) | Fault::Panicked)) => self.resolve(requests, formal, fault),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The write failed on the way, and the engine was opened again since: the heads say what is true.
    fn resolve(&self, requests: &[CommitRequest], formal: Vec<Result<()>>, fault: Fault) -> Result<Verdicts> {
        let landed = self.read(|engine| {
            let view = engine.view();
            requests.iter().map(|request| has_landed(&view, request)).collect::<Outcome<Vec<bool>>>()
        });
        let landed = landed.map_err(|closed| {
            Error::commit_unknown(format!(
                "the store failed in the middle of a commit and cannot be read since ({closed})"
            ))
            .with_source(Error::unavailable(fault.to_string()))
        })?;
        let error = not_done(fault);
        if landed.contains(&true) {
            // All of one batch or nothing: the others had not passed their checks, or come in a batch after it.
            let verdicts = formal
                .into_iter()
                .zip(landed)
                .map(|(formal, landed)| formal.and_then(|()| if landed { Ok(()) } else { Err(error.clone()) }));
            return Ok(verdicts.collect());
        }
        Err(error)
    }
}

/// Whether a commit took effect. Its epoch may be over by now, by a grant: then how it ended tells.
fn has_landed(view: &View<'_>, request: &CommitRequest) -> Outcome<bool> {
    let head = match stored::head(view, request.database) {
        Err(Fault::Refused(error)) if error.kind() == ErrorKind::NotFound => return Ok(false),
        head => head?,
    };
    if head.epoch == request.epoch {
        return Ok(repeats(&head, request));
    }
    let end = epoch_end(view, request.database, request.epoch)?;
    Ok(end.is_some_and(|end| end.commit_id == request.commit_id))
}

/// Certain now: nothing took effect.
fn not_done(fault: Fault) -> Error {
    let error = Error::from(fault);
    match error.kind() {
        ErrorKind::Full | ErrorKind::Unavailable => error,
        _ => Error::unavailable("the commit failed and was undone").with_source(error),
    }
}

/// Whether the request is the commit that the head shows.
fn repeats(head: &HeadValue, request: &CommitRequest) -> bool {
    head.epoch == request.epoch
        && Some(head.txid.get()) == request.expected.get().checked_add(1)
        && head.commit_id == request.commit_id
}

fn check(view: &View<'_>, request: &CommitRequest) -> Outcome<Verdict> {
    let head = stored::head(view, request.database)?;
    if repeats(&head, request) {
        return Ok(Verdict::Done);
    }
    stored::fence(&head, request.epoch)?;
    stored::expect(&head, request.expected)?;
    request.check_follows(head.commit_id)?;
    let conflict = match (head.staging, request.staged) {
        (Staging::None, None) => return Ok(Verdict::Apply(head)),
        (Staging::Open, Some(staged)) if staged.generation == head.generation => {
            let last = stage::last_sequence(view, request.database, head.generation)?;
            staged.check_last(last)?;
            return Ok(Verdict::Apply(head));
        }
        (Staging::None, Some(_)) => "the staged rows were discarded",
        (Staging::Open | Staging::Discarding(_), _) => "a staging entry of another transaction exists",
    };
    Err(Error::conflict(conflict).into())
}

/// Judges all, then does those that passed, in one batch.
fn apply(
    engine: &Engine,
    writer: &mut Writer,
    requests: &[CommitRequest],
    formal: &[Result<()>],
    mode: CommitMode,
) -> Outcome<Verdicts> {
    let view = engine.view();
    let mut verdicts = Vec::with_capacity(requests.len());
    for (request, formal) in requests.iter().zip(formal) {
        let verdict = formal.clone().map_err(Fault::from);
        match verdict.and_then(|()| check(&view, request)) {
            Ok(verdict) => verdicts.push(Ok(verdict)),
            // What is wrong with one database is no reason to fail another's commit.
            Err(fault) if fault.needs_reopening() => return Err(fault),
            Err(fault) => verdicts.push(Err(Error::from(fault))),
        }
    }
    if mode == CommitMode::Atomic && verdicts.iter().any(Result::is_err) {
        let failed = |verdict: Result<Verdict>| {
            Err(verdict.err().unwrap_or_else(|| Error::conflict("another commit of the atomic set failed")))
        };
        return Ok(verdicts.into_iter().map(failed).collect());
    }
    let mut changes = engine.changes();
    for (request, verdict) in requests.iter().zip(&verdicts) {
        if let Ok(Verdict::Apply(head)) = verdict {
            put_commit(&view, &mut changes, writer, request, head.clone());
        }
    }
    changes.apply(Purpose::Grow, Durability::Now)?;
    Ok(verdicts.into_iter().map(|v| v.map(|_| ())).collect())
}

fn put_commit(
    view: &View<'_>,
    changes: &mut Changes<'_>,
    writer: &mut Writer,
    request: &CommitRequest,
    mut head: HeadValue,
) {
    let id = request.database;
    let txid = request.expected.next();
    changes.put(Table::Log, &keys::log(id, txid), &request.record);
    head.txid = txid;
    head.commit_id = request.commit_id;
    head.size = request.size;
    if head.staging == Staging::Open {
        head.generation += 1;
        head.staging = Staging::None;
        head.stale_entries = true;
        let removed = stage::remove_stale(view, changes, id, &mut head, ENTRIES_PER_COMMIT);
        writer.note_removal(id, removed);
    }
    if request.release {
        head.holder = None;
    }
    stored::put_head(changes, id, &head);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use litefleet::store::{LeaseRequest, OpenRequest, PageStore, SessionRequest};
    use litefleet::{CommitId, DatabaseName, SessionId, Txid};

    use super::*;
    use crate::EmbeddedConfig;

    /// After a failed write the head was asked whether it shows the commit, under the commit's own epoch: one that had
    /// landed was reported as failed when the lease had been granted anew in between.
    #[tokio::test]
    async fn a_commit_that_landed_is_known_after_the_lease_went_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(EmbeddedConfig::new(folder.path())).unwrap();
        let mut opened = Vec::new();
        for number in [1, 2] {
            let session = SessionId([number; 16]);
            let request = SessionRequest { session, label: String::new(), lifetime: Duration::from_secs(60) };
            store.start_session(request).await.unwrap();
            let lease = Some(LeaseRequest { session, force: true });
            let name = DatabaseName::new("a").unwrap();
            let open = OpenRequest { name, create: true, lease, known: None, tail_bytes: 0 };
            opened.push(store.open(open).await.unwrap());
            if let [first] = &opened[..] {
                store
                    .commit(vec![request_of(first.database, first.head.epoch, 7)], CommitMode::Independent)
                    .await
                    .unwrap();
            }
        }
        let (database, epoch) = (opened[0].database, opened[0].head.epoch);
        let resolve = |id| store.resolve(&[request_of(database, epoch, id)], vec![Ok(())], Fault::Panicked);
        assert!(resolve(7).unwrap().iter().all(Result::is_ok));
        assert_eq!(resolve(8).unwrap_err().kind(), ErrorKind::Unavailable, "it never came");
    }

    fn request_of(database: litefleet::DatabaseId, epoch: litefleet::Epoch, id: u8) -> CommitRequest {
        CommitRequest {
            database,
            epoch,
            expected: Txid(0),
            follows: CommitId::default(),
            commit_id: CommitId([id; 16]),
            size: 0,
            record: Bytes::from_static(b"record"),
            staged: None,
            release: false,
        }
    }
}
