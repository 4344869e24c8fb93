//! Futures: waiting for them, and what is in them.

use std::ffi::{c_char, c_int, c_void};

use super::{Future, lent, store, take};
use crate::client::future::{CKey, CKeyValue, Callback, Output, c_length};
use crate::code;

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_cancel(future: *mut Future) {
    // SAFETY: the caller's contract.
    unsafe { lent(future) }.cancel();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_release_memory(future: *mut Future) {
    // SAFETY: the caller's contract.
    unsafe { lent(future) }.release_memory();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_destroy(future: *mut Future) {
    // SAFETY: the caller's contract; the reference is given up at the end.
    unsafe { take(future) }.cancel();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_block_until_ready(future: *mut Future) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { lent(future) }.block_until_ready()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_is_ready(future: *mut Future) -> c_int {
    // SAFETY: the caller's contract.
    c_int::from(unsafe { lent(future) }.is_ready())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_set_callback(
    future: *mut Future,
    callback: Option<Callback>,
    parameter: *mut c_void,
) -> c_int {
    let Some(callback) = callback else { return code::CLIENT_INVALID_OPERATION };
    // SAFETY: the caller's contract.
    unsafe { lent(future) }.set_callback(callback, parameter)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_error(future: *mut Future) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { lent(future) }.error()
}

/// Looks into a future's result, and stores what was found with `put`.
unsafe fn get<T>(future: *mut Future, look: impl FnOnce(&Output) -> Option<T>, put: impl FnOnce(T)) -> c_int {
    // SAFETY: the caller's contract.
    match unsafe { lent(future) }.with(look) {
        Ok(found) => {
            put(found);
            code::SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_int64(future: *mut Future, out: *mut i64) -> c_int {
    let number = |output: &Output| if let Output::Number(number) = output { Some(*number) } else { None };
    // SAFETY: the caller's contract.
    unsafe { get(future, number, |number| store(out, number)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_uint64(future: *mut Future, out: *mut u64) -> c_int {
    let number = |output: &Output| if let Output::Number(number) = output { u64::try_from(*number).ok() } else { None };
    // SAFETY: the caller's contract.
    unsafe { get(future, number, |number| store(out, number)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_double(future: *mut Future, out: *mut f64) -> c_int {
    let number = |output: &Output| if let Output::Real(number) = output { Some(*number) } else { None };
    // SAFETY: the caller's contract.
    unsafe { get(future, number, |number| store(out, number)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_key(future: *mut Future, out_key: *mut *const u8, out_length: *mut c_int) -> c_int {
    let key = |output: &Output| {
        if let Output::Key(key) = output { Some((key.as_ptr(), c_length(key.len()))) } else { None }
    };
    let put = |(key, length)| {
        // SAFETY: the caller's contract.
        unsafe { store(out_key, key) };
        // SAFETY: the caller's contract.
        unsafe { store(out_length, length) };
    };
    // SAFETY: the caller's contract.
    unsafe { get(future, key, put) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_value(
    future: *mut Future,
    out_present: *mut c_int,
    out_value: *mut *const u8,
    out_length: *mut c_int,
) -> c_int {
    let value = |output: &Output| {
        if let Output::Value(value) = output {
            Some(value.as_ref().map(|value| (value.as_ptr(), c_length(value.len()))))
        } else {
            None
        }
    };
    let put = |value: Option<(*const u8, c_int)>| {
        // SAFETY: the caller's contract.
        unsafe { store(out_present, c_int::from(value.is_some())) };
        let (value, length) = value.unwrap_or((std::ptr::null(), 0));
        // SAFETY: the caller's contract.
        unsafe { store(out_value, value) };
        // SAFETY: the caller's contract.
        unsafe { store(out_length, length) };
    };
    // SAFETY: the caller's contract.
    unsafe { get(future, value, put) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_keyvalue_array(
    future: *mut Future,
    out_rows: *mut *const CKeyValue,
    out_count: *mut c_int,
    out_more: *mut c_int,
) -> c_int {
    let rows = |output: &Output| {
        if let Output::Rows(rows) = output {
            Some((rows.array.as_ptr(), c_length(rows.array.len()), c_int::from(rows.more)))
        } else {
            None
        }
    };
    let put = |(rows, count, more)| {
        // SAFETY: the caller's contract.
        unsafe { store(out_rows, rows) };
        // SAFETY: the caller's contract.
        unsafe { store(out_count, count) };
        // SAFETY: the caller's contract.
        unsafe { store(out_more, more) };
    };
    // SAFETY: the caller's contract.
    unsafe { get(future, rows, put) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_key_array(
    future: *mut Future,
    out_keys: *mut *const CKey,
    out_count: *mut c_int,
) -> c_int {
    let keys = |output: &Output| {
        if let Output::Keys(keys) = output { Some((keys.array.as_ptr(), c_length(keys.array.len()))) } else { None }
    };
    let put = |(keys, count)| {
        // SAFETY: the caller's contract.
        unsafe { store(out_keys, keys) };
        // SAFETY: the caller's contract.
        unsafe { store(out_count, count) };
    };
    // SAFETY: the caller's contract.
    unsafe { get(future, keys, put) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_string_array(
    future: *mut Future,
    out_strings: *mut *mut *const c_char,
    out_count: *mut c_int,
) -> c_int {
    let strings = |output: &Output| {
        if let Output::Strings(strings) = output {
            Some((strings.array.as_ptr().cast_mut(), c_length(strings.array.len())))
        } else {
            None
        }
    };
    let put = |(strings, count)| {
        // SAFETY: the caller's contract.
        unsafe { store(out_strings, strings) };
        // SAFETY: the caller's contract.
        unsafe { store(out_count, count) };
    };
    // SAFETY: the caller's contract.
    unsafe { get(future, strings, put) }
}
