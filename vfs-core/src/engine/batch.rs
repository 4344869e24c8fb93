//! Commits of different databases that arrive at the same moment share one call to the store.
//!
//! The first to come sends its own at once. Who comes while a call is under way waits, and the next call takes all that
//! wait: a batch is as large as the store is slow, and nobody waits for a timer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{CommitMode, CommitRequest, PageStore};

#[derive(Debug)]
enum Signal {
    Done(Result<()>),
    /// It is this one's turn to send its request, together with those that wait.
    Lead(CommitRequest),
}

#[derive(Debug)]
struct Waiting {
    request: CommitRequest,
    signal: oneshot::Sender<Signal>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    busy: bool,
}

/// Gathers commits.
#[derive(Debug)]
pub(crate) struct CommitBatcher {
    store: Arc<dyn PageStore>,
    queue: Mutex<Queue>,
}

/// Hands the lead on when the leader is done, or gone.
struct Leadership<'a>(&'a CommitBatcher);

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        while let Some(next) = queue.waiting.pop_front() {
            // One that cannot be told is gone, and so is its wish to commit.
            if next.signal.send(Signal::Lead(next.request)).is_ok() {
                return;
            }
        }
        queue.busy = false;
    }
}

impl CommitBatcher {
    pub(crate) fn new(store: Arc<dyn PageStore>) -> Self {
        Self { store, queue: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits one request, together with those that happen to wait.
    pub(crate) async fn commit(&self, request: CommitRequest) -> Result<()> {
        let receiver = {
            let mut queue = self.lock();
            if queue.busy {
                let (signal, receiver) = oneshot::channel();
                queue.waiting.push_back(Waiting { request: request.clone(), signal });
                Some(receiver)
            } else {
                queue.busy = true;
                None
            }
        };
        let Some(receiver) = receiver else { return self.lead(request).await };
        match receiver.await {
            Ok(Signal::Done(outcome)) => outcome,
            Ok(Signal::Lead(request)) => self.lead(request).await,
            Err(_) => Err(Error::commit_unknown("the call that this commit was part of was cancelled")),
        }
    }

    async fn lead(&self, own: CommitRequest) -> Result<()> {
        let _leadership = Leadership(self);
        let (requests, signals) = self.take_batch(own);
        metrics::histogram!("litefleet_commit_batch_size").record(u32::try_from(requests.len()).unwrap_or(u32::MAX));
        let mut outcomes = self.send(requests).await.into_iter();
        let own = outcomes.next().unwrap_or_else(|| Err(Error::internal("the store returned no outcome")));
        for (signal, outcome) in signals.into_iter().zip(outcomes) {
            // A caller that is gone does not want to know.
            let _gone = signal.send(Signal::Done(outcome));
        }
        own
    }

    /// The leader's request, and as many of the waiting ones as the store takes at once.
    fn take_batch(&self, own: CommitRequest) -> (Vec<CommitRequest>, Vec<oneshot::Sender<Signal>>) {
        let limits = self.store.limits();
        let mut queue = self.lock();
        let mut bytes = own.record.len();
        let mut requests = vec![own];
        let mut signals = Vec::new();
        while let Some(next) = queue.waiting.front() {
            bytes += next.request.record.len();
            // Two commits of one database cannot share a call.
            let twice = requests.iter().any(|request| request.database == next.request.database);
            if requests.len() >= limits.atomic_databases || bytes > limits.atomic_bytes || twice {
                break;
            }
            if let Some(next) = queue.waiting.pop_front() {
                requests.push(next.request);
                signals.push(next.signal);
            }
        }
        (requests, signals)
    }

    async fn send(&self, requests: Vec<CommitRequest>) -> Vec<Result<()>> {
        let count = requests.len();
        match self.store.commit(requests.clone(), CommitMode::Independent).await {
            Ok(outcomes) if outcomes.len() == count => outcomes,
            Ok(outcomes) => {
                let error = Error::internal(format!("{count} commits had {} outcomes", outcomes.len()));
                vec![Err(error); count]
            }
            // Each resolves its own, or tries its own again.
            Err(error) if count == 1 || matches!(error.kind(), ErrorKind::CommitUnknown | ErrorKind::Unavailable) => {
                vec![Err(error); count]
            }
            // One of them may be the reason: none may fail for another's.
            Err(_) => {
                let mut outcomes = Vec::with_capacity(count);
                for request in requests {
                    let outcome = self.store.commit(vec![request], CommitMode::Independent).await;
                    outcomes.push(outcome.and_then(|mut one| {
                        one.pop().unwrap_or_else(|| Err(Error::internal("the store returned no outcome")))
                    }));
                }
                outcomes
            }
        }
    }
}
