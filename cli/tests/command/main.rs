//! The command as its users see it: arguments in; output, exit code and files out.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod damaged;
mod demo;
mod export;
mod import;
mod manage;
mod postgres;
mod setup;
mod signals;
mod sql;
mod usage;
