//! Whether SQL text ends with a complete statement, as SQLite sees it.

use std::ffi::CString;

/// Whether the text ends at the end of a statement: strings, comments and trigger bodies are understood.
pub(super) fn is_complete(sql: &str) -> bool {
    let Ok(sql) = CString::new(sql) else {
        // No statement can contain a NUL: such a line is refused before.
        return true;
    };
    #[expect(unsafe_code, reason = "rusqlite has no safe form of this function")]
    // SAFETY: the argument is a NUL-terminated string that outlives the call; the function only reads it.
    let answer = unsafe { rusqlite::ffi::sqlite3_complete(sql.as_ptr()) };
    answer != 0
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn statements() {
        assert!(is_complete("SELECT 1;"));
        assert!(is_complete("SELECT 1; -- done\n"));
        assert!(!is_complete("SELECT 1"));
        assert!(!is_complete("SELECT ';"));
        assert!(!is_complete("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;"));
        assert!(is_complete("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;"));
    }
}
