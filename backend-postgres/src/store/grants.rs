//! Opens that nobody waits for any more.
//!
//! A call that was sent runs to its end, also when its future is dropped. For an open that takes a lease this matters to
//! its own process: arriving after the next open, it would raise the epoch under it. So the next one waits until those
//! that were given up are done.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long an open waits for those that were given up: one on a dead connection is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The opens that were given up.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<Vec<watch::Receiver<()>>>);

/// An open that somebody waits for. When it is dropped before it is done, later ones wait for it.
pub(super) struct Grant<'a> {
    grants: &'a Grants,
    /// Closed when the call is done.
    running: watch::Receiver<()>,
}

/// What a call keeps until it is done.
#[derive(Debug)]
pub(super) struct Turn {
    before: Vec<watch::Receiver<()>>,
    _done: watch::Sender<()>,
}

impl Grants {
    fn lock(&self) -> MutexGuard<'_, Vec<watch::Receiver<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one. The turn goes with the call.
    pub(super) fn begin(&self) -> (Turn, Grant<'_>) {
        let mut given_up = self.lock();
        given_up.retain(|running| running.has_changed().is_ok());
        let (done, running) = watch::channel(());
        (Turn { before: given_up.clone(), _done: done }, Grant { grants: self, running })
    }
}

impl Turn {
    /// Waits until those that were given up before are done.
    pub(super) async fn come(&mut self) {
        for mut running in self.before.drain(..) {
            // Nothing is ever sent: what comes is the end of the sender, or of our patience.
            let _done_or_not = timeout(PATIENCE, running.changed()).await;
        }
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        if self.running.has_changed().is_ok() {
            self.grants.lock().push(self.running.clone());
        }
    }
}
