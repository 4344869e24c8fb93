//! Whether SQL text is a complete statement, or none, as SQLite sees it.

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

/// Whether there is nothing in the text but white space and comments that have an end.
pub(super) fn is_blank(sql: &str) -> bool {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let (comment, end) = match (rest.strip_prefix("--"), rest.strip_prefix("/*")) {
            (Some(comment), _) => (comment, "\n"),
            (_, Some(comment)) => (comment, "*/"),
            _ => return rest.is_empty(),
        };
        match comment.split_once(end) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_blank, is_complete};

    #[test]
    fn comments() {
        for blank in ["", " \t\r\n\x0c", "-- a; 'b\n", "--\n/* c\n */ /**/--/*\n", "/*/ d */"] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for more in ["-", "/", ";", "--", "/*", "/*/", "/* a\n", "-- a\nb", "/* a */ b", "'--\n'", "\x0b"] {
            assert!(!is_blank(more), "{more:?}");
        }
    }

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
