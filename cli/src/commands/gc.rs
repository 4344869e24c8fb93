//! `litefleet gc`

use litefleet::{DatabaseName, ErrorKind};

use super::say;
use crate::args::GcArgs;
use crate::cancel;
use crate::failure::{Failure, Result, quoted};
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &GcArgs) -> Result<()> {
    if args.names.is_empty() {
        return all(session, args.force);
    }
    for name in &args.names {
        check_cancelled()?;
        let report = session.fleet.collect(name, args.force)?;
        say(line(name, &report))?;
    }
    Ok(())
}

fn all(session: &Session, force: bool) -> Result<()> {
    let mut in_use = 0_u64;
    session.for_each("", |entry| {
        check_cancelled()?;
        match session.fleet.collect(&entry.name, force) {
            Ok(report) if report.rows + report.records > 0 => say(line(&entry.name, &report))?,
            Ok(_) => {}
            // Its holder collects it, or it was removed since it was listed.
            Err(e) if e.kind() == ErrorKind::LeaseHeld => in_use += 1,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::from(e).context(quoted(&entry.name))),
        }
        Ok(true)
    })?;
    if in_use > 0 {
        say(format_args!("passed over {in_use} databases that are in use"))?;
    }
    check_cancelled()?;
    say(format_args!("removed databases: {} rows and records deleted", session.fleet.purge()?))
}

fn line(name: &DatabaseName, report: &litefleet::CollectReport) -> String {
    format!(
        "{}: {} page rows and {} log records deleted, readable from txid {}",
        quoted(name),
        report.rows,
        report.records,
        report.horizon
    )
}

fn check_cancelled() -> Result<()> {
    if cancel::requested() {
        return Err(Failure::interrupted("what was deleted so far is deleted, the rest can be collected again"));
    }
    Ok(())
}
