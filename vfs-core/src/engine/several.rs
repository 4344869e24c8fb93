//! One commit of several databases: all or none.

use std::sync::Arc;

use tracing::Instrument;

use super::commit::{Flight, Prepared};
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
async fn send_all_alone(fleet: &FleetInner, parts: Vec<(Arc<Database>, Prepared)>) -> Result<Vec<Snapshot>> {
    let Some((first, _)) = parts.first() else { return Ok(Vec::new()) };
    let requests: Vec<CommitRequest> = parts.iter().map(|(_, prepared)| prepared.request.clone()).collect();
    let sent = first.retry(|| fleet.store.commit(requests.clone(), CommitMode::Atomic)).await;
    let sent = sent.and_then(|outcomes| match outcomes.len() {
        count if count == requests.len() => Ok(outcomes),
        count => Err(Error::commit_unknown(format!("{} commits had {count} outcomes", requests.len()))),
    });
    let fate = match sent {
        Ok(outcomes) => judge(&parts, outcomes).map(|()| Fate::Done),
        Err(error) if error.kind() == ErrorKind::CommitUnknown => {
            // They stand or fall together: one tells it for all.
            match requests.first() {
                Some(request) => first.resolve(request).await,
                None => Ok(Fate::Done),
            }
        }
        Err(error) => Err(error),
    };
    match fate {
        Ok(Fate::Undone) => Err(Error::unavailable("the commit did not reach the store; nothing was committed")),
        Ok(fate) => {
            let mut snapshots = Vec::with_capacity(parts.len());
            for (database, prepared) in parts {
                snapshots.push(database.finish(prepared));
                if let Fate::DoneThenFenced(fenced) = &fate {
                    database.stop(fenced.clone());
                }
            }
            Ok(snapshots)
        }
        Err(error) => {
            for (database, _) in parts.iter().skip(1) {
                if error.kind() == ErrorKind::CommitUnknown {
                    database.stop(error.clone());
                }
            }
            Err(error.context("commit of several databases"))
        }
    }
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
