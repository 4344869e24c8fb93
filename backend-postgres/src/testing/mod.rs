//! Throwaway servers for tests and measurements: Postgres and PgBouncer of the system's packages, in temporary folders, on
//! free ports of the loopback interface; and a proxy that counts, cuts and stalls.
//!
//! Everything ends with its value, and also when the process is killed: each server has a small shell above it that waits
//! for the end of a pipe. As root, which Postgres refuses, servers run as the user `postgres`.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "test support: what cannot be started fails the test that wanted it, with the reason"
)]

mod bare;
mod bouncer;
mod proxy;
mod server;
mod supervised;

use std::net::TcpListener;
use std::time::Duration;

pub use bare::BareCommits;
pub use bouncer::Bouncer;
pub use proxy::{Cut, Proxy};
pub use server::{Server, ServerOptions};

/// A port of the loopback interface that nobody has now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Lets real time pass: a server outside cannot be waited for in another way.
#[expect(clippy::disallowed_methods, reason = "what is waited for is another process")]
pub fn pause(by: Duration) {
    std::thread::sleep(by);
}

/// Waits until a condition holds. Panics after so long.
pub fn wait_until(what: &str, most: Duration, mut holds: impl FnMut() -> bool) {
    let step = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    while !holds() {
        assert!(waited < most, "{what}: not within {most:?}");
        pause(step);
        waited += step;
    }
}
