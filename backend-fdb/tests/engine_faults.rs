//! The engine and the VFS while the cluster misbehaves. Only on the stand-in.

mod common;

use common::{FdbEngine, faults};
use litefleet_conformance::engine_tests;

engine_tests!(few, FdbEngine::with(&faults(11, 50)));
engine_tests!(many, FdbEngine::with(&faults(12, 500)));
