//! What the C interface has and the stand-in does not: tenants, blob granules, mapped ranges, management of processes.
//! Programs link against the names; whoever calls one gets `unsupported_operation` (2108), and its name on standard error.
//!
//! Parameters are not declared: in the calling conventions of C the caller looks after them.

use std::ffi::c_int;

use super::{Future, give};
use crate::client::future::FdbFuture;
use crate::code;

fn refuse(name: &str) -> c_int {
    eprintln!("litefleet stand-in: {name} is not part of this stand-in for libfdb_c");
    code::UNSUPPORTED_OPERATION
}

macro_rules! futures {
    ($($name:ident)+) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name() -> *mut Future {
            give(FdbFuture::ready(Err(refuse(stringify!($name)))))
        })+
    };
}

macro_rules! errors {
    ($($name:ident)+) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name() -> c_int {
            refuse(stringify!($name))
        })+
    };
}

/// Functions that return an `FDBResult`: null, which the real library never returns. The functions that look into one
/// answer that they are not supported.
macro_rules! results {
    ($($name:ident)+) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name() -> *mut std::ffi::c_void {
            refuse(stringify!($name));
            std::ptr::null_mut()
        })+
    };
}

/// What destroys something of which there is never one.
macro_rules! nothing {
    ($($name:ident)+) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name() {})+
    };
}

futures! {
    fdb_database_blobbify_range
    fdb_database_blobbify_range_blocking
    fdb_database_create_snapshot
    fdb_database_flush_blob_range
    fdb_database_force_recovery_with_data_loss
    fdb_database_get_client_status
    fdb_database_list_blobbified_ranges
    fdb_database_purge_blob_granules
    fdb_database_reboot_worker
    fdb_database_unblobbify_range
    fdb_database_verify_blob_range
    fdb_database_wait_purge_granules_complete
    fdb_tenant_blobbify_range
    fdb_tenant_blobbify_range_blocking
    fdb_tenant_flush_blob_range
    fdb_tenant_get_id
    fdb_tenant_list_blobbified_ranges
    fdb_tenant_purge_blob_granules
    fdb_tenant_unblobbify_range
    fdb_tenant_verify_blob_range
    fdb_tenant_wait_purge_granules_complete
    fdb_transaction_get_blob_granule_ranges
    fdb_transaction_get_mapped_range
    fdb_transaction_read_blob_granules_description
    fdb_transaction_summarize_blob_granules
}

errors! {
    fdb_database_open_tenant
    fdb_tenant_create_transaction
    fdb_future_get_bool
    fdb_future_get_granule_summary_array
    fdb_future_get_keyrange_array
    fdb_future_get_mappedkeyvalue_array
    fdb_future_readbg_get_descriptions
    fdb_result_get_bg_mutations_array
    fdb_result_get_keyvalue_array
}

results! {
    fdb_readbg_parse_delta_file
    fdb_readbg_parse_snapshot_file
    fdb_transaction_read_blob_granules
}

nothing! {
    fdb_result_destroy
    fdb_tenant_destroy
}
