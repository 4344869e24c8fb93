//! How an attempt ends: commit, what follows from it (versionstamps, watches), and what follows an error.
//!
//! Source: FoundationDB documentation, "C API" (`fdb_transaction_commit`, `_on_error`, `_watch`, `_get_versionstamp`),
//! "Developer Guide" (watches; transactions with unknown results), options file (retry limit, delays).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::attempt::Attempt;
use super::database::Link;
use super::future::{FdbFuture, Output};
use super::size;
use super::transaction::Transaction;
use super::writes::Writes;
use crate::cluster::protocol::{CommitRequest, Reply, Request};
use crate::code::{self, Code};

/// The most that a retry after `transaction_too_old` or `future_version` waits. Source: the client's constant.
const VERSION_RETRY_DELAY: Duration = Duration::from_millis(10);

impl Transaction {
    pub(crate) fn commit(self: &Arc<Self>) -> Arc<FdbFuture> {
        let (attempt, writes, limit, read_only) = {
            let mut state = self.lock();
            let attempt = match state.usable() {
                Ok(attempt) => attempt,
                Err(code) => return FdbFuture::ready(Err(code)),
            };
            state.commit_started = true;
            (attempt, Arc::clone(&state.writes), state.settings.size_limit, state.settings.read_only)
        };
        let transaction = Arc::downgrade(self);
        let link = self.database.link.clone();
        FdbFuture::start(async move {
            let result = attempt.guard(send(&attempt, &writes, &link, limit, read_only)).await;
            if let (Ok(Some((version, _))), Some(transaction)) = (&result, transaction.upgrade()) {
                let mut state = transaction.lock();
                if Arc::ptr_eq(&state.attempt, &attempt) {
                    state.committed = *version;
                }
            }
            attempt.set_outcome(result);
            result.map(|_| Output::Nothing)
        })
    }

    pub(crate) fn versionstamp(&self) -> Arc<FdbFuture> {
        let attempt = match self.lock().usable() {
            Ok(attempt) => attempt,
            Err(code) => return FdbFuture::ready(Err(code)),
        };
        FdbFuture::start(async move {
            match attempt.outcome().await {
                Ok(Some((_, stamp))) => Ok(Output::Key(Bytes::copy_from_slice(&stamp))),
                Ok(None) => Err(code::NO_COMMIT_VERSION),
                Err(_) => Err(attempt.ended().unwrap_or(code::TRANSACTION_INVALID_VERSION)),
            }
        })
    }

    pub(crate) fn watch(&self, key: Bytes) -> Arc<FdbFuture> {
        let started = {
            let mut state = self.lock();
            let settings = state.settings.clone();
            state.usable().and_then(|attempt| {
                if !settings.read_your_writes {
                    return Err(code::WATCHES_DISABLED);
                }
                if key >= settings.read_bound() {
                    return Err(code::KEY_OUTSIDE_LEGAL_RANGE);
                }
                if key.len() > size::key_limit(&key) {
                    return Err(code::KEY_TOO_LARGE);
                }
                let place = self.database.watch_place()?;
                Ok((attempt, place, state.reader(&self.database, false)))
            })
        };
        let (attempt, place, reader) = match started {
            Ok(started) => started,
            Err(code) => return FdbFuture::ready(Err(code)),
        };
        let link = self.database.link.clone();
        let own_change = attempt.watch_own(&key);
        FdbFuture::start(async move {
            let _place = place;
            let watch = async {
                let reading = attempt.begin_read();
                let value = attempt.guard(reader.get(&key)).await?;
                attempt.watched_value(&key, value.as_ref());
                drop(reading);
                attempt.outcome().await?;
                link.call(Request::Watch { key, value }).await
            };
            tokio::select! {
                biased;
                Ok(()) = own_change => {}
                reply = watch => drop(reply?),
            }
            Ok(Output::Nothing)
        })
    }

    pub(crate) fn on_error(self: &Arc<Self>, error: Code) -> Arc<FdbFuture> {
        let (attempt, delay) = {
            let mut state = self.lock();
            let attempt = Arc::clone(&state.attempt);
            if let Some(code) = attempt.ended() {
                return FdbFuture::ready(Err(code));
            }
            // The library that the client sees is exchanged beneath it: a new transaction, at once.
            if error == code::CLUSTER_VERSION_CHANGED {
                state.next_attempt();
                return FdbFuture::ready(Ok(Output::Nothing));
            }
            let limit = state.settings.retry_limit;
            let hit = limit >= 0 && state.retries >= limit;
            state.retries += 1;
            let delay = if hit { None } else { state.delay(error) };
            let Some(delay) = delay else {
                // Source: "C API": after an error that cannot be retried the transaction must be reset.
                attempt.end(code::TRANSACTION_CANCELLED);
                let error = if error == code::SUCCESS { code::CLIENT_INVALID_OPERATION } else { error };
                return FdbFuture::ready(Err(error));
            };
            (attempt, delay)
        };
        let transaction = Arc::clone(self);
        FdbFuture::start(async move {
            attempt
                .guard(async {
                    sleep(delay).await;
                    Ok(())
                })
                .await?;
            let mut state = transaction.lock();
            if Arc::ptr_eq(&state.attempt, &attempt) {
                state.next_attempt();
            }
            Ok(Output::Nothing)
        })
    }
}

impl super::transaction::State {
    /// How long to wait before the next attempt; `None` when there is to be none.
    fn delay(&mut self, error: Code) -> Option<Duration> {
        let most = self.settings.max_retry_delay;
        match error {
            code::TRANSACTION_TOO_OLD | code::FUTURE_VERSION => Some(VERSION_RETRY_DELAY.min(most)),
            _ if code::predicate(50_000, error) => {
                let micros = u64::try_from(self.backoff.as_micros()).unwrap_or(u64::MAX);
                self.backoff = (self.backoff * 2).min(most);
                Some(Duration::from_micros(self.random.below(micros.saturating_add(1))).min(most))
            }
            _ => None,
        }
    }
}

/// Everything that a commit does once nothing more can be added to it.
async fn send(attempt: &Attempt, writes: &Writes, link: &Link, limit: u64, read_only: bool) -> super::attempt::Outcome {
    attempt.reads_done().await?;
    let mutations = writes.mutations();
    if mutations.is_empty() && writes.conflicts().is_empty() {
        return Ok(None);
    }
    if read_only {
        return Err(code::TRANSACTION_READ_ONLY);
    }
    let (read_conflicts, conflict_bytes) = {
        let reads = attempt.conflicts();
        let count = reads.len() + writes.conflicts().len();
        (reads.ranges(), reads.bytes() + writes.conflicts().bytes() + count * size::RANGE)
    };
    let bytes = mutations.iter().map(size::of).sum::<usize>() + conflict_bytes;
    let bytes = bytes as u64;
    if bytes > limit {
        link.tell(Request::Refused);
        return Err(code::TRANSACTION_TOO_LARGE);
    }
    let request = CommitRequest {
        // Also a transaction that reads nothing needs one: it tells how old the commit may be.
        read_version: attempt.version(link).await?,
        read_conflicts,
        write_conflicts: writes.conflicts().ranges(),
        mutations,
        size: bytes,
    };
    match link.call(Request::Commit(request)).await? {
        Reply::Committed { version, batch_index } => {
            let mut stamp = [0; 10];
            stamp[..8].copy_from_slice(&version.to_be_bytes());
            stamp[8..].copy_from_slice(&batch_index.to_be_bytes());
            Ok(Some((version, stamp)))
        }
        _ => Err(code::OPERATION_FAILED),
    }
}
