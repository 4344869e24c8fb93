//! The bridge: lets a synchronous caller, SQLite, wait for asynchronous work.
//!
//! The future is polled on the caller's own thread, inside the context of the fleet's runtime, whose threads drive the
//! sockets and timers; between polls the thread is parked. Unlike `Handle::block_on` this works on every thread, a
//! worker of any Tokio runtime included, and a future that is ready at once costs neither a thread switch nor a wake-up.
//!
//! Two things of Tokio's need care on a worker of another runtime. Its budget for cooperative scheduling would be used up,
//! so the future runs without one. And `tokio::task::yield_now` puts the wake-up off until that worker is idle, which it
//! is not while we wait: so the thread looks again after [`RECHECK`] even if nobody woke it. Stores should not yield.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

use crate::error::{Error, Result};

/// How long a wake-up can be put off at most.
const RECHECK: Duration = Duration::from_millis(20);

/// Waits for futures, and runs work in the background.
#[derive(Debug)]
pub(crate) struct Bridge {
    handle: Handle,
    owned: Option<Runtime>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
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

    /// On a runtime of the caller's, which must be a multi-threaded one.
    pub(crate) fn on(handle: Handle) -> Self {
        Self { handle, owned: None }
    }

    /// Waits until the future is ready. Never fails, on any thread.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        let multi_thread = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
        if self.owned.is_none() && Handle::try_current().is_ok_and(multi_thread) {
            // Perhaps a worker of the very runtime that drives the sockets and timers: another takes its place meanwhile.
            return tokio::task::block_in_place(|| self.drive(future));
        }
        self.drive(future)
    }

    fn drive<F: Future>(&self, future: F) -> F::Output {
        let _context = self.handle.enter();
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(tokio::task::unconstrained(future));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            std::thread::park_timeout(RECHECK);
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

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.owned.take() {
            // A fleet may be dropped on a thread of another runtime, where waiting for the threads would panic.
            runtime.shutdown_background();
        }
    }
}

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
}
