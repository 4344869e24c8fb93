//! What wakes a thread that waits, and how it sleeps.
//!
//! It sleeps parked, or in front of the sockets that its future waits for. The alarm knows which, so that whoever wakes it
//! ends that sleep, and does nothing when it does not sleep: it looks at its alarm before it does.

use std::sync::Arc;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Wake;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::task::Waker;
use std::thread::Thread;
use std::time::Duration;

#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::store::sockets::{Bell, Watched};

/// Neither asleep, nor woken since its future was polled.
const AWAKE: u8 = 0;
const PARKED: u8 = 1;
/// Asleep in front of its sockets, and of its bell.
#[cfg(any(target_os = "linux", target_os = "android"))]
const WATCHING: u8 = 2;
/// Woken: the future is to be polled again.
const WOKEN: u8 = 3;

/// Of one wait. Of waits within waits the thread sleeps in the innermost, and whoever wakes an outer one just leaves word.
pub(super) struct Alarm {
    state: AtomicU8,
    thread: Thread,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    bell: OnceLock<Bell>,
}

impl Alarm {
    /// For the present thread.
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(AWAKE),
            thread: std::thread::current(),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            bell: OnceLock::new(),
        }
    }

    /// To be called before the future is polled: who wakes the thread from here on keeps it from falling asleep.
    pub(super) fn rearm(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    fn falls_asleep(&self, how: u8) -> bool {
        self.state.compare_exchange(AWAKE, how, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn wakes_up(&self, how: u8) {
        // Unless it was woken, which stays.
        let _woken = self.state.compare_exchange(how, AWAKE, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Sleeps until it is woken, or so long, or for no reason less.
    pub(super) fn park(&self, most: Duration) {
        if self.falls_asleep(PARKED) {
            std::thread::park_timeout(most);
            self.wakes_up(PARKED);
        }
    }

    /// As [`park`](Self::park), and until one of the sockets is ready.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn watch(&self, watched: &mut Watched, bell: Bell, most: Duration) {
        // All waits of a thread have the same one.
        let bell = self.bell.get_or_init(|| bell);
        if self.falls_asleep(WATCHING) {
            let ready = watched.sleep(bell, most);
            self.wakes_up(WATCHING);
            ready.into_iter().for_each(Waker::wake);
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.state.swap(WOKEN, Ordering::AcqRel) {
            PARKED => self.thread.unpark(),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            WATCHING => {
                if let Some(bell) = self.bell.get() {
                    bell.ring();
                }
            }
            _ => {}
        }
    }
}
