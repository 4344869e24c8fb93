//! The store cases on FoundationDB: the stand-in, or with `LITEFLEET_FDB_CLUSTER_FILE` a real cluster. With its usual
//! limits, with tiny ones, with the longest prefix, on clusters whose replies are so small that hardly a range fits into one, and
//! on one whose shards end anywhere: in the middle of a database's small values, too.

mod common;

use common::{Fdb, LONGEST_PREFIX};
use litefleet_conformance::{Layered, Wrapping, store_tests};

store_tests!(fdb, Fdb::default());
store_tests!(fdb_tiny, Fdb::tiny());
store_tests!(fdb_long_prefix, Fdb::with_prefix(LONGEST_PREFIX));
#[cfg(not(real_cluster))]
store_tests!(fdb_small_replies, Fdb::with("reply 600"));
#[cfg(not(real_cluster))]
store_tests!(fdb_small_shards, Fdb::tiny().and("faults seed=4 range.cut=5000"));
store_tests!(fdb_stacked, Layered::new(Fdb::default(), Wrapping::Stacked));
