//! Reading the log.

use std::collections::VecDeque;

use bytes::Bytes;
use litefleet::store::{Lineage, LogRow, Tail};
use litefleet::{DatabaseId, Error, Result, Txid};

use super::{EmbeddedStore, stored};
use crate::error::Outcome;
use crate::keys::{self, Table};
use crate::values::HeadValue;
use crate::view::View;

/// What a reading of records came to.
enum Read {
    All,
    /// The next record would have gone over the bound.
    Stopped,
}

/// Reads the records after `from` up to `to`, until `stop` says so of the size of the next one.
fn records(
    view: &View<'_>,
    id: DatabaseId,
    (from, to): (Txid, Txid),
    rows: &mut Vec<LogRow>,
    mut stop: impl FnMut(usize, bool) -> bool,
) -> Outcome<Read> {
    let mut next = from.next();
    let mut range = Some(view.range(Table::Log, &keys::log(id, next), &keys::log(id, to)));
    while next <= to {
        let key = keys::log(id, next);
        let value = match range.as_mut().map(Iterator::next) {
            Some(Some(Ok((found, value)))) => (found[..] == key).then_some(value),
            Some(None) => None,
            // The engine reads ahead in a range: what it could not read may be a later record, or one behind the last.
            Some(Some(Err(_))) | None => {
                range = None;
                view.get(Table::Log, &key)?
            }
        };
        let Some(value) = value else {
            return Err(Error::corrupt(format!("the log record of txid {next} of database {id} is missing")).into());
        };
        if stop(value.len(), rows.is_empty()) {
            return Ok(Read::Stopped);
        }
        rows.push(LogRow { txid: next, record: Bytes::copy_from_slice(&value) });
        next = next.next();
    }
    Ok(Read::All)
}

/// The end of the log, up to a bound of bytes. With none nothing of it is read, and it may be damaged.
pub(super) fn tail(view: &View<'_>, id: DatabaseId, head: &HeadValue, after: Txid, bytes: usize) -> Outcome<Tail> {
    if after < head.log_start || after > head.txid {
        return Ok(Tail::Reload);
    }
    let mut rows = Vec::new();
    if after == head.txid {
        return Ok(Tail::Complete(rows));
    }
    if bytes == 0 {
        return Ok(Tail::Truncated);
    }
    let mut total = 0;
    let read = records(view, id, (after, head.txid), &mut rows, |size, _| {
        total += size;
        total > bytes
    })?;
    Ok(match read {
        Read::All => Tail::Complete(rows),
        Read::Stopped => Tail::Truncated,
    })
}

impl EmbeddedStore {
    pub(super) fn read_log_rows(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let bound = self.limits().log_bytes;
        self.read(|engine| {
            let view = engine.view();
            // Ancestors come last and hold the older records.
            let mut parts = VecDeque::new();
            for (index, entry) in lineage.iter().enumerate() {
                let head = stored::head(&view, entry.database)?;
                let to = to.min(entry.max_txid).min(head.txid);
                let from = lineage.get(index + 1).map_or(after, |parent| after.max(parent.max_txid));
                if from < to {
                    parts.push_front((entry.database, from, to, head.log_start));
                }
            }
            let mut rows = Vec::new();
            let mut bytes = 0;
            for (id, from, to, log_start) in parts {
                if from < log_start {
                    return Err(Error::snapshot_too_old(format!(
                        "records after {from} were asked for, those up to {log_start} are gone"
                    ))
                    .into());
                }
                let read = records(&view, id, (from, to), &mut rows, |size, first| {
                    let over = !first && bytes + size > bound;
                    bytes += size;
                    over
                })?;
                if matches!(read, Read::Stopped) {
                    break;
                }
            }
            Ok(rows)
        })
    }
}
