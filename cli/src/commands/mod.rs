//! The commands, one file each.

mod complete;
mod demo;
mod export;
mod gc;
mod import;
mod info;
mod ls;
mod names;
mod script;
mod sql;
#[cfg(test)]
mod tests;
mod verify;
mod watch;

use std::io::Write;
use std::time::Duration;

use clap::CommandFactory;
use litefleet::FleetSettings;
use litefleet::clock::{Clock, SystemClock};

use crate::args::{Cli, Command};
use crate::cancel;
use crate::failure::{Exit, Failure, Result};
use crate::session::Session;
use crate::store_url::StoreUrl;

/// Between two tries to have a database for oneself.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the command of the command line.
pub(crate) fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Import(args) => with_store(cli, true, |s| import::run(s, args)),
        Command::Export(args) => with_store(cli, false, |s| export::run(s, args)),
        Command::Sql(args) => with_store(cli, args.create, |s| sql::run(s, args)),
        Command::Ls(args) => with_store(cli, false, |s| ls::run(s, args)),
        Command::Info(args) => with_store(cli, false, |s| info::run(s, args)),
        Command::Watch(args) => with_store(cli, false, |s| watch::run(s, args)),
        Command::Verify(args) => with_store(cli, false, |s| verify::run(s, args)),
        Command::Rm(args) => with_store(cli, false, |s| names::remove(s, args)),
        Command::Mv(args) => with_store(cli, false, |s| names::rename(s, args)),
        Command::Gc(args) => with_store(cli, false, |s| gc::run(s, args)),
        Command::Completions(args) => completions(args.shell),
        Command::Demo(args) => demo::run(cli, args),
        Command::DemoWriter { name, rows } => demo::writer(cli, name, *rows),
    }
}

fn with_store(cli: &Cli, create: bool, body: impl FnOnce(&Session) -> Result<()>) -> Result<()> {
    Session::run(&store(cli)?, create, cli.wait, FleetSettings::default(), body)
}

/// The store that was named, or the user's own.
fn store(cli: &Cli) -> Result<StoreUrl> {
    match &cli.store {
        Some(text) => StoreUrl::parse(text),
        None => StoreUrl::user_default(),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "litefleet", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}

/// Does something that has a database to itself, as soon as nobody else has it open, for as long as the session waits. `left` is
/// what the user is told who ends the wait.
fn waiting<T>(session: &Session, left: &str, mut deed: impl FnMut() -> Result<T>) -> Result<T> {
    let clock = SystemClock::default();
    let start = clock.monotonic();
    loop {
        let failure = match deed() {
            Err(failure) if failure.exit() == Exit::Busy => failure,
            done => return done,
        };
        let rest = session.wait().saturating_sub(clock.monotonic().saturating_sub(start));
        if cancel::wait(PAUSE.min(rest)) {
            return Err(Failure::interrupted(left));
        }
        if rest.is_zero() {
            return Err(failure);
        }
    }
}

/// Prints a line to standard output.
fn say(line: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}
