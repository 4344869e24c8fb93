//! Removing the bytes of deleted databases, and what is old enough to forget.

use litefleet::store::Purged;
use litefleet::{DatabaseId, Error, PageNo, Result, Txid};

use super::EmbeddedStore;
use super::open::forget_old_ends;
use crate::error::Outcome;
use crate::keys::{self, Kind, Table};
use crate::view::{Changes, Durability, Purpose, View};

/// The most that one call removes, whatever its limit: what is removed together is held in memory together.
const PER_CALL: usize = 1 << 16;

impl EmbeddedStore {
    pub(super) fn purge_deleted(&self, limit: usize) -> Result<Purged> {
        let now = self.slot.config().clock.unix();
        self.sessions.forget_old();
        let limit = limit.clamp(1, PER_CALL);
        Ok(self.write_pages(|engine, _| {
            let view = engine.view();
            let mut changes = engine.changes();
            let forgotten = forget_old_ends(&view, &mut changes, now, limit)?;
            let mut purge = Purge { view: &view, changes, left: limit, removed: 0 };
            let done = purge.run()?;
            let removed = purge.removed;
            purge.changes.apply(Purpose::Free, Durability::Ordered)?;
            Ok(Purged { removed, done: done && forgotten < limit })
        })?)
    }
}

struct Purge<'a> {
    view: &'a View<'a>,
    changes: Changes<'a>,
    left: usize,
    removed: u64,
}

impl Purge<'_> {
    /// True when nothing is left.
    fn run(&mut self) -> Outcome<bool> {
        for entry in self.view.prefix(Table::Heads, &[Kind::Condemned as u8], None) {
            let (key, _) = entry?;
            let id = keys::database_of(&key).ok_or_else(|| Error::corrupt("a deleted database has a malformed key"))?;
            if !self.database(id)? {
                return Ok(false);
            }
            self.changes.remove(Table::Heads, &key);
        }
        Ok(true)
    }

    /// True when nothing is left of the database.
    fn database(&mut self, id: DatabaseId) -> Outcome<bool> {
        let first = keys::page(id, PageNo(0), Txid(0));
        let last = keys::page(id, PageNo(u32::MAX), Txid::MAX);
        if !self.range(Table::Pages, &first, &last)? {
            return Ok(false);
        }
        let (first, last) = (keys::log(id, Txid(0)), keys::log(id, Txid::MAX));
        if !self.range(Table::Log, &first, &last)? {
            return Ok(false);
        }
        for kind in [Kind::Checkpoint, Kind::EpochEnd, Kind::Staging] {
            let first = keys::of_database(kind, id);
            let mut last = first.clone();
            last.extend([u8::MAX; 16]);
            if !self.range(Table::Heads, &first, &last)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn range(&mut self, table: Table, first: &[u8], last: &[u8]) -> Outcome<bool> {
        for entry in self.view.range(table, first, last) {
            if self.left == 0 {
                return Ok(false);
            }
            self.changes.remove(table, &entry?.0);
            self.left -= 1;
            // Only rows and records are reported.
            self.removed += u64::from(table != Table::Heads);
        }
        Ok(true)
    }
}
