//! Ctrl-C and termination: what runs is ended, and its folders and servers are removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether it was asked for. From the first question on these signals end nothing by themselves: each test file runs in a process
/// group of its own, which they do not reach.
pub(crate) fn is_requested() -> bool {
    static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let requested = REQUESTED.get_or_init(|| {
        let requested = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // One that cannot be listened to ends the process, as it would without this.
            let _unheard = signal_hook::flag::register(signal, Arc::clone(&requested));
        }
        requested
    });
    requested.load(Ordering::Relaxed)
}
