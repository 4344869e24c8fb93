//! The engine: fjall, with its memory bounded and its order of durability kept.
//!
//! **Durability.** All tables share one journal, so what one fsync makes durable is everything written before it, in
//! order. `fdatasync` is enough: it writes the data and whatever metadata is needed to find it again, the new size and
//! the blocks that a preallocated (sparse) journal gets as it fills included; times are all it leaves out. There is one
//! way around the journal: a memory table that is written out to a file of its own becomes durable with that file, and
//! were its newest entries not synced in the journal, a power failure could keep a row of one table and lose the head
//! that goes with it. A flush takes every memory table that is sealed when it starts; therefore tables are sealed here
//! only, by the one writer, right after an fsync. The engine's own thresholds are set out of reach.
//!
//! **Memory.** The engine takes writes faster than it flushes them. A table is sealed when `memtable_bytes` were written
//! to it and the sealed one before it is flushed; whoever writes page rows waits for that *before* taking its turn
//! ([`Engine::page_room_is_wanting`]), so that commits do not wait. More than one sealed table never exists, which keeps the
//! engine's own brakes (100 ms steps, without end when its workers have died) from ever being used.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Snapshot};
use litefleet::{Error, Result};

use crate::config::EmbeddedConfig;
use crate::directory::{Directory, free_bytes, sync_directories, sync_directory};
use crate::error::{Fault, Outcome, engine_error, io_error};
use crate::journal::{self, Marks};
use crate::keys::{self, Kind, Table};
use crate::versions;
use crate::view::{Changes, Durability, Moment, Purpose, View};

/// One leaves compactions to the other, so that flushes never wait behind them.
const WORKERS: usize = 2;
/// Out of reach: the engine would seal tables by itself to be rid of old journals.
const JOURNALS_BYTES: u64 = 1 << 40;
/// A table that was written to is flushed at the latest after so many bytes of journal: journals are of 64 MiB, and the
/// oldest goes when every table has been flushed since.
const JOURNAL_SPAN_BYTES: u64 = 48 << 20;
/// From so many bytes on the journal is shortened when the store is closed: it is replayed at each open, and shortening it costs some
/// fsyncs. In a large store only from one part in so many of what is in tables on, since they may be merged with it; at half of
/// `memtable_bytes` at the latest.
const LONG_JOURNAL_BYTES: u64 = 256 << 10;
const LONG_JOURNAL_PART: u64 = 64;
/// Below the 20 at which the engine slows writers down by itself, and the 30 at which it stops them.
const RUNS: usize = 16;
/// How much more than `memtable_bytes` a table other than that of the pages may take while its last is flushed.
const STRETCH: u64 = 4;

static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// The open engine. Dropping it closes it.
pub(crate) struct Engine {
    /// Tells this opening from those before and after it.
    instance: u64,
    tables: [Keyspace; 3],
    database: Database,
    marks: Marks,
    data: PathBuf,
    memtable_bytes: u64,
    reserve_bytes: u64,
    /// The number of the newest durable write.
    synced: AtomicU64,
    /// Bytes written to each table since it was sealed.
    unsealed: [AtomicU64; 3],
    /// Bytes written to the journal since each table was sealed.
    journaled: [AtomicU64; 3],
    /// Bytes that were in the journals when it was opened, and those written since.
    journal: AtomicU64,
    /// Whether anything was written since it was opened.
    written: AtomicBool,
    /// As of the end of the newest write, or of the opening.
    settled: RwLock<Snapshot>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data", &self.data).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine of a directory, making it when there is none.
    pub(crate) fn open(directory: &Directory, config: &EmbeddedConfig) -> Result<Self> {
        let data = directory.data();
        let marks = Marks::new(directory.id());
        let journal = journal::check(&data, marks)?;
        versions::check(&data)?;
        let what = format!("cannot open the store in {}", directory.path().display());
        let failed = |error| engine_error(&what, error);
        let database = Database::builder(&data)
            .cache_size(config.cache_bytes)
            .max_cached_files(Some(config.open_files.max(10)))
            .max_journaling_size(JOURNALS_BYTES)
            .worker_threads(WORKERS)
            .open()
            .map_err(failed)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX);
        let table = |table: Table| database.keyspace(table.name(), options).map_err(failed);
        let tables = [table(Table::Heads)?, table(Table::Log)?, table(Table::Pages)?];
        // The engine makes directories without syncing the one above: after a power failure a table could be gone whole.
        sync_directories(&data)
            .and_then(|()| sync_directory(directory.path()))
            .map_err(|error| io_error(&what, error))?;
        // What a killed process wrote without an fsync is visible now, and must be durable before anyone sees it.
        match database.persist(PersistMode::SyncAll) {
            // A worker has ended already, over damage that it met as it merged tables, or over a sync that failed. It takes no
            // writes, and can be read.
            Err(fjall::Error::Poisoned) => {
                tracing::error!(path = %data.display(), "the storage engine stopped as it was opened: it can be read, and takes no writes");
                journal::rewrite(&data)?;
            }
            synced => synced.map_err(failed)?,
        }
        let heads = &tables[Table::Heads.index()];
        let synced = match heads.get(keys::singleton(Kind::Sync)).map_err(failed)? {
            Some(value) => marks
                .decode(&value)
                .ok_or_else(|| Error::corrupt(format!("{what}: the number of the last write fails its check")))?,
            None => 0,
        };
        let settled = RwLock::new(database.snapshot());
        let recovered = tables.each_ref().map(|table| table.tree.active_memtable().size());
        Ok(Self {
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            tables,
            database,
            marks,
            data,
            memtable_bytes: config.memtable_bytes.max(1 << 16),
            reserve_bytes: config.reserve_bytes,
            synced: AtomicU64::new(synced),
            unsealed: recovered.map(AtomicU64::new),
            journaled: Default::default(),
            journal: AtomicU64::new(journal),
            written: AtomicBool::new(false),
            settled,
        })
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// The present state, as one consistent moment. A snapshot that the engine takes while a write is under way may show a part
    /// of it: a flush or a compaction that ends meanwhile raises the number up to which all is visible past the write's own.
    pub(crate) fn view(&self) -> View<'_> {
        let settled = self.settled.read().unwrap_or_else(PoisonError::into_inner);
        View { engine: self, snapshot: settled.clone() }
    }

    /// A write is done, and the next has not begun.
    fn settle(&self) {
        let snapshot = self.database.snapshot();
        *self.settled.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// The state as of a moment that was fixed before.
    pub(crate) fn view_at(&self, moment: &Moment) -> Outcome<View<'_>> {
        if moment.instance != self.instance {
            let message = "the store was opened again after an error meanwhile: try again";
            return Err(Error::unavailable(message).into());
        }
        Ok(View { engine: self, snapshot: moment.snapshot.clone() })
    }

    /// An empty set of changes.
    pub(crate) fn changes(&self) -> Changes<'_> {
        Changes::new(self, self.database.batch())
    }

    pub(crate) fn table(&self, table: Table) -> &Keyspace {
        let [heads, log, pages] = &self.tables;
        match table {
            Table::Heads => heads,
            Table::Log => log,
            Table::Pages => pages,
        }
    }

    /// Whether whoever wants to write page rows should wait a little, and ask again. Asked without holding anything that
    /// a commit needs.
    pub(crate) fn page_room_is_wanting(&self) -> Outcome<bool> {
        let pages = self.table(Table::Pages);
        let unsealed = load(&self.unsealed, Table::Pages);
        let busy =
            unsealed >= self.memtable_bytes && pages.sealed_memtable_count() > 0 || pages.l0_table_count() >= RUNS;
        if busy {
            self.check_running()?;
        }
        Ok(busy)
    }

    /// Does the changes, all or none. One caller at a time. When it fails with [`Fault::Write`] they may be done or not.
    pub(crate) fn apply(&self, mut changes: Changes<'_>, purpose: Purpose, durability: Durability) -> Outcome<()> {
        self.check_room(purpose)?;
        for table in [Table::Heads, Table::Log] {
            self.await_room(table)?;
        }
        let number = self.synced.load(Ordering::Relaxed) + 1;
        let mode = match durability {
            Durability::Now => {
                self.put_mark(&mut changes, number);
                PersistMode::SyncData
            }
            Durability::Ordered => PersistMode::Buffer,
        };
        self.written.store(true, Ordering::Relaxed);
        let (batch, bytes) = changes.into_parts();
        batch.durability(Some(mode)).commit().map_err(write_fault)?;
        if durability == Durability::Now {
            self.find_failed_sync()?;
            self.synced.store(number, Ordering::Relaxed);
        }
        self.settle();
        let journal: u64 = bytes.iter().sum();
        self.journal.fetch_add(journal, Ordering::Relaxed);
        for (table, bytes) in Table::ALL.into_iter().zip(bytes) {
            counter(&self.unsealed, table).fetch_add(bytes, Ordering::Relaxed);
            counter(&self.journaled, table).fetch_add(journal, Ordering::Relaxed);
        }
        self.seal_what_is_due(durability)
    }

    fn put_mark(&self, changes: &mut Changes<'_>, number: u64) {
        changes.put(Table::Heads, &keys::singleton(Kind::Sync), &self.marks.encode(number));
    }

    /// Seals the tables whose time has come, after making sure that all of their content is durable in the journal.
    fn seal_what_is_due(&self, durability: Durability) -> Outcome<()> {
        let mut synced = durability == Durability::Now;
        for table in Table::ALL {
            let unsealed = load(&self.unsealed, table);
            let due =
                unsealed >= self.memtable_bytes || unsealed > 0 && load(&self.journaled, table) >= JOURNAL_SPAN_BYTES;
            if !due || self.table(table).sealed_memtable_count() > 0 {
                continue;
            }
            if !synced {
                self.database.persist(PersistMode::SyncData).map_err(write_fault)?;
                synced = true;
            }
            counter(&self.unsealed, table).store(0, Ordering::Relaxed);
            counter(&self.journaled, table).store(0, Ordering::Relaxed);
            if let Err(error) = self.table(table).rotate_memtable() {
                // It is sealed by then; what failed is the removal of an old journal, which is tried again.
                tracing::warn!(%error, table = table.name(), "an old journal could not be removed");
            }
        }
        Ok(())
    }

    fn await_room(&self, table: Table) -> Outcome<()> {
        let keyspace = self.table(table);
        loop {
            let full = load(&self.unsealed, table) >= STRETCH.saturating_mul(self.memtable_bytes)
                && keyspace.sealed_memtable_count() > 0;
            if !full && keyspace.l0_table_count() < RUNS {
                return Ok(());
            }
            self.check_running()?;
            pause();
        }
    }

    fn check_running(&self) -> Outcome<()> {
        self.database.persist(PersistMode::Buffer).map_err(write_fault)
    }

    /// Marks the end of what was written, before the engine is closed: damage to the last commit can then be told from a
    /// torn end.
    pub(crate) fn mark_end(&self) -> Outcome<()> {
        if self.written.load(Ordering::Relaxed) { self.write_end_mark() } else { Ok(()) }
    }

    fn write_end_mark(&self) -> Outcome<()> {
        let mut changes = self.changes();
        self.put_mark(&mut changes, self.synced.load(Ordering::Relaxed) + 1);
        let (batch, _) = changes.into_parts();
        batch.durability(Some(PersistMode::SyncData)).commit().map_err(write_fault)?;
        self.find_failed_sync()
    }

    /// Writes what is in memory out to tables, where the journals have got long: then nothing of them is needed any more but the last
    /// batch, a mark, and true is returned. Nobody may be writing.
    pub(crate) fn write_out(&self) -> Outcome<bool> {
        let stored: u64 = Table::ALL.into_iter().map(|table| self.table(table).disk_space()).sum();
        let long = (stored / LONG_JOURNAL_PART).min(self.memtable_bytes / 2).max(LONG_JOURNAL_BYTES);
        if self.journal.load(Ordering::Relaxed) < long {
            return Ok(false);
        }
        self.check_room(Purpose::Grow)?;
        self.await_tables()?;
        // As ever before a table is sealed.
        self.database.persist(PersistMode::SyncData).map_err(write_fault)?;
        for table in Table::ALL {
            if let Err(error) = self.table(table).rotate_memtable() {
                // It is sealed by then.
                tracing::warn!(%error, table = table.name(), "an old journal could not be removed");
            }
        }
        self.await_tables()?;
        let all = Table::ALL.into_iter().all(|table| self.table(table).tree.active_memtable().is_empty());
        self.write_end_mark()?;
        Ok(all)
    }

    /// Waits until what is sealed is in tables, and durable.
    fn await_tables(&self) -> Outcome<()> {
        while Table::ALL.into_iter().any(|table| self.table(table).sealed_memtable_count() > 0) {
            self.check_running()?;
            pause();
        }
        Ok(())
    }

    /// A worker's fsync may have failed just before one that was made here, which is told nothing of it.
    fn find_failed_sync(&self) -> Outcome<()> {
        self.database.persist(PersistMode::Buffer).map_err(Fault::Write)
    }

    fn check_room(&self, purpose: Purpose) -> Outcome<()> {
        let needed = match purpose {
            Purpose::Grow => self.reserve_bytes,
            Purpose::Free => self.reserve_bytes / 2,
        };
        if needed == 0 {
            return Ok(());
        }
        let free = free_bytes(&self.data);
        if free >= needed {
            return Ok(());
        }
        Err(Fault::Refused(full(&self.data, free, needed)))
    }
}

fn write_fault(error: fjall::Error) -> Fault {
    match error {
        fjall::Error::Poisoned => Fault::Stopped,
        error => Fault::Write(error),
    }
}

/// Says what is full, and what to do.
pub(crate) fn full(data: &Path, free: u64, needed: u64) -> Error {
    Error::full(format!(
        "the file system of {} has {} MiB left, writing needs {} MiB: make room and try again",
        data.display(),
        free >> 20,
        needed.div_ceil(1 << 20)
    ))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the engine gives no signal when a flush is done; it can only be asked again"
)]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

fn counter(counters: &[AtomicU64; 3], table: Table) -> &AtomicU64 {
    let [heads, log, pages] = counters;
    match table {
        Table::Heads => heads,
        Table::Log => log,
        Table::Pages => pages,
    }
}

fn load(counters: &[AtomicU64; 3], table: Table) -> u64 {
    counter(counters, table).load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader saw a part of a write that was under way, where a flush had ended meanwhile: a page whose row was deleted already,
    /// under a horizon that was not raised yet, was read as zeros.
    #[test]
    fn a_view_shows_nothing_of_a_write_that_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(folder.path());
        let (directory, _) = Directory::open(&config.path).unwrap();
        let engine = Engine::open(&directory, &config).unwrap();
        let (key, other) = (b"key".as_slice(), b"other".as_slice());
        // As after the first item of a write, with all visible that has a number by then.
        engine.table(Table::Pages).insert(key, b"value").unwrap();
        assert!(engine.view().get(Table::Pages, key).unwrap().is_none());
        let mut changes = engine.changes();
        changes.put(Table::Pages, other, b"value");
        changes.apply(Purpose::Grow, Durability::Ordered).unwrap();
        for key in [key, other] {
            assert!(engine.view().get(Table::Pages, key).unwrap().is_some());
        }
    }
}
