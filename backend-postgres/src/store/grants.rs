//! Opens that nobody waits for any more.
//!
//! A call that was sent runs to its end, also when its future is dropped. For an open that takes a lease this matters to
//! its own process: arriving after the next open, it would raise the epoch under it. So the next one of that name waits
//! until those that were given up are done.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litefleet::DatabaseName;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long an open waits for all those that were given up: one on a dead connection is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// An open of a database that runs. Closed when it is done.
#[derive(Clone, Debug)]
struct Running(DatabaseName, watch::Receiver<()>);

impl Running {
    fn is_done(&self) -> bool {
        self.1.has_changed().is_err()
    }
}

/// The opens that were given up.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<Vec<Running>>);

/// An open that somebody waits for. When it is dropped before it is done, later ones wait for it.
pub(super) struct Grant<'a> {
    grants: &'a Grants,
    running: Running,
}

/// What a call keeps until it is done.
#[derive(Debug)]
pub(super) struct Turn {
    before: Vec<Running>,
    _done: watch::Sender<()>,
}

impl Grants {
    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one. The turn goes with the call.
    pub(super) fn begin(&self, name: &DatabaseName) -> (Turn, Grant<'_>) {
        let mut given_up = self.lock();
        given_up.retain(|running| !running.is_done());
        let before = given_up.iter().filter(|running| running.0 == *name).cloned().collect();
        let (done, running) = watch::channel(());
        (Turn { before, _done: done }, Grant { grants: self, running: Running(name.clone(), running) })
    }
}

impl Turn {
    /// Waits until those that were given up before are done.
    pub(super) async fn come(&mut self) {
        let end = Instant::now() + PATIENCE;
        for mut running in self.before.drain(..) {
            // Nothing is ever sent: what comes is the end of the sender, or of our patience.
            let _done_or_not = timeout_at(end, running.1.changed()).await;
        }
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        if !self.running.is_done() {
            self.grants.lock().push(self.running.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins one and gives it up. It is on its way as long as its turn is kept.
    fn give_up(grants: &Grants, name: &DatabaseName) -> Turn {
        let (turn, grant) = grants.begin(name);
        drop(grant);
        turn
    }

    /// Every open of any database waited two seconds for each that was given up, one after the other.
    #[tokio::test(start_paused = true)]
    async fn those_of_the_same_name_are_waited_for_together() {
        let (grants, ours, other) =
            (Grants::default(), DatabaseName::new("a").unwrap(), DatabaseName::new("b").unwrap());
        let late = [give_up(&grants, &ours), give_up(&grants, &ours), give_up(&grants, &ours)];
        let begin = Instant::now();
        grants.begin(&other).0.come().await;
        assert_eq!(begin.elapsed(), Duration::ZERO, "another name");
        grants.begin(&ours).0.come().await;
        assert_eq!(begin.elapsed(), PATIENCE, "all of them at once");
        drop(late);
        grants.begin(&ours).0.come().await;
        assert_eq!(begin.elapsed(), PATIENCE, "they are done");
    }
}
