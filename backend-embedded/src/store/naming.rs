//! Names: listing, renaming, deleting.

use std::collections::BTreeSet;

use litefleet::store::{ListEntry, Listed};
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, ErrorKind, Result};

use super::{EmbeddedStore, stored};
use crate::error::{Outcome, in_doubt, unless_damaged};
use crate::keys::{self, Kind, Table};
use crate::seal::unseal;
use crate::values;
use crate::view::{Durability, Purpose, View};

impl EmbeddedStore {
    pub(super) fn list_databases(
        &self,
        prefix: &str,
        after: Option<&DatabaseName>,
        limit: usize,
    ) -> Result<Vec<ListEntry>> {
        self.read(|engine| {
            let view = engine.view();
            let names = match unless_damaged(indexed(&view, prefix, after, limit))? {
                Some(names) => names,
                None => unindexed(&view, prefix, after, limit)?,
            };
            names.into_iter().map(|name| self.entry(&view, name)).collect()
        })
    }

    fn entry(&self, view: &View<'_>, name: DatabaseName) -> Outcome<ListEntry> {
        let found = stored::find(view, &name)
            .and_then(|id| Ok(id.ok_or_else(|| Error::corrupt("what its name means is missing"))?));
        let database = found.as_ref().ok().copied();
        let listed = found.and_then(|database| {
            Ok(Listed { database, head: stored::public(&stored::head(view, database)?, &self.sessions) })
        });
        let state = match listed {
            Err(fault) if fault.kind() != ErrorKind::Corrupt => return Err(fault),
            listed => listed.map_err(|fault| Error::from(fault).context(format_args!("database {name}"))),
        };
        Ok(ListEntry { name, database, state })
    }

    pub(super) fn rename_database(&self, id: DatabaseId, epoch: Epoch, name: &DatabaseName) -> Result<()> {
        self.write(|engine, _| {
            let view = engine.view();
            let (head, found) = (stored::head(&view, id)?, stored::find(&view, name)?);
            if found == Some(id) {
                return Ok(());
            }
            stored::fence(&head, epoch)?;
            if found.is_some() {
                return Err(Error::conflict(format!("there is a database named {name} already")).into());
            }
            let old = stored::name(&view, id)?;
            let mut changes = engine.changes();
            changes.remove(Table::Heads, &keys::named(&old));
            let number = values::encode_number(id.get());
            stored::put(&mut changes, &keys::named(name), &number);
            let key = keys::of_database(Kind::NameOf, id);
            stored::put(&mut changes, &key, name.as_str().as_bytes());
            changes.apply(Purpose::Free, Durability::Now)
        })
        .map_err(in_doubt)
    }

    pub(super) fn delete_database(&self, id: DatabaseId, epoch: Epoch) -> Result<()> {
        self.write(|engine, _| {
            let view = engine.view();
            // Who cannot read it cannot write either.
            if let Some(head) = unless_damaged(stored::head(&view, id))? {
                stored::fence(&head, epoch)?;
            }
            let name = stored::name(&view, id)?;
            let mut changes = engine.changes();
            changes.remove(Table::Heads, &keys::named(&name));
            for kind in [Kind::Head, Kind::NameOf, Kind::Warm, Kind::Pieces] {
                changes.remove(Table::Heads, &keys::of_database(kind, id));
            }
            let key = keys::of_database(Kind::Condemned, id);
            stored::put(&mut changes, &key, &[]);
            changes.apply(Purpose::Free, Durability::Now)
        })
        .map_err(in_doubt)
    }
}

/// The next names, by the index of names.
fn indexed(view: &View<'_>, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Outcome<Vec<DatabaseName>> {
    let mut start = vec![Kind::Named as u8];
    start.extend_from_slice(prefix.as_bytes());
    let after = after.map(keys::named);
    let name = |entry: Outcome<(fjall::Slice, fjall::Slice)>| {
        let (key, _) = entry?;
        Ok(DatabaseName::from_bytes(key.get(1..).unwrap_or_default())?)
    };
    view.prefix(Table::Heads, &start, after.as_deref()).take(limit).map(name).collect()
}

/// The same where the index cannot be read: every database is asked for its name.
fn unindexed(view: &View<'_>, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Outcome<Vec<DatabaseName>> {
    let mut next = BTreeSet::new();
    for entry in view.prefix(Table::Heads, &[Kind::NameOf as u8], None) {
        let (key, value) = entry?;
        let name = DatabaseName::from_bytes(unseal("the name of a database", &key, &value)?)?;
        if name.as_str().starts_with(prefix) && after.is_none_or(|after| name > *after) {
            next.insert(name);
            if next.len() > limit {
                next.pop_last();
            }
        }
    }
    Ok(next.into_iter().collect())
}
