//! The engine and the VFS on FoundationDB: the stand-in, or with `LITEFLEET_FDB_CLUSTER_FILE` a real cluster.

mod common;

use common::FdbEngine;
use litefleet_conformance::engine_tests;

engine_tests!(fdb, FdbEngine::default());
