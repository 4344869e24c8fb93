//! The engine and the VFS while the cluster misbehaves. Only on the stand-in.

#![cfg_attr(real_cluster, allow(dead_code, unused_imports, reason = "nothing here can run on a real cluster"))]

mod common;

use common::{FdbEngine, faults};
use litefleet_conformance::engine_tests;

#[cfg(not(real_cluster))]
engine_tests!(few, FdbEngine::with(&faults(11, 50)));
#[cfg(not(real_cluster))]
engine_tests!(many, FdbEngine::with(&faults(12, 500)));

#[test]
#[cfg_attr(real_cluster, ignore = "a real cluster injects no faults")]
fn faults_can_be_injected() {
    common::Place::new().command("faults seed=1");
}
