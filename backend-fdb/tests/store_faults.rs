//! The store cases while the cluster misbehaves: conflicts without a reason, commits whose outcome is not told, whether
//! they were made, were not, or are made later, versions that are too old or not there yet, recoveries, slow replies.
//! Each module has a seed of its own, and `LITEFLEET_SEED` moves them all. Only on the stand-in.

#![cfg_attr(real_cluster, allow(dead_code, unused_imports, reason = "nothing here can run on a real cluster"))]

mod common;

use common::{Fdb, faults};
use litefleet_conformance::store_tests;

#[cfg(not(real_cluster))]
store_tests!(few, Fdb::with(&faults(1, 100)));
#[cfg(not(real_cluster))]
store_tests!(many, Fdb::with(&faults(2, 1000)));
#[cfg(not(real_cluster))]
store_tests!(many_tiny, Fdb::tiny().and(&faults(3, 1000)));

#[test]
#[cfg_attr(real_cluster, ignore = "a real cluster injects no faults")]
fn faults_can_be_injected() {
    common::Place::new().command("faults seed=1");
}
