//! The store cases on FoundationDB: the stand-in, or with `LITEFLEET_FDB_CLUSTER_FILE` a real cluster. With its usual
//! limits, with tiny ones, and on a cluster whose replies are so small that hardly a range fits into one.

mod common;

use common::Fdb;
use litefleet_conformance::{Layered, Wrapping, store_tests};

store_tests!(fdb, Fdb::default());
store_tests!(fdb_tiny, Fdb::tiny());
#[cfg(not(real_cluster))]
store_tests!(fdb_small_replies, Fdb::with("reply 600"));
store_tests!(fdb_stacked, Layered::new(Fdb::default(), Wrapping::Stacked));
