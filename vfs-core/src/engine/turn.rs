//! Turns: one at a time takes the lease of a database, or asks for its head, and the others wait.
//!
//! While the store is away each try takes as long as the store is tried for. Who has waited through a whole one of another thread is
//! told what that one was and makes no other, so nobody waits for more than two, however many wait. A try that began before
//! somebody came does not count for that one: it has not been made for as long as was asked for.

use std::time::Duration;

use tokio::sync::MutexGuard;

use super::database::Database;
use crate::error::{Error, ErrorKind, Result};

/// What is tried. A store may have the one and not the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Try {
    /// To take the lease.
    Lease,
    /// To look at the head.
    Head,
}

/// The tries of a database, by when they began.
#[derive(Debug, Default)]
pub(super) struct Tries {
    begun: u64,
    /// The last one of each that has ended, if it did not reach the store.
    failed: [Option<(u64, Error)>; 2],
}

impl Tries {
    fn failed(&mut self, what: Try) -> &mut Option<(u64, Error)> {
        let [lease, head] = &mut self.failed;
        match what {
            Try::Lease => lease,
            Try::Head => head,
        }
    }
}

/// The turn of one who has waited for it.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    database: &'a Database,
    _acquiring: MutexGuard<'a, ()>,
    /// Since when it was waited for.
    pub(super) since: Duration,
    /// The tries that had begun by then.
    begun: u64,
}

impl Database {
    pub(super) async fn turn(&self) -> Turn<'_> {
        let (since, begun) = (self.fleet.clock.monotonic(), self.core().tries.begun);
        Turn { database: self, _acquiring: self.acquiring.lock().await, since, begun }
    }
}

impl Turn<'_> {
    /// Makes a try, unless one that has failed was waited for from its beginning.
    pub(super) async fn make<F>(&self, what: Try, made: F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let number = {
            let mut core = self.database.core();
            if let Some((_, error)) = core.tries.failed(what).as_ref().filter(|(number, _)| *number > self.begun) {
                return Err(error.clone());
            }
            core.tries.begun += 1;
            core.tries.begun
        };
        let made = made.await;
        let error = made.as_ref().err().filter(|error| error.kind() == ErrorKind::Unavailable);
        *self.database.core().tries.failed(what) = error.map(|error| (number, error.clone()));
        made
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
