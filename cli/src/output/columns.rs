//! Names of columns as SQLite has them, also when another program gave them bytes that are not UTF-8.

#![expect(unsafe_code, reason = "rusqlite panics where a name is not UTF-8, and gives no statement's pointer")]

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use rusqlite::ffi::{self, sqlite3_stmt};
use rusqlite::{Connection, Statement};

/// The names of a statement's columns; what is not UTF-8 in them is replaced.
pub(super) fn names(connection: &Connection, statement: &Statement<'_>) -> Vec<String> {
    let raw = same(connection, statement);
    let name = |column: usize| {
        let (raw, index) = (raw?, c_int::try_from(column).ok()?);
        // SAFETY: the statement lives as long as the connection's list has it, and nothing was finalised since it was found.
        let name = unsafe { ffi::sqlite3_column_name(raw, index) };
        // SAFETY: SQLite gives null or a string that stays as it is until the statement runs.
        unsafe { text(name) }
    };
    // Where there is no memory for a name, a column still has its number.
    (0..statement.column_count())
        .map(|column| name(column).unwrap_or_else(|| format!("column {}", column + 1)))
        .collect()
}

/// The statement among those of its connection, or one of the same text, whose columns have the same names.
fn same(connection: &Connection, statement: &Statement<'_>) -> Option<*mut sqlite3_stmt> {
    let (sql, columns) = (statement.expanded_sql(), statement.column_count());
    // SAFETY: the handle is used in this function alone, and nothing is closed through it.
    let handle = unsafe { connection.handle() };
    // SAFETY: the connection is open; null asks for the first of its statements.
    let mut next = unsafe { ffi::sqlite3_next_stmt(handle, ptr::null_mut()) };
    while !next.is_null() {
        // SAFETY: it is a statement of the list.
        let count = usize::try_from(unsafe { ffi::sqlite3_column_count(next) });
        // SAFETY: as above.
        if count == Ok(columns) && unsafe { expanded(next) } == sql {
            return Some(next);
        }
        // SAFETY: as above; nothing was finalised meanwhile.
        next = unsafe { ffi::sqlite3_next_stmt(handle, next) };
    }
    None
}

/// The text of a statement with the values of its parameters.
///
/// # Safety
/// It must be a statement that is not finalised.
unsafe fn expanded(statement: *mut sqlite3_stmt) -> Option<String> {
    // SAFETY: the caller promises a statement.
    let sql = unsafe { ffi::sqlite3_expanded_sql(statement) };
    // SAFETY: SQLite gives null or a string.
    let words = unsafe { text(sql) };
    // SAFETY: the string is the caller's to free, once; null is nothing to free.
    unsafe { ffi::sqlite3_free(sql.cast()) };
    words
}

/// # Safety
/// It must be null or a string that ends with NUL.
unsafe fn text(string: *const c_char) -> Option<String> {
    // SAFETY: the caller promises a string when it is not null.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned())
}
