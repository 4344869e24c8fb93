//! Layers: stores that wrap another store and pass every call on, watching, delaying or spoiling it on the way.
//!
//! All are the one [`Layer`] with another [`Interceptor`], so that a new method of the trait is passed on in one place.

mod faults;
mod intercept;
mod latency;
mod metrics;

pub use faults::{Effect, Fault, FaultPlan};
pub use intercept::{Call, Deferred, Interceptor, Layer, Operation, Verdict};
pub use latency::Latency;
pub use metrics::{Metered, OperationCounts, StoreCounters};

/// Counts and times every call. See [`StoreCounters`].
pub type MetricsLayer = Layer<Metered>;
/// Makes every call take longer.
pub type LatencyLayer = Layer<Latency>;
/// Makes chosen calls fail, lose their reply, or arrive late.
pub type FaultLayer = Layer<FaultPlan>;
