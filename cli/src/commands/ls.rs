//! `litefleet ls`

use std::io::Write;

use indicatif::HumanBytes;
use litefleet::store::ListEntry;
use serde_json::json;

use crate::args::LsArgs;
use crate::failure::{Result, visible};
use crate::output::json::head_fields;
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &LsArgs) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut left = args.limit.unwrap_or(usize::MAX);
    if left == 0 {
        return Ok(());
    }
    if !args.json {
        writeln!(out, "{:>12} {:>12}  {:<24} NAME", "SIZE", "TXID", "HOLDER")?;
    }
    session.for_each(&args.prefix, |entry| {
        if args.json {
            let mut object = head_fields(&entry.head);
            object.insert("name".into(), json!(entry.name.as_str()));
            object.insert("id".into(), json!(entry.database.get()));
            writeln!(out, "{}", serde_json::Value::Object(object))?;
        } else {
            writeln!(out, "{}", line(&entry))?;
        }
        left -= 1;
        Ok(left > 0)
    })?;
    Ok(out.flush()?)
}

/// The name comes last: it may have any length.
fn line(entry: &ListEntry) -> String {
    let live = entry.head.holder.as_ref().filter(|h| h.expires_in.is_none_or(|left| !left.is_zero()));
    let holder = live.map_or("-".to_owned(), |h| visible(&h.label));
    format!(
        "{:>12} {:>12}  {:<24} {}",
        HumanBytes(entry.head.size).to_string(),
        entry.head.txid,
        holder,
        visible(entry.name.as_str())
    )
}
