//! The store cases while the cluster misbehaves: conflicts without a reason, commits whose outcome is not told, whether
//! they were made, were not, or are made later, versions that are too old or not there yet, recoveries, slow replies.
//! Each module has a seed of its own, and `LITEFLEET_SEED` moves them all. Only on the stand-in.
#![cfg(test)]

mod common;

use common::{Fdb, faults};
use litefleet_conformance::store_tests;

store_tests!(few, Fdb::with(&faults(1, 100)));
store_tests!(many, Fdb::with(&faults(2, 1000)));
store_tests!(many_tiny, Fdb::tiny().and(&faults(3, 1000)));
