//! A layer that looks at the store through a follower's eyes, and sets things off at a chosen call.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use litefleet::store::{Call, Deferred, Interceptor, Operation, Verdict};
use litefleet::{Error, Result};

type Action = Box<dyn FnOnce() + Send>;
type Observer = Box<dyn FnMut() -> Result<(), String> + Send>;

struct Trigger {
    operation: Operation,
    /// Calls of the operation that still pass before.
    after: u64,
    action: Action,
}

/// Counts calls by operation, runs an action just before one of them, and an observer after each.
///
/// The observer's complaints are kept, not raised: a panic here would only become an I/O error for SQLite.
#[derive(Default)]
pub struct Watch {
    counts: Mutex<BTreeMap<Operation, u64>>,
    trigger: Mutex<Option<Trigger>>,
    observer: Mutex<Option<Observer>>,
    complaints: Mutex<Vec<String>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("counts", &self.counts).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Runs `action` just before the call of an operation that comes after `after` others of it.
    pub fn trigger(&self, operation: Operation, after: u64, action: impl FnOnce() + Send + 'static) {
        *lock(&self.trigger) = Some(Trigger { operation, after, action: Box::new(action) });
    }

    /// Whether the trigger was not reached.
    pub fn is_waiting(&self) -> bool {
        lock(&self.trigger).is_some()
    }

    /// Runs `observer` after every call that returned.
    pub fn observe(&self, observer: impl FnMut() -> Result<(), String> + Send + 'static) {
        *lock(&self.observer) = Some(Box::new(observer));
    }

    /// Stops to observe.
    pub fn rest(&self) {
        lock(&self.observer).take();
    }

    /// Calls so far.
    pub fn counts(&self) -> BTreeMap<Operation, u64> {
        lock(&self.counts).clone()
    }

    /// What the observer found wrong.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }
}

impl Interceptor for Watch {
    fn before(&self, call: Call) -> Verdict {
        *lock(&self.counts).entry(call.operation).or_default() += 1;
        let due = {
            let mut trigger = lock(&self.trigger);
            match trigger.as_mut().filter(|trigger| trigger.operation == call.operation) {
                Some(Trigger { after: 0, .. }) => trigger.take(),
                Some(waiting) => {
                    waiting.after -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(due) = due {
            (due.action)();
        }
        Verdict::Proceed
    }

    fn after(&self, call: Call, _: Result<u64, &Error>) {
        // A call in the background may come while another is being observed.
        let Ok(mut observer) = self.observer.try_lock() else { return };
        if let Some(Err(complaint)) = observer.as_mut().map(|observe| observe()) {
            lock(&self.complaints).push(format!("after {}: {complaint}", call.operation.as_str()));
        }
    }

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}
