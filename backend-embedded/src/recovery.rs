//! Keeps an engine open: after an error that ends its taking writes it is closed and opened again.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock};

use litefleet::{Error, ErrorKind, Result};

use crate::config::EmbeddedConfig;
use crate::directory::Directory;
use crate::engine::Engine;
use crate::error::{Fault, Outcome, io_error};
use crate::journal;
use crate::release::await_release;

/// Where the open engine is kept, with its directory.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Before `directory`, whose lock must outlive it.
    place: RwLock<Place>,
    config: EmbeddedConfig,
    directory: Directory,
}

#[derive(Debug)]
struct Place {
    /// `None` while it could not be opened again.
    engine: Option<Engine>,
    /// Whether what the files show may not be on the disk. A failed fsync is told of once, to whichever descriptor asks
    /// first, and leaves its bytes to be read as if they were durable: so it is remembered here, and in the directory,
    /// until they have been written again.
    suspect: bool,
}

impl Place {
    /// Opens the engine, once what the files show is on the disk.
    fn open(&mut self, directory: &Directory, config: &EmbeddedConfig) -> Result<()> {
        if self.suspect {
            let data = directory.data();
            await_release(&data)?;
            journal::rewrite(&data)?;
            self.suspect = false;
            directory.trust();
        }
        match open_engine(directory, config) {
            Ok(engine) => {
                self.engine = Some(engine);
                Ok(())
            }
            Err(error) => {
                if may_be_the_disk(&error) {
                    self.suspect(directory);
                }
                Err(error)
            }
        }
    }

    fn suspect(&mut self, directory: &Directory) {
        self.suspect = true;
        directory.suspect();
    }
}

impl Slot {
    pub(crate) fn open(config: EmbeddedConfig) -> Result<Self> {
        let (directory, new) = Directory::open(&config.path)?;
        let mut place = Place { engine: None, suspect: false };
        if new {
            // After an error the next call begins with nothing.
            place.engine = Some(open_engine(&directory, &config)?);
            directory.finish()?;
        } else {
            place.suspect = directory.is_suspect();
            match place.open(&directory, &config) {
                // Only now is it known that a process before this one has left what is not on the disk.
                Err(error) if place.suspect => place.open(&directory, &config).map_err(|_| error)?,
                opened => opened?,
            }
        }
        Ok(Self { place: RwLock::new(place), config, directory })
    }

    pub(crate) fn config(&self) -> &EmbeddedConfig {
        &self.config
    }

    /// Runs something on the engine, which it keeps open meanwhile; opens it first when it is closed.
    pub(crate) fn with<T>(&self, run: impl FnOnce(&Engine) -> Outcome<T>) -> Outcome<T> {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &place.engine {
            return guarded(|| run(engine));
        }
        drop(place);
        self.open_if_closed()?;
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        match &place.engine {
            Some(engine) => guarded(|| run(engine)),
            // Another caller's reopening has failed in between.
            None => Err(Fault::Stopped),
        }
    }

    /// Closes the engine after `cause`, and opens it again: what the journal holds is the truth from then on, and on the
    /// disk. Which of the engine's own fsyncs failed before, or does so while it is closed, is not to be learnt: so that
    /// is never taken on trust.
    pub(crate) fn reopen(&self, cause: &Fault) -> Outcome<()> {
        tracing::warn!(
            path = %self.directory.path().display(),
            error = cause as &dyn std::error::Error,
            "opening the store again after an error"
        );
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        place.suspect(&self.directory);
        // Every handle must go before the files can be opened again.
        place.engine = None;
        place.open(&self.directory, &self.config).map_err(Fault::Closed)
    }

    fn open_if_closed(&self) -> Outcome<()> {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        if place.engine.is_some() {
            return Ok(());
        }
        place.open(&self.directory, &self.config).map_err(Fault::Closed)
    }

    /// Closes the engine for good. Where its journal has got long, it is shortened, so that the next open need not replay it.
    /// What fails then only leaves it as it is.
    pub(crate) fn close(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(engine) = place.engine.take() else { return };
        let written = guarded(|| engine.write_out());
        let marks = engine.marks();
        drop(engine);
        let (shortened, is_doubtful) = match written {
            Ok(false) => return,
            Ok(true) => {
                let data = self.directory.data();
                let failed = |error| io_error(&format!("cannot shorten the journal in {}", data.display()), error);
                let shortened = await_release(&data).and_then(|()| journal::shorten(&data, marks).map_err(failed));
                let is_doubtful = shortened.as_ref().is_err_and(may_be_the_disk);
                (shortened, is_doubtful)
            }
            Err(fault) => {
                let is_doubtful = fault.needs_reopening();
                (Err(fault.into()), is_doubtful)
            }
        };
        if let Err(error) = shortened {
            tracing::warn!(%error, "the journal could not be shortened: the next open replays it, which takes longer");
        }
        if is_doubtful {
            place.suspect(&self.directory);
        }
    }

    /// Lets the engine be, open as it is: for a process that was forked from the one that has opened it. Closing would
    /// wait for workers that are not here, and give up the other's lock.
    pub(crate) fn leak(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _left = ManuallyDrop::new(place.engine.take());
    }
}

/// Whether an open may have failed in an fsync, which may have been told of an earlier failure.
fn may_be_the_disk(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    // Somebody else works on the files then, who must not be interfered with.
    let locked = matches!(source, Some(fjall::Error::Locked));
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full) && !locked
}

fn open_engine(directory: &Directory, config: &EmbeddedConfig) -> Result<Engine> {
    catch_unwind(AssertUnwindSafe(|| Engine::open(directory, config))).unwrap_or_else(|_| {
        Err(Error::corrupt(format!(
            "the storage engine panicked when it opened {}: its files are probably damaged",
            directory.data().display()
        )))
    })
}

/// The engine panics on some damaged files, where it trusts what it reads.
fn guarded<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Fault::Panicked))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::keys::Table;
    use crate::view::{Durability, Purpose};

    /// What somebody else has open is not written again under his hands.
    #[test]
    fn an_engine_that_another_has_open_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(folder.path());
        drop(Slot::open(config.clone()).unwrap());
        let other = fs::File::open(folder.path().join("data/lock")).unwrap();
        other.try_lock().unwrap();
        assert_eq!(Slot::open(config.clone()).unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(!folder.path().join("SUSPECT").exists());
        drop(other);
        drop(Slot::open(config).unwrap());
    }

    /// The last of the engine's threads may have its journal still when the engine is gone, and writes to it what it has left: it
    /// would stand over what was acknowledged since, or behind it.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "where it cannot be seen, it is only waited for")]
    fn an_engine_is_opened_again_when_nobody_has_its_journals_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let slot = Slot::open(EmbeddedConfig::new(folder.path())).unwrap();
        let journal = fs::OpenOptions::new().append(true).open(folder.path().join("data/0.jnl")).unwrap();
        for closed in [slot.reopen(&Fault::Panicked), slot.with(|_| Ok(()))] {
            assert!(matches!(&closed, Err(Fault::Closed(_))), "{closed:?}");
            assert_eq!(closed.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        drop(journal);
        slot.with(|_| Ok(())).unwrap();
    }

    const ROW: usize = 4 << 10;

    /// Puts so many rows into each table, durably, one after the other.
    fn put(slot: &Slot, rows: std::ops::Range<u32>) {
        rows.for_each(|row| put_at_once(slot, row..row + 1));
    }

    /// Puts them in as few changes as may be.
    fn put_at_once(slot: &Slot, rows: std::ops::Range<u32>) {
        for some in rows.collect::<Vec<u32>>().chunks(100) {
            let put = |engine: &Engine| {
                let mut changes = engine.changes();
                for (row, table) in some.iter().flat_map(|row| Table::ALL.map(|table| (row, table))) {
                    changes.put(table, &row.to_be_bytes(), &value(*row));
                }
                engine.apply(changes, Purpose::Grow, Durability::Now)
            };
            slot.with(put).unwrap();
        }
    }

    fn value(row: u32) -> Vec<u8> {
        let words =
            (0..ROW as u64 / 8).flat_map(|word| xxhash_rust::xxh3::xxh3_64_with_seed(b"row", word).to_le_bytes());
        words.chain(row.to_be_bytes()).collect()
    }

    /// How many of the first rows are there, in each table.
    fn seen(slot: &Slot, rows: u32) -> [usize; 3] {
        let read = |engine: &Engine| {
            let there = |table, row: u32| {
                engine.view().get(table, &row.to_be_bytes()).unwrap().is_some_and(|it| *it == value(row))
            };
            Ok(Table::ALL.map(|table| (0..rows).filter(|row| there(table, *row)).count()))
        };
        slot.with(read).unwrap()
    }

    fn close(mut slot: Slot) {
        slot.with(Engine::mark_end).unwrap();
        slot.close();
    }

    /// It was replayed at each open, also after each process before had closed the store well.
    #[test]
    fn a_long_journal_is_shortened_when_the_store_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(folder.path()).memtable_bytes(1 << 20);
        let length = || fs::metadata(folder.path().join("data/0.jnl")).unwrap().len();
        let mut written = 0;
        for (rounds, is_short) in [(200, true), (1, false), (1, false), (300, true), (0, true)] {
            let slot = Slot::open(config.clone()).unwrap();
            assert_eq!(seen(&slot, written + 1), [written as usize; 3]);
            put(&slot, written..written + rounds);
            written += rounds;
            close(slot);
            assert_eq!(length() < 400, is_short, "{rounds}: {}", length());
            assert!(length() > 0, "the mark stays");
        }
    }

    /// Else each fourth close of a large store would merge 256 KiB with all of it.
    #[test]
    fn the_journal_of_a_large_store_may_be_longer() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(folder.path());
        let length = || fs::metadata(folder.path().join("data/0.jnl")).unwrap().len();
        let mut written = 0;
        // A row is of 12 KiB in all, so that a 64th of the store is 375 KiB.
        for (rounds, is_short) in [(2000, true), (25, false), (20, true)] {
            let slot = Slot::open(config.clone()).unwrap();
            put_at_once(&slot, written..written + rounds);
            written += rounds;
            close(slot);
            assert_eq!(length() < 400, is_short, "{rounds}: {}", length());
        }
        assert_eq!(seen(&Slot::open(config).unwrap(), written + 1), [written as usize; 3]);
    }

    /// Without a mark in the journal, what was written since could not be told from a torn end: an acknowledged change was cut off
    /// without a word.
    #[test]
    fn damage_behind_a_shortened_journal_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(folder.path()).memtable_bytes(1 << 20);
        let path = folder.path().join("data/0.jnl");
        let slot = Slot::open(config.clone()).unwrap();
        put(&slot, 0..200);
        close(slot);
        let first = fs::metadata(&path).unwrap().len();
        let slot = Slot::open(config.clone()).unwrap();
        put(&slot, 200..201);
        let second = fs::metadata(&path).unwrap().len();
        close(slot);
        let whole = fs::read(&path).unwrap();
        // In the middle, and in its mark: 16 bytes before the 13 that end a batch.
        for at in [first, second - 20] {
            let mut bytes = whole.clone();
            bytes[usize::try_from(at).unwrap()] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(Slot::open(config.clone()).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
        }
        fs::write(&path, whole).unwrap();
        assert_eq!(seen(&Slot::open(config).unwrap(), 202), [201; 3]);
    }
}
