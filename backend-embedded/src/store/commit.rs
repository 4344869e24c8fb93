//! Committing.

use litefleet::store::{CommitMode, CommitRequest};
use litefleet::{Error, ErrorKind, Result};

use super::{EmbeddedStore, stored};
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
        let outcome = self.write(|engine, _| apply(engine, requests, &formal, mode));
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
            let landed = |request: &CommitRequest| match stored::head(&view, request.database) {
                Ok(head) => Ok(repeats(&head, request)),
                Err(Fault::Refused(error)) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(fault) => Err(fault),
            };
            requests.iter().map(landed).collect::<Outcome<Vec<bool>>>()
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
    let conflict = match (head.staging, request.staged) {
        (Staging::None, None) => return Ok(Verdict::Apply(head)),
        (Staging::Open, Some(generation)) if generation == head.generation => {
            return Ok(Verdict::Apply(head));
        }
        (Staging::None, Some(_)) => "the staged rows were discarded",
        (Staging::Open | Staging::Discarding(_), _) => "a staging entry of another transaction exists",
    };
    Err(Error::conflict(conflict).into())
}

/// Judges all, then does those that passed, in one batch.
fn apply(engine: &Engine, requests: &[CommitRequest], formal: &[Result<()>], mode: CommitMode) -> Outcome<Verdicts> {
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
            put_commit(&view, &mut changes, request, head.clone())?;
        }
    }
    changes.apply(Purpose::Grow, Durability::Now)?;
    Ok(verdicts.into_iter().map(|v| v.map(|_| ())).collect())
}

fn put_commit(view: &View<'_>, changes: &mut Changes<'_>, request: &CommitRequest, mut head: HeadValue) -> Outcome<()> {
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
        super::stage::remove_stale(view, changes, id, &mut head, ENTRIES_PER_COMMIT)?;
    }
    if request.release {
        head.holder = None;
    }
    stored::put_head(changes, id, &head);
    Ok(())
}
