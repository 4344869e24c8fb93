//! Names: listing, renaming, deleting.

use litefleet::store::ListEntry;
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, Result};

use super::{EmbeddedStore, stored};
use crate::keys::{self, Kind, Table};
use crate::values;
use crate::view::{Durability, Purpose};

impl EmbeddedStore {
    pub(super) fn list_databases(
        &self,
        prefix: &str,
        after: Option<&DatabaseName>,
        limit: usize,
    ) -> Result<Vec<ListEntry>> {
        let mut start = vec![Kind::Named as u8];
        start.extend_from_slice(prefix.as_bytes());
        let after = after.map(keys::named);
        self.read(|engine| {
            let view = engine.view();
            let mut out = Vec::new();
            let found = view.prefix(Table::Heads, &start, after.as_deref());
            for entry in found.take(limit) {
                let (key, value) = entry?;
                let what = "the entry of a name";
                let database = DatabaseId(stored::number(what, &key, &value)?);
                let name = DatabaseName::from_bytes(key.get(1..).unwrap_or_default())?;
                let head = stored::head(&view, database)
                    .map_err(|fault| Error::from(fault).context(format_args!("database {name}")))?;
                out.push(ListEntry { name, database, head: stored::public(&head, &self.sessions) });
            }
            Ok(out)
        })
    }

    pub(super) fn rename_database(&self, id: DatabaseId, epoch: Epoch, name: &DatabaseName) -> Result<()> {
        Ok(self.write(|engine, _| {
            let view = engine.view();
            stored::fence(&stored::head(&view, id)?, epoch)?;
            match stored::find(&view, name)? {
                Some(other) if other == id => return Ok(()),
                Some(_) => {
                    let message = format!("there is a database named {name} already");
                    return Err(Error::conflict(message).into());
                }
                None => {}
            }
            let old = stored::name(&view, id)?;
            let mut changes = engine.changes();
            changes.remove(Table::Heads, &keys::named(&old));
            let number = values::encode_number(id.get());
            stored::put(&mut changes, &keys::named(name), &number);
            let key = keys::of_database(Kind::NameOf, id);
            stored::put(&mut changes, &key, name.as_str().as_bytes());
            changes.apply(Purpose::Free, Durability::Now)
        })?)
    }

    pub(super) fn delete_database(&self, id: DatabaseId, epoch: Epoch) -> Result<()> {
        Ok(self.write(|engine, _| {
            let view = engine.view();
            stored::fence(&stored::head(&view, id)?, epoch)?;
            let name = stored::name(&view, id)?;
            let mut changes = engine.changes();
            changes.remove(Table::Heads, &keys::named(&name));
            for kind in [Kind::Head, Kind::NameOf, Kind::Warm] {
                changes.remove(Table::Heads, &keys::of_database(kind, id));
            }
            let key = keys::of_database(Kind::Condemned, id);
            stored::put(&mut changes, &key, &[]);
            changes.apply(Purpose::Free, Durability::Now)
        })?)
    }
}
