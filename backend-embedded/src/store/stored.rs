//! Reading and writing of the stored values, with their checks, and the conditions on a head.

use bytes::Bytes;
use litefleet::store::{Head, PageRow};
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, PageNo, Result, Txid};

use crate::error::Outcome;
use crate::keys::{self, Kind, Table};
use crate::seal::{row_kind, row_value, seal, unseal};
use crate::sessions::Sessions;
use crate::values::{self, HeadValue, Staging};
use crate::view::{Changes, View};

/// A number that stands alone.
pub(super) fn number(what: &str, key: &[u8], value: &[u8]) -> Result<u64> {
    values::decode_number(what, unseal(what, key, value)?)
}

/// The database with a name.
pub(super) fn find(view: &View<'_>, name: &DatabaseName) -> Outcome<Option<DatabaseId>> {
    let key = keys::named(name);
    match view.get(Table::Heads, &key)? {
        Some(value) => {
            let what = format!("the entry of the name {name}");
            Ok(Some(DatabaseId(number(&what, &key, &value)?)))
        }
        None => Ok(None),
    }
}

/// The head; `NotFound` when there is no such database, `Corrupt` when there is one and its head is gone.
pub(super) fn head(view: &View<'_>, id: DatabaseId) -> Outcome<HeadValue> {
    let key = keys::of_database(Kind::Head, id);
    match view.get(Table::Heads, &key)? {
        Some(value) => {
            let what = format!("the head of database {id}");
            Ok(HeadValue::decode(&what, unseal(&what, &key, &value)?)?)
        }
        None if view.get(Table::Heads, &keys::of_database(Kind::NameOf, id))?.is_some() => {
            Err(Error::corrupt(format!("the head of database {id} is missing")).into())
        }
        None => Err(missing(id).into()),
    }
}

pub(super) fn missing(id: DatabaseId) -> Error {
    Error::not_found(format!("there is no database with id {id}"))
}

/// The name of a database that exists.
pub(super) fn name(view: &View<'_>, id: DatabaseId) -> Outcome<DatabaseName> {
    let key = keys::of_database(Kind::NameOf, id);
    let what = format!("the name of database {id}");
    match view.get(Table::Heads, &key)? {
        Some(value) => Ok(DatabaseName::from_bytes(unseal(&what, &key, &value)?)?),
        None => Err(Error::corrupt(format!("{what} is missing")).into()),
    }
}

/// A head as the contract shows it.
pub(super) fn public(value: &HeadValue, sessions: &Sessions) -> Head {
    Head {
        epoch: value.epoch,
        holder: value.holder.map(|session| sessions.holder(session)),
        txid: value.txid,
        commit_id: value.commit_id,
        size: value.size,
        checkpoint: value.checkpoint,
        horizon: value.horizon,
        generation: value.generation,
        staged: value.staging != Staging::None,
    }
}

/// The current epoch, and a lease under it.
pub(super) fn fence(head: &HeadValue, epoch: Epoch) -> Result<()> {
    if head.epoch != epoch {
        return Err(Error::fenced(format!("epoch {epoch} is over, the current one is {}", head.epoch)));
    }
    if head.holder.is_none() {
        return Err(Error::fenced(format!("the lease of epoch {epoch} was released")));
    }
    Ok(())
}

pub(super) fn expect(head: &HeadValue, txid: Txid) -> Result<()> {
    if head.txid == txid {
        return Ok(());
    }
    Err(Error::conflict(format!("expected txid {txid}, the head is at {}", head.txid)))
}

pub(super) fn put_head(changes: &mut Changes<'_>, id: DatabaseId, head: &HeadValue) {
    put(changes, &keys::of_database(Kind::Head, id), &head.encode());
}

/// A sealed value.
pub(super) fn put(changes: &mut Changes<'_>, key: &[u8], body: &[u8]) {
    changes.put(Table::Heads, key, &seal(key, body));
}

pub(super) fn put_row(changes: &mut Changes<'_>, id: DatabaseId, row: &PageRow) {
    let key = keys::page(id, row.page, row.txid);
    changes.put(Table::Pages, &key, &row_value(&key, row.kind, &row.bytes));
}

/// The pages that the next open should get along with it, unless there are none.
pub(super) fn put_warm(changes: &mut Changes<'_>, id: DatabaseId, warm: &[PageNo]) {
    if !warm.is_empty() {
        let pages = warm.iter().copied().collect();
        put(changes, &keys::of_database(Kind::Warm, id), &values::encode_pages(&pages));
    }
}

/// A row from its key and value. The bytes are copied: a slice of the engine's would keep a whole block in memory.
pub(super) fn row(id: DatabaseId, key: &[u8], value: &[u8]) -> Result<PageRow> {
    let (page, txid) = page_and_txid(id, key)?;
    let what = || format!("the row of page {page} at txid {txid} of database {id}");
    let (kind, start) = row_kind(what, key, value)?;
    Ok(PageRow { page, txid, kind, bytes: Bytes::copy_from_slice(value.get(start..).unwrap_or_default()) })
}

pub(super) fn page_and_txid(id: DatabaseId, key: &[u8]) -> Result<(PageNo, Txid)> {
    keys::page_and_txid(key).ok_or_else(|| Error::corrupt(format!("a row of database {id} has a malformed key")))
}
