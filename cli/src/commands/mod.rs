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

use clap::CommandFactory;
use litefleet::FleetSettings;

use crate::args::{Cli, Command};
use crate::failure::Result;
use crate::session::Session;
use crate::store_url::StoreUrl;

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
    let url = store(cli)?;
    let mut settings = FleetSettings::default();
    // Connections wait by themselves, and can be interrupted; these commands have none.
    settings.database.busy = match &cli.command {
        Command::Rm(_) | Command::Mv(_) => cli.wait,
        // What others have open is passed over when nobody asked for it.
        Command::Gc(args) if !args.names.is_empty() => cli.wait,
        _ => settings.database.busy,
    };
    Session::run(&url, create, cli.wait, settings, body)
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

/// Prints a line to standard output.
fn say(line: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}
