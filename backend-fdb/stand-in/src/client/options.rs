//! The options that the client library knows, and what kind of value each takes.
//!
//! Source: the options file of FoundationDB 7.1 to 7.4 (`fdb.options`), as the header `fdb_c_options.g.h` numbers them;
//! "C API" for the form of values.

use crate::code::{self, Code};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    /// Eight bytes, little-endian.
    Number,
    Bytes,
}

use Takes::{Bytes, Nothing, Number};

pub(crate) type Table = &'static [(i32, Takes)];

const TRACE_FORMAT: i32 = 34;
const KNOB: i32 = 40;

pub(crate) const NETWORK: Table = &[
    (10, Bytes),  // local_address
    (20, Bytes),  // cluster_file
    (30, Bytes),  // trace_enable
    (31, Number), // trace_roll_size
    (32, Number), // trace_max_logs_size
    (33, Bytes),  // trace_log_group
    (TRACE_FORMAT, Bytes),
    (35, Bytes),   // trace_clock_source
    (36, Bytes),   // trace_file_identifier
    (37, Nothing), // trace_share_among_client_threads
    (38, Nothing), // trace_initialize_on_setup
    (39, Bytes),   // trace_partial_file_suffix
    (KNOB, Bytes),
    (41, Bytes),   // tls_plugin
    (42, Bytes),   // tls_cert_bytes
    (43, Bytes),   // tls_cert_path
    (45, Bytes),   // tls_key_bytes
    (46, Bytes),   // tls_key_path
    (47, Bytes),   // tls_verify_peers
    (48, Nothing), // buggify_enable
    (49, Nothing), // buggify_disable
    (50, Number),  // buggify_section_activated_probability
    (51, Number),  // buggify_section_fired_probability
    (52, Bytes),   // tls_ca_bytes
    (53, Bytes),   // tls_ca_path
    (54, Bytes),   // tls_password
    (55, Nothing), // tls_disable_plaintext_connection
    (60, Nothing), // disable_multi_version_client_api
    (61, Nothing), // callbacks_on_external_threads
    (62, Bytes),   // external_client_library
    (63, Bytes),   // external_client_directory
    (64, Nothing), // disable_local_client
    (65, Number),  // client_threads_per_version
    (66, Bytes),   // future_version_client_library
    (67, Nothing), // retain_client_library_copies
    (68, Nothing), // ignore_external_client_failures
    (69, Nothing), // fail_incompatible_client
    (70, Nothing), // disable_client_statistics_logging
    (71, Nothing), // enable_run_loop_profiling
    (72, Nothing), // disable_client_bypass
    (80, Nothing), // client_buggify_enable
    (81, Nothing), // client_buggify_disable
    (82, Number),  // client_buggify_section_activated_probability
    (83, Number),  // client_buggify_section_fired_probability
    (84, Bytes),   // trace_ip
    (90, Bytes),   // distributed_client_tracer
    (91, Bytes),   // client_tmp_dir
];

pub(crate) const MAX_WATCHES: i32 = 20;

pub(crate) const DATABASE: Table = &[
    (10, Number), // location_cache_size
    (MAX_WATCHES, Number),
    (21, Bytes),    // machine_id
    (22, Bytes),    // datacenter_id
    (26, Nothing),  // snapshot_ryw_enable
    (27, Nothing),  // snapshot_ryw_disable
    (405, Number),  // transaction_logging_max_field_length
    (500, Number),  // transaction_timeout
    (501, Number),  // transaction_retry_limit
    (502, Number),  // transaction_max_retry_delay
    (503, Number),  // transaction_size_limit
    (504, Nothing), // transaction_causal_read_risky
    (505, Nothing), // transaction_include_port_in_address
    (506, Nothing), // transaction_automatic_idempotency
    (700, Nothing), // transaction_bypass_unreadable
    (701, Nothing), // transaction_used_during_commit_protection_disable
    (702, Nothing), // transaction_report_conflicting_keys
    (710, Nothing), // use_config_database
    (900, Number),  // test_causal_read_risky
];

/// The option of each transaction for which a database option gives the default.
pub(crate) fn default_for(database_option: i32) -> Option<i32> {
    match database_option {
        26 => Some(SNAPSHOT_RYW_ENABLE),
        27 => Some(SNAPSHOT_RYW_DISABLE),
        405 | 500..=503 => Some(database_option),
        504 => Some(20),
        505 => Some(23),
        506 => Some(AUTOMATIC_IDEMPOTENCY),
        700 => Some(BYPASS_UNREADABLE),
        701 => Some(USED_DURING_COMMIT_PROTECTION_DISABLE),
        702 => Some(712),
        _ => None,
    }
}

pub(crate) const CAUSAL_WRITE_RISKY: i32 = 10;
pub(crate) const NEXT_WRITE_NO_WRITE_CONFLICT_RANGE: i32 = 30;
pub(crate) const READ_YOUR_WRITES_DISABLE: i32 = 51;
pub(crate) const PRIORITY_SYSTEM_IMMEDIATE: i32 = 200;
pub(crate) const PRIORITY_BATCH: i32 = 201;
pub(crate) const ACCESS_SYSTEM_KEYS: i32 = 301;
pub(crate) const READ_SYSTEM_KEYS: i32 = 302;
pub(crate) const TIMEOUT: i32 = 500;
pub(crate) const RETRY_LIMIT: i32 = 501;
pub(crate) const MAX_RETRY_DELAY: i32 = 502;
pub(crate) const SIZE_LIMIT: i32 = 503;
pub(crate) const IDEMPOTENCY_ID: i32 = 504;
pub(crate) const AUTOMATIC_IDEMPOTENCY: i32 = 505;
pub(crate) const SNAPSHOT_RYW_ENABLE: i32 = 600;
pub(crate) const SNAPSHOT_RYW_DISABLE: i32 = 601;
pub(crate) const USED_DURING_COMMIT_PROTECTION_DISABLE: i32 = 701;
pub(crate) const READ_LOCK_AWARE: i32 = 702;
pub(crate) const TAG: i32 = 800;
pub(crate) const AUTO_THROTTLE_TAG: i32 = 801;
pub(crate) const BYPASS_UNREADABLE: i32 = 1100;

pub(crate) const TRANSACTION: Table = &[
    (CAUSAL_WRITE_RISKY, Nothing),
    (20, Nothing), // causal_read_risky
    (21, Nothing), // causal_read_disable
    (23, Nothing), // include_port_in_address
    (NEXT_WRITE_NO_WRITE_CONFLICT_RANGE, Nothing),
    (40, Nothing), // commit_on_first_proxy
    (READ_YOUR_WRITES_DISABLE, Nothing),
    (52, Nothing),  // read_ahead_disable
    (110, Nothing), // durability_datacenter
    (120, Nothing), // durability_risky
    (130, Nothing), // durability_dev_null_is_web_scale
    (PRIORITY_SYSTEM_IMMEDIATE, Nothing),
    (PRIORITY_BATCH, Nothing),
    (ACCESS_SYSTEM_KEYS, Nothing),
    (READ_SYSTEM_KEYS, Nothing),
    (303, Nothing), // raw_access
    (304, Nothing), // bypass_storage_quota
    (401, Bytes),   // debug_retry_logging
    (402, Bytes),   // transaction_logging_enable
    (403, Bytes),   // debug_transaction_identifier
    (404, Nothing), // log_transaction
    (405, Number),  // transaction_logging_max_field_length
    (406, Nothing), // server_request_tracing
    (TIMEOUT, Number),
    (RETRY_LIMIT, Number),
    (MAX_RETRY_DELAY, Number),
    (SIZE_LIMIT, Number),
    (507, Nothing), // read_server_side_cache_enable
    (508, Nothing), // read_server_side_cache_disable
    (509, Nothing), // read_priority_normal
    (510, Nothing), // read_priority_low
    (511, Nothing), // read_priority_high
    (SNAPSHOT_RYW_ENABLE, Nothing),
    (SNAPSHOT_RYW_DISABLE, Nothing),
    (700, Nothing), // lock_aware
    (USED_DURING_COMMIT_PROTECTION_DISABLE, Nothing),
    (READ_LOCK_AWARE, Nothing),
    (711, Nothing), // use_provisional_proxies
    (712, Nothing), // report_conflicting_keys
    (713, Nothing), // special_key_space_relaxed
    (TAG, Bytes),
    (AUTO_THROTTLE_TAG, Bytes),
    (900, Bytes),    // span_parent
    (1000, Nothing), // expensive_clear_cost_estimation_enable
    (BYPASS_UNREADABLE, Nothing),
    (1101, Nothing), // use_grv_cache
    (2000, Bytes),   // authorization_token
];

/// Checks that the option exists and that the value has its form. Options that change what a transaction means, and
/// which the stand-in does not have (idempotency ids, special keys that write), are not in the tables: they are refused.
pub(crate) fn check(table: Table, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
    if table == TRANSACTION && matches!(option, IDEMPOTENCY_ID | AUTOMATIC_IDEMPOTENCY | 714) {
        return Err(code::UNSUPPORTED_OPERATION);
    }
    let (_, takes) = table.iter().find(|(known, _)| *known == option).ok_or(code::INVALID_OPTION)?;
    match (takes, value) {
        (Nothing, Some(value)) if !value.is_empty() => Err(code::INVALID_OPTION_VALUE),
        (Number, value) if value.is_none_or(|value| value.len() != 8) => Err(code::INVALID_OPTION_VALUE),
        _ => Ok(()),
    }
}

/// Checks what the client library looks at when a network option is set: the name of a format for traces, and that a knob has
/// a value. Seen on 7.3.79. A knob that it does not know it passes over, with a word on standard error.
pub(crate) fn check_network(option: i32, value: &[u8]) -> Result<(), Code> {
    let right = match option {
        TRACE_FORMAT => [b"xml".as_slice(), b"json"].iter().any(|format| value.eq_ignore_ascii_case(format)),
        KNOB => value.contains(&b'='),
        _ => true,
    };
    if right { Ok(()) } else { Err(code::INVALID_OPTION_VALUE) }
}

/// The number in a value that [`check`] found to be one, if it is in the range.
pub(crate) fn number(value: Option<&[u8]>, least: i64, most: i64) -> Result<i64, Code> {
    let bytes = value.and_then(|value| value.try_into().ok()).ok_or(code::INVALID_OPTION_VALUE)?;
    let number = i64::from_le_bytes(bytes);
    if (least..=most).contains(&number) { Ok(number) } else { Err(code::INVALID_OPTION_VALUE) }
}
