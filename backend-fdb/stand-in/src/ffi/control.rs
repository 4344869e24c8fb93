//! What tests tell the stand-in and ask of it: not part of FoundationDB. A program that is linked against the real
//! library does not find these names.

use std::ffi::{c_char, c_int};

use super::text;
use crate::client::database::Link;
use crate::code;

/// Gives the cluster that a cluster file names a command: `README.md` of this crate lists them.
#[unsafe(no_mangle)]
unsafe extern "C" fn litefleet_stand_in_command(cluster_file: *const c_char, command: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    let (path, command) = unsafe { (text(cluster_file), text(command)) };
    Link::from_file(&path).and_then(|link| link.command(&command)).err().unwrap_or(code::SUCCESS)
}

/// A counter of the cluster that a cluster file names; below zero when there is no counter of that name.
#[unsafe(no_mangle)]
unsafe extern "C" fn litefleet_stand_in_counter(cluster_file: *const c_char, name: *const c_char) -> i64 {
    // SAFETY: the caller's contract.
    let (path, name) = unsafe { (text(cluster_file), text(name)) };
    let counter = Link::from_file(&path).and_then(|link| link.counter(&name));
    counter.ok().and_then(|count| i64::try_from(count).ok()).unwrap_or(-1)
}
