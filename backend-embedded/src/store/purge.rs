//! Removing the bytes of deleted databases, and what is old enough to forget.

use litefleet::store::Purged;
use litefleet::{DatabaseId, Error, PageNo, Result, Txid};

use super::EmbeddedStore;
use super::open::forget_old_ends;
use crate::error::{Outcome, unless_damaged};
use crate::keys::{self, Kind, Table};
use crate::view::{Changes, Durability, Purpose, View};

/// The most that one call removes, whatever its limit: what is removed together is held in memory together.
const PER_CALL: usize = 1 << 16;

impl EmbeddedStore {
    pub(super) fn purge_deleted(&self, limit: usize) -> Result<Purged> {
        let now = self.slot.config().clock.unix();
        self.sessions.forget_old();
        self.forget_ended_locks();
        let limit = limit.clamp(1, PER_CALL);
        Ok(self.write_pages(|engine, _| {
            let view = engine.view();
            let mut changes = engine.changes();
            let forgotten = forget_old_ends(&view, &mut changes, now, limit)?;
            let mut purge = Purge { view: &view, changes, left: limit, removed: 0 };
            let done = purge.run()? && forgotten < limit;
            let removed = purge.removed;
            purge.changes.apply(Purpose::Free, Durability::Ordered)?;
            // A call that left something to the next has removed something, if only what is not counted: it gets on, which
            // whoever waits for the end sees by this number alone.
            Ok(Purged { removed: if done { removed } else { removed.max(1) }, done })
        })?)
    }
}

struct Purge<'a> {
    view: &'a View<'a>,
    changes: Changes<'a>,
    left: usize,
    removed: u64,
}

/// What is left of what was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// What the limit did not allow.
    More,
    /// What cannot be read: its keys are not known.
    Damaged,
}

impl Purge<'_> {
    /// True when nothing is left that could be removed. A database of which something is left stays condemned.
    fn run(&mut self) -> Outcome<bool> {
        for entry in self.view.prefix(Table::Heads, &[Kind::Condemned as u8], None) {
            let (key, _) = entry?;
            let id = keys::database_of(&key).ok_or_else(|| Error::corrupt("a deleted database has a malformed key"))?;
            match self.database(id)? {
                Rest::Nothing if self.left > 0 => {
                    // Also where nothing was left of it: to find that out is work.
                    self.left -= 1;
                    self.changes.remove(Table::Heads, &key);
                }
                Rest::Nothing | Rest::More => return Ok(false),
                Rest::Damaged => {
                    tracing::warn!(database = %id, "what is damaged of a deleted database cannot be removed");
                }
            }
        }
        Ok(true)
    }

    fn database(&mut self, id: DatabaseId) -> Outcome<Rest> {
        let pages = [keys::page(id, PageNo(0), Txid(0)), keys::page(id, PageNo(u32::MAX), Txid::MAX)];
        let log = [keys::log(id, Txid(0)), keys::log(id, Txid::MAX)];
        let mut ranges = vec![(Table::Pages, pages.map(|key| key.to_vec())), (Table::Log, log.map(|key| key.to_vec()))];
        for kind in [Kind::Checkpoint, Kind::EpochEnd, Kind::Staging] {
            let first = keys::of_database(kind, id);
            let mut last = first.clone();
            last.extend([u8::MAX; 16]);
            ranges.push((Table::Heads, [first, last]));
        }
        let mut rest = Rest::Nothing;
        for (table, [first, last]) in ranges {
            match self.range(table, &first, &last)? {
                Rest::Nothing => {}
                Rest::More => return Ok(Rest::More),
                Rest::Damaged => rest = Rest::Damaged,
            }
        }
        Ok(rest)
    }

    /// From both ends up to what is damaged, if anything is.
    fn range(&mut self, table: Table, first: &[u8], last: &[u8]) -> Outcome<Rest> {
        match self.entries(table, self.view.range(table, first, last))? {
            Rest::Damaged => {}
            rest => return Ok(rest),
        }
        match self.entries(table, self.view.range(table, first, last).rev())? {
            Rest::More => Ok(Rest::More),
            Rest::Nothing | Rest::Damaged => Ok(Rest::Damaged),
        }
    }

    fn entries(
        &mut self,
        table: Table,
        entries: impl Iterator<Item = Outcome<(fjall::Slice, fjall::Slice)>>,
    ) -> Outcome<Rest> {
        for entry in entries {
            if self.left == 0 {
                return Ok(Rest::More);
            }
            let Some((key, _)) = unless_damaged(entry)? else { return Ok(Rest::Damaged) };
            self.changes.remove(table, &key);
            self.left -= 1;
            // Only rows and records are reported.
            self.removed += u64::from(table != Table::Heads);
        }
        Ok(Rest::Nothing)
    }
}
