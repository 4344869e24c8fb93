//! `litefleet info`

use indicatif::HumanBytes;
use serde_json::json;

use super::say;
use crate::args::InfoArgs;
use crate::failure::{Result, visible};
use crate::output::json::head_fields;
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &InfoArgs) -> Result<()> {
    let info = session.fleet.info(&args.name)?;
    let head = &info.head;
    if args.json {
        let mut object = head_fields(head);
        object.insert("name".into(), json!(info.name.as_str()));
        object.insert("id".into(), json!(info.database.get()));
        object.insert("tail_records".into(), json!(info.tail_records));
        object.insert("tail_bytes".into(), json!(info.tail_bytes));
        return say(serde_json::Value::Object(object));
    }
    let holder = head.holder.as_ref().map_or("nobody".to_owned(), |holder| {
        let label = if holder.label.is_empty() { "a process that ended".to_owned() } else { visible(&holder.label) };
        match holder.expires_in {
            None => label,
            Some(left) if left.is_zero() => format!("{label}, expired"),
            Some(left) => format!("{label}, for {:.1} s unless renewed", left.as_secs_f64()),
        }
    });
    let tail = match (info.tail_records, info.tail_bytes) {
        (Some(records), Some(bytes)) => {
            format!("{records} records, {}", HumanBytes(bytes.try_into().unwrap_or(u64::MAX)))
        }
        _ => "long".to_owned(),
    };
    say(format_args!("name        {}", visible(info.name.as_str())))?;
    say(format_args!("id          {}", info.database))?;
    say(format_args!("size        {} ({} bytes)", HumanBytes(head.size), head.size))?;
    say(format_args!("txid        {}", head.txid))?;
    say(format_args!("checkpoint  {}", head.checkpoint))?;
    say(format_args!("horizon     {}", head.horizon))?;
    say(format_args!("log tail    {tail}"))?;
    say(format_args!("lease       {holder} (epoch {})", head.epoch))?;
    if head.staged {
        say("staged      pages of an unfinished large transaction; the next writer removes them")?;
    }
    Ok(())
}
