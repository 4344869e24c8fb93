//! `litefleet export`

use std::path::Path;

use litefleet::DatabaseName;
use rusqlite::{Connection, OpenFlags};

use super::say;
use crate::args::ExportArgs;
use crate::copy::{self, Copied};
use crate::failure::{Failure, Result, quoted};
use crate::partial::{Partial, refuse_existing};
use crate::session::{Access, Session};

/// SQLite's own VFS without locks: on some network file systems its locks would meet the one that keeps other exports away.
const UNLOCKED: &str = if cfg!(windows) { "win32-none" } else { "unix-none" };

pub(crate) fn run(session: &Session, args: &ExportArgs) -> Result<()> {
    let copied = database(session, &args.name, &args.file, args.force)?;
    say(format_args!("exported {} to {}: {copied}", quoted(&args.name), args.file.display()))
}

/// Copies a database into a file that appears under its name only when it is complete and durable.
pub(crate) fn database(session: &Session, name: &DatabaseName, file: &Path, force: bool) -> Result<Copied> {
    refuse_existing(file, force)?;
    let from = session.connect(name, Access::Follow)?;
    let partial = Partial::create(file, force)?;
    let copied = copy_into(session, &from, partial.path(), name)?;
    refuse_existing(file, force)?;
    partial.publish(file, force)?;
    Ok(copied)
}

fn copy_into(session: &Session, from: &Connection, path: &Path, name: &DatabaseName) -> Result<Copied> {
    let to = |e: &rusqlite::Error| Failure::sqlite(None, e).context(path.display());
    from.execute_batch("BEGIN")
        .and_then(|()| from.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())))
        .map_err(|e| Failure::sqlite(Some(from), &e).context(format_args!("export of {}", quoted(name))))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags_and_vfs(path, flags, UNLOCKED).map_err(|e| to(&e))?;
    // Nobody knows the file yet: it needs no locks and no journal, and is made durable once, at the end.
    target
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE")
        .map_err(|e| to(&e))?;
    let copied = copy::database(from, &mut target, session.wait(), format!("exporting {}", quoted(name)))
        .map_err(|f| f.context(format_args!("export of {}", quoted(name))))?;
    target.close().map_err(|(_, e)| to(&e))?;
    Ok(copied)
}
