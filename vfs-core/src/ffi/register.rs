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
    MAX_PATH, x_access, x_current_time, x_current_time_int64, x_delete, x_dl_close, x_dl_error, x_dl_open, x_dl_sym,
    x_full_pathname, x_get_last_error, x_open, x_randomness, x_sleep,
};
use crate::engine::Fleet;
use crate::error::{Error, Result};
use crate::vfs::{JOURNAL, Vfs};

/// One registered VFS.
pub(super) struct Registered {
    /// SQLite links it into its list of VFS objects.
    raw: UnsafeCell<sqlite::sqlite3_vfs>,
    /// Owns the name that `raw` points to.
    _name: CString,
    parent: *mut sqlite::sqlite3_vfs,
    /// `None` after it was unregistered.
    vfs: Mutex<Option<Arc<Vfs>>>,
    /// Those that were unregistered: their open files keep them.
    former: Mutex<Vec<Weak<Vfs>>>,
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

    /// Those with open files that were unregistered, the last one first.
    fn former(&self) -> Vec<Arc<Vfs>> {
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.iter().rev().filter_map(Weak::upgrade).collect()
    }

    /// One was registered, or unregistered.
    fn set_former(&self, vfs: &Arc<Vfs>, is_former: bool) {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.retain(|other| other.strong_count() > 0 && other.as_ptr() != Arc::as_ptr(vfs));
        if is_former {
            former.push(Arc::downgrade(vfs));
        }
    }

    pub(super) fn vfs(&self) -> Result<Arc<Vfs>> {
        let registered = self.slot().clone();
        let found = registered.or_else(|| self.former().into_iter().next());
        found.ok_or_else(|| Error::invalid("this VFS was unregistered"))
    }

    /// The one that a path belongs to: a transaction over several databases that was begun before another fleet was
    /// registered under the name ends where it began.
    pub(super) fn vfs_of(&self, path: &str) -> Result<Arc<Vfs>> {
        let former = self.former().into_iter().find(|vfs| vfs.super_journals().get(path).is_some());
        former.map_or_else(|| self.vfs(), Ok)
    }

    /// The one through which a database is written now, where that can be told.
    fn vfs_writing(&self, database: &str) -> Option<Arc<Vfs>> {
        let registered = self.slot().clone();
        let mut all: Vec<Arc<Vfs>> = registered.into_iter().chain(self.former()).collect();
        if all.len() > 1 {
            all.retain(|vfs| vfs.is_writing(database));
        }
        if all.len() == 1 { all.pop() } else { None }
    }

    /// The one that a journal belongs to, where that can be told: SQLite opens it when it writes the database.
    pub(super) fn vfs_of_journal(&self, journal: &str) -> Option<Arc<Vfs>> {
        self.vfs_writing(journal.strip_suffix(JOURNAL)?)
    }

    /// The one that a super-journal is to be made at. SQLite does not say whose it is, but names it after the main database of
    /// the connection, which nearly always takes part.
    pub(super) fn vfs_for(&self, super_journal: &str) -> Result<Arc<Vfs>> {
        let main = super_journal.rsplit_once("-mj").map(|(main, _)| main);
        main.and_then(|main| self.vfs_writing(main)).map_or_else(|| self.vfs(), Ok)
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
    /// no VFS. Registering the same fleet again does nothing, but for taking up `default`, which it stays, and puts it back after
    /// `sqlite3_shutdown`. `Invalid` when the name belongs to another VFS. A fleet may have several names: files that were opened
    /// through one know those of the others.
    pub fn register(&self, name: &str, default: bool) -> Result<()> {
        // SAFETY: no argument; initialising twice is harmless.
        let code = unsafe { sqlite::sqlite3_initialize() };
        if code != sqlite::SQLITE_OK {
            return Err(Error::internal(format!("sqlite3_initialize returned {code}")));
        }
        let c_name = CString::new(name).map_err(|_| Error::invalid("the name of a VFS cannot contain a NUL"))?;
        let mut all = registered();
        // SAFETY: the name ends with NUL.
        let found = unsafe { sqlite::sqlite3_vfs_find(c_name.as_ptr()) };
        if !found.is_null() && all.get(name).is_none_or(|entry| entry.raw.get() != found) {
            return Err(Error::invalid(format!("another VFS has the name {name}")));
        }
        let vfs = vfs_of_fleet(&all, self);
        let entry = if let Some(entry) = all.get(name).copied() {
            let mut slot = entry.slot();
            if slot.as_ref().is_some_and(|vfs| !vfs.fleet().is_same(self)) {
                return Err(Error::invalid(format!("another fleet is registered as the VFS {name}")));
            }
            entry.set_former(&vfs, false);
            slot.get_or_insert(vfs);
            entry
        } else {
            let entry = make(c_name, vfs, default_parent(&all)?)?;
            all.insert(name.to_owned(), entry);
            entry
        };
        let raw = entry.raw.get();
        // What is registered again without is put behind the default one, also where it was that itself.
        // SAFETY: null asks for the default VFS.
        let default = default || unsafe { sqlite::sqlite3_vfs_find(ptr::null()) } == raw;
        // SAFETY: the object lives for ever; SQLite writes only its list link, under its own mutex.
        let code = unsafe { sqlite::sqlite3_vfs_register(raw, c_int::from(default)) };
        if code == sqlite::SQLITE_OK {
            Ok(())
        } else {
            Err(Error::internal(format!("sqlite3_vfs_register returned {code}")))
        }
    }

    /// Takes the VFS back: no new connection finds it. Open ones go on. Where it was the default, SQLite chooses another.
    pub fn unregister(&self, name: &str) -> Result<()> {
        let all = registered();
        let entry = all.get(name).filter(|entry| entry.slot().as_ref().is_some_and(|vfs| vfs.fleet().is_same(self)));
        let Some(entry) = entry else {
            return Err(Error::not_found(format!("this fleet is not registered as the VFS {name}")));
        };
        // SAFETY: the object lives for ever.
        unsafe { sqlite::sqlite3_vfs_unregister(entry.raw.get()) };
        if let Some(vfs) = entry.slot().take() {
            entry.set_former(&vfs, true);
        }
        Ok(())
    }
}

/// That of a fleet. Its files must know each other, whatever name they were opened through, and whenever.
fn vfs_of_fleet(all: &BTreeMap<String, &'static Registered>, fleet: &Fleet) -> Arc<Vfs> {
    let mut known = all.values().flat_map(|entry| entry.slot().clone().into_iter().chain(entry.former()));
    known.find(|vfs| vfs.fleet().is_same(fleet)).unwrap_or_else(|| Vfs::new(fleet.clone()))
}

/// The VFS for temporary files, time, randomness and libraries.
fn default_parent(all: &BTreeMap<String, &'static Registered>) -> Result<*mut sqlite::sqlite3_vfs> {
    // SAFETY: null asks for the default VFS.
    let mut parent = unsafe { sqlite::sqlite3_vfs_find(ptr::null()) };
    // The operating system's, also when one of ours is the default.
    while let Some(ours) = all.values().find(|entry| entry.raw.get() == parent) {
        parent = ours.parent;
    }
    if parent.is_null() {
        return Err(Error::internal("SQLite has no VFS for temporary files"));
    }
    Ok(parent)
}

fn make(name: CString, vfs: Arc<Vfs>, parent: *mut sqlite::sqlite3_vfs) -> Result<&'static Registered> {
    // SAFETY: a found VFS lives for ever.
    let parent_size = unsafe { (*parent).szOsFile };
    let own_size = c_int::try_from(RAW_SIZE).map_err(|_| Error::internal("the size of a file"))?;
    let raw = sqlite::sqlite3_vfs {
        iVersion: 2,
        szOsFile: own_size.max(parent_size),
        mxPathname: MAX_PATH,
        pNext: ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(x_open),
        xDelete: Some(x_delete),
        xAccess: Some(x_access),
        xFullPathname: Some(x_full_pathname),
        xDlOpen: Some(x_dl_open),
        xDlError: Some(x_dl_error),
        xDlSym: Some(x_dl_sym),
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
    let vfs = Mutex::new(Some(vfs));
    let entry = Box::into_raw(Box::new(Registered {
        raw: UnsafeCell::new(raw),
        _name: name,
        parent,
        vfs,
        former: Mutex::default(),
    }));
    // SAFETY: the box was leaked just now, and nobody else has the pointer yet.
    unsafe { (*entry).raw.get_mut().pAppData = entry.cast::<c_void>() };
    // SAFETY: it is never freed.
    Ok(unsafe { &*entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const NOON: f64 = 2_460_000.0;

    /// Whether a shim was given its own structure: it may keep its state behind it.
    fn is_shims(vfs: *mut sqlite::sqlite3_vfs) -> bool {
        // SAFETY: every VFS of this test lives for ever.
        unsafe { (*vfs).pAppData }.is_null()
    }

    unsafe extern "C" fn found(_: *mut sqlite::sqlite3_vfs, _: *mut c_void, _: *const c_char) {}

    unsafe extern "C" fn symbol(
        vfs: *mut sqlite::sqlite3_vfs,
        _: *mut c_void,
        _: *const c_char,
    ) -> Option<unsafe extern "C" fn(*mut sqlite::sqlite3_vfs, *mut c_void, *const c_char)> {
        is_shims(vfs).then_some(found)
    }

    unsafe extern "C" fn time(vfs: *mut sqlite::sqlite3_vfs, out: *mut f64) -> c_int {
        // SAFETY: the test gives a place.
        unsafe { *out = NOON };
        c_int::from(!is_shims(vfs))
    }

    unsafe extern "C" fn no_time(_: *mut sqlite::sqlite3_vfs, _: *mut sqlite::sqlite3_int64) -> c_int {
        1
    }

    /// A shim was given our structure to look for symbols with, and one of version 1 was read past its end for the time.
    #[test]
    fn a_shim_of_version_1_is_called_as_what_it_is() {
        // SAFETY: null asks for the default VFS, which is copied.
        let mut shim = unsafe { *sqlite::sqlite3_vfs_find(ptr::null()) };
        shim.iVersion = 1;
        shim.pAppData = ptr::null_mut();
        shim.xDlSym = Some(symbol);
        shim.xCurrentTime = Some(time);
        shim.xCurrentTimeInt64 = Some(no_time);
        let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
        let raw = make(c"over-a-shim".into(), Vfs::new(fleet), Box::into_raw(Box::new(shim))).unwrap().raw.get();
        // SAFETY: the VFS lives for ever, and the methods get it and places for their answers.
        let (found, code, millis) = unsafe {
            let mut millis = 0;
            let found = (*raw).xDlSym.unwrap()(raw, ptr::null_mut(), c"name".as_ptr());
            (found.is_some(), (*raw).xCurrentTimeInt64.unwrap()(raw, &raw mut millis), millis)
        };
        assert_eq!((found, code, millis), (true, 0, 2_460_000 * 86_400_000));
    }

    /// The transaction's super-journal was looked for at the new fleet only, which answered that it had deleted it.
    #[test]
    fn a_super_journal_is_committed_where_it_was_made() {
        let fleet = || Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
        let (first, second) = (fleet(), fleet());
        let name = "registered-again";
        first.register(name, false).unwrap();
        let entry = registered()[name];
        let vfs = entry.vfs().unwrap();
        let group = vfs.open_super_journal("a-mj000000900", true);
        group.write(0, b"\0").unwrap();
        first.unregister(name).unwrap();
        second.register(name, false).unwrap();
        let found = |path: &str| entry.vfs_of(path).unwrap();
        assert!(Arc::ptr_eq(&found("a-mj000000900"), &vfs));
        assert!(found("b-mj000000900").fleet().is_same(&second));
        second.unregister(name).unwrap();
    }
}
