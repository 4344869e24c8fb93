//! Registration: once per name and process. What SQLite was given a pointer to is never freed, and the same object is
//! registered again after `sqlite3_shutdown`.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use libsqlite3_sys as sqlite;

use super::file::RAW_SIZE;
use super::filesystem::{
    MAX_PATH, x_access, x_current_time, x_current_time_int64, x_delete, x_dl_close, x_dl_error, x_dl_open,
    x_full_pathname, x_get_last_error, x_open, x_randomness, x_sleep,
};
use crate::engine::Fleet;
use crate::error::{Error, Result};
use crate::vfs::Vfs;

/// One registered VFS.
pub(super) struct Registered {
    /// SQLite links it into its list of VFS objects.
    raw: UnsafeCell<sqlite::sqlite3_vfs>,
    /// Owns the name that `raw` points to.
    _name: CString,
    parent: *mut sqlite::sqlite3_vfs,
    /// `None` after it was unregistered.
    vfs: Mutex<Option<Arc<Vfs>>>,
    /// The last one that was registered: its open files keep it after it was unregistered.
    last: Mutex<Weak<Vfs>>,
}

// SAFETY: the pointers are to VFS objects of SQLite and of ours, which live for ever and may be used from any thread;
// everything else is behind a mutex.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

/// Those that were ever registered, by name.
static REGISTERED: Mutex<BTreeMap<String, &'static Registered>> = Mutex::new(BTreeMap::new());

fn registered() -> MutexGuard<'static, BTreeMap<String, &'static Registered>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registered {
    fn slot(&self) -> MutexGuard<'_, Option<Arc<Vfs>>> {
        self.vfs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last one that was taken back, while files of it are open.
    fn open(&self) -> Option<Arc<Vfs>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    pub(super) fn vfs(&self) -> Result<Arc<Vfs>> {
        let registered = self.slot().clone();
        registered.or_else(|| self.open()).ok_or_else(|| Error::invalid("this VFS was unregistered"))
    }

    pub(super) fn parent(&self) -> *mut sqlite::sqlite3_vfs {
        self.parent
    }

    /// Opens a file of the operating system's VFS in the same memory.
    ///
    /// # Safety
    /// The arguments must be those of an `xOpen` call for this VFS.
    pub(super) unsafe fn parent_open(
        &self,
        name: *const c_char,
        file: *mut sqlite::sqlite3_file,
        flags: c_int,
        out_flags: *mut c_int,
    ) -> c_int {
        // SAFETY: the parent lives for ever.
        let open = unsafe { (*self.parent).xOpen };
        // SAFETY: the caller promises the arguments; the memory has room, since szOsFile covers the parent's.
        open.map_or(sqlite::SQLITE_CANTOPEN, |open| unsafe { open(self.parent, name, file, flags, out_flags) })
    }
}

impl Fleet {
    /// Registers the VFS under a name, for every SQLite connection of the process; with `default` for those too that name
    /// no VFS. Registering the same fleet again does nothing, but for taking up `default`, and puts it back after
    /// `sqlite3_shutdown`. `Invalid` when the name belongs to another VFS.
    pub fn register(&self, name: &str, default: bool) -> Result<()> {
        // SAFETY: no argument; initialising twice is harmless.
        let code = unsafe { sqlite::sqlite3_initialize() };
        if code != sqlite::SQLITE_OK {
            return Err(Error::internal(format!("sqlite3_initialize returned {code}")));
        }
        let mut all = registered();
        let entry = if let Some(entry) = all.get(name).copied() {
            let mut slot = entry.slot();
            if slot.as_ref().is_some_and(|vfs| !vfs.fleet().is_same(self)) {
                return Err(Error::invalid(format!("another fleet is registered as the VFS {name}")));
            }
            // Files that stayed open belong to the one before: they and new ones must know each other.
            let open = entry.open().filter(|vfs| vfs.fleet().is_same(self));
            slot.get_or_insert_with(|| open.unwrap_or_else(|| Vfs::new(self.clone())));
            entry
        } else {
            let entry = make(&all, name, self)?;
            all.insert(name.to_owned(), entry);
            entry
        };
        let raw = entry.raw.get();
        // SAFETY: the object lives for ever; SQLite writes only its list link, under its own mutex.
        let code = unsafe { sqlite::sqlite3_vfs_register(raw, c_int::from(default)) };
        if code == sqlite::SQLITE_OK {
            Ok(())
        } else {
            Err(Error::internal(format!("sqlite3_vfs_register returned {code}")))
        }
    }

    /// Takes the VFS back: no new connection finds it. Open ones go on.
    pub fn unregister(&self, name: &str) -> Result<()> {
        let all = registered();
        let entry = all.get(name).filter(|entry| entry.slot().as_ref().is_some_and(|vfs| vfs.fleet().is_same(self)));
        let Some(entry) = entry else {
            return Err(Error::not_found(format!("this fleet is not registered as the VFS {name}")));
        };
        // SAFETY: the object lives for ever.
        unsafe { sqlite::sqlite3_vfs_unregister(entry.raw.get()) };
        if let Some(vfs) = entry.slot().take() {
            *entry.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&vfs);
        }
        Ok(())
    }
}

fn make(all: &BTreeMap<String, &'static Registered>, name: &str, fleet: &Fleet) -> Result<&'static Registered> {
    let c_name = CString::new(name).map_err(|_| Error::invalid("the name of a VFS cannot contain a NUL"))?;
    // SAFETY: null asks for the default VFS.
    let mut parent = unsafe { sqlite::sqlite3_vfs_find(ptr::null()) };
    // The operating system's, also when one of ours is the default.
    while let Some(ours) = all.values().find(|entry| entry.raw.get() == parent) {
        parent = ours.parent;
    }
    if parent.is_null() {
        return Err(Error::internal("SQLite has no VFS for temporary files"));
    }
    // SAFETY: a found VFS lives for ever.
    let parent_size = unsafe { (*parent).szOsFile };
    let own_size = c_int::try_from(RAW_SIZE).map_err(|_| Error::internal("the size of a file"))?;
    let raw = sqlite::sqlite3_vfs {
        iVersion: 2,
        szOsFile: own_size.max(parent_size),
        mxPathname: MAX_PATH,
        pNext: ptr::null_mut(),
        zName: c_name.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(x_open),
        xDelete: Some(x_delete),
        xAccess: Some(x_access),
        xFullPathname: Some(x_full_pathname),
        xDlOpen: Some(x_dl_open),
        xDlError: Some(x_dl_error),
        // SAFETY: a found VFS lives for ever. A symbol is looked up in a library by its handle alone.
        xDlSym: unsafe { (*parent).xDlSym },
        xDlClose: Some(x_dl_close),
        xRandomness: Some(x_randomness),
        xSleep: Some(x_sleep),
        xCurrentTime: Some(x_current_time),
        xGetLastError: Some(x_get_last_error),
        xCurrentTimeInt64: Some(x_current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    };
    let vfs = Mutex::new(Some(Vfs::new(fleet.clone())));
    let entry = Box::into_raw(Box::new(Registered {
        raw: UnsafeCell::new(raw),
        _name: c_name,
        parent,
        vfs,
        last: Mutex::default(),
    }));
    // SAFETY: the box was leaked just now, and nobody else has the pointer yet.
    unsafe { (*entry).raw.get_mut().pAppData = entry.cast::<c_void>() };
    // SAFETY: it is never freed.
    Ok(unsafe { &*entry })
}
