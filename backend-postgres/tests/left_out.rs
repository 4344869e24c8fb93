//! Says what a plain `cargo test` leaves out.
#![cfg(not(feature = "servers"))]

#[test]
#[ignore = "all tests on a server are left out: run ./test.sh postgres, or cargo test -p litefleet-postgres --features servers"]
fn tests_on_servers() {}
