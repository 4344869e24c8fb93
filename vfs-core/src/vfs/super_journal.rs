//! Super-journals: how SQLite commits several databases as one, and how the store does.
//!
//! SQLite writes the names of the participants' journals into a super-journal, sends each participant its commit point
//! with the super-journal's name, and then deletes the super-journal: that is when the transaction is committed. So a
//! participant's commit is prepared and held back at its own commit point, and all go to the store as one atomic commit
//! at the deletion. Until then the super-journal exists; a rollback finds it, plays the journals back, and deletes it
//! without the wish for durability.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::engine::{Database, Prepared, Snapshot, commit_atomically};
use crate::error::{Error, Result};
use crate::types::DatabaseName;

#[derive(Debug, Default)]
enum Progress {
    /// Commits that were prepared and are held back.
    #[default]
    Open,
    /// The snapshots that the participants go on from.
    Committed(HashMap<DatabaseName, Snapshot>),
    Aborted,
}

#[derive(Debug, Default)]
struct State {
    content: Vec<u8>,
    prepared: Vec<(Arc<Database>, Prepared)>,
    progress: Progress,
}

/// A transaction over several databases.
#[derive(Debug, Default)]
pub struct SuperGroup(Mutex<State>);

impl SuperGroup {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the super-journal.
    pub fn size(&self) -> u64 {
        self.lock().content.len() as u64
    }

    /// Reads the super-journal. Returns how many bytes there were; the rest of `out` is zeros.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        out.fill(0);
        let state = self.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(state.content.len());
        let there = &state.content[start..];
        let count = there.len().min(out.len());
        out[..count].copy_from_slice(&there[..count]);
        count
    }

    /// Writes the super-journal.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let start = usize::try_from(offset).map_err(|_| Error::full("a super-journal of that size"))?;
        let mut state = self.lock();
        let end = start + bytes.len();
        if state.content.len() < end {
            state.content.resize(end, 0);
        }
        state.content[start..end].copy_from_slice(bytes);
        Ok(())
    }

    /// Sets the size.
    pub fn truncate(&self, size: u64) {
        self.lock().content.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    }

    /// The journals that it lists.
    pub(super) fn journals(&self) -> Vec<String> {
        let state = self.lock();
        let names = state.content.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// A participant reached its commit point, with a change.
    pub(super) fn join(&self, database: Arc<Database>, prepared: Prepared) -> Result<()> {
        let mut state = self.lock();
        if !matches!(state.progress, Progress::Open) {
            return Err(Error::invalid("the transaction over several databases is over already"));
        }
        state.prepared.push((database, prepared));
        Ok(())
    }

    /// Whether the transaction is committed.
    pub(super) fn is_committed(&self) -> bool {
        matches!(self.lock().progress, Progress::Committed(_))
    }

    /// The snapshot that a participant goes on from, once. `None` for one that changed nothing.
    pub(super) fn take_snapshot(&self, name: &DatabaseName) -> Option<Snapshot> {
        match &mut self.lock().progress {
            Progress::Committed(snapshots) => snapshots.remove(name),
            Progress::Open | Progress::Aborted => None,
        }
    }

    /// None of the participants is committed, now or later.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        if let Progress::Open = state.progress {
            state.progress = Progress::Aborted;
            state.prepared.clear();
        }
    }

    /// Commits what was prepared. One that is listed and has not joined changed nothing: SQLite sends no commit point to a
    /// database whose write transaction wrote nothing.
    fn commit(&self) -> Result<()> {
        let prepared = {
            let mut state = self.lock();
            if !matches!(state.progress, Progress::Open) {
                return Err(Error::invalid("a participant has left the transaction over several databases"));
            }
            // Whatever comes of it, it comes of it once.
            state.progress = Progress::Aborted;
            std::mem::take(&mut state.prepared)
        };
        let names: Vec<DatabaseName> = prepared.iter().map(|(database, _)| database.name().clone()).collect();
        let snapshots = commit_atomically(prepared)?;
        self.lock().progress = Progress::Committed(names.into_iter().zip(snapshots).collect());
        Ok(())
    }
}

/// A super-journal by name. It exists until it is deleted, and after a deletion that aborted it for as long as a
/// participant, or SQLite, still holds it: the rollback of each looks for it.
#[derive(Debug)]
struct Entry {
    group: Weak<SuperGroup>,
    /// Until it is deleted.
    linked: Option<Arc<SuperGroup>>,
}

/// The super-journals that exist, by name.
#[derive(Debug, Default)]
pub struct SuperJournals(Mutex<HashMap<String, Entry>>);

impl SuperJournals {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a super-journal. With `create` one that does not exist is made; without, it looks empty: the rollback of the
    /// last participant opens one that is gone with the others.
    pub fn open(&self, name: &str, create: bool) -> Arc<SuperGroup> {
        if let Some(group) = self.get(name) {
            return group;
        }
        let group = Arc::new(SuperGroup::default());
        if create {
            let mut entries = self.lock();
            entries.retain(|_, entry| entry.group.strong_count() > 0);
            let entry = Entry { group: Arc::downgrade(&group), linked: Some(Arc::clone(&group)) };
            entries.insert(name.to_owned(), entry);
        }
        group
    }

    /// The group of a super-journal.
    pub(super) fn get(&self, name: &str) -> Option<Arc<SuperGroup>> {
        self.lock().get(name).and_then(|entry| entry.group.upgrade())
    }

    /// Lets a super-journal that another VFS has exist here too, for as long as the result is kept: its transaction is
    /// refused, and the rollback looks for it.
    pub(super) fn refuse(&self, name: &str) -> Arc<SuperGroup> {
        let group = self.open(name, true);
        group.abort();
        if let Some(entry) = self.lock().get_mut(name) {
            entry.linked = None;
        }
        group
    }

    /// Whether a super-journal exists.
    pub fn exists(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Deletes a super-journal; false when the name is not that of one. Durably: commits its transaction, and after an
    /// error it still exists. Else it aborts it.
    pub(super) fn delete(&self, name: &str, durably: bool) -> Result<bool> {
        let Some(group) = self.get(name) else { return Ok(is_super_journal(name)) };
        if durably {
            group.commit()?;
            self.lock().remove(name);
        } else {
            group.abort();
            if let Some(entry) = self.lock().get_mut(name) {
                entry.linked = None;
            }
        }
        Ok(true)
    }
}

/// Whether SQLite names a super-journal so: `-mj`, six hexadecimal digits, `9`, two more.
fn is_super_journal(name: &str) -> bool {
    let Some((_, end)) = name.rsplit_once("-mj") else { return false };
    end.len() == 9 && end.as_bytes()[6] == b'9' && end.bytes().all(|byte| byte.is_ascii_hexdigit())
}
