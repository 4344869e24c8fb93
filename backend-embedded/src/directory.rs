//! The directory: what makes it a store, and whose it is.
//!
//! `LOCK` is locked while a store is open and names the process, `FORMAT` says which format the rest has, `data` is the
//! engine's.

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
    /// Locks the directory of a store, or makes one where there is nothing yet.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |what: &str| {
            let what = format!("cannot {what} {}", path.display());
            move |error| io_error(&what, error)
        };
        fs::create_dir_all(path).map_err(failed("create"))?;
        let path = fs::canonicalize(path).map_err(failed("find"))?;
        // Before the lock, so that a foreign directory gets no file of ours; and again under it.
        check_foreign(&path)?;
        let lock = take_lock(&path)?;
        check_foreign(&path)?;
        let id = match read_if_there(&path.join(FORMAT))? {
            Some(text) => parse_format(&path, &text)?,
            None => write_format(&path)?,
        };
        let directory = Self { path, id, _lock: lock };
        directory.check_data()?;
        Ok(directory)
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

    /// An engine without its version file is one whose making was interrupted, or a damaged one. The first is taken
    /// away, as it cannot be opened; it is told by having no table and a journal without a byte in it.
    fn check_data(&self) -> Result<()> {
        let data = self.data();
        let failed = |error| io_error(&format!("cannot inspect {}", data.display()), error);
        if !data.try_exists().map_err(failed)? || data.join("version").try_exists().map_err(failed)? {
            return Ok(());
        }
        for entry in fs::read_dir(&data).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let unused = match entry.file_name().to_str() {
                Some("lock") => true,
                Some("keyspaces") => fs::read_dir(&path).map_err(failed)?.next().is_none(),
                Some(name) if name.ends_with(".jnl") => only_zeros(&path).map_err(failed)?,
                _ => false,
            };
            if !unused {
                return Err(Error::corrupt(format!(
                    "{} has no file named version any more, but has data in it; restore the store from a backup",
                    data.display()
                )));
            }
        }
        fs::remove_dir_all(&data).map_err(failed)
    }
}

/// Refuses a directory with anything in it that is not a store.
fn check_foreign(path: &Path) -> Result<()> {
    let failed = |error| io_error(&format!("cannot read the directory {}", path.display()), error);
    if path.join(FORMAT).try_exists().map_err(failed)? {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !matches!(name.to_str(), Some(LOCK | FORMAT_NEW)) {
            return Err(Error::invalid(format!(
                "{} is not a Litefleet store and not empty (it has {:?} in it): choose another directory",
                path.display(),
                name
            )));
        }
    }
    Ok(())
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

fn write_format(path: &Path) -> Result<[u8; 16]> {
    let id = Randomness::from_os().id();
    let text = format!("{MAGIC}\nformat {FORMAT_VERSION}\nstore {:032x}\n", u128::from_be_bytes(id));
    let write = || {
        let new = path.join(FORMAT_NEW);
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path.join(FORMAT))?;
        sync_directory(path)?;
        path.parent().map_or(Ok(()), sync_directory)
    };
    write().map_err(|error| io_error(&format!("cannot make a store in {}", path.display()), error))?;
    Ok(id)
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

fn only_zeros(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(true);
        };
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
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
