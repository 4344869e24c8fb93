//! Columns side by side.

use std::io::Write;

use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement};
use unicode_width::UnicodeWidthStr;

use super::{PrintError, plain};
use crate::failure::visible;

/// The rows that decide how wide the columns are. Wider cells that come later stick out.
const MEASURED_ROWS: usize = 1000;

struct Cell {
    text: String,
    right: bool,
}

pub(super) fn print(columns: &[String], statement: &mut Statement<'_>, out: &mut dyn Write) -> Result<(), PrintError> {
    let header: Vec<Cell> = columns.iter().map(|name| Cell { text: visible(name), right: false }).collect();
    let mut rows = statement.raw_query();
    let mut measured = Vec::new();
    while measured.len() < MEASURED_ROWS
        && let Some(row) = rows.next()?
    {
        measured.push(cells(row, header.len())?);
    }
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.text.width()).collect();
    for cells in &measured {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.text.width());
        }
    }
    line(out, &header, &widths)?;
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    writeln!(out, "{}", rule.join("-+-"))?;
    for cells in &measured {
        line(out, cells, &widths)?;
    }
    while let Some(row) = rows.next()? {
        line(out, &cells(row, widths.len())?, &widths)?;
    }
    Ok(())
}

fn cells(row: &Row<'_>, count: usize) -> rusqlite::Result<Vec<Cell>> {
    (0..count)
        .map(|column| {
            let value = row.get_ref(column)?;
            Ok(Cell { text: visible(&plain(value)), right: matches!(value, ValueRef::Integer(_) | ValueRef::Real(_)) })
        })
        .collect()
}

fn line(out: &mut dyn Write, cells: &[Cell], widths: &[usize]) -> std::io::Result<()> {
    let mut line = String::new();
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.text.width()));
        if i > 0 {
            line.push_str(" | ");
        }
        if cell.right {
            line.push_str(&padding);
        }
        line.push_str(&cell.text);
        if !cell.right {
            line.push_str(&padding);
        }
    }
    writeln!(out, "{}", line.trim_end())
}
