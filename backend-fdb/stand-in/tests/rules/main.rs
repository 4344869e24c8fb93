//! FoundationDB's rules, through the `foundationdb` crate and the C interface, on the stand-in or on a real cluster.
//! What only the stand-in can do (faults, counters, moving the clock of versions) is left out on a real cluster, by name.
#![expect(unsafe_code, reason = "starting the network thread")]
#![expect(clippy::print_stderr, reason = "a failed clean-up is worth a line")]

mod cluster;
mod conflicts;

use cluster::test;
