use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::*;
use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore};
use crate::types::{CommitId, DatabaseId, Epoch, Txid};

/// A store without any database, whose calls last for a while: what they answer does not matter here.
struct Slow {
    runtime: Runtime,
    batcher: Arc<CommitBatcher>,
    plan: Arc<FaultPlan>,
}

fn request(database: u64) -> CommitRequest {
    CommitRequest {
        database: DatabaseId(database),
        epoch: Epoch(1),
        expected: Txid(0),
        commit_id: CommitId([0; 16]),
        size: 0,
        record: Bytes::new(),
        staged: None,
        release: false,
    }
}

impl Slow {
    fn new() -> Self {
        Self::with(None)
    }

    /// With this fault, of those calls that it does not let pass.
    fn with(fault: Option<Fault>) -> Self {
        let plan = Arc::new(FaultPlan::default());
        if let Some(fault) = fault {
            plan.arm(fault);
        }
        plan.arm(Fault { operation: None, after: 0, times: u64::MAX, effect: Effect::Delay(300) });
        let store = FaultLayer::new(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>, Arc::clone(&plan));
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        Self { runtime, batcher: Arc::new(CommitBatcher::new(Arc::new(store), 2)), plan }
    }

    /// Starts a commit, and lets it come as far as it can without waiting.
    fn start(&self, database: u64) -> JoinHandle<Result<()>> {
        let batcher = Arc::clone(&self.batcher);
        let task = self.runtime.spawn(async move { batcher.commit(request(database)).await });
        self.runtime.block_on(yield_now());
        task
    }

    /// Waits until it is answered, and says how.
    fn answer(&self, task: JoinHandle<Result<()>>) -> ErrorKind {
        let answered = self.runtime.block_on(async { timeout(Duration::from_secs(20), task).await });
        answered.expect("it is answered").unwrap().unwrap_err().kind()
    }

    /// Waits until it is answered by the store.
    fn end(&self, task: JoinHandle<Result<()>>) {
        assert_eq!(self.answer(task), ErrorKind::NotFound);
    }

    /// A call, and then one of three together; how those are answered.
    fn three_together(&self) -> [ErrorKind; 3] {
        let first = self.start(9);
        let tasks = [1, 2, 3].map(|database| self.start(database));
        self.end(first);
        tasks.map(|task| self.answer(task))
    }
}

#[test]
fn a_few_wait_and_share_the_next_call() {
    let slow = Slow::new();
    let tasks: Vec<_> = (0..WORTH_A_CALL as u64).map(|database| slow.start(database)).collect();
    assert_eq!(slow.plan.calls(), 1, "the first alone");
    for task in tasks {
        slow.end(task);
    }
    assert_eq!(slow.plan.calls(), 2);
}

#[test]
fn many_do_not_wait_for_the_call_under_way() {
    let slow = Slow::new();
    let many = WORTH_A_CALL as u64;
    let tasks: Vec<_> = (0..=many).map(|database| slow.start(database)).collect();
    assert_eq!(slow.plan.calls(), 2, "the first alone, and all others");
    let more: Vec<_> = (100..100 + many).map(|database| slow.start(database)).collect();
    assert_eq!(slow.plan.calls(), 2, "never a third");
    for task in tasks.into_iter().chain(more) {
        slow.end(task);
    }
    assert_eq!(slow.plan.calls(), 3);
}

/// The lead was handed to one that was dropped before it looked: nobody led any more, and all later commits waited for
/// ever.
#[test]
fn lead_of_one_that_is_gone_is_handed_on() {
    let slow = Slow::new();
    let first = slow.start(1);
    let mut gone = Box::pin(slow.batcher.commit(request(2)));
    assert!(gone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let third = slow.start(3);
    slow.end(first);
    assert_eq!(lock(&slow.batcher.queue).calls, 1, "the second was told to lead");
    drop(gone);
    slow.end(third);
    slow.end(slow.start(4));
    assert_eq!(lock(&slow.batcher.queue).calls, 0);
}

/// A batch that failed for one of them, and certainly took no effect, failed for all when the store said `Unavailable`:
/// each database with one that was always refused had to wait until it was not in the same call by chance.
#[test]
fn call_that_took_no_effect_is_split() {
    let twice = Fault { operation: None, after: 1, times: 2, effect: Effect::Refuse };
    let slow = Slow::with(Some(twice));
    assert_eq!(slow.three_together(), [ErrorKind::Unavailable, ErrorKind::NotFound, ErrorKind::NotFound]);
    assert_eq!(slow.plan.calls(), 1 + 1 + 3);
}

/// A store that is not there is not asked for each, one after the other.
#[test]
fn parts_of_a_call_are_sent_at_the_same_moment() {
    let once = Fault { operation: None, after: 1, times: 1, effect: Effect::Refuse };
    let slow = Slow::with(Some(once));
    let first = slow.start(9);
    let tasks = [1, 2, 3].map(|database| slow.start(database));
    slow.end(first);
    slow.runtime.block_on(async {
        while slow.plan.calls() < 3 {
            yield_now().await;
        }
    });
    assert_eq!(slow.plan.calls(), 1 + 1 + 3, "none of them has ended yet");
    for task in tasks {
        slow.end(task);
    }
}

#[test]
fn call_that_may_have_taken_effect_is_not_split() {
    let once = Fault { operation: None, after: 1, times: 1, effect: Effect::LoseReply };
    let slow = Slow::with(Some(once));
    assert_eq!(slow.three_together(), [ErrorKind::CommitUnknown; 3]);
    assert_eq!(slow.plan.calls(), 1 + 1);
}
