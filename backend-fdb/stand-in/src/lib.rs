//! A stand-in for `libfdb_c`: the C interface of FoundationDB over a cluster in memory, for tests of Litefleet's
//! FoundationDB back end and for nothing else. Nothing is durable.
//!
//! - `cluster` is what a real cluster does: versions, conflicts, limits, faults.
//! - `client` is what the real client library does in the process that uses it: futures, transactions, read-your-writes.
//! - `served` lets other processes use the cluster of this one.
//! - `ffi` gives that the names and types of the C interface.
//!
//! The rules come from FoundationDB's documentation; each module names the page. Where the documentation leaves doubt,
//! the stricter reading is taken (`docs/decisions/0010-foundationdb-stand-in.md`).

mod client;
mod cluster;
mod code;
mod ffi;
mod served;
