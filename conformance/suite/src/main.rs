//! Runs SQLite's own tests over the Litefleet VFS.
//!
//! `litefleet-suite veryquick` fetches SQLite's source, builds its test program with SQLite's own VFS and with ours, runs
//! each test file with both, and compares: what fails with ours must be in the list of expected differences, and what is
//! in that list must fail. See `docs/conformance.md`.

mod cancel;
mod clock;
mod differences;
#[cfg(feature = "fdb")]
mod fdb;
mod grave;
mod kept;
mod others;
mod outcome;
mod page;
mod programs;
mod report;
mod run;
mod selection;
mod server;
mod source;
mod stores;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// What goes wrong outside the tests themselves, in words.
pub(crate) type Result<T, E = String> = std::result::Result<T, E>;

/// Runs SQLite's own tests over the Litefleet VFS, and says what holds.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// veryquick, full, short (what continuous integration has time for), processes (a few, for a shared store), or names of
    /// test files, such as select1 or 'wal*'. Or permutation and the name of one of SQLite's, such as `inmemory_journal`. Or
    /// programs (programs-short), and perhaps which of them: SQLite's speedtest1, wordcount, kvtest, threadtest3, mptester.
    #[arg(default_value = "veryquick")]
    selection: Vec<String>,
    /// The store under test.
    #[arg(long, value_enum, default_value = "embedded")]
    store: Store,
    /// How locks exclude each other: the setting `locking`.
    #[arg(long, value_enum, default_value = "sqlite")]
    locking: Locking,
    /// The release of SQLite.
    #[arg(long, value_enum, default_value = "pinned")]
    sqlite: source::Release,
    /// Test files at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The most seconds for one test file. Default: the longer it takes with SQLite's own VFS, and on a server, the more.
    #[arg(long)]
    seconds: Option<u64>,
    /// Run each file with SQLite's own VFS again, also where a run of it is known: times can then be compared.
    #[arg(long)]
    stock_anew: bool,
    /// Run only the files that the report of such a run finds not as expected, and put what comes of them in it: the report says
    /// which they are. For files that were not done in time, or whose defect is mended.
    #[arg(long, conflicts_with = "page_only")]
    again: bool,
    /// Where to keep the source and what is built. Default: suite in Cargo's target folder.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Where to write the report as JSON. Default: report-*.json in the cache.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Write the page that a person reads, from the reports in the cache.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Run no tests: only write the page.
    #[arg(long, requires = "page")]
    page_only: bool,
    /// Keep the output of each test file that does not pass, in this folder.
    #[arg(long)]
    outputs: Option<PathBuf>,
}

/// A store to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    Memory,
    Embedded,
    /// A throwaway server of the system's packages, which all processes of a test file share: `lease=transaction`.
    Postgres,
    /// The stand-in for a FoundationDB cluster, shared in the same way. Only with the feature `fdb`.
    Fdb,
}

/// A value of the setting `locking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Locking {
    /// Locks exclude each other as in SQLite's rollback mode.
    Sqlite,
    /// Readers do not block the writer: the default of the product.
    Snapshot,
}

impl Store {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
            Self::Fdb => "fdb",
        }
    }

    /// Whether several processes can have it open.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Self::Postgres | Self::Fdb)
    }
}

impl Locking {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Snapshot => "snapshot",
        }
    }
}

fn main() -> ExitCode {
    match suite(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(words) => {
            eprintln!("litefleet-suite: {words}");
            ExitCode::from(2)
        }
    }
}

fn suite(arguments: &Arguments) -> Result<bool> {
    let workspace = source::workspace()?;
    let cache = match &arguments.cache {
        Some(cache) => std::path::absolute(cache).map_err(|e| format!("{}: {e}", cache.display()))?,
        None => source::target(&workspace).join("suite"),
    };
    let mut good = true;
    let programs = match arguments.selection.first().map(String::as_str) {
        Some("programs") => Some(others::Extent::All),
        Some("programs-short") => Some(others::Extent::Short),
        _ => None,
    };
    if arguments.again && programs.is_some() {
        return Err("--again is for test files, not for programs".into());
    }
    if !arguments.page_only {
        run::limit_open_files()?;
        let tree = source::fetch(&cache, arguments.sqlite)?;
        let settings = run::Settings {
            store: arguments.store,
            locking: arguments.locking,
            sqlite: arguments.sqlite,
            jobs: arguments.jobs.max(1),
            limit: arguments.seconds.map(Duration::from_secs),
            outputs: arguments.outputs.clone(),
            stock_anew: arguments.stock_anew,
            permutation: match arguments.selection.as_slice() {
                [word, name] if word == selection::PERMUTATION => Some(name.clone()),
                _ => None,
            },
            server: server::Server::start(arguments.store)?,
        };
        if let Some(extent) = programs {
            let only = arguments.selection.get(1..).unwrap_or_default();
            good = others::run(&workspace, &cache, &tree, &settings, extent, only)?;
            return page_of_programs(arguments, &cache).map(|()| good);
        }
        let programs = programs::build(&workspace, &cache, &tree)?;
        let differences = differences::load(&workspace)?;
        let mut run = report::Run {
            selection: arguments.selection.join(" "),
            store: settings.store.name().into(),
            locking: settings.locking.name().into(),
            sqlite: tree.version.clone(),
            newest: arguments.sqlite == source::Release::Newest,
            date: clock::today(),
            seconds: 0.0,
            jobs: settings.jobs,
            again: BTreeMap::new(),
        };
        let path = arguments.report.clone().unwrap_or_else(|| cache.join(run.file_name()));
        let before = if arguments.again { Some(report::Report::to_mend(&path, &run, &differences)?) } else { None };
        let files = match &before {
            Some(report) => report.unexpected(),
            None => selection::files(&arguments.selection, &programs, &tree, &cache)?,
        };
        let stock = run::stock(&programs, &tree, &files, &settings, &cache)?;
        let start = clock::now();
        let ours = run::ours(&programs, &tree, &files, &stock, &settings)?;
        let seconds = start.elapsed().as_secs_f64();
        let verdict = verdict::judge(&files, &stock, &ours, &differences, &settings);
        run.seconds = seconds;
        let report = match before {
            Some(report) => report.mended(verdict, seconds),
            None => report::Report::new(run, verdict),
        };
        report.write(&path)?;
        report.print();
        eprintln!("report: {}", path.display());
        good = report.is_good();
    }
    if programs.is_some() {
        return page_of_programs(arguments, &cache).map(|()| good);
    }
    if let Some(path) = &arguments.page {
        page::write(path, &cache, &differences::load(&workspace)?)?;
        eprintln!("page: {}", path.display());
    }
    Ok(good)
}

fn page_of_programs(arguments: &Arguments, cache: &Path) -> Result<()> {
    let Some(path) = &arguments.page else { return Ok(()) };
    others::page(path, cache)?;
    eprintln!("page: {}", path.display());
    Ok(())
}
