//! JSON: results of statements, and what the store says of a database.

use std::io::Write;

use litefleet::store::Head;
use rusqlite::Statement;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};

use super::{PrintError, hex, real};

/// One array of objects, a row a line. A column name that occurs twice occurs twice in the object.
pub(super) fn print(columns: &[String], statement: &mut Statement<'_>, out: &mut dyn Write) -> Result<(), PrintError> {
    let keys: Vec<String> = columns.iter().map(|name| Value::from(name.as_str()).to_string()).collect();
    let mut rows = statement.raw_query();
    let mut first = true;
    write!(out, "[")?;
    while let Some(row) = rows.next()? {
        write!(out, "{}{{", if first { "" } else { ",\n" })?;
        first = false;
        for (column, key) in keys.iter().enumerate() {
            let comma = if column == 0 { "" } else { "," };
            write!(out, "{comma}{key}:{}", value(row.get_ref(column)?))?;
        }
        write!(out, "}}")?;
    }
    Ok(writeln!(out, "]")?)
}

fn value(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => real(number),
        ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)).to_string(),
        ValueRef::Blob(bytes) => json!({ "hex": hex(bytes) }).to_string(),
    }
}

/// What a head says, as the fields of an object.
pub(crate) fn head_fields(head: &Head) -> Map<String, Value> {
    let holder = head.holder.as_ref().map(|holder| {
        json!({
            "label": holder.label,
            "session": holder.session.to_string(),
            "expires_in_ms": holder.expires_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        })
    });
    let fields = json!({
        "txid": head.txid.get(),
        "size": head.size,
        "checkpoint": head.checkpoint.get(),
        "horizon": head.horizon.get(),
        "epoch": head.epoch.get(),
        "holder": holder,
        "staged": head.staged,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
