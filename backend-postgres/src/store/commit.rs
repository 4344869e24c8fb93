//! Committing.

use std::collections::HashSet;

use litefleet::store::{CommitMode, CommitRequest};
use litefleet::{Error, ErrorKind, Result};
use tokio_postgres::Row;

use super::Inner;
use super::outcome::{Answer, Asked, numbers};
use crate::error::{Fault, Outcome};
use crate::pool::Answered;
use crate::statements::Call;
use crate::wire::{
    Param, bigint, bigints, blob, blobs, boolean, booleans, column, id, ids, int, maybe_bigint, maybe_bigints,
};

/// Numbers of the answer for each request.
const NUMBERS: usize = 3;

impl Inner {
    pub(super) async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        let mut outcomes = self.config.limits.check_commits(&requests, mode)?;
        if mode == CommitMode::Atomic && outcomes.iter().any(Result::is_err) {
            return Ok(outcomes.into_iter().map(|outcome| Err(outcome.err().unwrap_or_else(another_failed))).collect());
        }
        let mut sent: Vec<(usize, CommitRequest)> = requests
            .into_iter()
            .enumerate()
            .filter(|(place, _)| outcomes.get(*place).is_some_and(Result::is_ok))
            .collect();
        if sent.is_empty() {
            return Ok(outcomes);
        }
        // Everybody locks heads in this order.
        sent.sort_unstable_by_key(|(_, request)| request.database);
        let answers = self.send(&sent, mode).await?;
        let refused = mode == CommitMode::Atomic && answers.iter().any(Result::is_err);
        for ((place, _), answer) in sent.iter().zip(answers) {
            if let Some(outcome) = outcomes.get_mut(*place) {
                *outcome = if refused { Err(answer.err().unwrap_or_else(another_failed)) } else { answer };
            }
        }
        Ok(outcomes)
    }

    /// One transaction.
    async fn send(&self, sent: &[(usize, CommitRequest)], mode: CommitMode) -> Result<Vec<Result<()>>> {
        let requests: Vec<&CommitRequest> = sent.iter().map(|(_, request)| request).collect();
        let atomic = mode == CommitMode::Atomic && sent.len() > 1;
        let form = |prepared: bool| match requests.as_slice() {
            [one] if prepared => (Call::CommitOne, scalars(one)),
            many if prepared && !atomic => (Call::CommitMany, arrays(many)),
            many => (Call::Commit, with_function(many, atomic)),
        };
        let Answered { call, rows, .. } = self.pool.call_once(&form).await.map_err(failed)?;
        if call == Call::Commit {
            return judged(&requests, &rows).map_err(failed);
        }
        let done = rows.iter().map(|row| column::<i64>(row, 0)).collect::<Outcome<HashSet<i64>>>().map_err(failed)?;
        let is_done = |request: &&CommitRequest| done.contains(&int(request.database.get()));
        let left: Vec<&CommitRequest> = requests.iter().copied().filter(|request| !is_done(request)).collect();
        if left.is_empty() {
            return Ok(requests.iter().map(|_| Ok(())).collect());
        }
        // Why they were not done; or what they waited for went away meanwhile, and they are.
        let form = |_| (Call::Commit, with_function(&left, false));
        let outcomes = match self.pool.call_once(&form).await.and_then(|answered| judged(&left, &answered.rows)) {
            Ok(outcomes) => outcomes,
            // Only the call as a whole can say that nobody knows.
            Err(fault) if fault.leaves_doubt() => return Err(failed(fault)),
            // The others are done, whatever became of these.
            Err(fault) => vec![Err(failed(fault)); left.len()],
        };
        let mut outcomes = outcomes.into_iter();
        let lost = || Err(Error::internal("a commit without an outcome"));
        let outcome = |request| if is_done(request) { Ok(()) } else { outcomes.next().unwrap_or_else(lost) };
        Ok(requests.iter().map(outcome).collect())
    }
}

/// What the function said of each.
fn judged(requests: &[&CommitRequest], rows: &[Row]) -> Outcome<Vec<Result<()>>> {
    let numbers = numbers(rows)?;
    let mut answers = Vec::with_capacity(requests.len());
    for (n, request) in requests.iter().enumerate() {
        let asked = Asked { database: request.database, epoch: request.epoch, expected: request.expected.get() };
        answers.push(Answer::at(&numbers, n * NUMBERS)?.check(asked));
    }
    Ok(answers)
}

pub(crate) fn scalars(request: &CommitRequest) -> Vec<Param> {
    vec![
        bigint(request.database.get()),
        bigint(request.epoch.get()),
        bigint(request.expected.get()),
        id(request.follows.bytes()),
        id(request.commit_id.bytes()),
        bigint(request.size),
        blob(request.record.clone()),
        maybe_bigint(request.staged.map(|staged| staged.generation)),
        maybe_bigint(request.staged.map(|staged| staged.last)),
        boolean(request.release),
    ]
}

fn arrays(requests: &[&CommitRequest]) -> Vec<Param> {
    let each = || requests.iter();
    vec![
        bigints(each().map(|request| request.database.get())),
        bigints(each().map(|request| request.epoch.get())),
        bigints(each().map(|request| request.expected.get())),
        ids(each().map(|request| request.follows.bytes())),
        ids(each().map(|request| request.commit_id.bytes())),
        bigints(each().map(|request| request.size)),
        blobs(each().map(|request| request.record.clone())),
        maybe_bigints(each().map(|request| request.staged.map(|staged| staged.generation))),
        maybe_bigints(each().map(|request| request.staged.map(|staged| staged.last))),
        booleans(each().map(|request| request.release)),
    ]
}

fn with_function(requests: &[&CommitRequest], atomic: bool) -> Vec<Param> {
    let mut params = arrays(requests);
    params.push(boolean(atomic));
    params
}

fn another_failed() -> Error {
    Error::conflict("another commit of the atomic set failed")
}

/// An error of the call as a whole: nothing took effect, or nobody knows.
fn failed(fault: Fault) -> Error {
    if fault.leaves_doubt() {
        return Error::commit_unknown(format!("a commit was sent and its answer was lost: {fault}"))
            .with_source(Error::from(fault));
    }
    let error = Error::from(fault);
    match error.kind() {
        // The server undid it: certainly nothing took effect.
        ErrorKind::Full | ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::Invalid => error,
        _ => Error::unavailable(format!("the commit failed and was undone: {}", error.message())).with_source(error),
    }
}
