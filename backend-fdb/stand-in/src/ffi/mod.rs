//! The C interface: names and types as `fdb_c.h` of FoundationDB 7.1 to 7.4 declares them, for whoever links or loads
//! this library in place of the real one.
//!
//! Every function trusts its caller as the real one does: pointers are what this library gave out (or, where the header
//! says so, null), lengths belong to their pointers, and a future, database or transaction is destroyed once, after its
//! last use. That is the invariant that each SAFETY note below refers to as "the caller's contract".
#![expect(unsafe_code, reason = "a C interface is made of pointers from its caller")]

mod control;
mod database;
mod future;
mod network;
mod transaction;
mod unsupported;

use std::ffi::{CStr, c_char, c_int};
use std::mem::ManuallyDrop;
use std::sync::Arc;

use bytes::Bytes;

use crate::client::future::FdbFuture;
use crate::cluster::protocol::Range;

/// What the C interface holds on to: one reference, given back when it is destroyed.
fn give<T>(shared: Arc<T>) -> *mut T {
    Arc::into_raw(shared).cast_mut()
}

/// The reference that the caller holds on to; it stays the caller's.
unsafe fn lent<T>(pointer: *const T) -> ManuallyDrop<Arc<T>> {
    // SAFETY: the caller's contract: the pointer came from `give` and has not been taken back.
    ManuallyDrop::new(unsafe { Arc::from_raw(pointer) })
}

/// Takes back what `give` gave.
unsafe fn take<T>(pointer: *const T) -> Arc<T> {
    // SAFETY: the caller's contract: the pointer came from `give` and is taken back once.
    unsafe { Arc::from_raw(pointer) }
}

/// A copy of the caller's bytes; null is none.
unsafe fn copied(pointer: *const u8, length: c_int) -> Option<Bytes> {
    let length = usize::try_from(length).ok()?;
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's contract: `length` bytes are there.
    Some(Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(pointer, length) }))
}

/// A copy of a key or value of the caller; null is the empty one.
unsafe fn bytes(pointer: *const u8, length: c_int) -> Bytes {
    // SAFETY: the caller's contract.
    unsafe { copied(pointer, length) }.unwrap_or_default()
}

unsafe fn range(begin: *const u8, begin_length: c_int, end: *const u8, end_length: c_int) -> Range {
    // SAFETY: the caller's contract.
    unsafe { Range { begin: bytes(begin, begin_length), end: bytes(end, end_length) } }
}

/// The caller's text; null is the empty one.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's contract: a string that ends with a zero.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Stores a result where the caller wants it.
unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller's contract: the place is writable.
        unsafe { place.write(value) };
    }
}

type Future = FdbFuture;
