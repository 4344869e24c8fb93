//! Super-journals: how SQLite commits several databases as one, and how the store does.
//!
//! SQLite writes the names of the participants' journals into a super-journal, sends each participant its commit point
//! with the super-journal's name, and then deletes the super-journal: that is when the transaction is committed. So a
//! participant's commit is prepared and held back at its own commit point, and all go to the store as one atomic commit
//! at the deletion. Until then the super-journal exists; a rollback finds it, plays the journals back, and deletes it
//! without the wish for durability.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{Database, Prepared, commit_atomically};
use crate::error::{Error, Result};

/// One participant that has reached its commit point.
#[derive(Debug)]
struct Participant {
    journal: String,
    /// `None` when it changed nothing.
    commit: Option<(Arc<Database>, Prepared)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Default)]
struct State {
    content: Vec<u8>,
    participants: Vec<Participant>,
    outcome: Outcome,
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

    /// A participant reached its commit point.
    pub(super) fn join(&self, journal: String, commit: Option<(Arc<Database>, Prepared)>) -> Result<()> {
        let mut state = self.lock();
        if state.outcome != Outcome::Open {
            return Err(Error::invalid("the transaction over several databases is over already"));
        }
        state.participants.retain(|participant| participant.journal != journal);
        state.participants.push(Participant { journal, commit });
        Ok(())
    }

    /// Whether the transaction is committed.
    pub(super) fn is_committed(&self) -> bool {
        self.lock().outcome == Outcome::Committed
    }

    /// Whether it was given up.
    fn is_aborted(&self) -> bool {
        self.lock().outcome == Outcome::Aborted
    }

    /// None of the participants is committed, now or later.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        if state.outcome == Outcome::Open {
            state.outcome = Outcome::Aborted;
            state.participants.clear();
        }
    }

    fn commit(&self) -> Result<()> {
        let participants = {
            let mut state = self.lock();
            if state.outcome != Outcome::Open {
                return Err(Error::invalid("a participant has left the transaction over several databases"));
            }
            // A journal that is listed and did not join is that of a database in which nothing was written: `BEGIN IMMEDIATE`
            // locks them all, and SQLite sends such a one no commit point. Foreign ones were refused when another joined.
            // Whatever comes of it, it comes of it once.
            state.outcome = Outcome::Aborted;
            std::mem::take(&mut state.participants)
        };
        commit_atomically(participants.into_iter().filter_map(|participant| participant.commit).collect())?;
        self.lock().outcome = Outcome::Committed;
        Ok(())
    }
}

/// The super-journals that exist, by name.
#[derive(Debug, Default)]
pub struct SuperJournals(Mutex<HashMap<String, Arc<SuperGroup>>>);

impl SuperJournals {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<SuperGroup>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a super-journal, and forgets those of transactions that were rolled back: `is_writing` tells of a journal
    /// whether its database still has a writer.
    pub(super) fn create(&self, name: &str, is_writing: impl Fn(&str) -> bool) -> Arc<SuperGroup> {
        let mut groups = self.lock();
        groups.retain(|_, group| !group.is_aborted() || group.journals().iter().any(|journal| is_writing(journal)));
        Arc::clone(groups.entry(name.to_owned()).or_default())
    }

    /// The group of a super-journal.
    pub(super) fn get(&self, name: &str) -> Option<Arc<SuperGroup>> {
        self.lock().get(name).map(Arc::clone)
    }

    /// Remembers a super-journal that another VFS has: its transaction is refused here, and rolled back.
    pub(super) fn refuse(&self, name: &str, journal: String) {
        let group = SuperGroup::default();
        {
            let mut state = group.lock();
            state.content = journal.into_bytes();
            state.outcome = Outcome::Aborted;
        }
        self.lock().entry(name.to_owned()).or_insert_with(|| Arc::new(group));
    }

    /// Whether a super-journal exists. That of a transaction which failed exists until all its participants are done:
    /// each looks for it, and where it is gone a participant takes itself for committed and plays nothing back.
    pub fn exists(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Deletes a super-journal; false when there is none. Durably: commits its transaction, and after an error the
    /// super-journal still exists. Else it aborts it: the first participant that was rolled back asks for it, having found
    /// no journals that name the super-journal, since ours are never found; the others still need it.
    pub(super) fn delete(&self, name: &str, durably: bool) -> Result<bool> {
        let Some(group) = self.get(name) else { return Ok(false) };
        if durably {
            group.commit()?;
            self.lock().remove(name);
        } else {
            group.abort();
        }
        Ok(true)
    }
}

/// Whether a name is one that SQLite gives to super-journals (`-mj`, six digits, a 9, two digits), and of which main
/// database.
pub(super) fn main_of(name: &str) -> Option<&str> {
    let (main, suffix) = name.split_at_checked(name.len().checked_sub(12)?)?;
    let digits = suffix.strip_prefix("-mj")?.as_bytes();
    (digits.iter().all(u8::is_ascii_hexdigit) && digits.get(6) == Some(&b'9')).then_some(main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_super_journals_are_known() {
        assert_eq!(main_of("/tmp/a.db-mj0A1B2C9FF"), Some("/tmp/a.db"));
        assert_eq!(main_of("/tmp/a.db-mj0A1B2C8FF"), None);
        assert_eq!(main_of("-mj"), None);
        assert_eq!(main_of("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}x"), None);
    }
}
