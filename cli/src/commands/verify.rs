//! `litefleet verify`

use std::io::Write;
use std::ops::ControlFlow;

use litefleet::{DatabaseName, ErrorKind, VerifyReport};
use rusqlite::Row;
use serde_json::json;

use super::say;
use crate::args::VerifyArgs;
use crate::cancel::{self, Interruptible};
use crate::copy::progress;
use crate::failure::{Exit, Failure, Result, quoted, visible};
use crate::session::{Access, Session};

pub(crate) fn run(session: &Session, args: &VerifyArgs) -> Result<()> {
    let (mut checked, mut damaged) = (0_u64, 0_u64);
    let mut count = |whole: bool| {
        checked += 1;
        damaged += u64::from(!whole);
    };
    if args.names.is_empty() {
        session.for_each("", |entry| {
            let whole = match &entry.state {
                Ok(_) => one(session, &entry.name, args.json),
                // Whoever cannot be listed cannot be opened.
                Err(error) => tell(&entry.name, &VerifyReport::default(), &[error.to_string()], args.json),
            };
            match whole {
                // It was removed since it was listed.
                Err(f) if f.exit() == Exit::NotFound => {}
                outcome => count(outcome?),
            }
            Ok(true)
        })?;
    } else {
        for name in &args.names {
            count(one(session, name, args.json)?);
        }
    }
    if damaged > 0 {
        return Err(Failure::new(
            Exit::Corrupt,
            format!("{damaged} of {checked} databases are damaged; restore them from a copy"),
        ));
    }
    Ok(())
}

/// Checks one database and reports; false when it is damaged.
fn one(session: &Session, name: &DatabaseName, json: bool) -> Result<bool> {
    if cancel::requested() {
        return Err(Failure::interrupted("not everything was verified"));
    }
    let bar = progress(0, format!("verifying {}", quoted(name)));
    let outcome = session.fleet.verify(name, &mut |state| {
        bar.set_length(state.total);
        bar.set_position(state.done);
        if cancel::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(bar);
    let report = match outcome {
        Ok(report) if !report.complete => return Err(Failure::interrupted("not everything was verified")),
        Ok(report) => report,
        // Too damaged to be looked through is a finding as well.
        Err(e) if e.kind() == ErrorKind::Corrupt => {
            VerifyReport { problems: vec![e.to_string()], complete: true, ..VerifyReport::default() }
        }
        Err(e) => return Err(e.into()),
    };
    let found_by_sqlite = integrity_check(session, name)?;
    let problems = [report.problems.clone(), found_by_sqlite].concat();
    tell(name, &report, &problems, json)
}

/// Reports; false when it is damaged.
fn tell(name: &DatabaseName, report: &VerifyReport, problems: &[String], json: bool) -> Result<bool> {
    if json {
        say(json!({
            "name": name.as_str(), "ok": problems.is_empty(), "rows": report.rows, "records": report.records,
            "pages": report.pages, "problems": problems,
        }))?;
    } else if problems.is_empty() {
        say(format_args!(
            "{}: ok, {} pages, {} page rows, {} log records",
            quoted(name),
            report.pages,
            report.rows,
            report.records
        ))?;
    } else {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}: DAMAGED", quoted(name))?;
        for problem in problems {
            writeln!(out, "  {}", visible(problem))?;
        }
    }
    Ok(problems.is_empty())
}

/// What SQLite finds wrong. Damage that keeps it from looking is a finding too.
fn integrity_check(session: &Session, name: &DatabaseName) -> Result<Vec<String>> {
    let connection = match session.connect(name, Access::Follow) {
        Err(f) if f.exit() == Exit::Corrupt => return Ok(f.line().into_iter().collect()),
        outcome => outcome?,
    };
    let _interruptible = Interruptible::new(&connection);
    // A name in the schema need not be UTF-8.
    let text = |row: &Row<'_>| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes().unwrap_or_default()).into_owned());
    let lines: rusqlite::Result<Vec<String>> =
        connection.prepare("PRAGMA integrity_check").and_then(|mut statement| statement.query_map([], text)?.collect());
    match lines {
        Ok(lines) => Ok(lines.into_iter().filter(|line| line != "ok").collect()),
        Err(e) => {
            let failure = Failure::sqlite(Some(&connection), &e);
            if failure.exit() == Exit::Corrupt {
                Ok(failure.line().into_iter().collect())
            } else {
                Err(failure.context(format_args!("integrity check of {}", quoted(name))))
            }
        }
    }
}
