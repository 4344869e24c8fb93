//! `litefleet ls`

use std::io::Write;

use indicatif::HumanBytes;
use litefleet::store::{ListEntry, Listed};
use serde_json::{Map, Value, json};

use crate::args::LsArgs;
use crate::failure::{Exit, Failure, Result, visible};
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
    let (mut listed, mut damaged) = (0_u64, 0_u64);
    session.for_each(&args.prefix, |entry| {
        listed += 1;
        damaged += u64::from(entry.state.is_err());
        if args.json {
            writeln!(out, "{}", object(&entry))?;
        } else {
            writeln!(out, "{}", line(&entry))?;
        }
        left -= 1;
        Ok(left > 0)
    })?;
    out.flush()?;
    if damaged > 0 {
        let message = format!("{damaged} of {listed} databases are damaged; 'litefleet verify' says what is damaged");
        return Err(Failure::new(Exit::Corrupt, message));
    }
    Ok(())
}

fn object(entry: &ListEntry) -> Value {
    let mut object = match &entry.state {
        Ok(listed) => {
            let mut object = head_fields(&listed.head);
            object.insert("id".into(), json!(listed.database.get()));
            object
        }
        Err(error) => Map::from_iter([("problem".into(), json!(error.to_string()))]),
    };
    object.insert("name".into(), json!(entry.name.as_str()));
    object.insert("ok".into(), json!(entry.state.is_ok()));
    Value::Object(object)
}

/// The name comes last: it may have any length.
fn line(entry: &ListEntry) -> String {
    let (size, txid, holder) = match &entry.state {
        Ok(Listed { head, .. }) => {
            let live = head.holder.as_ref().filter(|h| h.expires_in.is_none_or(|left| !left.is_zero()));
            let holder = live.map_or("-".to_owned(), |h| visible(&h.label));
            (HumanBytes(head.size).to_string(), head.txid.to_string(), holder)
        }
        Err(_) => ("-".to_owned(), "-".to_owned(), "DAMAGED".to_owned()),
    };
    format!("{size:>12} {txid:>12}  {holder:<24} {}", visible(entry.name.as_str()))
}
