//! Tests of the database file of one connection.

use super::*;
use crate::engine::Fleet;
use crate::error::ErrorKind;
use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation};
use crate::types::DatabaseName;
use crate::vfs::OpenMode;

fn open(vfs: &Arc<Vfs>, name: &str) -> MainFile {
    vfs.open(&DatabaseName::new(name).unwrap(), OpenMode::Create, []).unwrap()
}

fn vfs() -> Arc<Vfs> {
    Vfs::new(Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap())
}

fn bytes(file: &mut MainFile, count: usize) -> Vec<u8> {
    file.lock(LockLevel::Shared).unwrap();
    let mut out = vec![0; count];
    let there = file.read(0, &mut out).unwrap();
    out.truncate(there);
    file.unlock(LockLevel::None);
    out
}

/// The VFS of SQLite's tests that simulates crashes holds writes back until xSync: what it acknowledged was gone.
#[test]
fn writes_that_come_with_the_sync_are_committed() {
    let vfs = vfs();
    let mut file = open(&vfs, "late");
    file.lock(LockLevel::Shared).unwrap();
    file.lock(LockLevel::Exclusive).unwrap();
    file.write(0, b"early").unwrap();
    file.commit_point(None).unwrap();
    file.write(0, b"later").unwrap();
    file.commit_late_writes().unwrap();
    file.commit_confirmed().unwrap();
    file.unlock(LockLevel::None);
    assert_eq!(bytes(&mut open(&vfs, "late"), 5), b"later");
}

/// In a transaction over several databases what was held back until xSync was lost without a word.
#[test]
fn writes_that_come_with_the_sync_of_several_are_refused() {
    let vfs = vfs();
    let name = "one-mj0123459AB";
    let group = vfs.super_journals().create(Arc::downgrade(&vfs), name);
    let mut files = [open(&vfs, "one"), open(&vfs, "two")];
    for file in &mut files {
        file.lock(LockLevel::Shared).unwrap();
        file.lock(LockLevel::Exclusive).unwrap();
        file.write(0, b"early").unwrap();
    }
    group.write(0, b"one-journal\0two-journal\0").unwrap();
    for file in &mut files {
        file.commit_point(Some(name)).unwrap();
    }
    files[0].commit_late_writes().unwrap();
    files[1].write(0, b"later").unwrap();
    assert_eq!(files[1].commit_late_writes().unwrap_err().kind(), ErrorKind::Invalid);
    assert!(vfs.super_journals().delete(name, true, &|_| None).is_err(), "it is aborted for all");
    for file in &mut files {
        file.unlock(LockLevel::None);
    }
    drop(files);
    for name in ["one", "two"] {
        assert_eq!(bytes(&mut open(&vfs, name), 5), b"");
    }
}

/// SQLite's tests overwrite the header: with the size that stood there the file was cut.
#[test]
fn a_foreign_write_means_nothing_but_its_bytes() {
    let vfs = vfs();
    let mut page = vec![0_u8; 8192];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&4096_u16.to_be_bytes());
    page[28..32].copy_from_slice(&1_u32.to_be_bytes());
    let mut file = open(&vfs, "foreign");
    for _ in 0..2 {
        file.lock(LockLevel::Shared).unwrap();
        file.lock(LockLevel::Exclusive).unwrap();
        file.write_as_foreigner().unwrap();
        file.write(0, &page).unwrap();
        file.commit_point(None).unwrap();
        file.commit_confirmed().unwrap();
        file.unlock(LockLevel::None);
        assert_eq!(bytes(&mut open(&vfs, "foreign"), 9000), page);
        page[5000] = 1;
    }
}

/// SQLite's tests delete a database that is open, and make it again: the open failed, or found the deleted one.
#[test]
fn a_name_is_free_after_its_open_database_was_deleted() {
    let vfs = vfs();
    let name = DatabaseName::new("again").unwrap();
    let mut first = open(&vfs, "again");
    assert_eq!(bytes(&mut first, 5), b"");
    vfs.fleet().remove(&name, true).unwrap();
    assert!(first.has_moved());
    let mut second = open(&vfs, "again");
    assert_eq!(bytes(&mut second, 5), b"");
    assert!(!second.has_moved());
    assert!(first.lock(LockLevel::Shared).is_err());
}

/// A counter that was used before is only passed over where SQLite writes it back.
#[test]
fn a_foreign_write_may_set_the_change_counter_back() {
    let vfs = vfs();
    let mut page = vec![0_u8; 4096];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    let mut file = open(&vfs, "back");
    for counter in [3, 1, 9, 1] {
        page[27] = counter;
        file.lock(LockLevel::Shared).unwrap();
        file.lock(LockLevel::Exclusive).unwrap();
        file.write_as_foreigner().unwrap();
        file.write(0, &page).unwrap();
        file.commit_point(None).unwrap();
        file.commit_confirmed().unwrap();
        file.unlock(LockLevel::None);
        assert_eq!(bytes(&mut open(&vfs, "back"), 28)[27], counter);
    }
}

/// A page 1 as SQLite's commits write it.
fn page_one(counter: u8, filling: u8) -> Vec<u8> {
    let mut page = vec![filling; 4096];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..20].copy_from_slice(&[16, 0, 1, 1]);
    page[24..32].copy_from_slice(&[0, 0, 0, counter, 0, 0, 0, 2]);
    page[92..96].copy_from_slice(&[0, 0, 0, counter]);
    page
}

/// What looks like a rollback, since the change counter is as it was, waits for SQLite to say which it is: unlocking discards
/// it, and the confirmation of a commit stores it, however little that is to be expected.
#[test]
fn what_looks_like_a_rollback_is_stored_when_it_is_confirmed() {
    let vfs = vfs();
    let mut file = open(&vfs, "a");
    let mut stored = 0;
    // The first is the first commit of all. The third is given a fresh counter, and the last one raises that.
    for (filling, counter, confirmed) in [(1, 1, true), (2, 1, false), (3, 1, true), (4, 1, false), (5, 3, false)] {
        file.lock(LockLevel::Shared).unwrap();
        file.lock(LockLevel::Reserved).unwrap();
        file.lock(LockLevel::Exclusive).unwrap();
        file.write(0, &page_one(counter, 0)).unwrap();
        file.write(4096, &[filling; 4096]).unwrap();
        file.commit_point(None).unwrap();
        file.commit_late_writes().unwrap();
        if confirmed {
            file.commit_confirmed().unwrap();
        }
        file.unlock(LockLevel::None);
        if confirmed || counter > 1 {
            stored = filling;
        }
        assert_eq!(bytes(&mut open(&vfs, "a"), 4097)[4096], stored, "{filling}");
    }
}

/// After a commit of its own SQLite may have raised the counter already, or not know the one that was stored: then nothing is
/// concluded from it.
#[test]
fn after_a_commit_under_the_same_lock_the_counter_tells_nothing() {
    let vfs = vfs();
    let mut file = open(&vfs, "a");
    file.lock(LockLevel::Shared).unwrap();
    for filling in 1..4 {
        file.lock(LockLevel::Exclusive).unwrap();
        file.write(0, &page_one(1, 0)).unwrap();
        file.write(4096, &[filling; 4096]).unwrap();
        file.commit_point(None).unwrap();
        assert_eq!(bytes(&mut open(&vfs, "a"), 4097)[4096], filling);
        file.commit_confirmed().unwrap();
        // Some statement is still reading.
        file.unlock(LockLevel::Shared);
    }
}

/// A journal that was left beside the database is played back under a lock that is taken past RESERVED. It brings back a page
/// 1 with a counter that was used before, as a rollback does; and it is stored.
#[test]
fn what_is_played_back_from_a_journal_that_was_left_is_stored() {
    let vfs = vfs();
    let mut file = open(&vfs, "a");
    for (counter, filling) in [(1, 1), (2, 2), (1, 1)] {
        file.lock(LockLevel::Shared).unwrap();
        file.lock(LockLevel::Exclusive).unwrap();
        file.write(0, &page_one(counter, 0)).unwrap();
        file.write(4096, &[filling; 4096]).unwrap();
        file.commit_point(None).unwrap();
        file.unlock(LockLevel::None);
        assert_eq!(bytes(&mut open(&vfs, "a"), 4097)[4096], filling);
    }
}

/// It was called a defect of the library.
#[test]
fn a_write_without_the_write_lock_is_refused_in_words() {
    let vfs = vfs();
    let mut file = open(&vfs, "unlocked");
    for level in [LockLevel::None, LockLevel::Shared] {
        file.lock(level).unwrap();
        for error in [file.write(0, b"bytes").unwrap_err(), file.truncate(0).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("RESERVED"), "{error}");
        }
    }
}

/// Under `locking_mode=EXCLUSIVE` what a rollback has left in free pages is stored, and neither confirmed nor unlocked. The
/// commit after it was taken for its undoing: when that one could not be undone, all went on.
#[test]
fn a_commit_after_a_stored_rollback_is_one_that_may_be_undone() {
    let faults = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::default()), Arc::clone(&faults));
    let vfs = Vfs::new(Fleet::builder(Arc::new(store)).build().unwrap());
    for overwrites in [false, true] {
        let mut file = open(&vfs, if overwrites { "persist" } else { "truncate" });
        let mut journal = vfs.open_journal(&format!("{}-journal", file.database().name()));
        file.lock(LockLevel::Shared).unwrap();
        file.lock(LockLevel::Exclusive).unwrap();
        file.write(0, b"left").unwrap();
        file.commit_point(None).unwrap();
        if overwrites {
            journal.write(0, &[0; 28]).unwrap();
        } else {
            journal.truncate(0);
        }
        file.write(0, b"kept").unwrap();
        file.commit_point(None).unwrap();
        let fault = Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::Full };
        faults.arm(fault);
        file.write(0, b"left").unwrap();
        assert!(file.commit_point(None).unwrap_err().message().contains("could not"));
        assert!(file.database().stopped().is_some());
    }
}
