//! The store cases on FoundationDB: the stand-in, or with `LITEFLEET_FDB_CLUSTER_FILE` a real cluster. With its usual
//! limits, and with tiny ones.

mod common;

use common::Fdb;
use litefleet_conformance::{Layered, Wrapping, store_tests};

store_tests!(fdb, Fdb::default());
store_tests!(fdb_tiny, Fdb::tiny());
store_tests!(fdb_stacked, Layered::new(Fdb::default(), Wrapping::Stacked));
