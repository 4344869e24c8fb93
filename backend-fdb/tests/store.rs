//! The store cases on FoundationDB: the stand-in, or with `LITEFLEET_FDB_CLUSTER_FILE` a real cluster. With its usual
//! limits, with tiny ones, with the longest prefix, and on a cluster whose replies are so small that hardly a range fits into one.

mod common;

use common::{Fdb, LONGEST_PREFIX};
use litefleet_conformance::{Layered, Wrapping, store_tests};

store_tests!(fdb, Fdb::default());
store_tests!(fdb_tiny, Fdb::tiny());
store_tests!(fdb_long_prefix, Fdb::with_prefix(LONGEST_PREFIX));
#[cfg(not(real_cluster))]
store_tests!(fdb_small_replies, Fdb::with("reply 600"));
store_tests!(fdb_stacked, Layered::new(Fdb::default(), Wrapping::Stacked));
