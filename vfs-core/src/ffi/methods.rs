//! `sqlite3_io_methods`: calls on open files.

use std::ffi::{c_int, c_void};

use libsqlite3_sys as sqlite;

use super::codes::{self, Step};
use super::control::{control, is_answered};
use super::file::{FileKind, close, store, with};
use crate::error::Error;
use crate::vfs::LockLevel;

/// A crash does not change bytes next to a write: the store only ever holds committed states. Whole appends and ordered writes
/// are as true, but save SQLite only syncs of journals, which do nothing here; and promised, they would change what it writes.
/// That parts of a page can be read is true too, but with `SQLITE_IOCAP_SUBPAGE_READ` SQLite would read overflow pages past its
/// own cache, the same one again for each column: a round trip each where the page cache here does not keep it.
const CHARACTERISTICS: c_int = POWERSAFE_OVERWRITE;
const POWERSAFE_OVERWRITE: c_int = 0x1000;
/// The page of the store.
const SECTOR: c_int = 4096;

/// Version 3 is that of `xFetch`. There is no shared memory, as in SQLite's own unix-none, and so no WAL. A VFS on top of this
/// one may take the version alone for a promise of it: SQLite opens the WAL before it asks for shared memory, and that fails.
pub(super) static METHODS: sqlite::sqlite3_io_methods = sqlite::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: Some(x_fetch),
    xUnfetch: Some(x_unfetch),
};

fn offset(at: sqlite::sqlite3_int64) -> Result<u64, Error> {
    u64::try_from(at).map_err(|_| Error::invalid("a negative offset"))
}

fn length(count: c_int) -> Result<usize, Error> {
    usize::try_from(count).map_err(|_| Error::invalid("a negative length"))
}

unsafe extern "C" fn x_close(file: *mut sqlite::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file that our xOpen installed, once.
    unsafe { close(file) }
}

unsafe extern "C" fn x_read(
    file: *mut sqlite::sqlite3_file,
    out: *mut c_void,
    count: c_int,
    at: sqlite::sqlite3_int64,
) -> c_int {
    let body = |kind: &mut FileKind| {
        let count = length(count)?;
        // SAFETY: SQLite gives a buffer of `count` bytes to fill; it may hold old bytes, which are all valid as u8.
        let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), count) };
        let at = offset(at)?;
        let there = match kind {
            FileKind::Main(file) => file.read(at, out)?,
            FileKind::Journal(journal) => journal.read(at, out)?,
            FileKind::SuperJournal(group) => group.read(at, out),
        };
        Ok(if there < count { codes::SHORT_READ } else { codes::OK })
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Read, body) }
}

unsafe extern "C" fn x_write(
    file: *mut sqlite::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: sqlite::sqlite3_int64,
) -> c_int {
    let body = |kind: &mut FileKind| {
        let count = length(count)?;
        // SAFETY: SQLite gives a buffer of `count` bytes to write, which nobody changes during the call.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
        let at = offset(at)?;
        match kind {
            FileKind::Main(file) => file.write(at, bytes)?,
            FileKind::Journal(journal) => journal.write(at, bytes)?,
            FileKind::SuperJournal(group) => group.write(at, bytes)?,
        }
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Write, body) }
}

unsafe extern "C" fn x_truncate(file: *mut sqlite::sqlite3_file, size: sqlite::sqlite3_int64) -> c_int {
    let body = |kind: &mut FileKind| {
        let size = offset(size)?;
        match kind {
            FileKind::Main(file) => file.truncate(size)?,
            FileKind::Journal(journal) => journal.truncate(size),
            FileKind::SuperJournal(group) => group.truncate(size),
        }
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Truncate, body) }
}

/// Durability came with the commit point, and journals need none.
unsafe extern "C" fn x_sync(file: *mut sqlite::sqlite3_file, _: c_int) -> c_int {
    let body = |kind: &mut FileKind| {
        match kind {
            FileKind::Main(file) => file.commit_late_writes()?,
            FileKind::Journal(_) => {}
            FileKind::SuperJournal(group) => group.check()?,
        }
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Commit, body) }
}

unsafe extern "C" fn x_file_size(file: *mut sqlite::sqlite3_file, out: *mut sqlite::sqlite3_int64) -> c_int {
    let body = |kind: &mut FileKind| {
        let size = match kind {
            FileKind::Main(file) => file.size(),
            FileKind::Journal(journal) => journal.size(),
            FileKind::SuperJournal(group) => group.size(),
        };
        let size = i64::try_from(size).map_err(|_| Error::internal("a file of more than 63 bits"))?;
        // SAFETY: SQLite gives a place for the size.
        unsafe { store(out.cast(), size) };
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Read, body) }
}

unsafe extern "C" fn x_lock(file: *mut sqlite::sqlite3_file, level: c_int) -> c_int {
    let body = |kind: &mut FileKind| {
        if let FileKind::Main(file) = kind {
            file.lock(LockLevel::from_number(level))?;
        }
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Lock, body) }
}

unsafe extern "C" fn x_unlock(file: *mut sqlite::sqlite3_file, level: c_int) -> c_int {
    let body = |kind: &mut FileKind| {
        if let FileKind::Main(file) = kind {
            file.unlock(LockLevel::from_number(level));
        }
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Lock, body) }
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut sqlite::sqlite3_file, out: *mut c_int) -> c_int {
    let body = |kind: &mut FileKind| {
        let reserved = match kind {
            FileKind::Main(file) => file.has_reserved_lock(),
            FileKind::Journal(_) | FileKind::SuperJournal(_) => false,
        };
        // SAFETY: SQLite gives a place for the answer.
        unsafe { store(out.cast(), c_int::from(reserved)) };
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Lock, body) }
}

unsafe extern "C" fn x_file_control(file: *mut sqlite::sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    // With a shared cache SQLite sends some hints (SQLITE_FCNTL_PDB, while a connection opens) without the mutex under which
    // another thread may be using the file: they must not touch it.
    if !is_answered(operation) {
        return codes::NOTFOUND;
    }
    let body = |kind: &mut FileKind| match kind {
        // SAFETY: SQLite calls with the argument that its documentation names for the operation.
        FileKind::Main(file) => unsafe { control(file, operation, argument) },
        FileKind::Journal(_) | FileKind::SuperJournal(_) => Ok(codes::NOTFOUND),
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Commit, body) }
}

unsafe extern "C" fn x_sector_size(_: *mut sqlite::sqlite3_file) -> c_int {
    SECTOR
}

unsafe extern "C" fn x_device_characteristics(file: *mut sqlite::sqlite3_file) -> c_int {
    let body = |kind: &mut FileKind| {
        let powersafe = !matches!(kind, FileKind::Main(file) if !file.powersafe_overwrite());
        Ok(if powersafe { CHARACTERISTICS } else { CHARACTERISTICS & !POWERSAFE_OVERWRITE })
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    let answer = unsafe { with(file, Step::Read, body) };
    // There are no errors among the characteristics.
    if answer == Step::Read.io_error() { CHARACTERISTICS } else { answer }
}

/// Lends SQLite bytes to read in the place of a memory map of the file. Null: it shall read them.
unsafe extern "C" fn x_fetch(
    file: *mut sqlite::sqlite3_file,
    at: sqlite::sqlite3_int64,
    count: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let body = |kind: &mut FileKind| {
        let lent = match kind {
            FileKind::Main(file) => file.lend(offset(at)?, length(count)?)?,
            FileKind::Journal(_) | FileKind::SuperJournal(_) => None,
        };
        // SAFETY: SQLite gives a place for the pointer. It only reads there, and until it gives the bytes back.
        unsafe { store(out.cast(), lent.map_or(std::ptr::null(), <[u8]>::as_ptr)) };
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Read, body) }
}

/// Takes back what was lent; with null SQLite says that the size of the file may have changed.
unsafe extern "C" fn x_unfetch(file: *mut sqlite::sqlite3_file, _: sqlite::sqlite3_int64, lent: *mut c_void) -> c_int {
    let body = |kind: &mut FileKind| {
        if let FileKind::Main(file) = kind {
            file.loans().take_back(lent.cast_const().cast());
        }
        Ok(codes::OK)
    };
    // SAFETY: SQLite calls the methods of a file that our xOpen installed and that is open.
    unsafe { with(file, Step::Read, body) }
}

#[cfg(test)]
mod tests {
    use std::ptr;
    use std::sync::Arc;

    use super::*;
    use crate::engine::Fleet;
    use crate::ffi::file::install;
    use crate::store::MemoryStore;
    use crate::vfs::Journal;

    /// SQLite's quota.test found it: a VFS on top of this one opens a file by a name of its own making, and SQLite took what
    /// stood before it in memory for URI parameters. In some runs the open failed.
    #[test]
    fn a_name_that_is_not_of_sqlites_making_has_no_parameters() {
        const MAIN_DB_TO_CREATE: c_int = 0x100 | 0x4 | 0x2;
        const URI: c_int = 0x40;
        let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
        fleet.register("names", false).unwrap();
        // SAFETY: the name ends with NUL.
        let vfs = unsafe { sqlite::sqlite3_vfs_find(c"names".as_ptr()) };
        // To SQLite this is the file `x` with the parameter `leese=name`, whose value was asked to be opened.
        let memory = b"\0\0\0\0x\0leese\0name\0\0\0\0";
        let name = memory[12..].as_ptr().cast();
        let mut file = vec![0_u64; 64];
        let file: *mut sqlite::sqlite3_file = file.as_mut_ptr().cast();
        // SAFETY: the file has room for more than szOsFile bytes, and the name ends with NUL.
        let open = |flags| unsafe { (*vfs).xOpen.unwrap()(vfs, name, file, flags, ptr::null_mut()) };
        assert_eq!(open(MAIN_DB_TO_CREATE), codes::OK);
        // SAFETY: the file is open.
        assert_eq!(unsafe { x_close(file) }, codes::OK);
        assert_eq!(open(MAIN_DB_TO_CREATE | URI), sqlite::SQLITE_CANTOPEN, "it is said to be one of SQLite's");
        fleet.unregister("names").unwrap();
    }

    /// SQLite's threadtest3 found it: a connection that opened made another one's statement fail with an I/O error.
    #[test]
    fn a_hint_that_is_not_ours_does_not_touch_a_file_in_use() {
        const PDB: c_int = 30;
        const LOCKSTATE: c_int = 1;
        let mut memory = [0_u64; 4];
        let file: *mut sqlite::sqlite3_file = memory.as_mut_ptr().cast();
        // SAFETY: the memory is large enough for a file, and aligned.
        unsafe { install(file, FileKind::Journal(Journal::default())) };
        let inside = |_: &mut FileKind| {
            // SAFETY: the file is open. The call comes in the middle of another one, as from another thread.
            let hint = unsafe { x_file_control(file, PDB, ptr::null_mut()) };
            assert_eq!(hint, codes::NOTFOUND);
            Ok(codes::OK)
        };
        // SAFETY: the file is open.
        assert_eq!(unsafe { with(file, Step::Read, inside) }, codes::OK);
        // SAFETY: the file is open.
        assert_eq!(unsafe { x_file_control(file, LOCKSTATE, ptr::null_mut()) }, codes::NOTFOUND);
        // SAFETY: the file is open.
        assert_eq!(unsafe { x_close(file) }, codes::OK);
    }
}
