//! The bridge: lets a synchronous caller, SQLite, wait for asynchronous work.
//!
//! The future is polled on the caller's own thread, inside the context of the fleet's runtime, whose threads drive the
//! sockets and timers; between polls the thread is parked. Unlike `Handle::block_on` this works on every thread, a
//! worker of any Tokio runtime included, and a future that is ready at once costs neither a thread switch nor a wake-up.
//!
//! A worker of the very runtime that drives the sockets and timers is another matter: while it waits here, another must take
//! its place (`block_in_place`). Whether a thread is such a worker Tokio does not tell. It refuses with a panic on a thread
//! that only looks like one: in a `LocalSet`, or in a current-thread runtime that has entered the other's context. Then the
//! thread just waits, since those are not the threads that drive. A wait within a wait is one of those, or is already where
//! another worker has taken over.
//!
//! Two things of Tokio's need care on a worker of another runtime. Its budget for cooperative scheduling would be used up,
//! so the future runs without one. And `tokio::task::yield_now` puts the wake-up off until that worker is idle, which it
//! is not while we wait: so the thread looks again after [`RECHECK`] even if nobody woke it. Stores should not yield.

mod alarm;

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

use crate::error::{Error, Result};
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::store::sockets::Watched;

use alarm::Alarm;

/// How long a wake-up can be put off at most.
const RECHECK: Duration = Duration::from_millis(20);
/// How often a thread that was refused as a worker looks whether the future is ready before it asks again: it may have become
/// one since.
const PATIENCE: u32 = 50;

thread_local! {
    /// In the middle of a wait, and no worker that another should take the place of, or one whose place was taken.
    static DRIVING: Cell<bool> = const { Cell::new(false) };
    /// Was no worker when it was last tried, though it looked like one.
    static NO_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Waits for futures, and runs work in the background.
#[derive(Debug)]
pub(crate) struct Bridge {
    handle: Handle,
    owned: Option<Runtime>,
}

/// One wait: what wakes it, and what it looks at itself.
struct Wait {
    alarm: Arc<Alarm>,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    watched: Watched,
}

impl Wait {
    fn new() -> Self {
        Self {
            alarm: Arc::new(Alarm::new()),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            watched: Watched::default(),
        }
    }

    fn poll<F: Future>(&mut self, future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.alarm.rearm();
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return self.watched.during(|| future.poll(context));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return future.poll(context);
    }

    /// Until it is woken, or so long; or, for no reason, less.
    fn sleep(&mut self, most: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(bell) = self.watched.bell() {
            return self.alarm.watch(&mut self.watched, bell, most);
        }
        self.alarm.park(most);
    }
}

impl Bridge {
    /// With a runtime of its own.
    pub(crate) fn start(worker_threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(worker_threads.max(1))
            .thread_name("litefleet")
            .enable_all()
            .build()
            .map_err(|e| Error::internal("cannot start the background threads").with_source(e))?;
        Ok(Self { handle: runtime.handle().clone(), owned: Some(runtime) })
    }

    /// On a runtime of the caller's, which must be a multi-threaded one: the thread of another may be the one that waits, and
    /// nobody would drive what it waits for.
    pub(crate) fn on(handle: Handle) -> Result<Self> {
        if handle.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Err(Error::invalid(
                "a fleet needs a multi-threaded Tokio runtime, and was given a current-thread one",
            ));
        }
        Ok(Self { handle, owned: None })
    }

    /// Waits until the future is ready. Never fails, on any thread.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(tokio::task::unconstrained(future));
        let multi_thread = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
        let perhaps_worker = self.owned.is_none() && !DRIVING.get() && Handle::try_current().is_ok_and(multi_thread);
        let mut wait = Wait::new();
        if !perhaps_worker {
            return self.drive(&mut wait, future);
        }
        // What is ready at once needs nobody to take this one's place.
        let patience = if NO_WORKER.get() { PATIENCE } else { 0 };
        if let Some(output) = self.drive_for(&mut wait, future.as_mut(), patience) {
            return output;
        }
        let mut begun = false;
        let waited = catch_unwind(AssertUnwindSafe(|| {
            tokio::task::block_in_place(|| {
                begun = true;
                self.drive(&mut wait, future.as_mut())
            })
        }));
        NO_WORKER.set(!begun);
        match waited {
            Ok(output) => output,
            Err(panic) if begun => resume_unwind(panic),
            Err(_refused) => self.drive(&mut wait, future),
        }
    }

    /// Polls until the future is ready.
    fn drive<F: Future>(&self, wait: &mut Wait, mut future: Pin<&mut F>) -> F::Output {
        let _driving = Driving::begin();
        loop {
            if let Some(output) = self.drive_for(wait, future.as_mut(), u32::MAX) {
                return output;
            }
        }
    }

    /// Polls, and so many times again after it was woken, or after [`RECHECK`].
    fn drive_for<F: Future>(&self, wait: &mut Wait, mut future: Pin<&mut F>, again: u32) -> Option<F::Output> {
        let _context = self.handle.enter();
        let waker = Waker::from(Arc::clone(&wait.alarm));
        let mut context = Context::from_waker(&waker);
        for _ in 0..again {
            if let Poll::Ready(output) = wait.poll(future.as_mut(), &mut context) {
                return Some(output);
            }
            wait.sleep(RECHECK);
        }
        match wait.poll(future, &mut context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Runs work in the background.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.handle.spawn(future);
    }
}

/// Says, for as long as it lives, that waits within this one need not ask for another worker.
struct Driving {
    before: bool,
}

impl Driving {
    fn begin() -> Self {
        Self { before: DRIVING.replace(true) }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        DRIVING.set(self.before);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.owned.take() {
            // A fleet may be dropped on a thread of another runtime, where waiting for the threads would panic.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "watching_tests.rs"]
mod watching;

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for a timer, yields, and uses up more than a task's budget.
    async fn slow() -> u32 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        for _ in 0..1000 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            sender.send(7).unwrap();
            receiver.await.unwrap();
        }
        7
    }

    #[test]
    fn waits_on_any_thread() {
        let bridge = Bridge::start(1).unwrap();
        assert_eq!(bridge.wait(slow()), 7);
        let current = Builder::new_current_thread().build().unwrap();
        assert_eq!(current.block_on(async { bridge.wait(slow()) }), 7);
        let multi = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let task = async move { bridge.wait(slow()) };
        assert_eq!(multi.block_on(async { tokio::spawn(task).await.unwrap() }), 7);
    }

    fn runtime(worker_threads: usize) -> Runtime {
        Builder::new_multi_thread().worker_threads(worker_threads).enable_all().build().unwrap()
    }

    /// A wait that waits again before and after it is pending, as a commit that has to load pages.
    fn nested(bridge: &Bridge) -> u32 {
        bridge.wait(async {
            let first = bridge.wait(slow());
            tokio::time::sleep(Duration::from_millis(1)).await;
            first + bridge.wait(slow())
        })
    }

    /// It panicked: Tokio lets nobody take the place of a thread that is in a `LocalSet`.
    #[test]
    fn waits_in_a_local_set_of_its_own_runtime() {
        let multi = runtime(2);
        let bridge = std::rc::Rc::new(Bridge::on(multi.handle().clone()).unwrap());
        let local = tokio::task::LocalSet::new();
        let task = std::rc::Rc::clone(&bridge);
        let both = async {
            let task = tokio::task::spawn_local(async move { (task.wait(slow()), nested(&task)) });
            (bridge.wait(slow()), nested(&bridge), task.await.unwrap())
        };
        assert_eq!(multi.block_on(local.run_until(both)), (7, 14, (7, 14)));
    }

    /// It panicked: within the first wait the thread looks as if it were one of the other runtime's.
    #[test]
    fn waits_within_a_wait_on_every_thread() {
        let multi = runtime(1);
        let bridge = Bridge::on(multi.handle().clone()).unwrap();
        assert_eq!(nested(&bridge), 14);
        let current = Builder::new_current_thread().build().unwrap();
        assert_eq!(current.block_on(async { nested(&bridge) }), 14);
        let entered = multi.enter();
        assert_eq!(current.block_on(async { (bridge.wait(slow()), nested(&bridge)) }), (7, 14));
        drop(entered);
        assert_eq!(multi.block_on(async { nested(&bridge) }), 14);
        drop(current);
        // The only worker, and a task on it that must go on meanwhile.
        let bridge = Arc::new(bridge);
        for waited_before in [false, true] {
            let bridge = Arc::clone(&bridge);
            let task = async move {
                if waited_before {
                    bridge.wait(slow());
                }
                nested(&bridge)
            };
            assert_eq!(multi.block_on(async { tokio::spawn(task).await.unwrap() }), 14);
        }
    }

    /// A thread that was refused as a worker and has become one still lets another take its place.
    #[test]
    fn a_thread_that_was_no_worker_may_become_one() {
        let multi = runtime(1);
        let bridge = Arc::new(Bridge::on(multi.handle().clone()).unwrap());
        let task = Arc::clone(&bridge);
        let waited = multi.block_on(async {
            tokio::spawn(async move {
                NO_WORKER.set(true);
                let (sender, receiver) = tokio::sync::oneshot::channel();
                // Only another worker can run it.
                tokio::spawn(async move { sender.send(slow().await).unwrap() });
                let waited = task.wait(receiver).unwrap();
                (waited, NO_WORKER.get())
            })
            .await
            .unwrap()
        });
        assert_eq!(waited, (7, false));
    }

    /// A panic of the future is not taken for a refusal.
    #[test]
    fn a_panic_in_a_wait_is_the_callers() {
        let multi = runtime(1);
        let bridge = Bridge::on(multi.handle().clone()).unwrap();
        let task = async move {
            let wait = || {
                bridge.wait(async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    panic!("injected")
                })
            };
            let panicked = catch_unwind(AssertUnwindSafe(wait)).is_err();
            (panicked, DRIVING.get(), bridge.wait(slow()))
        };
        assert_eq!(multi.block_on(async { tokio::spawn(task).await.unwrap() }), (true, false, 7));
    }

    /// It was taken, and the first call that had to wait for a socket or a timer hung.
    #[test]
    fn current_thread_runtimes_are_refused() {
        let single = Builder::new_current_thread().enable_all().build().unwrap();
        let store = Arc::new(crate::store::MemoryStore::default());
        let fleet = crate::engine::Fleet::builder(store).runtime(single.handle().clone()).build();
        assert_eq!(fleet.unwrap_err().kind(), crate::error::ErrorKind::Invalid);
    }
}
