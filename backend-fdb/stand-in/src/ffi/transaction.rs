//! Transactions.

use std::ffi::c_int;

use super::{Future, bytes, copied, give, lent, range, store, take};
use crate::client::future::{FdbFuture, Output, StringArray};
use crate::client::read::RangeRead;
use crate::client::transaction::Transaction;
use crate::cluster::protocol::Selector;
use crate::code::{self, Code};

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_destroy(transaction: *mut Transaction) {
    // SAFETY: the caller's contract. What still runs ends with `transaction_cancelled`.
    unsafe { take(transaction) }.cancel();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_cancel(transaction: *mut Transaction) {
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.cancel();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_reset(transaction: *mut Transaction) {
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.reset();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_set_option(
    transaction: *mut Transaction,
    option: c_int,
    value: *const u8,
    length: c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    let value = unsafe { copied(value, length) };
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.set_option(option, value.as_deref())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_set_read_version(transaction: *mut Transaction, version: i64) {
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.set_read_version(version);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_read_version(transaction: *mut Transaction) -> *mut Future {
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.read_version())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    snapshot: c_int,
) -> *mut Future {
    // SAFETY: the caller's contract.
    let key = unsafe { bytes(key, key_length) };
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.get(key, snapshot != 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_key(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    or_equal: c_int,
    offset: c_int,
    snapshot: c_int,
) -> *mut Future {
    // SAFETY: the caller's contract.
    let key = unsafe { bytes(key, key_length) };
    let selector = Selector { key, or_equal: or_equal != 0, offset };
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.get_key(selector, snapshot != 0))
}

/// The bound in bytes that a streaming mode stands for; 0 is none. Source: options file, `StreamingMode`, says what each
/// is for; the figures are the client's.
fn mode_bytes(mode: c_int, iteration: c_int) -> Result<usize, Code> {
    const ITERATIONS: [usize; 10] = [4096, 6144, 9216, 13_824, 20_736, 31_104, 46_656, 69_984, 80_000, 120_000];
    match mode {
        -2 | 4 => Ok(120_000),
        -1 => {
            let at = usize::try_from(iteration).ok().and_then(|iteration| iteration.checked_sub(1));
            let at = at.ok_or(code::CLIENT_INVALID_OPERATION)?;
            Ok(ITERATIONS.get(at).copied().unwrap_or(120_000))
        }
        0 => Ok(0),
        1 => Ok(256),
        2 => Ok(1000),
        3 => Ok(4096),
        _ => Err(code::CLIENT_INVALID_OPERATION),
    }
}

/// The bounds of a range read: of the caller's and the mode's bytes the smaller.
fn bounds(limit: c_int, target: c_int, mode: c_int, iteration: c_int) -> Result<(usize, usize), Code> {
    let rows = usize::try_from(limit).map_err(|_| code::RANGE_LIMITS_INVALID)?;
    let target = usize::try_from(target).map_err(|_| code::RANGE_LIMITS_INVALID)?;
    if rows == 0 && target == 0 && mode == 0 {
        return Err(code::EXACT_MODE_WITHOUT_LIMITS);
    }
    let mode = mode_bytes(mode, iteration)?;
    let bytes = if target == 0 || (mode != 0 && mode < target) { mode } else { target };
    Ok((rows, bytes))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_range(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    begin_or_equal: c_int,
    begin_offset: c_int,
    end: *const u8,
    end_length: c_int,
    end_or_equal: c_int,
    end_offset: c_int,
    limit: c_int,
    target_bytes: c_int,
    mode: c_int,
    iteration: c_int,
    snapshot: c_int,
    reverse: c_int,
) -> *mut Future {
    let (rows, most_bytes) = match bounds(limit, target_bytes, mode, iteration) {
        Ok(bounds) => bounds,
        Err(code) => return give(FdbFuture::ready(Err(code))),
    };
    // SAFETY: the caller's contract.
    let keys = unsafe { range(begin, begin_length, end, end_length) };
    let read = RangeRead {
        begin: Selector { key: keys.begin, or_equal: begin_or_equal != 0, offset: begin_offset },
        end: Selector { key: keys.end, or_equal: end_or_equal != 0, offset: end_offset },
        rows,
        bytes: most_bytes,
        reverse: reverse != 0,
    };
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.get_range(read, snapshot != 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_set(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    value: *const u8,
    value_length: c_int,
) {
    // SAFETY: the caller's contract.
    let (key, value) = unsafe { (bytes(key, key_length), bytes(value, value_length)) };
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.set(key, value);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_atomic_op(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
    operand: *const u8,
    operand_length: c_int,
    operation: c_int,
) {
    // SAFETY: the caller's contract.
    let (key, operand) = unsafe { (bytes(key, key_length), bytes(operand, operand_length)) };
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.atomic_operation(key, operand, operation);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_clear(transaction: *mut Transaction, key: *const u8, key_length: c_int) {
    // SAFETY: the caller's contract.
    let key = unsafe { bytes(key, key_length) };
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.clear(&key);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_clear_range(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
) {
    // SAFETY: the caller's contract.
    let keys = unsafe { range(begin, begin_length, end, end_length) };
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.clear_range(&keys);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_add_conflict_range(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
    kind: c_int,
) -> c_int {
    if !matches!(kind, 0 | 1) {
        return code::CLIENT_INVALID_OPERATION;
    }
    // SAFETY: the caller's contract.
    let keys = unsafe { range(begin, begin_length, end, end_length) };
    // SAFETY: the caller's contract.
    unsafe { lent(transaction) }.add_conflict_range(&keys, kind == 1)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_watch(
    transaction: *mut Transaction,
    key: *const u8,
    key_length: c_int,
) -> *mut Future {
    // SAFETY: the caller's contract.
    let key = unsafe { bytes(key, key_length) };
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.watch(key))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_commit(transaction: *mut Transaction) -> *mut Future {
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.commit())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_on_error(transaction: *mut Transaction, error: c_int) -> *mut Future {
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.on_error(error))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_committed_version(transaction: *mut Transaction, out: *mut i64) -> c_int {
    // SAFETY: the caller's contract.
    let version = unsafe { lent(transaction) }.committed_version();
    // SAFETY: the caller's contract.
    unsafe { store(out, version) };
    code::SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_versionstamp(transaction: *mut Transaction) -> *mut Future {
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.versionstamp())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_approximate_size(transaction: *mut Transaction) -> *mut Future {
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.approximate_size())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_estimated_range_size_bytes(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
) -> *mut Future {
    // SAFETY: the caller's contract.
    let keys = unsafe { range(begin, begin_length, end, end_length) };
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.range_size(keys))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_range_split_points(
    transaction: *mut Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
    chunk_size: i64,
) -> *mut Future {
    // SAFETY: the caller's contract.
    let keys = unsafe { range(begin, begin_length, end, end_length) };
    // SAFETY: the caller's contract.
    give(unsafe { lent(transaction) }.split_points(keys, chunk_size))
}

/// All keys are on one machine, this one.
#[unsafe(no_mangle)]
extern "C" fn fdb_transaction_get_addresses_for_key(
    _transaction: *mut Transaction,
    _key: *const u8,
    _key_length: c_int,
) -> *mut Future {
    give(FdbFuture::ready(Ok(Output::Strings(StringArray::new(vec![c"127.0.0.1:4500".to_owned()])))))
}

/// Nothing is throttled by tags.
#[unsafe(no_mangle)]
extern "C" fn fdb_transaction_get_tag_throttled_duration(_transaction: *mut Transaction) -> *mut Future {
    give(FdbFuture::ready(Ok(Output::Real(0.0))))
}

/// No cost is accounted.
#[unsafe(no_mangle)]
extern "C" fn fdb_transaction_get_total_cost(_transaction: *mut Transaction) -> *mut Future {
    give(FdbFuture::ready(Ok(Output::Number(0))))
}
