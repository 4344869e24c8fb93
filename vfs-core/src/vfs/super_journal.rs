//! Super-journals: how SQLite commits several databases as one, and how the store does.
//!
//! SQLite writes the names of the participants' journals into a super-journal, sends each participant its commit point
//! with the super-journal's name, and then deletes the super-journal: that is when the transaction is committed. So a
//! participant's commit is prepared and held back at its own commit point, and all go to the store as one atomic commit
//! at the deletion. Until then the super-journal exists; a rollback finds it, plays the journals back, and deletes it
//! without the wish for durability.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{JOURNAL, Vfs};
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
    /// Its name, and the VFS that it was made through.
    name: String,
    vfs: Weak<Vfs>,
    content: Vec<u8>,
    /// All that it names stands or falls with it.
    checked: bool,
    /// The transactions that it lists, each until it is over.
    listed: Vec<Weak<()>>,
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
        state.checked = false;
        Ok(())
    }

    /// `Invalid` when it names a journal that would not stand or fall with it. SQLite syncs it when all names are written, and
    /// before the first participant's commit point, after which a foreign one that rolls back takes itself for committed. Not
    /// when they are written: a VFS on top that simulates a crash writes anything, and then the process is to end.
    pub fn check(&self) -> Result<()> {
        let (name, vfs, listed) = {
            let state = self.lock();
            match state.vfs.upgrade() {
                Some(vfs) if !state.checked => (state.name.clone(), vfs, names(&state.content)),
                _ => return Ok(()),
            }
        };
        for journal in &listed {
            // A name alone does not tell whose journal it is: a database may have the path of a file for its name, and one of two
            // of a name is none of ours.
            let ours = journal.strip_suffix(JOURNAL).filter(|name| vfs.is_writing(name));
            let alone = listed.iter().filter(|other| *other == journal).count() == 1;
            if is_written(journal) || !(ours.is_some() && alone || is_idle(journal)) {
                let error = Error::invalid(format!(
                    "{journal} belongs to a database outside this VFS: a transaction over both cannot be atomic"
                ));
                vfs.super_journals().note_failure(&name, &error, &|name| vfs.participant(name));
                return Err(error);
            }
            self.lock().listed.extend(ours.and_then(|name| vfs.commit_with_others(name)));
        }
        self.lock().checked = true;
        Ok(())
    }

    /// Sets the size.
    pub fn truncate(&self, size: u64) {
        self.lock().content.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    }

    /// The journals that it lists.
    pub(super) fn journals(&self) -> Vec<String> {
        names(&self.lock().content)
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

    /// Whether SQLite has it open, or a participant may still look for it. A transaction that fails before its first commit
    /// point leaves its super-journal behind, which nobody ever deletes.
    fn is_needed(group: &Arc<Self>) -> bool {
        Arc::strong_count(group) > 1 || group.lock().listed.iter().any(|transaction| transaction.strong_count() > 0)
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
        self.check().inspect_err(|_| self.abort())?;
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

/// The super-journals that exist, by name.
///
/// One whose transaction failed exists until all its participants are done, also after SQLite has deleted it: the rollback
/// of each participant looks for it, and takes itself for committed when it is gone. SQLite deletes it with the first,
/// having found no journal that names it, since journals of ours are never found.
#[derive(Debug, Default)]
pub struct SuperJournals {
    groups: Mutex<HashMap<String, Arc<SuperGroup>>>,
    /// Why transactions over several databases failed, by participant and its connection, until it is told.
    failures: Mutex<HashMap<(String, u64), Error>>,
}

impl SuperJournals {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<SuperGroup>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<(String, u64), Error>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transaction of a super-journal failed in a call that is not one on a participant's file. `participant` tells of a
    /// database which of its connections takes part: others have nothing to do with it.
    pub(super) fn note_failure(&self, name: &str, error: &Error, participant: &dyn Fn(&str) -> Option<u64>) {
        let journals = self.get(name).map(|group| group.journals()).unwrap_or_default();
        let participants = journals.iter().filter_map(|journal| journal.strip_suffix(JOURNAL));
        // SQLite names a super-journal after the main database, which need not take part.
        let main = name.rsplit_once("-mj").map(|(main, _)| main);
        for database in participants.chain(main) {
            if let Some(connection) = participant(database) {
                self.failures().insert((database.to_owned(), connection), error.clone());
            }
        }
    }

    /// Why the last transaction over several databases failed that this connection took part in. Told once.
    pub(super) fn take_failure(&self, database: &DatabaseName, connection: u64) -> Option<Error> {
        let mut failures = self.failures();
        // Nearly always there is none.
        if failures.is_empty() { None } else { failures.remove(&(database.as_str().to_owned(), connection)) }
    }

    /// Makes a super-journal, and forgets those that nobody needs any more.
    pub(super) fn create(&self, vfs: Weak<Vfs>, name: &str) -> Arc<SuperGroup> {
        let mut groups = self.lock();
        groups.retain(|_, group| SuperGroup::is_needed(group));
        let new = || Arc::new(SuperGroup(Mutex::new(State { name: name.to_owned(), vfs, ..State::default() })));
        Arc::clone(groups.entry(name.to_owned()).or_insert_with(new))
    }

    /// The group of a super-journal.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<SuperGroup>> {
        self.lock().get(name).map(Arc::clone)
    }

    /// Lets a super-journal that another VFS has exist here too: its transaction is refused, and the rollback of the
    /// database with this journal looks for it. When that is over it is to be [forgotten](Self::forget).
    pub(super) fn refuse(&self, name: &str, journal: &str, transaction: Option<Weak<()>>) -> Arc<SuperGroup> {
        let content = journal.as_bytes().to_vec();
        let listed = transaction.into_iter().collect();
        let progress = Progress::Aborted;
        let group = Arc::new(SuperGroup(Mutex::new(State { content, listed, progress, ..State::default() })));
        self.lock().insert(name.to_owned(), Arc::clone(&group));
        group
    }

    /// Whose transaction was refused has rolled it back.
    pub(super) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Whether a super-journal exists.
    pub(super) fn exists(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(SuperGroup::is_needed)
    }

    /// Deletes a super-journal; false when the name is not that of one. Durably: commits its transaction, and after an
    /// error it still exists. Else it aborts it.
    pub(super) fn delete(&self, name: &str, durably: bool, participant: &dyn Fn(&str) -> Option<u64>) -> Result<bool> {
        let Some(group) = self.get(name) else {
            // Deleting it for good would have been the commit: nobody has made it.
            return match is_super_journal(name) {
                true if durably => {
                    Err(Error::invalid(format!("there is no super-journal {name}: nothing was committed")))
                }
                is_one => Ok(is_one),
            };
        };
        if durably {
            group.commit().inspect_err(|error| self.note_failure(name, error, participant))?;
            self.lock().remove(name);
        } else {
            group.abort();
        }
        Ok(true)
    }
}

/// The names in a part of a super-journal, each with a NUL behind it.
fn names(content: &[u8]) -> Vec<String> {
    let names = content.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// Whether a journal is that of a file of the operating system that was locked and not written: it is not there, empty, or
/// begins with a header of zeros, as SQLite leaves it behind (28 bytes, by its file format documentation). A file that was
/// written has its journal's header on disk already; in journal modes without one SQLite promises no atomicity.
fn is_idle(journal: &str) -> bool {
    let path = Path::new(journal);
    let database = journal.strip_suffix(JOURNAL).map(Path::new);
    path.is_absolute() && database.is_some_and(Path::is_file) && has_no_header(path)
}

/// Whether a journal is that of a file of the operating system that was written.
fn is_written(journal: &str) -> bool {
    let path = Path::new(journal);
    path.is_absolute() && path.is_file() && !has_no_header(path)
}

/// Where it cannot be read, it has one.
fn has_no_header(journal: &Path) -> bool {
    let mut header = Vec::new();
    match File::open(journal).and_then(|file| file.take(28).read_to_end(&mut header)) {
        Ok(_) => header.iter().all(|byte| *byte == 0),
        Err(error) => error.kind() == IoErrorKind::NotFound,
    }
}

/// Whether SQLite names a super-journal so: `-mj`, six hexadecimal digits, `9`, two more.
fn is_super_journal(name: &str) -> bool {
    let Some((_, end)) = name.rsplit_once("-mj") else { return false };
    end.len() == 9 && end.as_bytes()[6] == b'9' && end.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Fleet;
    use crate::error::ErrorKind;
    use crate::store::MemoryStore;
    use crate::vfs::{LockLevel, OpenMode};

    /// SQLite's malloc.test found it: where a later transaction was writing the same databases, one that had failed was taken
    /// for one that still goes on. Of who failed again and again none was ever forgotten, and a name that came again was
    /// that of the old one.
    #[test]
    fn a_failed_transaction_is_over_when_its_participants_are() {
        const NAME: &str = "a-mj000000901";
        for keeps_lock in [false, true] {
            let vfs = Vfs::new(Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap());
            let open = |name| vfs.open(&DatabaseName::new(name).unwrap(), OpenMode::Create, []).unwrap();
            let mut files = ["a", "b"].map(open);
            for round in 0..4 {
                let name = if keeps_lock { format!("a-mj00000090{round}") } else { NAME.into() };
                for file in &mut files {
                    file.lock(LockLevel::Shared).unwrap();
                    file.lock(LockLevel::Exclusive).unwrap();
                    file.write(0, b"bytes").unwrap();
                }
                assert!(!vfs.exists(&name).unwrap(), "keeps its lock: {keeps_lock}, round {round}");
                vfs.open_super_journal(&name, true).write(0, b"a-journal\0b-journal\0").unwrap();
                files[0].commit_point(Some(&name)).unwrap();
                vfs.delete(&name, false).unwrap();
                files[1].commit_point(Some(&name)).unwrap_err();
                for file in &mut files {
                    assert!(vfs.exists(&name).unwrap(), "the rollback looks for it");
                    file.commit_point(None).unwrap();
                    if !keeps_lock {
                        file.unlock(LockLevel::None);
                    }
                }
                assert_eq!(vfs.exists(&name).unwrap(), keeps_lock);
            }
            assert!(vfs.super_journals().lock().len() <= 2, "keeps its lock: {keeps_lock}");
        }
    }

    /// SQLite's malloc.test again: a transaction failed before the first commit point. SQLite deletes no such super-journal.
    #[test]
    fn a_transaction_that_reached_no_commit_point_is_forgotten() {
        let vfs = Vfs::new(Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap());
        let mut file = vfs.open(&DatabaseName::new("a").unwrap(), OpenMode::Create, []).unwrap();
        for number in 0..4 {
            file.lock(LockLevel::Shared).unwrap();
            file.lock(LockLevel::Reserved).unwrap();
            let name = format!("a-mj00000090{number}");
            let group = vfs.open_super_journal(&name, true);
            assert!(vfs.exists(&name).unwrap(), "it is open");
            group.write(0, b"a-journal\0").unwrap();
            group.check().unwrap();
            drop(group);
            assert!(vfs.exists(&name).unwrap(), "the rollback looks for it");
            file.unlock(LockLevel::None);
            assert!(!vfs.exists(&name).unwrap());
            assert_eq!(vfs.super_journals().lock().len(), 1);
        }
    }

    /// SQLite's crash.test found it: the crash that it simulates writes anything into the super-journal, and could not go on to
    /// end the process. So what is written is looked at when it is synced, or at the commit point where it is not.
    #[test]
    fn names_are_looked_at_when_all_are_written() {
        const NAME: &str = "a-mj000000900";
        let vfs = Vfs::new(Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap());
        let mut file = vfs.open(&DatabaseName::new("a").unwrap(), OpenMode::Create, []).unwrap();
        for is_synced in [true, false] {
            file.lock(LockLevel::Shared).unwrap();
            file.lock(LockLevel::Exclusive).unwrap();
            file.write(0, b"bytes").unwrap();
            let group = vfs.open_super_journal(NAME, true);
            group.write(0, &[0xa5; 512]).unwrap();
            if is_synced {
                assert_eq!(group.check().unwrap_err().kind(), ErrorKind::Invalid);
                group.truncate(0);
                group.write(0, b"a-journal\0").unwrap();
                group.check().unwrap();
                group.write(10, b"b-journal\0").unwrap();
                assert_eq!(group.check().unwrap_err().kind(), ErrorKind::Invalid, "nobody writes it");
            }
            assert_eq!(file.commit_point(Some(NAME)).unwrap_err().kind(), ErrorKind::Invalid);
            drop(group);
            assert!(vfs.exists(NAME).unwrap() || !is_synced, "the rollback looks for it");
            file.commit_point(None).unwrap();
            file.unlock(LockLevel::None);
            assert_eq!(file.database().status().size, 0, "nothing was committed");
        }
    }

    /// Each stayed until a transaction over several databases was begun that was not refused.
    #[test]
    fn refused_transactions_are_forgotten() {
        let vfs = Vfs::new(Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap());
        let mut file = vfs.open(&DatabaseName::new("a").unwrap(), OpenMode::Create, []).unwrap();
        for number in 0..9 {
            file.lock(LockLevel::Shared).unwrap();
            file.lock(LockLevel::Reserved).unwrap();
            file.write(0, b"bytes").unwrap();
            let name = format!("/other-mj00000090{number}");
            assert_eq!(file.commit_point(Some(&name)).unwrap_err().kind(), ErrorKind::Invalid);
            assert!(vfs.exists(&name).unwrap(), "the rollback looks for it");
            file.unlock(LockLevel::None);
            assert!(!vfs.exists(&name).unwrap());
        }
        assert_eq!(vfs.super_journals().lock().len(), 0);
    }

    /// It was answered as deleted: a commit was acknowledged that nobody made.
    #[test]
    fn one_that_is_not_known_cannot_be_committed() {
        let vfs = Vfs::new(Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap());
        assert!(vfs.delete("a-mj000000900", true).is_err());
        vfs.delete("a-mj000000900", false).unwrap();
    }
}
