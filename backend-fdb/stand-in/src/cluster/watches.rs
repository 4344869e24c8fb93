//! Watches: who waits for which key to have another value.
//!
//! Source: FoundationDB documentation, "Developer Guide", watches: a watch reports that a value changed; when the value
//! changes back at once, it may report nothing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Cluster;
use super::faults::Kind;
use super::protocol::Reply;
use crate::code::{self, Code};

#[derive(Debug, Default)]
pub(super) struct Watches(HashMap<Bytes, Vec<Waiter>>);

#[derive(Debug)]
struct Waiter {
    value: Option<Bytes>,
    wake: oneshot::Sender<()>,
}

impl Watches {
    /// Wakes those whose key now has another value.
    pub(super) fn changed<'a>(&mut self, keys: &[Bytes], newest: impl Fn(&Bytes) -> Option<&'a Bytes>) {
        if self.0.is_empty() {
            return;
        }
        for key in keys {
            let Some(waiters) = self.0.remove(key) else { continue };
            let newest = newest(key);
            let (wake, keep): (Vec<_>, Vec<_>) =
                waiters.into_iter().partition(|waiter| waiter.value.as_ref() != newest);
            for waiter in wake {
                waiter.wake.send(()).ok();
            }
            // Waiters whose future was cancelled are dropped on this occasion.
            let keep: Vec<_> = keep.into_iter().filter(|waiter| !waiter.wake.is_closed()).collect();
            if !keep.is_empty() {
                self.0.insert(key.clone(), keep);
            }
        }
    }
}

impl Cluster {
    pub(super) async fn watch(self: &Arc<Self>, key: Bytes, value: Option<Bytes>) -> Result<Reply, Code> {
        self.lock().counters.watches += 1;
        self.delay(Kind::Watch).await?;
        let changed = {
            let mut state = self.lock();
            let newest = state.committed;
            if state.store.get(&key, newest) != value.as_ref() {
                return Ok(Reply::Done);
            }
            let (wake, changed) = oneshot::channel();
            let waiters = state.watches.0.entry(key).or_default();
            // A key that never changes must not gather the watches that were given up.
            waiters.retain(|waiter| !waiter.wake.is_closed());
            waiters.push(Waiter { value, wake });
            changed
        };
        changed.await.map_err(|_| code::OPERATION_FAILED)?;
        Ok(Reply::Done)
    }
}
