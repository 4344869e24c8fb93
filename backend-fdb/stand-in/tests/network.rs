//! The order in which a process may select a version, set the network up, run it and stop it. All of it happens once per
//! process, so there is one test.
#![expect(unsafe_code, reason = "the C interface itself")]

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use foundationdb_sys as c;
use litefleet_fdb_stand_in_control::{StandIn, real_cluster};

static HOOK_RAN: AtomicBool = AtomicBool::new(false);
/// What waiting on the network thread answered.
static BLOCKED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn hook(_: *mut c_void) {
    HOOK_RAN.store(true, Ordering::SeqCst);
}

/// Blocks on the network thread, which is refused: whatever it waits for would be worked out on this very thread.
extern "C" fn block(_: *mut c::FDBFuture, transaction: *mut c_void) {
    // SAFETY: the transaction lives until the test has seen the answer; the key is as long as said.
    let future = unsafe { c::fdb_transaction_get(transaction.cast(), b"k".as_ptr(), 1, 0) };
    // SAFETY: the future was made just now.
    let code = unsafe { c::fdb_future_block_until_ready(future) };
    // SAFETY: nobody else has it.
    unsafe { c::fdb_future_destroy(future) };
    BLOCKED.store(code, Ordering::SeqCst);
}

fn select(runtime: c_int, header: c_int) -> c_int {
    // SAFETY: any two numbers may be given.
    unsafe { c::fdb_select_api_version_impl(runtime, header) }
}

#[test]
fn the_network_is_set_up_once_runs_once_and_stays_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let file = real_cluster().map_or_else(
        || StandIn::create(directory.path(), "network").unwrap().cluster_file().to_owned(),
        |file| file.to_str().expect("a path in UTF-8").to_owned(),
    );
    let file = std::ffi::CString::new(file).unwrap();
    let mut database = std::ptr::null_mut();

    // SAFETY: a constant of the library.
    let newest = unsafe { c::fdb_get_max_api_version() };
    assert!(newest >= 710, "{newest}");
    assert_eq!(select(710, 700), 2202, "a runtime above the header");
    assert_eq!(select(newest, newest + 10), 2203, "a header that the library does not know");
    assert_eq!(select(710, 710), 0);
    assert_eq!(select(710, 710), 2201, "a second time");
    // SAFETY: text of the library that ends with a zero. Before a version is selected, asking for it is a fault.
    let version = unsafe { CStr::from_ptr(c::fdb_get_client_version()) };
    assert_eq!(version.to_string_lossy().split(',').count(), 3, "{version:?}");

    // SAFETY: the path ends with a zero, the place is valid.
    assert_eq!(unsafe { c::fdb_create_database(file.as_ptr(), &raw mut database) }, 2008, "before the setup");
    // SAFETY: no pointer is given.
    assert_eq!(unsafe { c::fdb_run_network() }, 2008, "before the setup");
    // SAFETY: a null value of no length.
    assert_eq!(unsafe { c::fdb_network_set_option(9_999, std::ptr::null(), 0) }, 2007, "no such option");
    for (option, value, told) in [(34, "yaml", 2006), (34, "JSON", 0), (40, "max_trace_lines", 2006), (40, "a=b", 0)] {
        let length = i32::try_from(value.len()).expect("short");
        // SAFETY: a value of that length.
        let code = unsafe { c::fdb_network_set_option(option, value.as_ptr(), length) };
        assert_eq!(code, told, "{value} for the option {option}");
    }
    // SAFETY: no pointer is given.
    assert_eq!(unsafe { c::fdb_setup_network() }, 0);
    // SAFETY: no pointer is given.
    assert_eq!(unsafe { c::fdb_setup_network() }, 2009, "a second time");
    // SAFETY: the hook takes any argument.
    assert_eq!(unsafe { c::fdb_add_network_thread_completion_hook(Some(hook), std::ptr::null_mut()) }, 0);

    // SAFETY: the path ends with a zero, the place is valid.
    assert_eq!(unsafe { c::fdb_create_database(file.as_ptr(), &raw mut database) }, 0);
    let mut transaction = std::ptr::null_mut();
    // SAFETY: the database was made just now.
    assert_eq!(unsafe { c::fdb_database_create_transaction(database, &raw mut transaction) }, 0);
    // SAFETY: the transaction was made just now.
    let version = unsafe { c::fdb_transaction_get_read_version(transaction) };
    // SAFETY: the future was made just now; the callback's transaction outlives it.
    assert_eq!(unsafe { c::fdb_future_set_callback(version, Some(block), transaction.cast()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { c::fdb_future_is_ready(version) }, 0, "nothing happens before the network runs");

    // SAFETY: no pointer is given.
    let network = std::thread::spawn(|| unsafe { c::fdb_run_network() });
    // SAFETY: as above.
    assert_eq!(unsafe { c::fdb_future_block_until_ready(version) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { c::fdb_future_get_error(version) }, 0);
    while BLOCKED.load(Ordering::SeqCst) == -1 {
        std::thread::yield_now();
    }
    assert_eq!(BLOCKED.load(Ordering::SeqCst), 2026, "to wait on the network thread is refused");

    // SAFETY: no pointer is given.
    assert_eq!(unsafe { c::fdb_stop_network() }, 0);
    assert_eq!(network.join().unwrap(), 0);
    assert!(HOOK_RAN.load(Ordering::SeqCst), "the hook runs at the end of the network thread");
    // SAFETY: no pointer is given.
    assert_eq!(unsafe { c::fdb_run_network() }, 2025, "it cannot be started again");
    // SAFETY: nobody else has it.
    unsafe { c::fdb_future_destroy(version) };
    // SAFETY: as above.
    unsafe { c::fdb_transaction_destroy(transaction) };
    // SAFETY: as above.
    unsafe { c::fdb_database_destroy(database) };
}
