//! Makes a store that is near look like one that is far.

use std::time::Duration;

use super::intercept::{Call, Deferred, Interceptor, Verdict};
use crate::error::{Error, Result};

/// Adds the same time to every call.
#[derive(Clone, Copy, Debug)]
pub struct Latency(pub Duration);

impl Interceptor for Latency {
    fn before(&self, _: Call) -> Verdict {
        Verdict::Wait(self.0)
    }

    fn after(&self, _: Call, _: Result<u64, &Error>) {}

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}
