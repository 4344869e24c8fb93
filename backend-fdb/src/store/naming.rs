//! Names: listing, renaming, deleting.

use futures_util::{StreamExt, TryStreamExt, stream};
use litefleet::store::{ListEntry, Listed};
use litefleet::{Context as _, DatabaseId, DatabaseName, Epoch, Error, ErrorKind, Result};

use super::FdbStore;
use super::read::{Singles, missing};
use crate::error::Outcome;
use crate::keys::Kind;
use crate::knowledge::{Core, Touch};
use crate::transact::{Priority, Step, Tx};
use crate::values::Value;

/// How many databases of a listing are read at once.
const AT_ONCE: usize = 128;

/// The most databases that one transaction lists.
const LISTED: usize = 256;

impl FdbStore {
    pub(super) async fn list_databases(
        &self,
        prefix: &str,
        after: Option<&DatabaseName>,
        limit: usize,
    ) -> Result<Vec<ListEntry>> {
        let mut entries: Vec<ListEntry> = Vec::new();
        while entries.len() < limit {
            let after = entries.last().map(|entry| entry.name.clone()).or_else(|| after.cloned());
            let after = after.as_ref();
            let left = (limit - entries.len()).min(LISTED);
            let body = |tx, _| self.try_list(tx, prefix, after, left);
            let (more, done) = self.cluster.run("list", Priority::Normal, body).await?.value;
            entries.extend(more);
            if done {
                break;
            }
        }
        Ok(entries)
    }

    async fn try_list(
        &self,
        tx: Tx,
        prefix: &str,
        after: Option<&DatabaseName>,
        limit: usize,
    ) -> Outcome<Step<(Vec<ListEntry>, bool)>> {
        let names = tx.peek_first(&self.keys.names(prefix, after), limit).await?;
        let done = names.len() < limit;
        let mut found = Vec::with_capacity(names.len());
        for pair in &names {
            let name = self.keys.name_in(pair.key())?;
            found.push((name, u64::decode(pair.key(), pair.value()).map(DatabaseId)));
        }
        let entries = stream::iter(found.into_iter().map(|(name, id)| self.entry(&tx, name, id)));
        let entries: Vec<ListEntry> = entries.buffered(AT_ONCE).try_collect().await?;
        Ok(Step::Return((entries, done)))
    }

    async fn entry(&self, tx: &Tx, name: DatabaseName, database: Result<DatabaseId>) -> Outcome<ListEntry> {
        let id = database.as_ref().ok().copied();
        let state = match database {
            Ok(database) => {
                let values = tx.peek_all(&self.keys.singles(database)).await?;
                let singles = Singles::of(&self.keys, database, &values);
                singles
                    .core()
                    .and_then(|core| Ok(core.public(&singles.progress()?)))
                    .map(|head| Listed { database, head })
            }
            Err(error) => Err(error),
        };
        match state {
            Err(error) if error.kind() != ErrorKind::Corrupt => Err(error.into()),
            state => {
                let state = state.context(format_args!("database {name}"));
                Ok(ListEntry { name, database: id, state })
            }
        }
    }

    pub(super) async fn rename_database(&self, database: DatabaseId, epoch: Epoch, name: &DatabaseName) -> Result<()> {
        let body = |tx, _| self.try_rename(tx, database, epoch, name);
        let done = self.cluster.run("rename", Priority::Normal, body).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
        }
        Ok(())
    }

    async fn try_rename(&self, tx: Tx, database: DatabaseId, epoch: Epoch, name: &DatabaseName) -> Outcome<Step<()>> {
        let (new_key, of_key) = (self.keys.name(name), self.keys.of(database, Kind::Name));
        // Neither head, staging entry nor lease is changed: those who rely on them need not be told.
        let (core, old, taken) =
            futures_util::try_join!(self.core(&tx, database), tx.get::<String>(&of_key), tx.get::<u64>(&new_key))?;
        let (Some(core), Some(old)) = (core, old) else { return Err(missing(database).into()) };
        if taken == Some(database.get()) {
            // A try whose reply was lost has done it, whoever has the lease now.
            return Ok(Step::Return(()));
        }
        core.fence(epoch)?;
        if taken.is_some() {
            return Err(Error::conflict(format!("there is a database named {name} already")).into());
        }
        tx.clear(&self.keys.name(&DatabaseName::new(&old)?));
        tx.put(&new_key, &database.get())?;
        tx.put(&of_key, &name.as_str().to_owned())?;
        Ok(Step::Commit(()))
    }

    pub(super) async fn delete_database(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let mut touch = self.knowledge.begin(database);
        let touched = &touch;
        let body = |tx, unknown| self.try_delete(tx, database, epoch, touched, unknown);
        let done = self.cluster.run("delete", Priority::Normal, body).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
        }
        touch.not_held();
        Ok(())
    }

    /// Whether nobody holds the lease, or only a session that has ended.
    async fn is_free(&self, tx: &Tx, core: &Core) -> Outcome<bool> {
        let Some(holder) = core.lease.holder() else { return Ok(true) };
        Ok(self.session(tx, holder.session).await?.is_none_or(|record| record.ended.is_some()))
    }

    async fn try_delete(
        &self,
        tx: Tx,
        database: DatabaseId,
        epoch: Epoch,
        touch: &Touch,
        unknown: bool,
    ) -> Outcome<Step<()>> {
        let (of_key, deleted) = (self.keys.of(database, Kind::Name), self.keys.deleted(database));
        let (values, name, fence) = futures_util::try_join!(
            async { tx.peek_all(&self.keys.singles(database)).await },
            tx.get::<String>(&of_key),
            self.fence_of_touch(&tx, touch)
        )?;
        let singles = Singles::of(&self.keys, database, &values);
        let (false, Some(name)) = (singles.is_empty(), name) else {
            tx.conflict_with_writers(&self.keys.core(database))?;
            // A try whose reply was lost had found it: so it is gone, whether by that one or not.
            return if unknown && singles.is_empty() { Ok(Step::Return(())) } else { Err(missing(database).into()) };
        };
        let core = match singles.core() {
            Ok(core) => Some(core),
            Err(error) if error.kind() == ErrorKind::Corrupt => None,
            Err(error) => return Err(error.into()),
        };
        match &core {
            Some(core) => {
                self.rely_on_read(&tx, database, core)?;
                // Who cannot open it has no epoch. Its holder can still write, as long as there is one.
                if let Err(fenced) = core.fence(epoch)
                    && !(singles.cannot_be_opened() && self.is_free(&tx, core).await?)
                {
                    return Err(fenced.into());
                }
            }
            None => tx.conflict_with_writers(&self.keys.singles(database))?,
        }
        tx.clear(&self.keys.name(&DatabaseName::new(&name)?));
        // The slots too: whoever relies on a state of it conflicts.
        tx.clear_range(&self.keys.small(database));
        tx.put_bytes(&deleted, &[])?;
        if let Some(core) = &core {
            self.announce(&tx, core, fence)?;
        }
        Ok(Step::Commit(()))
    }
}
