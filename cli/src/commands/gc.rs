//! `litefleet gc`

use std::ops::ControlFlow;

use indicatif::ProgressBar;
use litefleet::{CollectReport, DatabaseName, ErrorKind};
use serde_json::json;

use super::{say, waiting};
use crate::args::GcArgs;
use crate::cancel;
use crate::copy::counter;
use crate::failure::{Exit, Failure, Result, quoted, visible};
use crate::session::Session;

/// What is left when it is interrupted.
const LEFT: &str = "what was deleted so far is deleted, the rest can be collected again";

pub(crate) fn run(session: &Session, args: &GcArgs) -> Result<()> {
    let mut work = Work { session, args, bar: counter("collecting databases"), done: 0, in_use: 0, damaged: 0 };
    if args.names.is_empty() {
        work.all()?;
    } else {
        args.names.iter().try_for_each(|name| work.one(name))?;
    }
    work.end()
}

struct Work<'a> {
    session: &'a Session,
    args: &'a GcArgs,
    bar: ProgressBar,
    done: u64,
    in_use: u64,
    damaged: u64,
}

impl Work<'_> {
    fn all(&mut self) -> Result<()> {
        self.session.for_each("", |entry| {
            if let Err(error) = &entry.state {
                self.done += 1;
                self.bar.inc(1);
                self.tell_damaged(&entry.name, error)?;
                return Ok(true);
            }
            match self.one(&entry.name) {
                // Its holder collects it, or it was removed since it was listed.
                Err(f) if f.exit() == Exit::Busy => self.in_use += 1,
                Err(f) if f.exit() == Exit::NotFound => {}
                outcome => outcome?,
            }
            Ok(true)
        })?;
        check_cancelled()?;
        self.bar.set_message("deleting what was removed");
        let purged = self.session.fleet.purge(&mut |removed| {
            self.bar.set_message(format!("deleting what was removed: {removed} rows and records"));
            if cancel::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        check_cancelled()?;
        if self.args.json {
            return self.say(json!({ "in_use": self.in_use, "purged": purged }));
        }
        if self.in_use > 0 {
            self.say(format_args!("passed over {} databases that are in use", self.in_use))?;
        }
        self.say(format_args!("removed databases: {purged} rows and records deleted"))
    }

    fn one(&mut self, name: &DatabaseName) -> Result<()> {
        check_cancelled()?;
        let collect = || match self.session.fleet.collect(name, self.args.force) {
            // The others can be collected all the same.
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Err(e)),
            collected => Ok(Ok(collected.map_err(|e| Failure::from(e).context(quoted(name)))?)),
        };
        // What others have open is passed over when nobody asked for it.
        let collected = if self.args.names.is_empty() { collect() } else { waiting(self.session, LEFT, collect) };
        self.done += 1;
        self.bar.inc(1);
        match collected? {
            Ok(report) => self.tell(name, &report),
            Err(e) => self.tell_damaged(name, &e),
        }
    }

    fn tell_damaged(&mut self, name: &DatabaseName, error: &litefleet::Error) -> Result<()> {
        self.damaged += 1;
        let words = error.to_string();
        if self.args.json {
            self.say(json!({ "name": name.as_str(), "ok": false, "problem": words }))
        } else {
            self.say(format_args!("{}: DAMAGED: {}", quoted(name), visible(&words)))
        }
    }

    fn tell(&self, name: &DatabaseName, report: &CollectReport) -> Result<()> {
        if self.args.json {
            return self.say(json!({
                "name": name.as_str(), "ok": true, "rows": report.rows, "records": report.records,
                "horizon": report.horizon.get(),
            }));
        }
        if self.args.names.is_empty() && report.rows + report.records == 0 {
            return Ok(());
        }
        self.say(format_args!(
            "{}: {} page rows and {} log records deleted, readable from txid {}",
            quoted(name),
            report.rows,
            report.records,
            report.horizon
        ))
    }

    /// Prints a line, not into the bar.
    fn say(&self, line: impl std::fmt::Display) -> Result<()> {
        self.bar.suspend(|| say(line))
    }

    fn end(self) -> Result<()> {
        self.bar.finish_and_clear();
        if self.damaged == 0 {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Corrupt,
            format!(
                "{} of {} databases are damaged and were not collected; 'litefleet verify' says what is damaged",
                self.damaged, self.done
            ),
        ))
    }
}

fn check_cancelled() -> Result<()> {
    if cancel::requested() {
        return Err(Failure::interrupted(LEFT));
    }
    Ok(())
}
