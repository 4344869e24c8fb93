//! Version, network, errors.

use std::ffi::{c_char, c_int, c_void};

use super::copied;
use crate::client::network;
use crate::code;

#[unsafe(no_mangle)]
extern "C" fn fdb_get_error(code: c_int) -> *const c_char {
    code::text(code).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn fdb_error_predicate(predicate: c_int, code: c_int) -> c_int {
    c_int::from(code::predicate(predicate, code))
}

#[unsafe(no_mangle)]
extern "C" fn fdb_get_max_api_version() -> c_int {
    network::max_api_version()
}

/// Release, source version and protocol, as the real library separates them.
#[unsafe(no_mangle)]
extern "C" fn fdb_get_client_version() -> *const c_char {
    if !network::has_api_version() {
        // The real library follows a null pointer: this is as bad, and easier to understand.
        std::process::abort();
    }
    c"7.4.0,litefleet-stand-in,0".as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn fdb_select_api_version_impl(runtime_version: c_int, header_version: c_int) -> c_int {
    network::select_api_version(runtime_version, header_version)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_network_set_option(option: c_int, value: *const u8, length: c_int) -> c_int {
    // SAFETY: the caller's contract.
    let value = unsafe { copied(value, length) };
    network::set_option(option, value.as_deref())
}

#[unsafe(no_mangle)]
extern "C" fn fdb_setup_network() -> c_int {
    network::setup()
}

#[unsafe(no_mangle)]
extern "C" fn fdb_run_network() -> c_int {
    network::run()
}

#[unsafe(no_mangle)]
extern "C" fn fdb_stop_network() -> c_int {
    network::stop()
}

#[unsafe(no_mangle)]
extern "C" fn fdb_add_network_thread_completion_hook(hook: Option<network::Hook>, parameter: *mut c_void) -> c_int {
    match hook {
        Some(hook) => network::add_hook(hook, parameter),
        None => code::CLIENT_INVALID_OPERATION,
    }
}
