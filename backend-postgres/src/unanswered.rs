//! Connections whose call was given up.
//!
//! The server goes on with a call, whether somebody waits for its answer or not, and for some time does not even look whether
//! the connection is still there: a commit that waits for its synchronous standby waits until that comes back. So a
//! connection that was closed would only be out of sight, and as many more could be left behind as calls are made. It stays
//! open, and among those that the pool may have, until the server has answered, or the connection has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use crate::link::Link;

#[derive(Debug, Default)]
struct State {
    count: usize,
    /// Those of their permits that nobody else may have meanwhile.
    kept: Vec<OwnedSemaphorePermit>,
}

/// The connections of a pool whose call was given up, and which the server has not answered yet.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// So many of them take nobody's place.
    spare: usize,
    state: Mutex<State>,
}

impl Unanswered {
    pub(crate) fn new(spare: usize) -> Arc<Self> {
        Arc::new(Self { spare, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }

    /// How many of them are in the place of one that could be used.
    pub(crate) fn in_the_way(&self) -> usize {
        self.lock().kept.len()
    }

    /// Waits for the answer on this runtime, and closes the connection then.
    pub(crate) fn see_out(self: &Arc<Self>, link: Link, permit: OwnedSemaphorePermit) {
        {
            let mut state = self.lock();
            state.count += 1;
            if state.count > self.spare {
                state.kept.push(permit);
            }
        }
        let one = One(Arc::clone(self));
        tokio::spawn(async move {
            link.answered().await;
            drop(one);
        });
    }
}

/// One of them.
struct One(Arc<Unanswered>);

impl Drop for One {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.count = state.count.saturating_sub(1);
        let kept = state.count.saturating_sub(self.0.spare);
        state.kept.truncate(kept);
    }
}
