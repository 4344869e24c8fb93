//! The directory: what makes it a store, and whose it is.
//!
//! `LOCK` is locked while a store is open and names the process, `FORMAT` says which format the rest has, `data` is the
//! engine's. While a store is being made `FORMAT` is named `FORMAT.new`. `SUSPECT` is there while what the files show may
//! not be on the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use litefleet::clock::Randomness;
use litefleet::{Error, ErrorKind, Result};

use crate::error::io_error;

const MAGIC: &str = "litefleet embedded store";
const FORMAT_VERSION: u32 = 1;
const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
const DATA: &str = "data";
const SUSPECT: &str = "SUSPECT";

/// The locked directory of a store.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Random, drawn when the store was made.
    id: [u8; 16],
    /// Keeps the lock until it is dropped.
    _lock: File,
}

impl Directory {
    /// Locks the directory of a store, or starts making one where there is nothing yet. The bool says that
    /// [`finish`](Self::finish) must be called once the engine is there and durable: until then, nothing is a store.
    pub(crate) fn open(path: &Path) -> Result<(Self, bool)> {
        let failed = |what: &str| {
            let what = format!("cannot {what} {}", path.display());
            move |error| io_error(&what, error)
        };
        create_durably(path).map_err(failed("create"))?;
        let path = fs::canonicalize(path).map_err(failed("find"))?;
        // Before the lock, so that a foreign directory gets no file of ours; and again under it.
        State::of(&path)?;
        let lock = take_lock(&path)?;
        match State::of(&path)? {
            State::Store(id) => {
                let directory = Self { path, id, _lock: lock };
                if !directory.data().is_dir() {
                    return Err(Error::corrupt(format!(
                        "{} is missing; restore the store from a backup",
                        directory.data().display()
                    )));
                }
                Ok((directory, false))
            }
            State::Unfinished => {
                let id = Randomness::from_os().id();
                let directory = Self { path, id, _lock: lock };
                directory.start().map_err(failed("make a store in"))?;
                Ok((directory, true))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The engine's directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Whether what the files show may not be on the disk, as a process before this one has found.
    pub(crate) fn is_suspect(&self) -> bool {
        self.path.join(SUSPECT).try_exists().unwrap_or(true)
    }

    /// Tells later processes that what the files show may not be on the disk. It need not outlive a power failure: after
    /// one, files show what is on the disk.
    pub(crate) fn suspect(&self) {
        if let Err(error) = File::create(self.path.join(SUSPECT)) {
            // This process knows it all the same.
            tracing::warn!(%error, path = %self.path.display(), "a failed write could not be noted for later processes");
        }
    }

    /// Takes that back.
    pub(crate) fn trust(&self) {
        match fs::remove_file(self.path.join(SUSPECT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The next open writes the journals again without need.
                tracing::warn!(%error, path = %self.path.display(), "a note for later processes could not be removed");
            }
            _ => {}
        }
    }

    /// Says durably that a store is being made here, and takes away what an earlier attempt left.
    fn start(&self) -> io::Result<()> {
        let id = u128::from_be_bytes(self.id);
        let text = format!("{MAGIC}\nformat {FORMAT_VERSION}\nstore {id:032x}\n");
        let mut file = File::create(self.path.join(FORMAT_NEW))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_directory(&self.path)?;
        self.path.parent().map_or(Ok(()), sync_directory)?;
        match fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes it a store.
    pub(crate) fn finish(&self) -> Result<()> {
        fs::rename(self.path.join(FORMAT_NEW), self.path.join(FORMAT))
            .and_then(|()| sync_directory(&self.path))
            .map_err(|error| io_error(&format!("cannot make a store in {}", self.path.display()), error))
    }
}

/// What a directory is.
enum State {
    /// A store with this id.
    Store([u8; 16]),
    /// Empty, or a store whose making was interrupted: nobody can have put anything into it yet.
    Unfinished,
}

impl State {
    /// `Invalid` for a directory with anything else in it.
    fn of(path: &Path) -> Result<Self> {
        if let Some(text) = read_if_there(&path.join(FORMAT))? {
            return parse_format(path, &text).map(Self::Store);
        }
        let started = read_if_there(&path.join(FORMAT_NEW))?.is_some_and(|text| text.starts_with(MAGIC));
        let failed = |error| io_error(&format!("cannot read the directory {}", path.display()), error);
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let ours = match name.to_str() {
                Some(LOCK | FORMAT_NEW) => true,
                // Never without the file that says that the making had begun.
                Some(DATA) => started,
                _ => false,
            };
            if !ours {
                return Err(Error::invalid(format!(
                    "{} is not a Litefleet store and not empty (it has {} in it): choose another directory",
                    path.display(),
                    name.display()
                )));
            }
        }
        Ok(Self::Unfinished)
    }
}

fn take_lock(path: &Path) -> Result<File> {
    let failed = |error| io_error(&format!("cannot lock {}", path.display()), error);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(failed)?;
            let who = text.trim();
            return Err(Error::unavailable(format!(
                "the store in {} is open in another place already ({}): close it there, or use another directory",
                path.display(),
                if who.is_empty() { "unknown process" } else { who }
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // On a full disk the name stays out, and the store can be read all the same.
    let written = file.set_len(0).and_then(|()| file.write_all(format!("process {}\n", std::process::id()).as_bytes()));
    match written {
        Err(error) if crate::error::io_kind(&error) != ErrorKind::Full => Err(failed(error)),
        _ => Ok(file),
    }
}

fn parse_format(path: &Path, text: &str) -> Result<[u8; 16]> {
    let damaged = || {
        Error::corrupt(format!("{} is damaged: restore it, or the store, from a backup", path.join(FORMAT).display()))
    };
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(Error::invalid(format!(
            "{} has a file named FORMAT, but is not a Litefleet store: choose another directory",
            path.display()
        )));
    }
    let version: u32 = lines
        .next()
        .and_then(|line| line.strip_prefix("format "))
        .and_then(|number| number.parse().ok())
        .ok_or_else(damaged)?;
    if version > FORMAT_VERSION {
        return Err(Error::invalid(format!(
            "the store in {} has format {version}, this release knows formats up to {FORMAT_VERSION}: use a newer release",
            path.display()
        )));
    }
    let id = lines.next().and_then(|line| line.strip_prefix("store "));
    id.filter(|_| version == FORMAT_VERSION).and_then(parse_id).ok_or_else(damaged)
}

fn parse_id(hex: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(hex, 16).ok()?;
    (hex.len() == 32).then_some(number.to_be_bytes())
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(&format!("cannot read {}", path.display()), error)),
    }
}

/// Makes new names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// The same for a directory and all below it.
pub(crate) fn sync_directories(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    sync_directory(path)
}

/// Makes a directory and those above it that are missing, each durable in the one above.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), create_durably)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }?;
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Bytes that may still be written to the file system of a path.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    #[cfg(unix)]
    if let Ok(stat) = rustix::fs::statvfs(path) {
        return stat.f_bavail.saturating_mul(stat.f_frsize);
    }
    #[cfg(not(unix))]
    let _ = path;
    // Where it cannot be known the writes themselves will tell.
    u64::MAX
}
