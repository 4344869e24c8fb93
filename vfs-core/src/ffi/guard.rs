//! The guard around every callback: a panic must not cross into C.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a callback; after a panic returns `failed`.
pub(super) fn guard(failed: c_int, callback: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(panic = %words, "a defect in litefleet: a callback panicked");
        // A panic's payload may panic again when it is dropped.
        let _dropped = catch_unwind(AssertUnwindSafe(move || drop(panic)));
        failed
    })
}
