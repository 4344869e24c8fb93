//! A store that is open in this process, and connections to its databases.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use litefleet::store::PageStore;
use litefleet::{DatabaseName, ErrorKind, Fleet, FleetSettings};
use rusqlite::{Connection, OpenFlags};

use crate::cancel;
use crate::failure::{Exit, Failure, Result, quoted};
use crate::store_url::StoreUrl;

/// Sessions of this process so far: each has a VFS of its own.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read, without the lease.
    Follow,
    /// Write to a database that exists.
    Write,
    /// Write, and make the database when it does not exist.
    Create,
}

/// A store that is open in this process.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) fleet: Fleet,
    vfs: String,
    wait: Duration,
}

impl Session {
    /// Opens the store, runs `body`, and ends the session whatever came of it. The first failure counts.
    pub(crate) fn run<T>(
        url: &StoreUrl,
        create: bool,
        wait: Duration,
        settings: FleetSettings,
        body: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        Self::over(url.open(create, wait)?, wait, settings, body)
    }

    /// The same over a store that is open.
    pub(crate) fn over<T>(
        store: Arc<dyn PageStore>,
        wait: Duration,
        settings: FleetSettings,
        body: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let fleet = Fleet::builder(store).settings(settings).build()?;
        let vfs = format!("litefleet-{}", SESSIONS.fetch_add(1, Ordering::Relaxed));
        fleet.register(&vfs, false)?;
        let session = Self { fleet, vfs, wait };
        let outcome = body(&session);
        let ended = session.fleet.shutdown();
        // Registered, it would keep the store open.
        let ended = ended.and(session.fleet.unregister(&session.vfs));
        let value = outcome?;
        ended
            .map_err(|e| Failure::from(e).context("everything was done, but the session could not be ended cleanly"))?;
        Ok(value)
    }

    /// Opens a connection. `NotFound` when there is no such database and it is not to be made.
    pub(crate) fn connect(&self, name: &DatabaseName, access: Access) -> Result<Connection> {
        if access != Access::Create {
            // SQLite has one code for every reason not to open: ask first, for the store's own words.
            self.fleet.info(name)?;
        }
        let flags = match access {
            Access::Follow => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        };
        let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |e: rusqlite::Error| {
            // The message would repeat the URI.
            let e = match e {
                rusqlite::Error::SqliteFailure(code, _) => rusqlite::Error::SqliteFailure(code, None),
                other => other,
            };
            Failure::sqlite(None, &e).context(format_args!("cannot open the database {}", quoted(name)))
        };
        let mut connection = Connection::open_with_flags(uri(name, &self.vfs), flags).map_err(failed)?;
        cancel::wait_for_locks(&mut connection, self.wait).map_err(failed)?;
        cancel::stop_when_asked(&mut connection).map_err(failed)?;
        Ok(connection)
    }

    /// Whether a database exists.
    pub(crate) fn info_if_exists(&self, name: &DatabaseName) -> Result<Option<litefleet::Info>> {
        match self.fleet.info(name) {
            Ok(info) => Ok(Some(info)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// How long to wait for locks.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// Calls `each` for every database whose name begins with `prefix`, in order, until it returns false.
    pub(crate) fn for_each(
        &self,
        prefix: &str,
        mut each: impl FnMut(litefleet::store::ListEntry) -> Result<bool>,
    ) -> Result<()> {
        const BATCH: usize = 1000;
        let mut after: Option<DatabaseName> = None;
        loop {
            let batch = self.fleet.list(prefix, after.as_ref(), BATCH)?;
            let last = batch.last().map(|entry| entry.name.clone());
            let full = batch.len() == BATCH;
            for entry in batch {
                if cancel::requested() {
                    return Err(Failure::interrupted("the list is not complete"));
                }
                if !each(entry)? {
                    return Ok(());
                }
            }
            if !full {
                return Ok(());
            }
            after = last;
        }
    }
}

/// Advice for a database that was expected to exist.
pub(crate) fn or_create(failure: Failure, advice: &str) -> Failure {
    if failure.exit() == Exit::NotFound { failure.advice(advice) } else { failure }
}

/// The URI of a database: every byte that could mean something to SQLite is percent-encoded, `/` included.
fn uri(name: &DatabaseName, vfs: &str) -> String {
    let mut uri = String::from("file:");
    for byte in name.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?vfs=");
    uri.push_str(vfs);
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        let uri = |name: &str| uri(&DatabaseName::new(name).unwrap(), "litefleet");
        assert_eq!(uri("a-b_c.d~9"), "file:a-b_c.d~9?vfs=litefleet");
        assert_eq!(uri("//h/a?b#c%41&d=é"), "file:%2F%2Fh%2Fa%3Fb%23c%2541%26d%3D%C3%A9?vfs=litefleet");
    }
}
