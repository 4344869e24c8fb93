//! Commits: gathered into batches, checked for conflicts, applied.
//!
//! Source: FoundationDB documentation, "Technical Overview" and "Developer Guide": commit proxies batch commits; all of
//! a batch have one version, and their order within it is the last two bytes of the versionstamp. "Error Codes" and
//! "Developer Guide" (`commit_unknown_result`) for what an error says about the commit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::faults::{Fate, Fault, Kind};
use super::protocol::{CommitRequest, Mutation, Reply, Version};
use super::store::{single, stamped};
use super::{Cluster, State};
use crate::code::{self, Code};

type Outcome = Result<Reply, Code>;

#[derive(Debug)]
pub(super) struct Queued {
    request: CommitRequest,
    generation: u64,
    outcome: oneshot::Sender<Outcome>,
}

impl Cluster {
    /// A commit goes on when its caller stops waiting: it is a task of its own.
    pub(super) async fn commit(self: &Arc<Self>, request: CommitRequest) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let (fault, generation) = {
            let mut state = self.lock();
            state.count(&request);
            (state.draw(Kind::Commit), state.generation)
        };
        tokio::spawn(Arc::clone(self).travel(request, fault, generation, reply));
        outcome.await.unwrap_or(Err(code::COMMIT_UNKNOWN_RESULT))
    }

    /// The way of one commit to the cluster and back.
    async fn travel(
        self: Arc<Self>,
        request: CommitRequest,
        fault: Option<Fault>,
        generation: u64,
        reply: oneshot::Sender<Outcome>,
    ) {
        let (latency, late, early) = {
            let mut state = self.lock();
            let late = state.latency.late;
            (state.latency.commit, state.faults.up_to(late), state.faults.up_to(Duration::from_micros(1)).is_zero())
        };
        let mut before = latency / 2;
        let mut behind = latency / 2;
        match fault {
            Some(Fault::Slow(time)) if early => before += time,
            Some(Fault::Slow(time)) => behind += time,
            Some(Fault::Restart) if early => self.restart(),
            Some(Fault::Restart | Fault::Error(..)) | None => {}
        }
        pause(before).await;
        let told = match fault {
            Some(Fault::Error(code, Fate::Lost)) => Err(code),
            Some(Fault::Error(code, Fate::Done)) => {
                self.enqueue(request, generation).await.ok();
                Err(code)
            }
            Some(Fault::Error(code, Fate::Late)) => {
                pause(behind).await;
                reply.send(Err(code)).ok();
                pause(late).await;
                let outcome = self.enqueue(request, generation).await;
                self.lock().counters.late_commits += u64::from(outcome.is_ok());
                return;
            }
            Some(Fault::Slow(_) | Fault::Restart) | None => self.enqueue(request, generation).await,
        };
        if fault == Some(Fault::Restart) && !early {
            self.restart();
        }
        pause(behind).await;
        let recovered = self.lock().generation != generation;
        // Nobody is there to listen when the transaction was cancelled or destroyed.
        reply.send(if recovered && told.is_ok() { Err(code::COMMIT_UNKNOWN_RESULT) } else { told }).ok();
    }

    async fn enqueue(self: &Arc<Self>, request: CommitRequest, generation: u64) -> Outcome {
        let (outcome, result) = oneshot::channel();
        let first = {
            let mut state = self.lock();
            state.queue.push(Queued { request, generation, outcome });
            state.counters.queued += 1;
            let enough = state.queue.len() >= state.gather;
            enough && !std::mem::replace(&mut state.batching, true)
        };
        if first {
            tokio::spawn(Arc::clone(self).batch());
        }
        result.await.unwrap_or(Err(code::COMMIT_UNKNOWN_RESULT))
    }

    /// Commits what has gathered by the time this task runs.
    async fn batch(self: Arc<Self>) {
        tokio::task::yield_now().await;
        let mut state = self.lock();
        state.batching = false;
        state.gather = 0;
        let version = self.now(&state).max(state.committed + 1);
        let mut touched = Vec::new();
        let queue = std::mem::take(&mut state.queue);
        let mut outcomes = Vec::with_capacity(queue.len());
        for (index, Queued { request, generation, outcome }) in queue.into_iter().enumerate() {
            let batch_index = u16::try_from(index).unwrap_or(u16::MAX);
            let result = if generation == state.generation {
                state.apply(&request, version, batch_index, &mut touched)
            } else {
                Err(code::COMMIT_UNKNOWN_RESULT)
            };
            outcomes.push((outcome, result));
        }
        state.committed = version;
        let oldest = version - state.window;
        state.store.forget(oldest);
        state.resolver.forget(oldest);
        let State { watches, store, .. } = &mut *state;
        watches.changed(&touched, |key| store.get(key, version));
        drop(state);
        for (outcome, result) in outcomes {
            outcome.send(result).ok();
        }
    }
}

impl State {
    fn apply(
        &mut self,
        request: &CommitRequest,
        version: Version,
        batch_index: u16,
        touched: &mut Vec<Bytes>,
    ) -> Outcome {
        // The documentation ties the limit to reads; the stricter reading is taken, for blind writes as well.
        if request.read_version < version - self.window {
            self.counters.too_old += 1;
            return Err(code::TRANSACTION_TOO_OLD);
        }
        if request.read_conflicts.iter().any(|range| self.resolver.written_since(range, request.read_version)) {
            self.counters.conflicts += 1;
            return Err(code::NOT_COMMITTED);
        }
        let age = version.abs_diff(request.read_version);
        self.counters.oldest_commit = self.counters.oldest_commit.max(age);
        let mut stamp = [0; 10];
        stamp[..8].copy_from_slice(&version.to_be_bytes());
        stamp[8..].copy_from_slice(&batch_index.to_be_bytes());
        for range in &request.write_conflicts {
            self.resolver.write(range, version);
        }
        for mutation in &request.mutations {
            if let Mutation::StampedKey(key, _) = mutation {
                self.resolver.write(&single(&stamped(key, &stamp)), version);
            }
            self.store.apply(version, mutation, &stamp, touched);
        }
        self.counters.commits_applied += 1;
        Ok(Reply::Committed { version, batch_index })
    }

    fn count(&mut self, request: &CommitRequest) {
        let counters = &mut self.counters;
        counters.commits += 1;
        counters.mutations += request.mutations.len() as u64;
        counters.read_conflict_ranges += request.read_conflicts.len() as u64;
        counters.write_conflict_ranges += request.write_conflicts.len() as u64;
        counters.commit_bytes += request.size;
        counters.largest_commit = counters.largest_commit.max(request.size);
        for mutation in &request.mutations {
            let (key, value) = match mutation {
                Mutation::Clear(_) => {
                    counters.ranges_cleared += 1;
                    continue;
                }
                Mutation::Set(key, value)
                | Mutation::Atomic(_, key, value)
                | Mutation::StampedKey(key, value)
                | Mutation::StampedValue(key, value) => (key.len() as u64, value.len() as u64),
            };
            counters.keys_written += 1;
            counters.key_bytes_written += key;
            counters.value_bytes_written += value;
            counters.largest_key = counters.largest_key.max(key);
            counters.largest_value = counters.largest_value.max(value);
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
