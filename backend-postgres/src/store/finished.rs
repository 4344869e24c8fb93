//! Calls that run to their end.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::runtime::Handle;

/// A call. Whoever waits for it runs it; once nobody does, the store's runtime does.
pub(super) struct Finished<T: Send + 'static> {
    handle: Handle,
    /// None when it is done.
    call: Option<BoxFuture<'static, T>>,
}

impl<T: Send + 'static> Finished<T> {
    pub(super) fn new(handle: Handle, call: impl Future<Output = T> + Send + 'static) -> Self {
        Self { handle, call: Some(call.boxed()) }
    }
}

impl<T: Send + 'static> Future for Finished<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self { handle, call } = &mut *self;
        let Some(running) = call else { return Poll::Pending };
        // Its sockets and timers are this runtime's.
        let _context = handle.enter();
        let outcome = running.poll_unpin(context);
        if outcome.is_ready() {
            *call = None;
        }
        outcome
    }
}

impl<T: Send + 'static> Drop for Finished<T> {
    fn drop(&mut self) {
        // One that has panicked cannot go on.
        if let Some(call) = self.call.take().filter(|_| !std::thread::panicking()) {
            self.handle.spawn(call);
        }
    }
}
