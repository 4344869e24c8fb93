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
        let plan = Arc::new(FaultPlan::default());
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

    /// Waits until it is answered.
    fn end(&self, task: JoinHandle<Result<()>>) {
        let answered = self.runtime.block_on(async { timeout(Duration::from_secs(20), task).await });
        let outcome = answered.expect("it is answered").unwrap();
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotFound);
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
