//! Committing.

use litefleet::store::{CommitMode, CommitRequest};
use litefleet::{Error, ErrorKind, Result};

use super::Inner;
use super::outcome::{Answer, Asked, numbers};
use crate::error::Fault;
use crate::statements::Call;
use crate::wire::{bigints, blobs, boolean, booleans, ids, maybe_bigints};

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

    /// One statement, one transaction.
    async fn send(&self, sent: &[(usize, CommitRequest)], mode: CommitMode) -> Result<Vec<Result<()>>> {
        let each = || sent.iter().map(|(_, request)| request);
        let params = [
            bigints(each().map(|request| request.database.get())),
            bigints(each().map(|request| request.epoch.get())),
            bigints(each().map(|request| request.expected.get())),
            ids(each().map(|request| request.commit_id.bytes())),
            bigints(each().map(|request| request.size)),
            blobs(each().map(|request| request.record.clone())),
            maybe_bigints(each().map(|request| request.staged)),
            booleans(each().map(|request| request.release)),
            boolean(mode == CommitMode::Atomic && sent.len() > 1),
        ];
        let rows = self.pool.call_once(Call::Commit, &params).await.map_err(failed)?;
        let numbers = numbers(&rows).map_err(failed)?;
        let mut answers = Vec::with_capacity(sent.len());
        for (n, request) in each().enumerate() {
            let asked = Asked { database: request.database, epoch: request.epoch, expected: request.expected.get() };
            answers.push(Answer::at(&numbers, n * NUMBERS).map_err(failed)?.check(asked));
        }
        Ok(answers)
    }
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
