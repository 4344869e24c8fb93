//! `litefleet demo`: what the store promises, tried out here and now.

mod crash;
pub(super) mod data;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use litefleet::clock::{Clock, SystemClock};
use litefleet::{DatabaseName, FleetSettings};
use rusqlite::Connection;

pub(super) use crash::writer;
use crash::{COMMITTED_ROWS, OPEN_ROWS};
use data::{Fingerprint, SAMPLE};

use super::{export, import, say};
use crate::args::{Cli, DemoArgs};
use crate::cancel;
use crate::failure::{Failure, Result, quoted};
use crate::session::{Access, Session};
use crate::source;
use crate::store_url::StoreUrl;

const NAME: &str = "demo";
/// Rows that two connections insert, half each.
const SHARED_ROWS: u64 = 100;
/// Long enough to see a killed process's lease expire.
const WAIT: Duration = Duration::from_secs(30);

pub(crate) fn run(cli: &Cli, args: &DemoArgs) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Failure::failed(format!("cannot make a temporary folder: {e}")))?;
    let url = match cli.store_on_command_line() {
        Some(text) => StoreUrl::parse(text)?,
        None => StoreUrl::Embedded(folder.path().join("store")),
    };
    if url == StoreUrl::Memory {
        return Err(Failure::failed(
            "the demo kills a process and reads what it left: a store in memory cannot show that",
        ));
    }
    let demo = Demo {
        name: DatabaseName::new(NAME)?,
        keep: cli.store_on_command_line().is_some(),
        folder: folder.path().to_owned(),
        url,
    };
    demo.run(args)
}

struct Demo {
    name: DatabaseName,
    keep: bool,
    folder: PathBuf,
    url: StoreUrl,
}

impl Demo {
    fn run(&self, args: &DemoArgs) -> Result<()> {
        let place = if self.keep { self.url.shown() } else { "a temporary folder".to_owned() };
        step(1, format_args!("store: {place}"))?;
        self.session(|session| {
            self.import(session, args)?;
            self.share(session)
        })?;
        let acknowledged = self.crash()?;
        let clock = SystemClock::default();
        self.session(|session| {
            let connection = session.connect(&self.name, Access::Write)?;
            recover(&connection, &acknowledged, &clock)?;
            self.verify(session, &connection)?;
            self.export(session, &connection)
        })?;
        if self.keep {
            say(format_args!("all as it should be; look around: litefleet --store '{place}' sql {NAME}"))
        } else {
            say("all as it should be")
        }
    }

    fn session(&self, body: impl FnOnce(&Session) -> Result<()>) -> Result<()> {
        go_on()?;
        Session::run(&self.url, true, WAIT, settings(), body)
    }

    fn import(&self, session: &Session, args: &DemoArgs) -> Result<()> {
        let (file, what) = match &args.file {
            Some(file) => (file.clone(), file.display().to_string()),
            None => (self.sample()?, "a sample".to_owned()),
        };
        let from = source::open(&file, WAIT)?;
        let copied = import::database(session, &from, &self.name, false, format!("importing {what}"))?;
        let expected = fingerprint(&from)?;
        let to = session.connect(&self.name, Access::Follow)?;
        let found = fingerprint(&to)?;
        check(found == expected, || format!("the import has {found}, the file {expected}, and they differ"))?;
        step(2, format_args!("imported {what}: {copied}; {found}, the same as in the file"))
    }

    fn sample(&self) -> Result<PathBuf> {
        let path = self.folder.join("sample.db");
        Connection::open(&path)
            .and_then(|c| c.execute_batch("PRAGMA synchronous = OFF").and_then(|()| c.execute_batch(SAMPLE)))
            .map_err(|e| Failure::sqlite(None, &e).context("cannot make the sample"))?;
        Ok(path)
    }

    /// Two connections write in turns; a third reads an older snapshot throughout.
    fn share(&self, session: &Session) -> Result<()> {
        go_on()?;
        let first = session.connect(&self.name, Access::Write)?;
        let second = session.connect(&self.name, Access::Write)?;
        let reader = session.connect(&self.name, Access::Write)?;
        execute(&first, "CREATE TABLE litefleet_demo (id INTEGER PRIMARY KEY, writer TEXT NOT NULL, bytes BLOB)")?;
        execute(&reader, "BEGIN")?;
        count(&reader, "true")?;
        for row in 0..SHARED_ROWS {
            let (writer, other) = if row % 2 == 0 { (&first, &second) } else { (&second, &first) };
            execute(writer, "INSERT INTO litefleet_demo (writer) VALUES ('shared')")?;
            let seen = count(other, "writer = 'shared'")?;
            check(seen == row + 1, || format!("after {} commits the other connection sees {seen} rows", row + 1))?;
        }
        let old = count(&reader, "true")?;
        check(old == 0, || format!("a snapshot of before the commits sees {old} of their rows"))?;
        execute(&reader, "COMMIT")?;
        let new = count(&reader, "true")?;
        check(new == SHARED_ROWS, || format!("a new snapshot sees {new} of {SHARED_ROWS} rows"))?;
        step(
            3,
            format_args!(
                "two connections committed {SHARED_ROWS} rows in turns, each saw the other's at once; a reader kept its older snapshot"
            ),
        )
    }

    /// Lets a process be killed inside a transaction; returns the rows that it had acknowledged.
    fn crash(&self) -> Result<Vec<u64>> {
        go_on()?;
        let said = crash::start_and_kill(&self.url, &self.name)?;
        let (pid, rows) = (said.pid, said.acknowledged.len() as u64);
        check(rows == COMMITTED_ROWS && said.open, || {
            format!("process {pid} ended by itself, after it had acknowledged {rows} of {COMMITTED_ROWS} rows")
        })?;
        step(
            4,
            format_args!(
                "process {pid} committed {rows} rows one by one, wrote {OPEN_ROWS} more in an open transaction, and was killed (SIGKILL)"
            ),
        )?;
        Ok(said.acknowledged)
    }

    fn verify(&self, session: &Session, connection: &Connection) -> Result<()> {
        go_on()?;
        let answer: String = connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|e| Failure::sqlite(Some(connection), &e))?;
        check(answer == "ok", || format!("integrity_check says: {answer}"))?;
        let report = session.fleet.verify(&self.name, &mut |_| ControlFlow::Continue(()))?;
        check(report.problems.is_empty(), || format!("the store is damaged: {}", report.problems.join("; ")))?;
        step(
            6,
            format_args!(
                "integrity_check is ok; the checksums of {} page rows and {} log records are right",
                report.rows, report.records
            ),
        )
    }

    fn export(&self, session: &Session, connection: &Connection) -> Result<()> {
        go_on()?;
        let file = self.folder.join("exported.db");
        let copied = export::database(session, &self.name, &file, false)?;
        let expected = fingerprint(connection)?;
        let found = fingerprint(&source::open(&file, WAIT)?)?;
        check(found == expected, || {
            format!("the export has {found}, {} {expected}, and they differ", quoted(&self.name))
        })?;
        step(7, format_args!("exported to a SQLite file: {copied}; {found}, the same as in the store"))
    }
}

/// Looks for what the killed process had acknowledged, and for what it had not.
fn recover(connection: &Connection, acknowledged: &[u64], clock: &dyn Clock) -> Result<()> {
    // Taking the lease waits until the killed process's has expired.
    execute(connection, "BEGIN IMMEDIATE; ROLLBACK")?;
    let waited = clock.monotonic().as_secs_f64();
    for id in acknowledged {
        let there = count(connection, &format!("id = {id} AND writer = 'killed'"))?;
        check(there == 1, || format!("row {id} was acknowledged and is not there"))?;
    }
    let there = count(connection, "writer = 'killed'")?;
    let expected = acknowledged.len();
    check(there == expected as u64, || {
        format!("{there} rows of the killed process are there, {expected} were acknowledged")
    })?;
    let open = count(connection, "writer = 'open'")?;
    check(open == 0, || format!("{open} rows of the transaction that never committed are there"))?;
    step(
        5,
        format_args!(
            "opened again in {waited:.1} s: {there} of {expected} acknowledged rows are there, {open} of the open transaction's"
        ),
    )
}

/// A short session, so that a killed process's lease is not long in the way.
fn settings() -> FleetSettings {
    FleetSettings {
        session_lifetime: Duration::from_secs(3),
        session_margin: Duration::from_secs(1),
        ..FleetSettings::default()
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.execute_batch(sql).map_err(|e| Failure::sqlite(Some(connection), &e))
}

fn count(connection: &Connection, condition: &str) -> Result<u64> {
    connection
        .query_row(&format!("SELECT count(*) FROM litefleet_demo WHERE {condition}"), [], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
        .map_err(|e| Failure::sqlite(Some(connection), &e))
}

fn fingerprint(connection: &Connection) -> Result<Fingerprint> {
    Fingerprint::of(connection).map_err(|e| Failure::sqlite(Some(connection), &e))
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::failed(format!("NOT as it should be: {}", otherwise()))) }
}

fn go_on() -> Result<()> {
    if cancel::requested() {
        return Err(Failure::interrupted("the demo did not come to its end"));
    }
    Ok(())
}

fn step(number: u32, what: impl std::fmt::Display) -> Result<()> {
    say(format_args!("{number}. {what}"))?;
    Ok(std::io::stdout().lock().flush()?)
}
