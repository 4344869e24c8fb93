//! Files as SQLite holds them: memory of SQLite's with our methods and a pointer to our own value.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use libsqlite3_sys as sqlite;

use super::codes::{self, Step};
use super::guard::guard;
use super::methods::METHODS;
use crate::error::Error;
use crate::vfs::{Journal, MainFile, SuperGroup};

/// An open file.
#[derive(Debug)]
pub(crate) enum FileKind {
    Main(Box<MainFile>),
    Journal(Journal),
    SuperJournal(Arc<SuperGroup>),
}

/// An open file, and whether a callback panicked on it: what its state is then, nobody knows.
#[derive(Debug)]
pub(crate) struct FileHandle {
    pub(super) kind: FileKind,
    poisoned: bool,
}

/// What stands in the memory that SQLite gives to `xOpen`. SQLite knows the first field.
#[repr(C)]
pub(super) struct RawFile {
    base: sqlite::sqlite3_file,
    handle: *mut FileHandle,
}

pub(super) const RAW_SIZE: usize = size_of::<RawFile>();

/// Makes the memory at `file` one of our files.
///
/// # Safety
/// `file` must point to memory for at least [`RAW_SIZE`] bytes, aligned for a pointer: what `xOpen` is given.
pub(super) unsafe fn install(file: *mut sqlite::sqlite3_file, kind: FileKind) {
    let handle = Box::into_raw(Box::new(FileHandle { kind, poisoned: false }));
    let raw = RawFile { base: sqlite::sqlite3_file { pMethods: &raw const METHODS }, handle };
    // SAFETY: the caller gives memory of that size and alignment; what was there needs no drop.
    unsafe { ptr::write(file.cast::<RawFile>(), raw) };
}

/// Says that `file` is not open, so that SQLite does not call `xClose`.
///
/// # Safety
/// `file` must be the memory that `xOpen` was given.
pub(super) unsafe fn mark_closed(file: *mut sqlite::sqlite3_file) {
    // SAFETY: the memory holds at least an sqlite3_file, whose only field this is.
    unsafe { (*file).pMethods = ptr::null() };
}

/// Closes one of our files.
///
/// # Safety
/// `file` must have been made by [`install`], and not be closed yet.
pub(super) unsafe fn close(file: *mut sqlite::sqlite3_file) -> c_int {
    guard(codes::OK, || {
        // SAFETY: the caller promises that `install` made it, so it is a RawFile.
        let raw = unsafe { &mut *file.cast::<RawFile>() };
        let handle = std::mem::replace(&mut raw.handle, ptr::null_mut());
        if !handle.is_null() {
            // SAFETY: `install` got the pointer from a Box, and it was replaced by null above: it is dropped once.
            drop(unsafe { Box::from_raw(handle) });
        }
        codes::OK
    })
}

/// Calls `body` with the open file, and turns its error or panic into a result code.
///
/// # Safety
/// `file` must have been made by [`install`], and not be closed. SQLite uses a file from one thread at a time.
pub(super) unsafe fn with(
    file: *mut sqlite::sqlite3_file,
    step: Step,
    body: impl FnOnce(&mut FileKind) -> Result<c_int, Error>,
) -> c_int {
    // SAFETY: the caller promises that `install` made it, so it is a RawFile.
    let raw = unsafe { &mut *file.cast::<RawFile>() };
    // SAFETY: `install` got the pointer from a Box, `close` makes it null, and no other reference exists: SQLite makes
    // one call on a file at a time.
    let Some(handle) = (unsafe { raw.handle.as_mut() }) else { return step.io_error() };
    if handle.poisoned {
        return step.io_error();
    }
    // Until the body has returned, the state is not to be trusted.
    handle.poisoned = true;
    guard(step.io_error(), || {
        let result = match body(&mut handle.kind) {
            Ok(result) => result,
            Err(error) => {
                let code = codes::code(&error, step);
                codes::log(&error, code);
                if let FileKind::Main(file) = &mut handle.kind {
                    file.note_error(error);
                }
                code
            }
        };
        handle.poisoned = false;
        result
    })
}

/// Copies bytes into memory from `sqlite3_malloc`, with a NUL behind them. Null when there is no memory.
pub(super) fn sqlite_string(text: &str) -> *mut std::ffi::c_char {
    let bytes = text.replace('\0', " ").into_bytes();
    // SAFETY: a plain allocation; the result is checked.
    let memory = unsafe { sqlite::sqlite3_malloc64(bytes.len() as u64 + 1) }.cast::<u8>();
    if memory.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the memory has room for the bytes and the NUL, and is not that of `bytes`.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len()) };
    // SAFETY: one byte more was allocated than was copied.
    unsafe { *memory.add(bytes.len()) = 0 };
    memory.cast()
}

/// The bytes of a string from C, or none for a null pointer.
///
/// # Safety
/// `text` must be null or point to a string that ends with NUL and lives as long as the result is used.
pub(super) unsafe fn c_bytes<'a>(text: *const std::ffi::c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller promises a string that ends with NUL.
    Some(unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes())
}

/// Stores a value where C wants it.
///
/// # Safety
/// `place` must be null or valid for a write of a `T`.
pub(super) unsafe fn store<T>(place: *mut c_void, value: T) {
    if !place.is_null() {
        // SAFETY: the caller promises that it is valid for a write.
        unsafe { place.cast::<T>().write(value) };
    }
}
