//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use litefleet::DatabaseName;

use crate::{params, store_url};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    the command line is wrong
  3    there is no such database, file or store
  4    busy: another process holds the lease or a lock
  5    damage was found
  6    the store cannot be reached, or another process has it open
  130  interrupted";

/// One SQLite database per tenant, in a shared store.
#[derive(Debug, Parser)]
#[command(name = "litefleet", version, after_help = format!("{EXIT_CODES}\n\n{}", store_url::HELP), arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The store [default: an embedded store in the user's data folder]
    #[arg(long, value_name = "URL", env = "LITEFLEET_STORE", hide_env_values = true, global = true, value_hint = ValueHint::DirPath)]
    pub(crate) store: Option<OsString>,

    /// How long to wait for a lease, a lock, or a store that is open elsewhere
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds, allow_negative_numbers = true, global = true)]
    pub(crate) wait: Duration,

    /// Whether the store was named by the environment and not by `--store`.
    #[arg(skip)]
    store_from_environment: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line; ends the process when it is wrong, or asks for help.
    pub(crate) fn read() -> Self {
        let matches = Self::command().get_matches();
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
        cli.store_from_environment = matches.value_source("store") == Some(ValueSource::EnvVariable);
        cli
    }

    /// The store, when `--store` names it.
    pub(crate) fn store_on_command_line(&self) -> Option<&OsString> {
        self.store.as_ref().filter(|_| !self.store_from_environment)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copies a SQLite file into the store as one transaction
    Import(ImportArgs),
    /// Copies a database of the store into a new SQLite file
    Export(ExportArgs),
    /// Runs SQL, from the command line, from standard input, or at a prompt
    Sql(SqlArgs),
    /// Lists databases
    Ls(LsArgs),
    /// Says what the store knows about a database
    Info(InfoArgs),
    /// Prints each commit of a database as it is made
    Watch(WatchArgs),
    /// Checks every checksum, and runs SQLite's integrity check
    Verify(VerifyArgs),
    /// Removes a database
    Rm(RmArgs),
    /// Renames a database
    Mv(MvArgs),
    /// Removes what no reader needs any more
    Gc(GcArgs),
    /// Prints a completion script for a shell
    Completions(CompletionsArgs),
    /// Imports, changes, crashes, recovers and compares a database, to see that it works here
    Demo(DemoArgs),
    /// The process that `demo` kills
    #[command(hide = true)]
    DemoWriter { name: String, rows: u64 },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet import app.db customers/acme
  litefleet --store embedded:/var/lib/fleet import app.db customers/acme --replace")]
pub(crate) struct ImportArgs {
    /// The SQLite file; it may be in use, in rollback or WAL mode
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The database's name in the store
    #[arg(value_parser = parse_name)]
    pub(crate) name: DatabaseName,
    /// Replace the content of a database that exists
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet export customers/acme acme.db
  litefleet export customers/acme acme.db --force

The file is written as FILE.partial, made durable, then renamed.")]
pub(crate) struct ExportArgs {
    /// The database
    #[arg(value_parser = parse_name)]
    pub(crate) name: DatabaseName,
    /// The file to make
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet sql customers/acme                                   a prompt
  litefleet sql customers/acme 'SELECT * FROM orders' --format csv
  litefleet sql customers/acme 'SELECT * FROM orders WHERE id = :id' --param id=7
  litefleet sql new/database --create < schema.sql
  litefleet sql customers/acme --read-only .tables

Values of --param: whole numbers, decimal numbers, null, x'00ff', 'text in quotes'; anything else is text.
In JSON each result is an array of objects, and a blob is {\"hex\": \"00ff\"}.
A script stops at its first error; what it had committed stays.")]
pub(crate) struct SqlArgs {
    /// The database
    #[arg(value_parser = parse_name)]
    pub(crate) name: DatabaseName,
    /// Statements, or a dot-command; without it standard input is read
    pub(crate) sql: Option<String>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Read as a follower, without the lease
    #[arg(long, conflicts_with = "create")]
    pub(crate) read_only: bool,
    /// Make the database when it does not exist
    #[arg(long)]
    pub(crate) create: bool,
    /// The value of a parameter: id=7 for :id, @id or $id, 1=7 for the first ?
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = params::parse)]
    pub(crate) params: Vec<(String, rusqlite::types::Value)>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns side by side
    Table,
    /// Comma-separated values with a header
    Csv,
    /// An array of objects
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet ls
  litefleet ls customers/ --limit 20
  litefleet ls --json | jq -r .name")]
pub(crate) struct LsArgs {
    /// Only names that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// The most names to print
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet info customers/acme
  litefleet info customers/acme --json | jq .txid")]
pub(crate) struct InfoArgs {
    /// The database
    #[arg(value_parser = parse_name)]
    pub(crate) name: DatabaseName,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet watch customers/acme
  litefleet watch customers/acme --count 1 --timeout 60 && echo 'it was written'
  litefleet watch customers/acme --after 0 --timeout 0     what the log still has

Each line is a commit: its number, its time, and the size of the file after it.
An embedded store is used by one process at a time: there only commits of the past can be seen.")]
pub(crate) struct WatchArgs {
    /// The database
    #[arg(value_parser = parse_name)]
    pub(crate) name: DatabaseName,
    /// Begin after this commit instead of after the last one
    #[arg(long, value_name = "TXID")]
    pub(crate) after: Option<u64>,
    /// End after so many commits
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End after so long; a failure when --count asked for more
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet verify customers/acme
  litefleet verify --json            every database, one JSON object a line

Exit code 5 when damage was found.")]
pub(crate) struct VerifyArgs {
    /// The databases; all when none is named
    #[arg(value_parser = parse_name)]
    pub(crate) names: Vec<DatabaseName>,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet rm customers/acme
  litefleet rm customers/acme --force")]
pub(crate) struct RmArgs {
    /// The database
    #[arg(value_parser = parse_name)]
    pub(crate) name: DatabaseName,
    /// Even while another process has it open
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  litefleet mv customers/acme archive/acme")]
pub(crate) struct MvArgs {
    /// The name now
    #[arg(value_parser = parse_name)]
    pub(crate) old: DatabaseName,
    /// The name from now on; must be free
    #[arg(value_parser = parse_name)]
    pub(crate) new: DatabaseName,
    /// Even while another process has it open
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet gc                    every database, and the bytes of removed ones
  litefleet gc customers/acme
  litefleet gc --json                one JSON object a line

Databases that a process has open are collected by it: without names they are passed over.
Exit code 5 when some are damaged; the others are collected all the same.")]
pub(crate) struct GcArgs {
    /// The databases; all when none is named
    #[arg(value_parser = parse_name)]
    pub(crate) names: Vec<DatabaseName>,
    /// Take the lease even from a live holder
    #[arg(long)]
    pub(crate) force: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  litefleet completions bash > ~/.local/share/bash-completion/completions/litefleet")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  litefleet demo
  litefleet demo app.db
  litefleet --store ./fleet demo app.db      keeps the database, as 'demo'

Without --store a temporary store is used; LITEFLEET_STORE does not count here.")]
pub(crate) struct DemoArgs {
    /// A SQLite file to begin with; without it a sample is made
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<DatabaseName, String> {
    // To SQLite this is no name, and no VFS hears of it: what is written there is lost.
    if text == ":memory:" {
        return Err("to SQLite this means a database that is not stored; choose another name".to_owned());
    }
    DatabaseName::new(text).map_err(|e| e.message().to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    // SQLite counts the time in milliseconds in an i32.
    if !(0.0..=2_000_000.0).contains(&seconds) {
        return Err("expected 0 to 2000000 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
