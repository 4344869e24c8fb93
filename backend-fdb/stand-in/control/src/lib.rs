//! What tests need to run on the stand-in for `libfdb_c`, or on a real cluster.
//!
//! A package whose tests link against `libfdb_c` names this one as a dependency for development, and nothing else: cargo
//! then builds the stand-in first, and the linker finds it. With `LITEFLEET_FDB_LIBRARY_DIR` in the environment the
//! linker finds the real library instead, and with `LITEFLEET_FDB_CLUSTER_FILE` the tests run on a real cluster.
//!
//! The functions here look the stand-in's own functions up when they are called, so that the same tests link against
//! either library.
#![expect(unsafe_code, reason = "the stand-in's functions are found by name")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Searches everything that the program has loaded. Source: the manual page dlsym(3); on Linux this value is null.
const EVERYWHERE: *mut c_void = std::ptr::null_mut();

type Command = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
type Counter = unsafe extern "C" fn(*const c_char, *const c_char) -> i64;

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `dlsym` takes any handle that is documented, and a string that ends with a zero.
    let found = unsafe { dlsym(EVERYWHERE, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// True when the program runs with the stand-in, false with the real library.
///
/// # Panics
///
/// When the library that is loaded is not the one that was linked: the tests would prove something else than they say.
pub fn is_stand_in() -> bool {
    let loaded = symbol(c"litefleet_stand_in_command").is_some();
    let linked = env!("LITEFLEET_FDB_LINKED") == "stand-in";
    assert_eq!(
        loaded,
        linked,
        "linked against the {} libfdb_c, but another one is loaded: check LD_LIBRARY_PATH",
        env!("LITEFLEET_FDB_LINKED")
    );
    loaded
}

/// The cluster file of the real cluster, when the tests are to run on one.
///
/// # Panics
///
/// When there is a cluster file without the real library, or the other way round.
pub fn real_cluster() -> Option<PathBuf> {
    let file = std::env::var_os("LITEFLEET_FDB_CLUSTER_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
    match (is_stand_in(), &file) {
        (true, Some(_)) => panic!("LITEFLEET_FDB_CLUSTER_FILE needs LITEFLEET_FDB_LIBRARY_DIR: this is the stand-in"),
        (false, None) => panic!("the real libfdb_c needs LITEFLEET_FDB_CLUSTER_FILE"),
        _ => file,
    }
}

/// One cluster of the stand-in, by its cluster file.
#[derive(Debug, Clone)]
pub struct StandIn {
    cluster_file: CString,
}

impl StandIn {
    /// Writes a cluster file into a directory. Every identity (letters and digits) is a cluster of its own, within this
    /// process.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn create(directory: &Path, identity: &str) -> std::io::Result<Self> {
        let path = directory.join(format!("{identity}.cluster"));
        std::fs::write(&path, format!("stand_in:{identity}@127.0.0.1:4500\n"))?;
        Ok(Self::at(&path))
    }

    /// The cluster of an existing cluster file.
    ///
    /// # Panics
    ///
    /// When the path has a zero byte in it.
    pub fn at(cluster_file: &Path) -> Self {
        let path = cluster_file.as_os_str().as_encoded_bytes();
        Self { cluster_file: CString::new(path).expect("a path without a zero byte") }
    }

    /// The path of the cluster file.
    pub fn cluster_file(&self) -> &str {
        self.cluster_file.to_str().unwrap_or_default()
    }

    /// Lets other processes use this cluster, until this process ends: they open the cluster file that is returned.
    ///
    /// # Panics
    ///
    /// When the stand-in is not there, or cannot listen or write.
    #[must_use]
    pub fn serve(&self, directory: &Path) -> Self {
        let served = Self::at(&directory.join("served.cluster"));
        assert_eq!(self.call(c"litefleet_stand_in_serve", &served.cluster_file), 0, "the stand-in cannot serve");
        served
    }

    /// Gives the stand-in a command: its `README.md` lists them.
    ///
    /// # Panics
    ///
    /// When the stand-in does not know the command, or is not there.
    pub fn command(&self, command: &str) {
        let text = CString::new(command).expect("a command without a zero byte");
        let code = self.call(c"litefleet_stand_in_command", &text);
        assert_eq!(code, 0, "the stand-in refused the command '{command}'");
    }

    /// Calls a function of the stand-in with the cluster file and one more text.
    fn call(&self, name: &CStr, argument: &CStr) -> c_int {
        let symbol = symbol(name).expect("this test needs the stand-in for libfdb_c");
        // SAFETY: the stand-in exports these functions with this type.
        let function = unsafe { std::mem::transmute::<*mut c_void, Command>(symbol) };
        // SAFETY: both are strings that end with a zero, and live until the call returns.
        unsafe { function(self.cluster_file.as_ptr(), argument.as_ptr()) }
    }

    /// A counter of the stand-in: its `README.md` lists them.
    ///
    /// # Panics
    ///
    /// When the stand-in does not have the counter, or is not there.
    pub fn counter(&self, name: &str) -> u64 {
        let symbol = symbol(c"litefleet_stand_in_counter").expect("this test needs the stand-in for libfdb_c");
        // SAFETY: the stand-in exports the function of this name with this type.
        let function = unsafe { std::mem::transmute::<*mut c_void, Counter>(symbol) };
        let text = CString::new(name).expect("a name without a zero byte");
        // SAFETY: both are strings that end with a zero, and live until the call returns.
        let count = unsafe { function(self.cluster_file.as_ptr(), text.as_ptr()) };
        u64::try_from(count).unwrap_or_else(|_| panic!("the stand-in has no counter '{name}'"))
    }
}
