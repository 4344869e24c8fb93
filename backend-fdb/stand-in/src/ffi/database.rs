//! Databases.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use super::{Future, copied, give, lent, store, take, text};
use crate::client::database::Database;
use crate::client::future::{FdbFuture, Output};
use crate::client::transaction::Transaction;
use crate::code::{self, Code};

unsafe fn put<T>(out: *mut *mut T, made: Result<Arc<T>, Code>) -> c_int {
    match made {
        Ok(made) => {
            // SAFETY: the caller's contract.
            unsafe { store(out, give(made)) };
            code::SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_create_database(cluster_file: *const c_char, out: *mut *mut Database) -> c_int {
    // SAFETY: the caller's contract.
    let path = unsafe { text(cluster_file) };
    // SAFETY: the caller's contract.
    unsafe { put(out, Database::open(&path)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_create_database_from_connection_string(
    connection: *const c_char,
    out: *mut *mut Database,
) -> c_int {
    // SAFETY: the caller's contract.
    let connection = unsafe { text(connection) };
    // SAFETY: the caller's contract.
    unsafe { put(out, Database::connect(&connection)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_database_destroy(database: *mut Database) {
    // SAFETY: the caller's contract. Transactions have references of their own.
    drop(unsafe { take(database) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_database_set_option(
    database: *mut Database,
    option: c_int,
    value: *const u8,
    length: c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    let value = unsafe { copied(value, length) };
    // SAFETY: the caller's contract.
    unsafe { lent(database) }.set_option(option, value.as_deref())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_database_create_transaction(database: *mut Database, out: *mut *mut Transaction) -> c_int {
    // SAFETY: the caller's contract.
    let database = Arc::clone(&*unsafe { lent(database) });
    // SAFETY: the caller's contract.
    unsafe { put(out, Ok(Transaction::new(database))) }
}

/// The share of time that the network thread is busy: not measured.
#[unsafe(no_mangle)]
extern "C" fn fdb_database_get_main_thread_busyness(_database: *mut Database) -> f64 {
    0.0
}

/// The protocol version of FoundationDB 7.3.
#[unsafe(no_mangle)]
extern "C" fn fdb_database_get_server_protocol(_database: *mut Database, _expected: u64) -> *mut Future {
    give(FdbFuture::ready(Ok(Output::Number(0x0FDB_00B0_7301_0000))))
}
