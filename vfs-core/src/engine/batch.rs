//! Commits of different databases that arrive at the same moment share one call to the store.
//!
//! The first to come sends its own at once. Who comes while a call is under way waits, and the next call takes all that
//! wait: a batch is as large as the store is slow, and nobody waits for a timer. Where the settings allow a second call, it
//! does not wait for the first when as many wait as are under way: so the store works for one half while SQLite prepares the
//! other half's next transactions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::store::deadline::{self, Deadline};
use crate::store::{CommitMode, CommitRequest, PageStore};

#[derive(Debug)]
enum Signal {
    Done(Result<()>),
    /// It is this one's turn to send its request, together with those that wait. One that is gone by then hands it on.
    Lead(CommitRequest, Leadership),
}

#[derive(Debug)]
struct Waiting {
    request: CommitRequest,
    /// Until when its caller waits.
    deadline: Option<Deadline>,
    signal: oneshot::Sender<Signal>,
}

impl Waiting {
    fn tell(self, outcome: Result<()>) {
        // A caller that is gone does not want to know.
        let _gone = self.signal.send(Signal::Done(outcome));
    }
}

/// A further call is not made for fewer than these: each is a flush of its own to the store.
const WORTH_A_CALL: usize = 12;

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Calls under way at the most.
    most_calls: usize,
    /// Calls under way, those about to be made included.
    calls: usize,
    /// Requests in them.
    under_way: usize,
}

impl Queue {
    /// Whether so many requests that wait should make a call.
    fn should_call(&self, waiting: usize) -> bool {
        match self.calls {
            0 => waiting > 0,
            calls => calls < self.most_calls && waiting >= self.under_way.max(WORTH_A_CALL),
        }
    }
}

/// Gathers commits.
#[derive(Debug)]
pub(crate) struct CommitBatcher {
    store: Arc<dyn PageStore>,
    queue: Arc<Mutex<Queue>>,
}

/// A call under way, or about to be made. It hands the lead on when the leader is done, or gone.
#[derive(Debug)]
struct Leadership {
    queue: Arc<Mutex<Queue>>,
    requests: usize,
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Leadership {
    fn drop(&mut self) {
        let next = {
            let mut queue = lock(&self.queue);
            queue.calls -= 1;
            queue.under_way -= self.requests;
            let next = if queue.should_call(queue.waiting.len()) { queue.waiting.pop_front() } else { None };
            queue.calls += usize::from(next.is_some());
            next
        };
        if let Some(next) = next {
            let leadership = Self { queue: Arc::clone(&self.queue), requests: 0 };
            // One that cannot be told is gone, and so is its wish to commit; then this hands the lead on at once.
            let _gone = next.signal.send(Signal::Lead(next.request, leadership));
        }
    }
}

impl CommitBatcher {
    pub(crate) fn new(store: Arc<dyn PageStore>, most_calls: usize) -> Self {
        let queue = Queue { waiting: VecDeque::new(), most_calls, calls: 0, under_way: 0 };
        Self { store, queue: Arc::new(Mutex::new(queue)) }
    }

    /// Commits one request, together with those that happen to wait.
    pub(crate) async fn commit(&self, request: CommitRequest) -> Result<()> {
        let receiver = {
            let mut queue = lock(&self.queue);
            if queue.should_call(queue.waiting.len() + 1) {
                queue.calls += 1;
                None
            } else {
                let (signal, receiver) = oneshot::channel();
                queue.waiting.push_back(Waiting { request: request.clone(), deadline: deadline::current(), signal });
                Some(receiver)
            }
        };
        let Some(receiver) = receiver else {
            return self.lead(request, Leadership { queue: Arc::clone(&self.queue), requests: 0 }).await;
        };
        match receiver.await {
            Ok(Signal::Done(outcome)) => outcome,
            Ok(Signal::Lead(request, leadership)) => self.lead(request, leadership).await,
            Err(_) => Err(Error::commit_unknown("the call that this commit was part of was cancelled")),
        }
    }

    async fn lead(&self, own: CommitRequest, mut leadership: Leadership) -> Result<()> {
        let waiting = self.take_batch(&own, &mut leadership);
        metrics::histogram!("litefleet_commit_batch_size").record(u32::try_from(waiting.len() + 1).unwrap_or(u32::MAX));
        // The call goes on for as long as any of their callers waits; `None` is for ever.
        let later = |one: Option<Deadline>, other: &Waiting| one.zip(other.deadline).map(|(one, other)| one.max(other));
        let latest = waiting.iter().fold(deadline::current(), later);
        let others = waiting.iter().map(|other| other.request.clone());
        let requests = std::iter::once(own.clone()).chain(others).collect();
        let sent = deadline::scope(latest, self.store.commit(requests, CommitMode::Independent)).await;
        // The store need not wait until all are told, and nobody until the last part of a call that is split has ended.
        drop(leadership);
        let count = waiting.len() + 1;
        let outcomes = match sent {
            Ok(outcomes) if outcomes.len() == count => outcomes,
            Ok(outcomes) => {
                // Which are whose nobody knows: each finds out its own.
                let error = Error::commit_unknown(format!("{count} commits had {} outcomes", outcomes.len()));
                vec![Err(error); count]
            }
            // Each resolves its own.
            Err(error) if count == 1 || error.kind() == ErrorKind::CommitUnknown => vec![Err(error); count],
            // Nothing took effect, and one of them may be the reason: none may fail for another's.
            Err(_) => return self.send_each(own, waiting).await,
        };
        let mut outcomes = outcomes.into_iter();
        let own = outcomes.next().unwrap_or_else(|| Err(Error::internal("the store returned no outcome")));
        for (other, outcome) in waiting.into_iter().zip(outcomes) {
            other.tell(outcome);
        }
        own
    }

    /// As many of the waiting requests as the store takes at once together with the leader's.
    fn take_batch(&self, own: &CommitRequest, leadership: &mut Leadership) -> Vec<Waiting> {
        let limits = self.store.limits();
        let mut queue = lock(&self.queue);
        let mut bytes = own.record.len();
        let mut batch: Vec<Waiting> = Vec::new();
        while let Some(next) = queue.waiting.front() {
            bytes += next.request.record.len();
            // Two commits of one database cannot share a call.
            let database = next.request.database;
            let twice = database == own.database || batch.iter().any(|other| other.request.database == database);
            if batch.len() + 1 >= limits.atomic_databases || bytes > limits.atomic_bytes || twice {
                break;
            }
            batch.extend(queue.waiting.pop_front());
        }
        leadership.requests = batch.len() + 1;
        queue.under_way += leadership.requests;
        batch
    }

    /// Sends each alone, all at the same moment, and each for as long as its own caller waits: where the store cannot be
    /// reached, they wait for that together, and one that hangs holds up no other.
    async fn send_each(&self, own: CommitRequest, waiting: Vec<Waiting>) -> Result<()> {
        for other in waiting {
            let store = Arc::clone(&self.store);
            // One that panics tells nobody, and its caller takes the outcome for unknown.
            tokio::spawn(deadline::scope(other.deadline, async move {
                let outcome = send_alone(&*store, other.request.clone()).await;
                drop(store);
                other.tell(outcome);
            }));
        }
        send_alone(&*self.store, own).await
    }
}

async fn send_alone(store: &dyn PageStore, request: CommitRequest) -> Result<()> {
    let mut outcomes = store.commit(vec![request], CommitMode::Independent).await?;
    outcomes.pop().unwrap_or_else(|| Err(Error::commit_unknown("the store returned no outcome")))
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
