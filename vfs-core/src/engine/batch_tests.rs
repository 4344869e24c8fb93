use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::*;
use crate::store::{Call, Deferred, Effect, Fault, FaultLayer, FaultPlan, Interceptor, Layer, MemoryStore, Verdict};
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
        follows: CommitId::default(),
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

/// Refuses the first call, and lets the commit of one database hang when it comes alone after that. A database's record is of
/// as many bytes as its number.
#[derive(Debug, Default)]
struct Parts {
    calls: AtomicUsize,
    hanging: Option<u64>,
    deadlines: Mutex<Vec<(u64, Option<Deadline>)>>,
}

impl Interceptor for Parts {
    fn before(&self, call: Call) -> Verdict {
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            return Verdict::Fail(Error::unavailable("one of them is the reason"));
        }
        self.deadlines.lock().unwrap().push((call.sent, deadline::current()));
        let hangs = self.hanging == Some(call.sent);
        if hangs { Verdict::Wait(Duration::from_secs(1_000_000)) } else { Verdict::Proceed }
    }

    fn after(&self, _: Call, _: Result<u64, &Error>) {}

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}

/// Starts the commit of a database whose caller waits for so many seconds.
fn start(runtime: &Runtime, batcher: &Arc<CommitBatcher>, database: u64, seconds: u64) -> JoinHandle<Result<()>> {
    let batcher = Arc::clone(batcher);
    let record = Bytes::from(vec![0; usize::try_from(database).unwrap()]);
    let request = CommitRequest { record, ..request(database) };
    let deadline = Deadline::after(Duration::from_secs(seconds));
    let task = runtime.spawn(deadline::scope(deadline, async move { batcher.commit(request).await }));
    runtime.block_on(yield_now());
    task
}

/// Three commits in one call, which is refused.
fn split(parts: &Arc<Parts>) -> (Runtime, Arc<CommitBatcher>, [JoinHandle<Result<()>>; 3]) {
    let store = Layer::new(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>, Arc::clone(parts));
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let batcher = Arc::new(CommitBatcher::new(Arc::new(store), 1));
    lock(&batcher.queue).calls += 1;
    let under_way = Leadership { queue: Arc::clone(&batcher.queue), requests: 0 };
    let tasks = [1, 2, 3].map(|database| start(&runtime, &batcher, database, 1000 * database));
    drop(under_way);
    (runtime, batcher, tasks)
}

fn answer(runtime: &Runtime, task: JoinHandle<Result<()>>) -> ErrorKind {
    let answered = runtime.block_on(async { timeout(Duration::from_secs(20), task).await });
    answered.expect("it is answered").unwrap().unwrap_err().kind()
}

/// The parts went to the store without the deadlines of their callers, who were long gone when it gave up.
#[test]
fn parts_of_a_call_know_until_when_their_callers_wait() {
    let parts = Arc::new(Parts::default());
    let (runtime, _batcher, tasks) = split(&parts);
    for task in tasks {
        assert_eq!(answer(&runtime, task), ErrorKind::NotFound);
    }
    let mut deadlines = parts.deadlines.lock().unwrap().clone();
    deadlines.sort_unstable();
    assert_eq!(deadlines.len(), 3);
    for (database, deadline) in deadlines {
        let left = deadline.expect("its caller waits for so long").left();
        let most = Duration::from_secs(1000 * database);
        assert!(left <= most && left > most.saturating_sub(Duration::from_secs(900)), "{database}: {left:?}");
    }
}

/// One that hung, since somebody had locked its head, held up all that had been in its call, and all that came after.
#[test]
fn part_of_a_call_that_hangs_holds_up_no_other() {
    for hanging in 1..=3 {
        let parts = Arc::new(Parts { hanging: Some(hanging), ..Parts::default() });
        let (runtime, batcher, tasks) = split(&parts);
        let mut left = Vec::new();
        for (database, task) in (1..).zip(tasks) {
            if database == hanging {
                left.push(task);
            } else {
                assert_eq!(answer(&runtime, task), ErrorKind::NotFound, "{hanging} hangs");
            }
        }
        assert_eq!(answer(&runtime, start(&runtime, &batcher, 4, 4000)), ErrorKind::NotFound, "the next call");
        assert!(left.iter().all(|task| !task.is_finished()));
    }
}
