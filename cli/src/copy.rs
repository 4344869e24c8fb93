//! Copies a whole database with SQLite's backup interface: one transaction in the target.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressFinish, ProgressStyle};
use litefleet::clock::{Clock, SystemClock};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::cancel;
use crate::failure::{Exit, Failure, Result};

/// Pages between two looks at the clock and at Ctrl-C.
const STEP: i32 = 256;

/// What was copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    pages: u64,
    bytes: u64,
}

impl std::fmt::Display for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages, {}", self.pages, HumanBytes(self.bytes))
    }
}

/// A bar on standard error, when that is a terminal.
pub(crate) fn progress(total: u64, what: String) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}%  {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what).with_finish(ProgressFinish::AndClear)
}

/// A number that grows to nobody knows what, on standard error, when that is a terminal.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg}: {pos}  {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style).with_message(what).with_finish(ProgressFinish::AndClear)
}

/// Copies `from` over whatever `to` holds. When it fails or is interrupted, `to` is as it was.
pub(crate) fn database(from: &Connection, to: &mut Connection, wait: Duration, what: String) -> Result<Copied> {
    let page_size: u32 =
        from.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(|e| Failure::sqlite(Some(from), &e))?;
    let outcome = steps(from, to, wait, what);
    match outcome {
        Ok(pages) => Ok(Copied { pages, bytes: pages * u64::from(page_size) }),
        // Only when the backup is gone can the connections be asked for the VFS's words.
        Err(Stopped::Cancelled) => Err(Failure::interrupted("nothing was changed")),
        Err(Stopped::Busy) => Err(Failure::new(
            Exit::Busy,
            "the database is locked by another connection or process; try again later, or wait longer with --wait",
        )),
        Err(Stopped::Sqlite(e)) => Err(explain(from, to, &e)),
    }
}

enum Stopped {
    Cancelled,
    Busy,
    Sqlite(rusqlite::Error),
}

fn steps(from: &Connection, to: &mut Connection, wait: Duration, what: String) -> Result<u64, Stopped> {
    let backup = Backup::new(from, to).map_err(Stopped::Sqlite)?;
    let bar = progress(0, what);
    let clock = SystemClock::default();
    let mut locked_since = None;
    loop {
        if cancel::requested() {
            return Err(Stopped::Cancelled);
        }
        match backup.step(STEP).map_err(Stopped::Sqlite)? {
            StepResult::Done => break,
            StepResult::More => locked_since = None,
            // The busy handler has waited already; a lock that is refused without it gets the same time here.
            _ => {
                let since = *locked_since.get_or_insert_with(|| clock.monotonic());
                if clock.monotonic().saturating_sub(since) >= wait {
                    return Err(Stopped::Busy);
                }
                cancel::wait(Duration::from_millis(20));
            }
        }
        let state = backup.progress();
        let total = u64::try_from(state.pagecount).unwrap_or(0);
        bar.set_length(total);
        bar.set_position(total.saturating_sub(u64::try_from(state.remaining).unwrap_or(0)));
    }
    let pages = u64::try_from(backup.progress().pagecount).unwrap_or(0);
    Ok(pages)
}

/// Either side may have failed: the side whose VFS has something to say about it did.
fn explain(from: &Connection, to: &Connection, error: &rusqlite::Error) -> Failure {
    let said_nothing = Failure::sqlite(None, error);
    [to, from]
        .into_iter()
        .map(|connection| Failure::sqlite(Some(connection), error))
        .find(|failure| failure.line() != said_nothing.line())
        .unwrap_or(said_nothing)
}
