//! Any harness, with layers around its stores: a layer must keep the contract as well as the store that it wraps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use litefleet::store::{FaultLayer, FaultPlan, Latency, LatencyLayer, Metered, MetricsLayer, PageStore};

use crate::harness::Harness;

/// Which layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// A [`MetricsLayer`].
    Metrics,
    /// A [`LatencyLayer`] that makes every call a little slower.
    Latency,
    /// A [`FaultLayer`] without faults.
    Faults,
    /// All three, one around the other.
    Stacked,
}

/// A store that is open, and the one inside.
#[derive(Debug)]
struct Wrapped {
    outer: Arc<dyn PageStore>,
    inner: Arc<dyn PageStore>,
}

/// A harness whose stores are wrapped in layers.
#[derive(Debug)]
pub struct Layered<H> {
    harness: H,
    wrapping: Wrapping,
    open: Mutex<Vec<Wrapped>>,
}

impl<H: Harness> Layered<H> {
    /// Wraps a harness.
    pub fn new(harness: H, wrapping: Wrapping) -> Self {
        Self { harness, wrapping, open: Mutex::default() }
    }

    fn wrap(&self, inner: Arc<dyn PageStore>) -> Arc<dyn PageStore> {
        let metrics =
            |store| -> Arc<dyn PageStore> { Arc::new(MetricsLayer::new(store, Arc::new(Metered::default()))) };
        let latency = |store| -> Arc<dyn PageStore> {
            let latency = Latency(Duration::from_micros(10));
            Arc::new(LatencyLayer::new(store, Arc::new(latency)))
        };
        let faults = |store| -> Arc<dyn PageStore> { Arc::new(FaultLayer::new(store, Arc::new(FaultPlan::default()))) };
        let outer = match self.wrapping {
            Wrapping::Metrics => metrics(Arc::clone(&inner)),
            Wrapping::Latency => latency(Arc::clone(&inner)),
            Wrapping::Faults => faults(Arc::clone(&inner)),
            Wrapping::Stacked => metrics(latency(faults(Arc::clone(&inner)))),
        };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Wrapped { outer: Arc::clone(&outer), inner });
        outer
    }
}

#[async_trait]
impl<H: Harness> Harness for Layered<H> {
    async fn store(&self) -> Arc<dyn PageStore> {
        self.wrap(self.harness.store().await)
    }

    async fn reopen(&self, store: Arc<dyn PageStore>) -> Option<Arc<dyn PageStore>> {
        let inner = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let at = open.iter().position(|w| Arc::ptr_eq(&w.outer, &store))?;
            open.swap_remove(at).inner
        };
        drop(store);
        let inner = self.harness.reopen(inner).await?;
        Some(self.wrap(inner))
    }

    fn advance(&self, by: Duration) -> bool {
        self.harness.advance(by)
    }
}
