//! `sqlite3_vfs`: opening, deleting and naming files. Temporary files, randomness and time are the operating system's.

use std::ffi::{c_char, c_int, c_void};

use libsqlite3_sys as sqlite;

use super::codes::{self, Step};
use super::file::{FileKind, c_bytes, install, mark_closed, store};
use super::guard::guard;
use super::register::Registered;
use crate::config::meant;
use crate::error::{Error, Result};
use crate::types::DatabaseName;
use crate::vfs::{Journal, OpenMode, refuse_wal};

const OPEN_READONLY: c_int = 0x1;
const OPEN_CREATE: c_int = 0x4;
const OPEN_URI: c_int = 0x40;
const OPEN_MAIN_DB: c_int = 0x100;
const OPEN_MAIN_JOURNAL: c_int = 0x800;
const OPEN_SUPER_JOURNAL: c_int = 0x4000;
const OPEN_WAL: c_int = 0x8_0000;

/// URI parameters that SQLite's core and its own VFSs read, from its documentation of URI file names and its source.
const SQLITES_OWN: &[&str] = &["vfs", "mode", "cache", "psow", "nolock", "immutable", "modeof", "8_3_names"];

unsafe extern "C" {
    /// In SQLite since 3.31; older bindings lack it.
    fn sqlite3_uri_key(name: *const c_char, index: c_int) -> *const c_char;
}

/// The longest name with what SQLite puts behind it.
pub(super) const MAX_PATH: c_int = 1024;

/// The registration behind a `sqlite3_vfs` of ours.
///
/// # Safety
/// `vfs` must be one that `register` made: those live for ever.
unsafe fn registered<'a>(vfs: *mut sqlite::sqlite3_vfs) -> &'a Registered {
    // SAFETY: `register` set pAppData to a Registered that is never freed.
    unsafe { &*(*vfs).pAppData.cast::<Registered>() }
}

fn failed(error: &Error, step: Step) -> c_int {
    let code = codes::code(error, step);
    codes::log(error, code);
    code
}

/// A path as text.
///
/// # Safety
/// As [`c_bytes`].
unsafe fn path<'a>(name: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller promises it.
    let bytes = unsafe { c_bytes(name) }.unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| Error::invalid("a name that is not UTF-8"))
}

pub(super) unsafe extern "C" fn x_open(
    vfs: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory of szOsFile bytes.
    unsafe { mark_closed(file) };
    guard(Step::Open.io_error(), || {
        // SAFETY: SQLite calls with the vfs that was registered.
        let ours = unsafe { registered(vfs) };
        let own = OPEN_MAIN_DB | OPEN_MAIN_JOURNAL | OPEN_SUPER_JOURNAL | OPEN_WAL;
        if flags & own == 0 {
            // SAFETY: the arguments are SQLite's own, and szOsFile has room for the parent's file.
            return unsafe { ours.parent_open(name, file, flags, out_flags) };
        }
        // SAFETY: SQLite gives a string, and sets OPEN_URI for a name of its own with URI parameters behind it.
        match unsafe { open(ours, name, flags) } {
            Ok(kind) => {
                // SAFETY: SQLite gives memory of szOsFile bytes, which has room for our file.
                unsafe { install(file, kind) };
                // SAFETY: SQLite gives a place for the flags, or null.
                unsafe { store(out_flags.cast(), flags) };
                codes::OK
            }
            Err(error) => failed(&error, Step::Open),
        }
    })
}

/// # Safety
/// `name` must be a string; with [`OPEN_URI`] a file name that SQLite made, so that its URI parameters can be asked for.
unsafe fn open(ours: &Registered, name: *const c_char, flags: c_int) -> Result<FileKind> {
    if flags & OPEN_WAL != 0 {
        return Err(refuse_wal());
    }
    // SAFETY: the caller promises a name of SQLite's.
    let text = unsafe { path(name) }?;
    if flags & OPEN_MAIN_JOURNAL != 0 {
        let vfs = ours.vfs_of_journal(text);
        return Ok(FileKind::Journal(vfs.map_or_else(Journal::default, |vfs| vfs.open_journal(text))));
    }
    if flags & OPEN_SUPER_JOURNAL != 0 {
        let create = flags & OPEN_CREATE != 0;
        let vfs = if create { ours.vfs_for(text) } else { ours.vfs_of(text) }?;
        let group = vfs.open_super_journal(text, create);
        return Ok(FileKind::SuperJournal(group));
    }
    let vfs = ours.vfs()?;
    let database = DatabaseName::new(text)?;
    let mode = match (flags & OPEN_READONLY != 0, flags & OPEN_CREATE != 0) {
        (true, _) => OpenMode::ReadOnly,
        (false, true) => OpenMode::Create,
        (false, false) => OpenMode::ReadWrite,
    };
    // Without this flag there are no parameters, and the name need not be one that SQLite made: another VFS on top of this
    // one may have made it, and SQLite would look for parameters in whatever stands around it.
    if flags & OPEN_URI == 0 {
        return Ok(FileKind::Main(Box::new(vfs.open(&database, mode, [])?)));
    }
    for key in ["immutable", "nolock"] {
        // SAFETY: the caller promises a name of SQLite's.
        if unsafe { uri_boolean(name, key) }? == Some(true) {
            return Err(Error::invalid(format!("{key}=1 is refused: without locks there is no snapshot to read")));
        }
    }
    let mut parameters = Vec::new();
    // A name that is nearly one of ours is a mistake that must not go unnoticed. Any other is somebody else's: SQLite's
    // documentation has unknown parameters ignored.
    let is_setting = |key: &String| !SQLITES_OWN.contains(&key.as_str()) && meant(key).is_some();
    // SAFETY: the caller promises a name of SQLite's.
    for key in unsafe { uri_keys(name) }?.into_iter().filter(is_setting) {
        // SAFETY: as above.
        let value = unsafe { uri_parameter(name, &key) }?;
        parameters.push((key, value.unwrap_or_default()));
    }
    let mut file = vfs.open(&database, mode, parameters.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    // SAFETY: the caller promises a name of SQLite's.
    if let Some(psow) = unsafe { uri_boolean(name, "psow") }? {
        file.set_powersafe_overwrite(psow);
    }
    Ok(FileKind::Main(Box::new(file)))
}

/// # Safety
/// `name` must be a file name that SQLite made.
unsafe fn uri_boolean(name: *const c_char, key: &str) -> Result<Option<bool>> {
    // SAFETY: the caller promises it.
    let value = unsafe { uri_parameter(name, key) }?;
    Ok(value.map(|value| !["0", "no", "off", "false"].contains(&value.to_ascii_lowercase().as_str())))
}

/// The names of the URI parameters.
///
/// # Safety
/// `name` must be a file name that SQLite made.
unsafe fn uri_keys(name: *const c_char) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for index in 0.. {
        // SAFETY: the caller promises a name of SQLite's; past the last parameter the answer is null.
        let key = unsafe { sqlite3_uri_key(name, index) };
        // SAFETY: the key is null or a string that lives as long as the name.
        let Some(bytes) = (unsafe { c_bytes(key) }) else { break };
        let key = std::str::from_utf8(bytes).map_err(|_| Error::invalid("a URI parameter that is not UTF-8"))?;
        keys.push(key.to_owned());
    }
    Ok(keys)
}

/// # Safety
/// `name` must be a file name that SQLite made.
unsafe fn uri_parameter(name: *const c_char, key: &str) -> Result<Option<String>> {
    let key = std::ffi::CString::new(key).map_err(|_| Error::internal("a parameter with a NUL"))?;
    // SAFETY: the caller promises a name of SQLite's, and the key ends with NUL.
    let value = unsafe { sqlite::sqlite3_uri_parameter(name, key.as_ptr()) };
    // SAFETY: the value is null or a string that lives as long as the name.
    let Some(bytes) = (unsafe { c_bytes(value) }) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("a URI parameter that is not UTF-8"))?;
    Ok(Some(text.to_owned()))
}

pub(super) unsafe extern "C" fn x_delete(vfs: *mut sqlite::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    guard(Step::Delete.io_error(), || {
        // SAFETY: SQLite calls with the vfs that was registered.
        let ours = unsafe { registered(vfs) };
        // SAFETY: SQLite gives a string.
        let path = unsafe { path(name) };
        match path.and_then(|path| ours.vfs_of(path)?.delete(path, sync != 0)) {
            Ok(()) => codes::OK,
            Err(error) => failed(&error, Step::Delete),
        }
    })
}

pub(super) unsafe extern "C" fn x_access(
    vfs: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    guard(Step::Access.io_error(), || {
        // SAFETY: SQLite calls with the vfs that was registered.
        let ours = unsafe { registered(vfs) };
        // SAFETY: SQLite gives a string.
        let path = unsafe { path(name) };
        match path.and_then(|path| ours.vfs_of(path)?.exists(path)) {
            Ok(exists) => {
                // SAFETY: SQLite gives a place for the answer.
                unsafe { store(out.cast(), c_int::from(exists)) };
                codes::OK
            }
            Err(error) => failed(&error, Step::Access),
        }
    })
}

/// A database's name is its path.
pub(super) unsafe extern "C" fn x_full_pathname(
    _: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    guard(sqlite::SQLITE_CANTOPEN, || {
        // SAFETY: SQLite gives a string.
        let Some(bytes) = (unsafe { c_bytes(name) }) else { return sqlite::SQLITE_CANTOPEN };
        let room = usize::try_from(room).unwrap_or(0);
        if bytes.len() >= room {
            return sqlite::SQLITE_CANTOPEN;
        }
        // SAFETY: SQLite gives `room` bytes, which are more than the string's, and they are not the string's own.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast::<u8>(), bytes.len()) };
        // SAFETY: there is room for one byte more.
        unsafe { *out.add(bytes.len()) = 0 };
        codes::OK
    })
}

pub(super) unsafe extern "C" fn x_randomness(vfs: *mut sqlite::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite calls with the vfs that was registered, and the parent's own method gets the parent.
    unsafe {
        let parent = registered(vfs).parent();
        (*parent).xRandomness.map_or(0, |call| call(parent, count, out))
    }
}

pub(super) unsafe extern "C" fn x_sleep(vfs: *mut sqlite::sqlite3_vfs, micros: c_int) -> c_int {
    // SAFETY: as in `x_randomness`.
    unsafe {
        let parent = registered(vfs).parent();
        (*parent).xSleep.map_or(0, |call| call(parent, micros))
    }
}

pub(super) unsafe extern "C" fn x_current_time(vfs: *mut sqlite::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: as in `x_randomness`.
    unsafe {
        let parent = registered(vfs).parent();
        (*parent).xCurrentTime.map_or(codes::IOERR, |call| call(parent, out))
    }
}

pub(super) unsafe extern "C" fn x_current_time_int64(
    vfs: *mut sqlite::sqlite3_vfs,
    out: *mut sqlite::sqlite3_int64,
) -> c_int {
    // SAFETY: as in `x_randomness`.
    unsafe {
        let parent = registered(vfs).parent();
        // One of version 1 ends before that method.
        let exact = if (*parent).iVersion >= 2 { (*parent).xCurrentTimeInt64 } else { None };
        match exact {
            Some(call) => call(parent, out),
            None => in_days(parent, out),
        }
    }
}

/// The time of a VFS that knows it only as a number of days.
///
/// # Safety
/// `parent` must be a VFS that lives for ever, and `out` valid for a write.
unsafe fn in_days(parent: *mut sqlite::sqlite3_vfs, out: *mut sqlite::sqlite3_int64) -> c_int {
    let mut days = 0.0;
    // SAFETY: the caller promises the parent, and its own method gets the parent.
    let code = unsafe { (*parent).xCurrentTime.map_or(codes::IOERR, |call| call(parent, &raw mut days)) };
    #[expect(clippy::cast_possible_truncation, reason = "a day of this era in milliseconds is far below 2^53")]
    // SAFETY: the caller promises the place.
    unsafe {
        *out = (days * 86_400_000.0) as sqlite::sqlite3_int64;
    }
    code
}

pub(super) unsafe extern "C" fn x_get_last_error(_: *mut sqlite::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

pub(super) unsafe extern "C" fn x_dl_open(vfs: *mut sqlite::sqlite3_vfs, name: *const c_char) -> *mut c_void {
    // SAFETY: as in `x_randomness`.
    unsafe {
        let parent = registered(vfs).parent();
        (*parent).xDlOpen.map_or(std::ptr::null_mut(), |call| call(parent, name))
    }
}

pub(super) unsafe extern "C" fn x_dl_error(vfs: *mut sqlite::sqlite3_vfs, room: c_int, out: *mut c_char) {
    // SAFETY: as in `x_randomness`.
    unsafe {
        let parent = registered(vfs).parent();
        if let Some(call) = (*parent).xDlError {
            call(parent, room, out);
        }
    }
}

pub(super) unsafe extern "C" fn x_dl_sym(
    vfs: *mut sqlite::sqlite3_vfs,
    library: *mut c_void,
    name: *const c_char,
) -> Option<unsafe extern "C" fn(*mut sqlite::sqlite3_vfs, *mut c_void, *const c_char)> {
    // SAFETY: as in `x_randomness`.
    unsafe {
        let parent = registered(vfs).parent();
        (*parent).xDlSym.and_then(|call| call(parent, library, name))
    }
}

pub(super) unsafe extern "C" fn x_dl_close(vfs: *mut sqlite::sqlite3_vfs, library: *mut c_void) {
    // SAFETY: as in `x_randomness`.
    unsafe {
        let parent = registered(vfs).parent();
        if let Some(call) = (*parent).xDlClose {
            call(parent, library);
        }
    }
}
