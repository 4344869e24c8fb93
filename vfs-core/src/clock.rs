//! Time and randomness, passed in, so that tests can move them and repeat them.

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::types::UnixMillis;

/// Where the engine and the memory store take time from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Monotonic time since some fixed moment.
    fn monotonic(&self) -> Duration;
    /// Wall-clock time. Used for retention and display, never for safety.
    fn unix(&self) -> UnixMillis;
}

/// The machine's own clocks.
///
/// The monotonic one counts the time that the machine was suspended too, where the operating system can tell: on Linux and
/// Android that is `CLOCK_BOOTTIME`, as [`Instant`](std::time::Instant) stands still meanwhile, and so would the deadline of
/// a session that has long expired.
#[derive(Debug, Default)]
pub struct SystemClock {
    start: Start,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Debug)]
struct Start(Duration);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Start {
    fn since_boot() -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn elapsed(&self) -> Duration {
        Self::since_boot().saturating_sub(self.0)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Default for Start {
    fn default() -> Self {
        Self(Self::since_boot())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Debug)]
struct Start(std::time::Instant);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Start {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Default for Start {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clocks")]
    fn default() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clocks")]
    fn unix(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    micros: AtomicU64,
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.micros.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::SeqCst))
    }

    fn unix(&self) -> UnixMillis {
        // A date in 2020, so that times look like times.
        UnixMillis(1_600_000_000_000 + self.micros.load(Ordering::SeqCst) / 1000)
    }
}

/// A source of identifiers, seeded by the machine or, in simulations, by a number.
#[derive(Debug)]
pub struct Randomness(Mutex<StdRng>);

impl Randomness {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }

    /// Repeats itself for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// 16 random bytes, for a commit id or a session id.
    pub fn id(&self) -> [u8; 16] {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).random()
    }

    /// A number from 0 up to `below`, for jitter.
    pub fn below(&self, below: u64) -> u64 {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).random_range(0..below.max(1))
    }
}
