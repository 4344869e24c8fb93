//! Spoils chosen calls: what a network and a crashing server do to a client, on demand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::intercept::{Call, Deferred, Interceptor, Operation, Verdict};
use crate::error::{Error, Result};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It never reaches the store, and the caller knows.
    Refuse,
    /// It never reaches the store, and the caller does not know.
    LoseRequest,
    /// It takes effect, and the caller does not know.
    LoseReply,
    /// The caller does not know, and it reaches the store later: at [`FaultPlan::deliver`].
    Late,
    /// It takes this many milliseconds longer.
    Delay(u64),
    /// The store is full.
    Full,
}

/// Which call is spoiled, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Only calls of this operation count; `None` counts all.
    pub operation: Option<Operation>,
    /// How many such calls pass before.
    pub after: u64,
    /// How many are spoiled.
    pub times: u64,
    /// How.
    pub effect: Effect,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
}

/// The faults of a layer. Empty at first: a layer without faults passes everything on.
#[derive(Default)]
pub struct FaultPlan {
    armed: Mutex<Vec<Armed>>,
    late: Mutex<Vec<Deferred>>,
    calls: AtomicU64,
    hits: AtomicU64,
}

impl std::fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultPlan").field("armed", &self.armed).field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl FaultPlan {
    /// Adds a fault. Its calls are counted from now.
    pub fn arm(&self, fault: Fault) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).push(Armed { fault, seen: 0 });
    }

    /// Removes all faults.
    pub fn disarm(&self) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Calls that came by, spoiled or not.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Calls that were spoiled.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// Lets the late calls reach the store, in order. Returns how many.
    pub async fn deliver(&self) -> usize {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        let count = late.len();
        for call in late {
            call.await;
        }
        count
    }

    fn lost(call: Call) -> Error {
        let operation = call.operation.as_str();
        match call.operation {
            Operation::Commit => Error::commit_unknown("the reply to the commit was lost (injected fault)"),
            _ => Error::unavailable(format!("the reply to {operation} was lost (injected fault)")),
        }
    }

    /// The effect that this call meets, judged once: before it.
    fn judge(&self, call: Call) -> Option<Effect> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut effect = None;
        for entry in armed.iter_mut().filter(|entry| entry.fault.operation.is_none_or(|op| op == call.operation)) {
            let index = entry.seen;
            entry.seen += 1;
            if index >= entry.fault.after && index - entry.fault.after < entry.fault.times {
                effect = effect.or(Some(entry.fault.effect));
            }
        }
        if effect.is_some() {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
        effect
    }
}

impl Interceptor for FaultPlan {
    fn before(&self, call: Call) -> Verdict {
        match self.judge(call) {
            None => Verdict::Proceed,
            Some(Effect::Refuse) => Verdict::Fail(Error::unavailable("the store was not reached (injected fault)")),
            Some(Effect::Full) => Verdict::Fail(Error::full("the store has no room (injected fault)")),
            Some(Effect::LoseRequest) => Verdict::Fail(Self::lost(call)),
            Some(Effect::LoseReply) => Verdict::ProceedThenFail(Self::lost(call)),
            Some(Effect::Late) => Verdict::Late(Self::lost(call)),
            Some(Effect::Delay(millis)) => Verdict::Wait(Duration::from_millis(millis)),
        }
    }

    fn after(&self, _: Call, _: Result<u64, &Error>) {}

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, deferred: Deferred) {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(deferred);
    }
}
