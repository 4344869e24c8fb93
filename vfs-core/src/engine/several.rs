//! One commit of several databases: all or none.

use std::sync::Arc;

use tracing::Instrument;

use super::commit::{COMMIT_TRIES, Flight, Prepared};
use super::database::{Database, Snapshot};
use super::fleet::FleetInner;
use super::outcome::Fate;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{CommitMode, CommitRequest};

/// Commits several databases as one: all or none. Returns the snapshots of the commits, pinned for their connections.
pub fn commit_atomically(parts: Vec<(Arc<Database>, Prepared)>) -> Result<Vec<Snapshot>> {
    let Some(fleet) = parts.first().map(|(database, _)| Arc::clone(&database.fleet)) else { return Ok(Vec::new()) };
    let start = fleet.clock.monotonic();
    let span = match parts.as_slice() {
        [(database, _)] => tracing::debug_span!("commit", database = %database.name),
        parts => tracing::debug_span!("commit of several", databases = parts.len()),
    };
    let committed = fleet.bridge.wait(send_all(&fleet, parts).instrument(span));
    match &committed {
        Ok(_) => {
            let taken = fleet.clock.monotonic().saturating_sub(start);
            metrics::histogram!("litefleet_commit_seconds").record(taken.as_secs_f64());
        }
        Err(error) => {
            metrics::counter!("litefleet_commits_failed_total", "kind" => error.kind().as_str()).increment(1);
        }
    }
    committed
}

async fn send_all(fleet: &FleetInner, mut parts: Vec<(Arc<Database>, Prepared)>) -> Result<Vec<Snapshot>> {
    // A commit of one is a commit.
    if parts.len() == 1
        && let Some((database, prepared)) = parts.pop()
    {
        return database.send(prepared).await.map(|snapshot| vec![snapshot]).context(database.words("commit"));
    }
    let databases: Vec<Arc<Database>> = parts.iter().map(|(database, _)| Arc::clone(database)).collect();
    let committed = {
        // Each has one writer, so no two of these ever wait for each other.
        let mut guards = Vec::with_capacity(databases.len());
        for database in &databases {
            guards.push(database.acquiring.lock().await);
            database.core().releasing = true;
        }
        let flights: Vec<Flight<'_>> = databases.iter().map(|database| Flight { database, landed: false }).collect();
        let sent = send_all_alone(fleet, parts).await;
        flights.into_iter().for_each(Flight::land);
        sent
    };
    if committed.is_ok() {
        for database in &databases {
            database.schedule_checkpoint();
        }
    }
    committed
}

/// The caller holds `acquiring` of every database.
async fn send_all_alone(fleet: &FleetInner, mut parts: Vec<(Arc<Database>, Prepared)>) -> Result<Vec<Snapshot>> {
    for attempt in 1.. {
        let fate = send_once(fleet, &mut parts, attempt == COMMIT_TRIES).await;
        match fate.map_err(|error| error.context("commit of several databases")) {
            Ok(None) => {
                for (database, prepared) in &mut parts {
                    database.renew_attempt(prepared)?;
                }
            }
            Ok(Some(Fate::Undone)) => break,
            Ok(Some(fate)) => {
                if let (Fate::DoneThenFenced(fenced), Some((first, _))) = (fate, parts.first()) {
                    // It was found out of this one. The others find out their own.
                    let first = Arc::clone(first);
                    let snapshots = finish_all(parts);
                    first.stop(fenced);
                    return Ok(snapshots);
                }
                return Ok(finish_all(parts));
            }
            Err(error) => {
                for (database, _) in parts.iter().skip(1) {
                    if error.kind() == ErrorKind::CommitUnknown {
                        database.stop(error.clone());
                    }
                }
                return Err(error);
            }
        }
    }
    Err(Error::unavailable("the commit did not reach the store; nothing was committed"))
}

fn finish_all(parts: Vec<(Arc<Database>, Prepared)>) -> Vec<Snapshot> {
    parts.into_iter().map(|(database, prepared)| database.finish(prepared)).collect()
}

/// Sends it once. `None`: nothing was committed, and it can be sent again under the epochs that the databases have now.
async fn send_once(fleet: &FleetInner, parts: &mut [(Arc<Database>, Prepared)], last: bool) -> Result<Option<Fate>> {
    let requests: Vec<CommitRequest> = parts.iter().map(|(_, prepared)| prepared.request.clone()).collect();
    let (Some((first, _)), Some(request)) = (parts.first(), requests.first()) else { return Ok(Some(Fate::Done)) };
    for (database, prepared) in parts.iter() {
        database.lock_again(prepared.request.epoch).await?;
    }
    let sent = first.retry(|| fleet.store.commit(requests.clone(), CommitMode::Atomic)).await;
    let sent = sent.and_then(|outcomes| match outcomes.len() {
        count if count == requests.len() => Ok(outcomes),
        count => Err(Error::commit_unknown(format!("{} commits had {count} outcomes", requests.len()))),
    });
    match sent {
        Ok(outcomes) if !last && may_regain(&outcomes) => {
            // As for a commit alone: the lease was given back or taken anew within this process, or lost to one that has
            // committed nothing. If it has, that is found out here.
            for ((database, prepared), outcome) in parts.iter().zip(outcomes) {
                let Err(error) = outcome else { continue };
                if error.kind() != ErrorKind::Fenced {
                    continue;
                }
                database.acquire_lease().await?;
                if database.core().head != prepared.request.expected {
                    return Err(error);
                }
            }
            Ok(None)
        }
        Ok(outcomes) => {
            for ((database, prepared), outcome) in parts.iter().zip(&outcomes) {
                if matches!(outcome, Err(error) if error.kind() == ErrorKind::Conflict) {
                    database.look_again_alone(prepared.request.epoch).await?;
                }
            }
            judge(parts, outcomes).map(|()| Some(Fate::Done))
        }
        // They stand or fall together: one tells it for all.
        Err(error) if error.kind() == ErrorKind::CommitUnknown => match first.resolve(request).await? {
            Fate::Undone if !last => Ok(None),
            fate => Ok(Some(fate)),
        },
        Err(error) => Err(error),
    }
}

/// Whether leases that were lost are all that is wrong.
fn may_regain(outcomes: &[Result<()>]) -> bool {
    let kinds = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(Error::kind);
    // Those that are not to blame have a conflict.
    kinds().any(|kind| kind == ErrorKind::Fenced)
        && kinds().all(|kind| matches!(kind, ErrorKind::Fenced | ErrorKind::Conflict))
}

/// The outcome of an atomic commit. Those that were fenced stop.
fn judge(parts: &[(Arc<Database>, Prepared)], outcomes: Vec<Result<()>>) -> Result<()> {
    let mut reason: Option<Error> = None;
    for ((database, prepared), outcome) in parts.iter().zip(outcomes) {
        let Err(error) = outcome else { continue };
        let error = match error.kind() {
            ErrorKind::Fenced | ErrorKind::NotFound => database.refused(error, prepared.request.epoch),
            _ => error,
        };
        // The reason, not its consequence for the others.
        if reason.as_ref().is_none_or(|reason| reason.kind() == ErrorKind::Conflict) {
            reason = Some(error);
        }
    }
    reason.map_or(Ok(()), Err)
}
