//! Runs SQL and dot-commands line by line: the common part of the prompt and of scripts.

use std::io::Write;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::Value;
use rusqlite::{Batch, Connection, Row, Statement};

use super::complete::{is_blank, is_complete};
use crate::args::Format;
use crate::cancel;
use crate::failure::{Exit, Failure, Result, said};
use crate::output::{self, PrintError};

pub(super) const HELP: &str = "\
.tables [PATTERN]        names of tables and views (LIKE pattern)
.schema [TABLE]          the statements that made the schema
.mode table|csv|json     how results are printed
.quit                    leave
.help                    this
Everything else is SQL, up to a semicolon. Ctrl-C interrupts a statement, Ctrl-D leaves.";

/// Whether to read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Quit,
}

/// A connection, and the statement that is being read.
pub(super) struct Script<'a> {
    connection: &'a Connection,
    params: &'a [(String, Value)],
    format: Format,
    pending: String,
}

impl<'a> Script<'a> {
    pub(super) fn new(connection: &'a Connection, params: &'a [(String, Value)], format: Format) -> Self {
        Self { connection, params, format, pending: String::new() }
    }

    /// Whether a statement has begun and not ended.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Forgets the statement that has begun.
    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Takes a line as it is written, with its end if it has one; runs what it completes.
    pub(super) fn line(&mut self, line: &str, out: &mut dyn Write) -> Result<Flow> {
        // SQLite would run what stands before it, and never see the rest.
        if line.contains('\0') {
            self.clear();
            return Err(Failure::failed("there is a NUL in it, where SQLite would stop reading; it was not run"));
        }
        if self.pending.is_empty() {
            if line.trim().is_empty() {
                return Ok(Flow::Continue);
            }
            if let Some(command) = line.trim().strip_prefix('.') {
                return self.dot_command(command, out);
            }
        }
        let begins = self.pending.is_empty();
        self.pending.push_str(line);
        if !line.ends_with('\n') {
            self.pending.push('\n');
        }
        if (begins || line.contains("*/")) && is_blank(&self.pending) {
            // No statement has begun: a dot-command may follow.
            self.clear();
        } else if line.contains(';') && is_complete(&self.pending) {
            self.finish(out)?;
        }
        Ok(Flow::Continue)
    }

    /// Runs what is left, complete or not.
    pub(super) fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        let sql = std::mem::take(&mut self.pending);
        self.run(&sql, out)
    }

    fn run(&self, sql: &str, out: &mut dyn Write) -> Result<()> {
        let mut batch = Batch::new(self.connection, sql);
        loop {
            if cancel::requested() {
                return Err(Failure::interrupted("the rest was not run"));
            }
            let before = said(self.connection);
            let failure = |e: &rusqlite::Error| Failure::sqlite_since(Some(self.connection), &before, e);
            let Some(mut statement) = batch.next().map_err(|e| failure(&e))? else {
                return Ok(());
            };
            self.bind(&mut statement)?;
            let printed = output::print(self.connection, &mut statement, self.format, out);
            // The words of the VFS can be asked for only when the statement is done.
            drop(statement);
            printed.map_err(|e| match e {
                PrintError::Sqlite(e) => failure(&e),
                PrintError::Output(e) => e.into(),
            })?;
        }
    }

    fn failure(&self, error: &rusqlite::Error) -> Failure {
        Failure::sqlite(Some(self.connection), error)
    }

    fn bind(&self, statement: &mut Statement<'_>) -> Result<()> {
        for index in 1..=statement.parameter_count() {
            let written = statement.parameter_name(index).map(str::to_owned);
            let position = index.to_string();
            let name =
                written.as_deref().map_or(position.as_str(), |name| name.trim_start_matches([':', '@', '$', '?']));
            let Some((_, value)) = self.params.iter().rev().find(|(given, _)| given == name) else {
                let shown = written.as_deref().unwrap_or("?");
                return Err(Failure::new(
                    Exit::Usage,
                    format!("the parameter {shown} has no value; give one with --param {name}=VALUE"),
                ));
            };
            statement.raw_bind_parameter(index, value).map_err(|e| self.failure(&e))?;
        }
        Ok(())
    }

    fn dot_command(&mut self, command: &str, out: &mut dyn Write) -> Result<Flow> {
        let mut words = command.split_whitespace();
        let (name, argument) = (words.next().unwrap_or(""), words.next());
        let usage = |words: String| Err(Failure::new(Exit::Usage, words));
        if words.next().is_some() {
            return usage(format!(".{name} takes at most one word after it"));
        }
        match (name, argument) {
            ("quit" | "exit", None) => return Ok(Flow::Quit),
            ("help", None) => writeln!(out, "{HELP}").and_then(|()| out.flush())?,
            ("tables", pattern) => self.lines(
                "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                 AND name LIKE ?1 ORDER BY name",
                pattern.unwrap_or("%"),
                out,
            )?,
            ("schema", None) => self.lines("SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL AND ?1 ORDER BY rowid", "1", out)?,
            ("schema", Some(table)) => self.lines(
                "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name = ?1 COLLATE NOCASE ORDER BY rowid",
                table,
                out,
            )?,
            ("mode", Some(mode)) => match <Format as clap::ValueEnum>::from_str(mode, true) {
                Ok(format) => self.format = format,
                Err(_) => return usage(format!("there is no mode {mode}; expected table, csv or json")),
            },
            ("mode", None) => return usage("expected .mode table, .mode csv or .mode json".to_owned()),
            _ => return usage(format!("there is no command .{command}; .help lists the commands")),
        }
        Ok(Flow::Continue)
    }

    fn lines(&self, sql: &str, argument: &str, out: &mut dyn Write) -> Result<()> {
        // What another program has written there need not be UTF-8.
        let text =
            |row: &Row<'_>| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes().unwrap_or_default()).into_owned());
        let lines: rusqlite::Result<Vec<String>> =
            self.connection.prepare(sql).and_then(|mut s| s.query_map([argument], text)?.collect());
        for line in lines.map_err(|e| self.failure(&e))? {
            writeln!(out, "{line}")?;
        }
        Ok(out.flush()?)
    }
}
