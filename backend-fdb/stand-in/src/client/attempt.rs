//! One attempt of a transaction: from its creation, a reset or a retry to the next one. Operations hold on to the attempt
//! that they were started in, so that nothing of an earlier attempt can reach a later one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, oneshot, watch};

use super::database::Link;
use super::ranges::RangeSet;
use crate::cluster::protocol::{Reply, Request, Version};
use crate::code::{self, Code};

/// What a commit came to: the version and the stamp of what it wrote, or nothing for a read-only transaction.
pub(crate) type Outcome = Result<Option<(Version, [u8; 10])>, Code>;

#[derive(Debug)]
pub(crate) struct Attempt {
    /// Set when everything of this attempt is to fail: cancelled, timed out, reset, or misused.
    ended: watch::Sender<Option<Code>>,
    version: OnceCell<Version>,
    /// Reads under way, and the first error that one of them met.
    reading: watch::Sender<(usize, Option<Code>)>,
    conflicts: Mutex<RangeSet>,
    /// The approximate size: see [`super::size`].
    pub(crate) size: AtomicU64,
    outcome: watch::Sender<Option<Outcome>>,
    own_watches: Mutex<Vec<OwnWatch>>,
    batch_priority: AtomicBool,
    timeouts: AtomicU64,
}

/// A watch of this attempt that waits for the commit.
#[derive(Debug)]
struct OwnWatch {
    key: Bytes,
    /// The value that the attempt last knew the key to have.
    value: Content,
    fire: Option<oneshot::Sender<()>>,
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            ended: watch::Sender::new(None),
            version: OnceCell::new(),
            reading: watch::Sender::new((0, None)),
            conflicts: Mutex::default(),
            size: AtomicU64::new(0),
            outcome: watch::Sender::new(None),
            own_watches: Mutex::default(),
            batch_priority: AtomicBool::new(false),
            timeouts: AtomicU64::new(0),
        }
    }
}

/// What a key holds, as far as the attempt knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Unknown,
    Nothing,
    Value(Bytes),
}

impl From<Option<&Bytes>> for Content {
    fn from(value: Option<&Bytes>) -> Self {
        value.map_or(Self::Nothing, |value| Self::Value(value.clone()))
    }
}

/// Counts as a read under way until it is dropped.
#[derive(Debug)]
pub(crate) struct Reading<'a>(&'a Attempt);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reading.send_modify(|(count, _)| *count -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn some<T: Clone>(sender: &watch::Sender<Option<T>>) -> T {
    let mut receiver = sender.subscribe();
    loop {
        if let Some(value) = receiver.borrow_and_update().clone() {
            return value;
        }
        // The sender is borrowed by the caller, so it cannot be gone.
        receiver.changed().await.ok();
    }
}

impl Attempt {
    /// Makes everything of this attempt fail with `code`, unless it already does with another.
    pub(crate) fn end(&self, code: Code) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(code);
            }
            first
        });
    }

    pub(crate) fn ended(&self) -> Option<Code> {
        *self.ended.borrow()
    }

    /// Does the work unless the attempt ends first.
    pub(crate) async fn guard<T>(&self, work: impl Future<Output = Result<T, Code>>) -> Result<T, Code> {
        tokio::select! {
            biased;
            code = some(&self.ended) => Err(code),
            result = work => result,
        }
    }

    /// A new time-out replaces the one before: only the one with the newest number may end the attempt.
    pub(crate) fn next_timeout(&self) -> u64 {
        self.timeouts.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn is_timeout(&self, serial: u64) -> bool {
        self.timeouts.load(Ordering::Relaxed) == serial
    }

    pub(crate) fn use_batch_priority(&self, batch: bool) {
        self.batch_priority.store(batch, Ordering::Relaxed);
    }

    /// The read version: asked for once, by whoever needs it first.
    pub(crate) async fn version(&self, link: &Link) -> Result<Version, Code> {
        let ask = || async {
            let batch_priority = self.batch_priority.load(Ordering::Relaxed);
            match link.call(Request::ReadVersion { batch_priority }).await? {
                Reply::Version(version) => Ok(version),
                _ => Err(code::OPERATION_FAILED),
            }
        };
        self.version.get_or_try_init(ask).await.copied()
    }

    pub(crate) fn set_version(&self, version: Version) -> Result<(), Code> {
        if version <= 0 {
            return Err(code::VERSION_INVALID);
        }
        self.version.set(version).map_err(|_| code::READ_VERSION_ALREADY_SET)
    }

    pub(crate) fn begin_read(&self) -> Reading<'_> {
        self.reading.send_modify(|(count, _)| *count += 1);
        Reading(self)
    }

    /// A read failed: the commit will fail with the same error.
    pub(crate) fn read_failed(&self, code: Code) {
        self.reading.send_modify(|(_, failed)| {
            failed.get_or_insert(code);
        });
    }

    /// Waits for the reads under way.
    pub(crate) async fn reads_done(&self) -> Result<(), Code> {
        let mut reading = self.reading.subscribe();
        loop {
            match *reading.borrow_and_update() {
                (_, Some(code)) => return Err(code),
                (0, None) => return Ok(()),
                _ => {}
            }
            reading.changed().await.ok();
        }
    }

    /// True when something has been read, or is being read.
    pub(crate) fn has_read(&self) -> bool {
        self.version.initialized() || self.reading.borrow().0 > 0 || !lock(&self.conflicts).is_empty()
    }

    pub(crate) fn conflicts(&self) -> MutexGuard<'_, RangeSet> {
        lock(&self.conflicts)
    }

    pub(crate) fn grow(&self, bytes: usize) {
        self.size.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// What the commit came to; an attempt that ends without one ends the wait.
    pub(crate) async fn outcome(&self) -> Result<Option<(Version, [u8; 10])>, Code> {
        tokio::select! {
            biased;
            outcome = some(&self.outcome) => outcome,
            code = some(&self.ended) => Err(code),
        }
    }

    /// Registers a watch for changes that this attempt itself makes.
    pub(crate) fn watch_own(&self, key: &Bytes) -> oneshot::Receiver<()> {
        let (fire, fired) = oneshot::channel();
        lock(&self.own_watches).push(OwnWatch { key: key.clone(), value: Content::Unknown, fire: Some(fire) });
        fired
    }

    /// The value that watches of this key compare with, as it was read.
    pub(crate) fn watched_value(&self, key: &Bytes, value: Option<&Bytes>) {
        for watch in lock(&self.own_watches).iter_mut().filter(|watch| watch.key == *key) {
            let read = Content::from(value);
            match &watch.value {
                Content::Unknown => watch.value = read,
                set if *set != read => fire(watch),
                _ => {}
            }
        }
    }

    /// The attempt changed the keys from `begin` to before `end`.
    pub(crate) fn own_change(&self, begin: &[u8], end: &[u8], now: &Content) {
        for watch in lock(&self.own_watches).iter_mut() {
            if &watch.key[..] < begin || &watch.key[..] >= end {
                continue;
            }
            // A change to an unknown value counts as a change; the first known value is compared when it has been read.
            let changed = *now == Content::Unknown || (watch.value != Content::Unknown && watch.value != *now);
            watch.value = now.clone();
            if changed {
                fire(watch);
            }
        }
    }
}

fn fire(watch: &mut OwnWatch) {
    if let Some(fire) = watch.fire.take() {
        fire.send(()).ok();
    }
}
