//! What keeps a script of a fuzzer from running for ever, eating all memory, leaving its database, or answering differently
//! each time. The same on both sides, and counted in steps, never in time.

use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::session::{Failure, Session};

/// Thousands of steps of SQLite's machine for each statement.
const STEPS: u32 = 60;
const LIMITS: &[(Limit, i32)] = &[
    (Limit::SQLITE_LIMIT_LENGTH, 100_000),
    (Limit::SQLITE_LIMIT_VDBE_OP, 25_000),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 300),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];
/// Pragmas of the process, of files beside the database, or of a VFS.
const PRAGMAS: &[&str] = &[
    "hard_heap_limit",
    "soft_heap_limit",
    "temp_store_directory",
    "data_store_directory",
    "busy_timeout",
    "mmap_size",
    "threads",
];

/// Sets them on a new connection.
pub(super) fn set(session: &mut Session) -> Result<(), Failure> {
    session.limit_steps(STEPS)?;
    let connection = session.connection_mut();
    for (limit, value) in LIMITS {
        connection.set_limit(*limit, *value)?;
    }
    connection.authorizer(Some(|context: AuthContext<'_>| judge(&context.action)))?;
    // SQLite's own differ from call to call.
    let number = AtomicI64::new(1);
    connection.create_scalar_function("random", 0, FunctionFlags::SQLITE_UTF8, move |_| {
        Ok(number.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x5851_f42d_4c95_7f2d))
    })?;
    connection.create_scalar_function("randomblob", 1, FunctionFlags::SQLITE_UTF8, |context| {
        let length = context.get::<i64>(0).unwrap_or(1).clamp(1, 10_000);
        Ok((0..length).map(|index| u8::try_from(index * 7 % 251).unwrap_or(0)).collect::<Vec<u8>>())
    })?;
    Ok(())
}

fn judge(action: &AuthAction<'_>) -> Authorization {
    let denied = match action {
        // VACUUM attaches a database without a name.
        AuthAction::Attach { filename } => !filename.is_empty(),
        // It has one that is no literal.
        AuthAction::Unknown { code, .. } => *code == rusqlite::ffi::SQLITE_ATTACH,
        // The store is the log: what WAL is answered with is told in the documentation, and tested elsewhere. Without a
        // journal SQLite's own VFS leaves behind what a transaction that is rolled back has written; ours does not.
        AuthAction::Pragma { pragma_name, pragma_value } if pragma_name.eq_ignore_ascii_case("journal_mode") => {
            let value = pragma_value.unwrap_or_default().trim_matches(['\'', '"']);
            value.eq_ignore_ascii_case("wal") || value.eq_ignore_ascii_case("off")
        }
        AuthAction::Pragma { pragma_name, .. } => PRAGMAS.iter().any(|name| pragma_name.eq_ignore_ascii_case(name)),
        _ => false,
    };
    if denied { Authorization::Deny } else { Authorization::Allow }
}

/// Whether a script asks for the time, which goes on between the two runs.
pub(super) fn asks_for_time(sql: &str) -> bool {
    const WORDS: &[&str] = &["now", "current_", "date(", "time(", "julianday", "unixepoch", "strftime", "timediff"];
    let lower = sql.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}
