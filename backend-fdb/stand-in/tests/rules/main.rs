//! FoundationDB's rules, through the `foundationdb` crate and the C interface, on the stand-in or on a real cluster.
//! What only the stand-in can do (faults, counters, moving the clock of versions) is left out on a real cluster, by name.
#![expect(unsafe_code, reason = "starting the network thread, and the C interface itself")]
#![expect(clippy::unwrap_used, reason = "in functions that tests share, as in tests")]

mod atomic;
mod cluster;
mod conflicts;
mod faults;
mod history;
mod lifecycle;
mod limits;
mod random;
mod raw;
mod reads;
mod versions;
mod watches;

use cluster::test;
