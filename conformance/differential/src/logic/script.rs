//! Scripts, as text that any runner of sqllogictest understands.

use std::fmt::Write as _;

use crate::session::{Answer, Failure};

/// What runs between two openings of the store.
#[derive(Clone, Debug, Default)]
pub struct Part {
    text: String,
    connection: Option<usize>,
    /// Statements and queries.
    pub records: usize,
}

/// A script in parts: the store is closed and opened between them.
pub type Script = Vec<Part>;

impl Part {
    /// The script.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds what a connection asked, and what it was answered. Writing to a string cannot fail.
    pub(super) fn add(&mut self, connection: usize, sql: &str, answer: &Result<Answer, Failure>) {
        if self.connection != Some(connection) {
            let _ = writeln!(self.text, "connection c{connection}\n");
            self.connection = Some(connection);
        }
        // The runner forgets the connection after each record.
        self.connection = None;
        self.records += 1;
        let _ = match answer {
            Ok(Answer::Changed(count)) => write!(self.text, "statement count {count}\n{sql}\n\n"),
            Ok(Answer::Rows(rows)) => {
                let columns = rows.first().map_or(1, Vec::len);
                let _ = write!(self.text, "query {}\n{sql}\n----\n", "?".repeat(columns));
                for row in rows {
                    let _ = writeln!(self.text, "{}", row.join(" "));
                }
                writeln!(self.text)
            }
            // Two empty lines end it. Exactly these words: a regular expression for each would take most of the time.
            Err(failure) => write!(self.text, "statement error\n{sql}\n----\n{failure}\n\n\n"),
        };
    }
}
