//! File controls. The numbers and arguments are from SQLite's documentation of `SQLITE_FCNTL_*`; those that older
//! bindings lack are written out.

use std::ffi::{c_char, c_int, c_void};

use libsqlite3_sys as sqlite;

use super::codes;
use super::file::{c_bytes, sqlite_string, store};
use crate::error::{Error, Result};
use crate::vfs::MainFile;

const LOCKSTATE: c_int = 1;
const LAST_ERRNO: c_int = 4;
const SIZE_HINT: c_int = 5;
const CHUNK_SIZE: c_int = 6;
const SYNC_OMITTED: c_int = 8;
const PERSIST_WAL: c_int = 10;
const OVERWRITE: c_int = 11;
const VFSNAME: c_int = 12;
const POWERSAFE_OVERWRITE: c_int = 13;
const PRAGMA: c_int = 14;
const TEMPFILENAME: c_int = 16;
const MMAP_SIZE: c_int = 18;
const HAS_MOVED: c_int = 20;
const SYNC: c_int = 21;
const COMMIT_PHASETWO: c_int = 22;

/// Whether [`control`] answers an operation. What it does not answer must not touch the file.
pub(super) const fn is_answered(operation: c_int) -> bool {
    matches!(
        operation,
        LOCKSTATE
            | LAST_ERRNO
            | SIZE_HINT
            | CHUNK_SIZE
            | SYNC_OMITTED
            | PERSIST_WAL
            | OVERWRITE
            | VFSNAME
            | POWERSAFE_OVERWRITE
            | PRAGMA
            | TEMPFILENAME
            | MMAP_SIZE
            | HAS_MOVED
            | SYNC
            | COMMIT_PHASETWO
    )
}

/// Answers a file control.
///
/// # Safety
/// `argument` must be what SQLite's documentation says for the operation.
pub(super) unsafe fn control(file: &mut MainFile, operation: c_int, argument: *mut c_void) -> Result<c_int> {
    match operation {
        SYNC => {
            // SAFETY: the argument is the name of the super-journal, or null.
            let name = unsafe { c_bytes(argument.cast::<c_char>()) };
            let name = name.map(std::str::from_utf8).transpose();
            file.commit_point(name.map_err(|_| Error::invalid("the super-journal's name is not UTF-8"))?)?;
            Ok(codes::OK)
        }
        COMMIT_PHASETWO => {
            file.commit_confirmed()?;
            Ok(codes::OK)
        }
        SIZE_HINT | CHUNK_SIZE | SYNC_OMITTED | OVERWRITE => Ok(codes::OK),
        // SAFETY: the argument is a place for an int.
        LOCKSTATE => Ok(unsafe { answer(argument, file.level().number()) }),
        // SAFETY: as above.
        LAST_ERRNO | PERSIST_WAL => Ok(unsafe { answer(argument, 0) }),
        POWERSAFE_OVERWRITE => {
            // SAFETY: the argument is an int: negative to ask only, else what to set.
            if let wanted @ 0.. = unsafe { argument.cast::<c_int>().read() } {
                file.set_powersafe_overwrite(wanted != 0);
            }
            // SAFETY: the argument is a place for an int.
            Ok(unsafe { answer(argument, c_int::from(file.powersafe_overwrite())) })
        }
        MMAP_SIZE => {
            // SAFETY: the argument is a 64-bit integer: negative to ask only, else what to set.
            let wanted = unsafe { argument.cast::<i64>().read() };
            let before = file.loans().limit();
            if let Ok(wanted) = u64::try_from(wanted) {
                file.loans().set_limit(wanted);
            }
            // SAFETY: the argument is a place for it.
            unsafe { store(argument, i64::try_from(before).unwrap_or(i64::MAX)) };
            Ok(codes::OK)
        }
        TEMPFILENAME => {
            // SAFETY: the argument is a place for a string that SQLite frees.
            unsafe { store(argument, sqlite_string(&temporary_name())) };
            Ok(codes::OK)
        }
        // SAFETY: as above.
        HAS_MOVED => Ok(unsafe { answer(argument, c_int::from(file.has_moved())) }),
        VFSNAME => {
            // SAFETY: the argument is a place for a string that SQLite frees.
            unsafe { store(argument, sqlite_string("litefleet")) };
            Ok(codes::OK)
        }
        // SAFETY: the argument is an array of strings.
        PRAGMA => Ok(unsafe { pragma(file, argument.cast()) }),
        _ => Ok(codes::NOTFOUND),
    }
}

/// A name where SQLite's own VFS, which our temporary files are, would make one.
fn temporary_name() -> String {
    let mut number = [0_u8; 8];
    // SAFETY: there is room for eight bytes.
    unsafe { sqlite::sqlite3_randomness(8, number.as_mut_ptr().cast()) };
    let folder = std::env::var_os("SQLITE_TMPDIR").map_or_else(std::env::temp_dir, Into::into);
    folder.join(format!("etilqs_{:x}", u64::from_ne_bytes(number))).display().to_string()
}

unsafe fn answer(argument: *mut c_void, value: c_int) -> c_int {
    // SAFETY: the caller promises a place for an int.
    unsafe { store(argument, value) };
    codes::OK
}

/// The array: a place for the answer or the error's words, the pragma's name, its argument or null.
unsafe fn pragma(file: &mut MainFile, array: *mut *mut c_char) -> c_int {
    // SAFETY: SQLite's array has three entries; the second is a string.
    let name = unsafe { c_bytes(*array.add(1)) };
    // SAFETY: the third is a string or null.
    let argument = unsafe { c_bytes(*array.add(2)) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(name) = name.map(text) else { return codes::NOTFOUND };
    let argument = argument.map(text);
    let (words, code) = match file.pragma(&name, argument.as_deref()) {
        None => return codes::NOTFOUND,
        Some(Ok(answer)) => (answer, codes::OK),
        Some(Err(error)) => (error.to_string(), sqlite::SQLITE_ERROR),
    };
    // SAFETY: the first entry is a place for a string from sqlite3_malloc, which SQLite frees.
    unsafe { store(array.cast(), sqlite_string(&words)) };
    code
}
