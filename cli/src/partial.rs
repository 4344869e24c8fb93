//! A file that appears under its name only when it is complete and durable.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// What SQLite plays back into a database when it opens it, found by the name alone.
const PLAYED_BACK: [&str; 2] = ["-wal", "-journal"];
/// What stands beside a log of the first kind.
const INDEX: &str = "-shm";

/// The file while it is being written, beside the one that it will be. Removed unless it is published, or the one that it was
/// to replace is gone.
///
/// It is locked as long as it is written, so that one that a kill has left can be told from one that another process is
/// writing. Where files cannot be locked, only its identity is looked at before it is renamed or removed.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    /// Whether what it replaces has been removed.
    is_the_last: bool,
}

impl Partial {
    /// Makes it. With `force` in the place of one that nobody is writing any more.
    pub(crate) fn create(file: &Path, force: bool) -> Result<Self> {
        let path = std::path::absolute(beside(file, ".partial")).map_err(|e| Failure::file(file, &e))?;
        let abandoned = if force { remove_abandoned(&path)? } else { None };
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = made.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => Failure::failed(format!(
                "{} exists: another export is running, or one was killed; remove it, or use --force",
                path.display()
            )),
            _ => Failure::file(&path, &e),
        })?;
        // Until here nobody else could have taken its place.
        drop(abandoned);
        if !lock(&file) || !is_at(&file, &path) {
            return Err(running(&path));
        }
        Ok(Self { path, file, is_the_last: false })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it durable and gives it its name. With `force` what would be played back into it is removed first, and before
    /// that the file of which it is a part: without it, that one would be damaged or lack commits.
    pub(crate) fn publish(mut self, name: &Path, force: bool) -> Result<()> {
        let failed = |e: std::io::Error| Failure::file(name, &e);
        let folder = File::open(self.path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        if !is_at(&self.file, &self.path) {
            return Err(Failure::failed(format!("{} was replaced by another export", self.path.display())));
        }
        let sides = PLAYED_BACK.into_iter().chain([INDEX]).map(|side| beside(name, side));
        let sides: Vec<_> = sides.filter(|side| force && exists(side)).collect();
        if !sides.is_empty() {
            remove(name)?;
            self.is_the_last = true;
        }
        self.take_name(name, &sides, &folder).map_err(|failure| {
            if !self.is_the_last || !is_at(&self.file, &self.path) {
                return failure;
            }
            failure.advice(&format!(
                "there is no {} now, and the new file is complete as {}",
                name.display(),
                self.path.display()
            ))
        })
    }

    /// Takes the name, when what stands beside it is gone.
    fn take_name(&self, name: &Path, sides: &[PathBuf], folder: &File) -> Result<()> {
        let failed = |e: std::io::Error| Failure::file(name, &e);
        if !sides.is_empty() {
            // In this order: after a power loss neither the old file must stand without its log, nor the new one beside it.
            folder.sync_all().map_err(failed)?;
            sides.iter().try_for_each(|side| remove(side))?;
            folder.sync_all().map_err(failed)?;
        }
        fs::rename(&self.path, name).and_then(|()| folder.sync_all()).map_err(failed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After publishing there is nothing under this name, or another's.
        if !self.is_the_last && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Fails when there is anything at a name that a new database would replace or be changed by.
pub(crate) fn refuse_existing(file: &Path, force: bool) -> Result<()> {
    if !force && exists(file) {
        return Err(Failure::failed(format!(
            "{} exists; choose another name, or replace it with --force",
            file.display()
        )));
    }
    if file.is_dir() {
        return Err(Failure::failed(format!("{} is a folder; expected the name of a file", file.display())));
    }
    let side = PLAYED_BACK.map(|side| beside(file, side)).into_iter().find(|side| exists(side));
    match side {
        Some(side) if !force => Err(Failure::failed(format!(
            "{} exists: a database of that name was not closed, and it would be played back into the new one; choose \
             another name, or remove it with --force",
            side.display()
        ))),
        _ => Ok(()),
    }
}

/// A link that leads nowhere counts: renaming would replace it.
fn exists(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok()
}

/// Removes a file that may be gone.
fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::file(file, &e)),
        _ => Ok(()),
    }
}

/// The name with an ending behind it.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Removes what a killed export has left. Returns it, locked: while it lives, others that wait to do the same are told that
/// an export is running.
fn remove_abandoned(path: &Path) -> Result<Option<File>> {
    let failed = |e: std::io::Error| Failure::file(path, &e);
    if !path.is_file() {
        // What cannot be removed shows when the file is created.
        let _ = fs::remove_file(path);
        return Ok(None);
    }
    let file = match OpenOptions::new().write(true).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if !lock(&file) || !is_at(&file, path) {
        return Err(running(path));
    }
    fs::remove_file(path).map_err(failed)?;
    Ok(Some(file))
}

/// Locks a file; false when another has it locked. Where files cannot be locked nobody has.
fn lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

fn running(path: &Path) -> Failure {
    Failure::failed(format!("another export is running: it writes {}", path.display()))
}

/// Whether the file is the one at a path still.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().ok().map(identity) == fs::metadata(path).ok().map(identity)
}

/// Elsewhere an open file cannot be replaced.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first would have published what the second had begun to write.
    #[test]
    fn two_exports_to_one_file_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let first = Partial::create(&file, true).unwrap();
        assert!(Partial::create(&file, true).is_err(), "it is being written");
        drop(first);
        assert!(!folder.path().join("a.db.partial").exists());
        // Where nothing can be locked, this is what --force does.
        let first = Partial::create(&file, false).unwrap();
        fs::remove_file(&first.path).unwrap();
        fs::write(&first.path, "half").unwrap();
        let path = first.path.clone();
        assert!(first.publish(&file, false).is_err());
        assert!(!file.exists());
        assert_eq!(fs::read(path).unwrap(), b"half", "it is somebody else's");
    }

    /// Its log was removed first, and it lost what only that had.
    #[test]
    fn what_cannot_be_replaced_keeps_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let (old, log) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
        let new = Partial::create(&old, true).unwrap();
        fs::create_dir(&old).unwrap();
        fs::write(&log, "a commit").unwrap();
        assert!(new.publish(&old, true).is_err());
        assert_eq!(fs::read(&log).unwrap(), b"a commit");
        assert!(!folder.path().join("a.db.partial").exists());
    }
}
