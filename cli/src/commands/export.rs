//! `litefleet export`

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use litefleet::DatabaseName;
use rusqlite::{Connection, OpenFlags};

use super::say;
use crate::args::ExportArgs;
use crate::copy::{self, Copied};
use crate::failure::{Failure, Result, quoted};
use crate::session::{Access, Session};

pub(crate) fn run(session: &Session, args: &ExportArgs) -> Result<()> {
    let copied = database(session, &args.name, &args.file, args.force)?;
    say(format_args!("exported {} to {}: {copied}", quoted(&args.name), args.file.display()))
}

/// Copies a database into a file that appears under its name only when it is complete and durable.
pub(crate) fn database(session: &Session, name: &DatabaseName, file: &Path, force: bool) -> Result<Copied> {
    refuse_existing(file, force)?;
    let from = session.connect(name, Access::Follow)?;
    let partial = Partial::create(file, force)?;
    let copied = copy_into(session, &from, &partial.path, name)?;
    refuse_existing(file, force)?;
    partial.publish(file)?;
    Ok(copied)
}

fn copy_into(session: &Session, from: &Connection, path: &Path, name: &DatabaseName) -> Result<Copied> {
    let to = |e: &rusqlite::Error| Failure::sqlite(None, e).context(path.display());
    from.execute_batch("BEGIN")
        .and_then(|()| from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())))
        .map_err(|e| Failure::sqlite(Some(from), &e).context(format_args!("export of {}", quoted(name))))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(path, flags).map_err(|e| to(&e))?;
    // Nobody knows the file yet: it needs no journal, and is made durable once, at the end.
    target
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE")
        .map_err(|e| to(&e))?;
    let copied = copy::database(from, &mut target, session.wait(), format!("exporting {}", quoted(name)))
        .map_err(|f| f.context(format_args!("export of {}", quoted(name))))?;
    target.close().map_err(|(_, e)| to(&e))?;
    Ok(copied)
}

fn refuse_existing(file: &Path, force: bool) -> Result<()> {
    // A link that leads nowhere counts: renaming would replace it.
    if !force && fs::symlink_metadata(file).is_ok() {
        return Err(Failure::failed(format!(
            "{} exists; choose another name, or replace it with --force",
            file.display()
        )));
    }
    if file.is_dir() {
        return Err(Failure::failed(format!("{} is a folder; expected the name of a file", file.display())));
    }
    Ok(())
}

/// The file while it is being written. Removed unless it is published.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(file: &Path, force: bool) -> Result<Self> {
        let mut path = file.as_os_str().to_owned();
        path.push(".partial");
        let path = std::path::absolute(&path).map_err(|e| Failure::file(file, &e))?;
        if force {
            // What cannot be removed shows when it is created.
            let _ = fs::remove_file(&path);
        }
        match File::create_new(&path) {
            Ok(_) => Ok(Self { path }),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Failure::failed(format!(
                "{} exists: another export is running, or one was killed; remove it, or use --force",
                path.display()
            ))),
            Err(e) => Err(Failure::file(&path, &e)),
        }
    }

    fn publish(self, file: &Path) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(&self.path)
            .and_then(|f| f.sync_all())
            .and_then(|()| fs::rename(&self.path, file))
            .and_then(|()| File::open(folder))
            .and_then(|folder| folder.sync_all())
            .map_err(|e| Failure::file(file, &e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After publishing there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}
