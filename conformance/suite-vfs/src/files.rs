//! Databases as files: what a test script does to them behind SQLite's back.
//!
//! Reading goes to what is committed, like a copy of the file that was made after a crash. Writing is a transaction.

use std::sync::Arc;

use litefleet::vfs::{LockLevel, MainFile, OpenMode, Vfs};
use litefleet::{DatabaseName, ErrorKind, Result};

use crate::place::fleet;

fn open(name: &DatabaseName, mode: OpenMode) -> Result<MainFile> {
    let vfs: Arc<Vfs> = Vfs::new(fleet()?);
    vfs.open(name, mode, [])
}

/// The size; `None` when there is no such database.
pub(crate) fn size(name: &DatabaseName) -> Result<Option<u64>> {
    match fleet()?.info(name) {
        Ok(info) => Ok(Some(info.head.size)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads what is committed, whoever has locked it; returns how many bytes there were.
pub(crate) fn read(name: &DatabaseName, at: u64, out: &mut [u8]) -> Result<usize> {
    let file = open(name, OpenMode::ReadOnly)?;
    let database = file.database();
    let snapshot = database.begin_read()?;
    let read = database.read(snapshot, at, out);
    database.unpin(snapshot);
    read
}

fn transaction(name: &DatabaseName, body: impl FnOnce(&mut MainFile) -> Result<()>) -> Result<()> {
    let mut file = open(name, OpenMode::Create)?;
    file.lock(LockLevel::Shared)?;
    file.lock(LockLevel::Exclusive)?;
    file.write_as_foreigner()?;
    body(&mut file)?;
    file.commit_point(None)?;
    file.commit_confirmed()?;
    file.unlock(LockLevel::None);
    Ok(())
}

/// Writes at an offset.
pub(crate) fn write(name: &DatabaseName, at: u64, bytes: &[u8]) -> Result<()> {
    transaction(name, |file| file.write(at, bytes))
}

/// Sets the size; a database that does not exist is made.
pub(crate) fn truncate(name: &DatabaseName, size: u64) -> Result<()> {
    transaction(name, |file| {
        if size > file.size() {
            return file.write(size - 1, &[0]);
        }
        file.truncate(size)
    })
}

/// Deletes it, open or not.
pub(crate) fn delete(name: &DatabaseName) -> Result<()> {
    fleet()?.remove(name, true)
}

/// The names that begin with a prefix.
pub(crate) fn list(prefix: &str) -> Result<Vec<String>> {
    const AT_ONCE: usize = 1000;
    let (fleet, mut names, mut after) = (fleet()?, Vec::new(), None);
    loop {
        let entries = fleet.list(prefix, after.as_ref(), AT_ONCE)?;
        names.extend(entries.iter().map(|entry| entry.name.as_str().to_owned()));
        match entries.last() {
            Some(last) if entries.len() == AT_ONCE => after = Some(last.name.clone()),
            _ => return Ok(names),
        }
    }
}
