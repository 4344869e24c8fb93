//! The VFS in safe Rust: SQLite's rules about files and locks, turned into calls on a database of the engine.
//!
//! The module `ffi` makes SQLite call this; tests and bridges to other programs may call it too.

mod journal;
mod loans;
mod locks;
mod main_file;
mod pragmas;
mod super_journal;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::engine::{Fleet, Role};
use crate::error::{Error, Result};
use crate::types::DatabaseName;

pub use journal::Journal;
pub use loans::Loans;
pub use locks::LockLevel;
pub(crate) use locks::LockTable;
pub use main_file::MainFile;
pub use super_journal::{SuperGroup, SuperJournals};

/// What all files of a fleet share, whatever names it is registered under.
#[derive(Debug)]
pub struct Vfs {
    fleet: Fleet,
    super_journals: SuperJournals,
    /// Who has locked what, by name, while anybody has it open.
    locks: Mutex<HashMap<DatabaseName, Weak<LockTable>>>,
}

/// How a database file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Follows without a lease.
    ReadOnly,
    /// Must exist.
    ReadWrite,
    /// Is created at the first lock when it does not exist.
    Create,
}

pub(crate) const JOURNAL: &str = "-journal";

impl Vfs {
    /// Files of a fleet. Those of another one of the same fleet have locks and super-journals of their own.
    pub fn new(fleet: Fleet) -> Arc<Self> {
        Arc::new(Self { fleet, super_journals: SuperJournals::default(), locks: Mutex::default() })
    }

    /// The fleet.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The super-journals that exist.
    pub fn super_journals(&self) -> &SuperJournals {
        &self.super_journals
    }

    /// Opens a database file. `parameters` are those of the URI. The store is asked at the first lock.
    pub fn open<'a>(
        self: &Arc<Self>,
        name: &DatabaseName,
        mode: OpenMode,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<MainFile> {
        self.fleet.check_process()?;
        let mut wanted = Vec::new();
        let mut probe = self.fleet.settings().database.clone();
        for (key, value) in parameters {
            probe.set(key, value)?;
            wanted.push((key, value));
        }
        let role = if mode == OpenMode::ReadOnly { Role::Follower } else { Role::Writer };
        let database = self.fleet.connect(name, role, mode == OpenMode::Create);
        database.change_settings(|settings| {
            for (key, value) in wanted {
                // Checked above, on a copy.
                let _valid = settings.set(key, value);
            }
        });
        Ok(MainFile::new(Arc::clone(self), database))
    }

    /// Who has locked a database.
    fn lock_table(&self, name: &DatabaseName) -> Arc<LockTable> {
        let mut tables = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name).and_then(Weak::upgrade) {
            return table;
        }
        // Those that nobody uses make room, which costs as much as was added since the last time.
        if tables.len() == tables.capacity() {
            tables.retain(|_, table| table.strong_count() > 0);
        }
        let table = Arc::default();
        tables.insert(name.clone(), Arc::downgrade(&table));
        table
    }

    /// Whether a file exists, as SQLite asks it. Journals of databases never do: after a crash the store holds a
    /// committed state, and there is nothing to roll back.
    pub fn exists(&self, path: &str) -> Result<bool> {
        if self.super_journals.exists(path) {
            return Ok(true);
        }
        if is_side_file(path) {
            return Ok(false);
        }
        // What cannot be a name is the name of nothing.
        DatabaseName::new(path).map_or(Ok(false), |name| self.fleet.exists(&name))
    }

    /// Deletes a file, as SQLite asks it. Deleting a super-journal for good is the commit of its transaction.
    pub fn delete(&self, path: &str, durably: bool) -> Result<()> {
        let participant = |name: &str| self.participant(name);
        if self.super_journals.delete(path, durably, &participant)? || is_side_file(path) {
            return Ok(());
        }
        self.fleet.remove(&DatabaseName::new(path)?, false)
    }

    /// Opens a rollback journal.
    pub fn open_journal(self: &Arc<Self>, name: &str) -> Journal {
        Journal::new(Arc::clone(self), name)
    }

    /// A journal was finalised: its transaction is over.
    fn journal_finalised(&self, journal: &str) {
        if let Some(locks) = journal.strip_suffix(JOURNAL).and_then(|name| self.locks_of(name)) {
            locks.journal_finalised();
        }
    }

    /// Opens a super-journal. With `create` one that does not exist is made; without, it looks empty: the rollback of the
    /// last participant may open one that is gone.
    pub fn open_super_journal(self: &Arc<Self>, name: &str, create: bool) -> Arc<SuperGroup> {
        if create {
            return self.super_journals.create(Arc::downgrade(self), name);
        }
        self.super_journals.get(name).unwrap_or_default()
    }

    /// Whether a connection is writing the database of this name.
    pub(crate) fn is_writing(&self, name: &str) -> bool {
        self.locks_of(name).is_some_and(|locks| locks.has_writer())
    }

    /// The connection that takes part in a transaction over several databases with one of this name.
    fn participant(&self, name: &str) -> Option<u64> {
        self.locks_of(name)?.participant()
    }

    /// The writer of a database begins to commit a transaction over several databases: what lives until that is over.
    fn commit_with_others(&self, name: &str) -> Option<Weak<()>> {
        self.locks_of(name)?.commit_with_others()
    }

    /// The locks of a database that is open here.
    fn locks_of(&self, name: &str) -> Option<Arc<LockTable>> {
        let name = DatabaseName::new(name).ok()?;
        let tables = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        tables.get(&name).and_then(Weak::upgrade)
    }
}

fn is_side_file(path: &str) -> bool {
    [JOURNAL, "-wal", "-shm"].iter().any(|suffix| path.ends_with(suffix))
}

/// The error for a WAL file, which SQLite would open under `locking_mode=EXCLUSIVE`.
pub fn refuse_wal() -> Error {
    Error::invalid("there is no WAL here: the store is the log, and readers never block the writer in any journal mode")
}
