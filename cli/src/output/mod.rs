//! Results of statements as a table, CSV or JSON. Rows go out as they come: memory does not grow with a result.

mod columns;
pub(crate) mod json;
mod table;

use std::io::Write;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use crate::args::Format;

/// Why printing stopped.
#[derive(Debug)]
pub(crate) enum PrintError {
    /// The statement failed.
    Sqlite(rusqlite::Error),
    /// The output failed.
    Output(std::io::Error),
}

impl From<rusqlite::Error> for PrintError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<std::io::Error> for PrintError {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs a statement, whose parameters are bound, to its end and prints its rows.
pub(crate) fn print(
    connection: &Connection,
    statement: &mut Statement<'_>,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), PrintError> {
    if statement.column_count() == 0 {
        let mut rows = statement.raw_query();
        while rows.next()?.is_some() {}
        return Ok(());
    }
    let columns = columns::names(connection, statement);
    match format {
        Format::Table => table::print(&columns, statement, out)?,
        Format::Csv => csv(&columns, statement, out)?,
        Format::Json => json::print(&columns, statement, out)?,
    }
    Ok(out.flush()?)
}

fn csv(header: &[String], statement: &mut Statement<'_>, out: &mut dyn Write) -> Result<(), PrintError> {
    let mut writer = csv::Writer::from_writer(out);
    let failed = |e: csv::Error| match e.into_kind() {
        csv::ErrorKind::Io(e) => PrintError::Output(e),
        other => PrintError::Output(std::io::Error::other(format!("{other:?}"))),
    };
    writer.write_record(header).map_err(failed)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        for column in 0..header.len() {
            match row.get_ref(column)? {
                ValueRef::Text(text) => writer.write_field(text),
                ValueRef::Null => writer.write_field(""),
                value => writer.write_field(plain(value)),
            }
            .map_err(failed)?;
        }
        writer.write_record(None::<&[u8]>).map_err(failed)?;
    }
    Ok(writer.flush()?)
}

/// A value as text, as a person or SQL would write it.
fn plain(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => real(number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => format!("x'{}'", hex(bytes)),
    }
}

/// The shortest text that reads back as the same number; infinities as SQL writes them.
fn real(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "9e999" } else { "-9e999" }.to_owned();
    }
    format!("{number:?}")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
