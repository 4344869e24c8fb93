//! What readers and writers hold of the engine: a view of one moment, and a set of changes.

use fjall::{Readable, Slice};

use crate::engine::Engine;
use crate::error::Outcome;
use crate::keys::Table;

/// What a change is for, which decides how full the disk may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To add: refused when only the reserve is left.
    Grow,
    /// To remove, or to take a lease: may use half of the reserve.
    Free,
}

/// When a change becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Before the call returns.
    Now,
    /// With the next change that does so now.
    Ordered,
}

/// The store as of one moment.
pub(crate) struct View<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) snapshot: fjall::Snapshot,
}

/// A moment that can be looked at later.
pub(crate) struct Moment {
    pub(crate) instance: u64,
    pub(crate) snapshot: fjall::Snapshot,
}

impl View<'_> {
    pub(crate) fn moment(&self) -> Moment {
        Moment { instance: self.engine.instance(), snapshot: self.snapshot.clone() }
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Outcome<Option<Slice>> {
        Ok(self.snapshot.get(self.engine.table(table), key)?)
    }

    /// What lies between two keys, both included.
    pub(crate) fn range(
        &self,
        table: Table,
        first: &[u8],
        last: &[u8],
    ) -> impl DoubleEndedIterator<Item = Outcome<(Slice, Slice)>> + use<> {
        self.snapshot.range(self.engine.table(table), first..=last).map(|entry| Ok(entry.into_inner()?))
    }

    /// What begins with a prefix and comes after a key, in order.
    pub(crate) fn prefix(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Outcome<(Slice, Slice)>> + use<> {
        use std::ops::Bound;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let prefix = prefix.to_vec();
        self.snapshot
            .range::<&[u8], _>(self.engine.table(table), (from, Bound::Unbounded))
            .map(|entry| Ok(entry.into_inner()?))
            .take_while(move |entry: &Outcome<(Slice, Slice)>| {
                entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix))
            })
    }
}

/// Changes that are done together.
pub(crate) struct Changes<'a> {
    engine: &'a Engine,
    batch: fjall::OwnedWriteBatch,
    bytes: [u64; 3],
}

impl<'a> Changes<'a> {
    pub(crate) fn new(engine: &'a Engine, batch: fjall::OwnedWriteBatch) -> Self {
        Self { engine, batch, bytes: [0; 3] }
    }

    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.count(table, key.len() + value.len());
        self.batch.insert(self.engine.table(table), key, value);
    }

    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) {
        self.count(table, key.len());
        self.batch.remove(self.engine.table(table), key);
    }

    fn count(&mut self, table: Table, bytes: usize) {
        /// About what an entry takes beside its bytes, in memory.
        const ENTRY: u64 = 40;
        if let Some(counter) = self.bytes.get_mut(table.index()) {
            *counter += bytes as u64 + ENTRY;
        }
    }

    /// Does them, if there are any.
    pub(crate) fn apply(self, purpose: Purpose, durability: Durability) -> Outcome<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.engine.apply(self, purpose, durability)
    }

    /// The batch, and the bytes for each table.
    pub(crate) fn into_parts(self) -> (fjall::OwnedWriteBatch, [u64; 3]) {
        (self.batch, self.bytes)
    }
}
