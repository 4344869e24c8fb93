//! The VFS as a static library for a C program that brings its own SQLite: SQLite's own test programs.
//!
//! [`litefleet_suite_start`] registers `litefleet` over the store that the environment names. The other functions let the
//! program's bridges (Tcl's file commands, C's `fopen`) see and change databases behind SQLite's back, as the tests do
//! with files.
#![expect(unsafe_code, reason = "its interface is C; every block names the invariant it rests on")]

mod files;
mod place;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use litefleet::{DatabaseName, Error, ErrorKind, Result};

/// Calls `body`; an error or a panic is written to standard error and becomes `failed`.
fn guarded<T>(what: &str, failed: T, body: impl FnOnce() -> Result<T>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            eprintln!("litefleet suite: {what}: {error}");
            failed
        }
        Err(_) => {
            eprintln!("litefleet suite: {what}: panicked");
            failed
        }
    }
}

/// The same for what a program does not look at the end of: its test is no pass where this fails.
fn watched<T>(what: &str, failed: T, body: impl FnOnce() -> Result<T>) -> T {
    guarded(what, failed, || {
        body().inspect_err(|error| {
            // Nothing is there, or somebody has locked it: a script may find that.
            if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::LeaseHeld | ErrorKind::Conflict) {
                place::mark_or_say(place::FAILED);
            }
        })
    })
}

/// # Safety
/// `name` must be a string that ends with NUL.
unsafe fn name(name: *const c_char) -> Result<DatabaseName> {
    // SAFETY: the caller promises it.
    let text = unsafe { CStr::from_ptr(name) }.to_str();
    DatabaseName::new(text.map_err(|_| Error::invalid("a name that is not UTF-8"))?)
}

/// Opens the store where it is not open, and registers the VFS where it is new, or `again`: after `sqlite3_shutdown`.
/// 1 when it was registered, else 0, or -1 after an error, or -2 where another process of the test has the store.
#[unsafe(no_mangle)]
pub extern "C" fn litefleet_suite_start(again: c_int) -> c_int {
    place::mark_panics();
    guarded("start", -1, || Ok(place::start(again != 0)?.map_or(-2, c_int::from)))
}

/// Says that a script wanted to see a database of a store that another process had.
#[unsafe(no_mangle)]
pub extern "C" fn litefleet_suite_unseen() {
    guarded("unseen", (), || place::mark(place::UNSEEN));
}

/// Closes the store, so that another process can open it. No database may be open.
#[unsafe(no_mangle)]
pub extern "C" fn litefleet_suite_stop() -> c_int {
    watched("stop", 1, || place::stop().map(|()| 0))
}

/// Gives back what the process has of a store that it shares with others. It is about to end.
#[unsafe(no_mangle)]
pub extern "C" fn litefleet_suite_leave() {
    watched("leave", (), place::leave);
}

/// The size of a database's file; -1 when there is none, -2 after an error.
///
/// # Safety
/// `path` must be a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn litefleet_suite_size(path: *const c_char) -> i64 {
    // SAFETY: the caller promises a string.
    let name = unsafe { name(path) };
    // What cannot be a name is the name of nothing.
    let Ok(name) = name else { return -1 };
    watched("size", -2, || Ok(files::size(&name)?.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX))))
}

/// Reads what is committed. Returns how many bytes there were; -1 after an error.
///
/// # Safety
/// `path` must be a string that ends with NUL, `out` a place for `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn litefleet_suite_read(path: *const c_char, at: u64, out: *mut c_void, count: usize) -> i64 {
    // SAFETY: the caller promises a string.
    let name = unsafe { name(path) };
    // SAFETY: the caller promises the place, and any bytes are valid as u8.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), count) };
    watched("read", -1, || Ok(i64::try_from(files::read(&name?, at, out)?).unwrap_or(i64::MAX)))
}

/// Writes, as a transaction of its own. 0, or 1 after an error.
///
/// # Safety
/// `path` must be a string that ends with NUL, `bytes` must point to `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn litefleet_suite_write(
    path: *const c_char,
    at: u64,
    bytes: *const c_void,
    count: usize,
) -> c_int {
    // SAFETY: the caller promises a string.
    let name = unsafe { name(path) };
    // SAFETY: the caller promises the bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
    guarded("write", 1, || files::write(&name?, at, bytes).map(|()| 0))
}

/// Sets the size, as a transaction of its own; makes the database when there is none. 0, or 1 after an error.
///
/// # Safety
/// `path` must be a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn litefleet_suite_truncate(path: *const c_char, size: u64) -> c_int {
    // SAFETY: the caller promises a string.
    let name = unsafe { name(path) };
    guarded("truncate", 1, || files::truncate(&name?, size).map(|()| 0))
}

/// Deletes a database, open or not. 0, or 1 after an error.
///
/// # Safety
/// `path` must be a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn litefleet_suite_delete(path: *const c_char) -> c_int {
    // SAFETY: the caller promises a string.
    let name = unsafe { name(path) };
    guarded("delete", 1, || files::delete(&name?).map(|()| 0))
}

/// Calls `each` with the name of every database that begins with `prefix`. 0, or 1 after an error.
///
/// # Safety
/// `prefix` must be a string that ends with NUL; `each` must be callable with `context`, and copies what it keeps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn litefleet_suite_list(
    prefix: *const c_char,
    each: unsafe extern "C" fn(*mut c_void, *const c_char),
    context: *mut c_void,
) -> c_int {
    // SAFETY: the caller promises a string.
    let prefix = unsafe { CStr::from_ptr(prefix) }.to_string_lossy().into_owned();
    watched("list", 1, || {
        for name in files::list(&prefix)? {
            let Ok(name) = std::ffi::CString::new(name) else { continue };
            // SAFETY: the caller promises that it can be called so; the name outlives the call.
            unsafe { each(context, name.as_ptr()) };
        }
        Ok(0)
    })
}
