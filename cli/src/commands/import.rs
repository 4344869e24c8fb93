//! `litefleet import`

use litefleet::{DatabaseName, MAX_NAME_BYTES};
use rusqlite::Connection;

use super::say;
use crate::args::ImportArgs;
use crate::copy::{self, Copied};
use crate::failure::{Exit, Failure, Result, quoted};
use crate::session::{Access, Session};
use crate::source;

pub(crate) fn run(session: &Session, args: &ImportArgs) -> Result<()> {
    let from = source::open(&args.file, session.wait())?;
    let what = format!("importing {}", args.file.display());
    let copied = database(session, &from, &args.name, args.replace, what)?;
    say(format_args!("imported {} into {}: {copied}", args.file.display(), quoted(&args.name)))
}

/// Copies a file's content in one transaction: at any moment the database is as it was, or as the file is.
pub(crate) fn database(
    session: &Session,
    from: &Connection,
    name: &DatabaseName,
    replace: bool,
    what: String,
) -> Result<Copied> {
    let before = match session.info_if_exists(name) {
        Err(f) if replace && f.exit() == Exit::Corrupt => return replace_damaged(session, from, name, what),
        looked => looked?,
    };
    // An empty database is what an import leaves that was killed: it is nobody's, so nothing is replaced.
    if before.as_ref().is_some_and(|info| info.head.txid.get() > 0) && !replace {
        return Err(taken(name));
    }
    let mut to = session.connect(name, Access::Create)?;
    let outcome =
        take_lease(&to, name, replace).and_then(|()| copy::database(from, &mut to, session.wait(), what.clone()));
    drop(to);
    if before.is_some() && matches!(&outcome, Err(f) if f.exit() == Exit::Corrupt) {
        return replace_damaged(session, from, name, what);
    }
    if outcome.is_err() && before.is_none() {
        // Best effort: an empty database stands in nobody's way. Another process may have committed to it by now.
        let _ = session.fleet.remove_empty(name);
    }
    outcome.map_err(|f| f.context(format_args!("import into {}", quoted(name))))
}

/// Where damage keeps a database from being written over, a new one takes its place. If the file is what is damaged, the copy
/// fails again, and nothing is changed.
fn replace_damaged(session: &Session, from: &Connection, name: &DatabaseName, what: String) -> Result<Copied> {
    let beside = free_name(session, name)?;
    let copied = database(session, from, &beside, false, what)?;
    let replaced = session.fleet.remove(name, false).and_then(|()| session.fleet.rename(&beside, name, false));
    replaced.map_err(|e| {
        let words = format!("the copy of the file is in the database {}", quoted(&beside));
        Failure::from(e).context(format_args!("import into {}", quoted(name))).advice(&words)
    })?;
    Ok(copied)
}

/// A name that nobody has, and in which one sees what it is for.
fn free_name(session: &Session, name: &DatabaseName) -> Result<DatabaseName> {
    let mut start = name.as_str();
    let ending = format!(".import-{}", std::process::id());
    let room = MAX_NAME_BYTES - ending.len() - 4;
    while start.len() > room {
        start = &start[..start.len() - start.chars().next_back().map_or(1, char::len_utf8)];
    }
    for number in 0..1000 {
        let free = DatabaseName::new(&format!("{start}{ending}-{number}"))?;
        if session.info_if_exists(&free)?.is_none() {
            return Ok(free);
        }
    }
    Err(Failure::failed(format!("there are databases {start}{ending}-0 to -999 already; remove those")))
}

/// Takes the lease, which the connection then keeps, and looks again: nobody can come between now.
fn take_lease(to: &Connection, name: &DatabaseName, replace: bool) -> Result<()> {
    let look = || {
        // Inside the transaction SQLite counts the first page of an empty database already.
        to.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
        to.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))
    };
    match look() {
        Ok(pages) if pages > 0 && !replace => Err(taken(name)),
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::sqlite(Some(to), &e)),
    }
}

fn taken(name: &DatabaseName) -> Failure {
    Failure::failed(format!(
        "there is a database {} already; choose another name, or replace its content with --replace",
        quoted(name)
    ))
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
