//! What the store promises beyond the contract: directories, crashes, power failures, damage, full disks, memory.
//!
//! The contract itself is tested by the crate `litefleet-conformance` (`tests/store_embedded.rs` there).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests panic, and say on request what they saw")]

mod child;
mod crash;
mod damage;
mod directory;
mod failed_sync;
#[cfg(unix)]
mod fork;
mod full_disk;
mod held_worker;
mod left_over;
mod listing;
mod memory;
mod merging;
mod power_loss;
mod purge;
mod workload;

use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use std::path::Path;

/// Runs a call to its end. The store's calls never wait for anything but themselves.
fn now<T>(call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match call.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a call of the embedded store does all its work in one poll"),
    }
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(EmbeddedConfig::new(path)).expect("the store opens")
}
