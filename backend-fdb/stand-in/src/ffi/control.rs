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

/// Lets other processes use the cluster that a cluster file names, until this process ends: writes a cluster file for
/// them.
#[unsafe(no_mangle)]
unsafe extern "C" fn litefleet_stand_in_serve(cluster_file: *const c_char, path: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    let (cluster_file, path) = unsafe { (text(cluster_file), text(path)) };
    let served = Link::from_file(&cluster_file).and_then(|link| link.serve());
    let written =
        served.and_then(|connection| std::fs::write(path, connection + "\n").map_err(|_| code::OPERATION_FAILED));
    written.err().unwrap_or(code::SUCCESS)
}
