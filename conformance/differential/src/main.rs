//! Runs random SQL and the corpora of SQLite's fuzzers over the VFS, beside SQLite over its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use litefleet::Locking;
use litefleet_differential::{Sort, corpora, logic};

/// Runs the same SQL over the Litefleet VFS and over SQLite's own, and compares every answer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// The store.
    #[arg(long, value_enum, default_value = "memory", global = true)]
    store: Store,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Scripts of random SQL, one for each seed and locking mode.
    Logic {
        /// How many seeds.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// One of the two locking modes. Default: both in turn.
        #[arg(long, value_enum)]
        locking: Option<Mode>,
        /// A folder for the scripts of problems.
        #[arg(long)]
        scripts: Option<PathBuf>,
    },
    /// The corpora of SQLite's fuzzers.
    Corpora {
        /// The `fuzzdata*.db` of SQLite's source tree, such as target/suite/sqlite3-3.46.1/test/fuzzdata*.db.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Run one of so many inputs.
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// Begin with this one, from 0.
        #[arg(long, default_value_t = 0)]
        first: usize,
        /// Run only this one, as it is named where it differs, such as 'fuzzdata3/1 on 1361'.
        #[arg(long, conflicts_with_all = ["every", "first", "page"])]
        input: Option<String>,
        /// Name each input before it runs.
        #[arg(long)]
        verbose: bool,
        /// Write the page that a person reads.
        #[arg(long, conflicts_with = "first")]
        page: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    Memory,
    Embedded,
    /// A throwaway server.
    #[cfg(feature = "servers")]
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Sqlite,
    Snapshot,
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Embedded => "embedded",
            #[cfg(feature = "servers")]
            Self::Postgres => "Postgres",
        }
    }
}

/// Makes stores; what they need is gone with this value.
#[derive(Debug)]
struct Stores {
    kind: Store,
    folder: tempfile::TempDir,
    #[cfg(feature = "servers")]
    server: Option<litefleet_postgres::testing::Server>,
}

impl Stores {
    fn new(kind: Store) -> Result<Self, String> {
        #[cfg(feature = "servers")]
        use litefleet_postgres::testing::{Server, ServerOptions};
        Ok(Self {
            kind,
            folder: tempfile::tempdir().map_err(|e| e.to_string())?,
            #[cfg(feature = "servers")]
            server: (kind == Store::Postgres).then(|| Server::start(&ServerOptions::default())),
        })
    }

    /// A new store.
    fn sort(&self, name: &str) -> Sort {
        match self.kind {
            Store::Memory => Sort::Memory,
            Store::Embedded => Sort::Embedded(self.folder.path().join(name)),
            #[cfg(feature = "servers")]
            Store::Postgres => {
                let url = self.server.as_ref().map(litefleet_postgres::testing::Server::url).unwrap_or_default();
                Sort::Postgres(format!("{url}&schema={name}"))
            }
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(words) => {
            eprintln!("litefleet-differential: {words}");
            ExitCode::from(2)
        }
    }
}

/// How many have failed.
fn run(arguments: &Arguments) -> Result<usize, String> {
    let stores = Stores::new(arguments.store)?;
    match &arguments.what {
        What::Logic { seeds, from, locking, scripts } => {
            let modes = match locking {
                Some(Mode::Sqlite) => vec![Locking::Sqlite],
                Some(Mode::Snapshot) => vec![Locking::Snapshot],
                None => vec![Locking::Sqlite, Locking::Snapshot],
            };
            run_logic(&stores, *from..from.saturating_add(*seeds), &modes, scripts.as_deref())
        }
        What::Corpora { files, every, first, input, verbose, page } => {
            let (rows, failed) = run_corpora(&stores, files, *every, *first, input.as_deref(), *verbose)?;
            if let Some(page) = page {
                let part = format!("\nThis run took one of {every} inputs of each corpus.\n");
                let of = format!("\nThe {} store, SQLite {}.\n", arguments.store.name(), rusqlite::version());
                let text = format!("{PAGE}{rows}{of}{}", if *every > 1 { part.as_str() } else { "" });
                std::fs::write(page, text).map_err(|e| format!("{}: {e}", page.display()))?;
            }
            Ok(failed)
        }
    }
}

fn run_logic(
    stores: &Stores,
    seeds: std::ops::Range<u64>,
    modes: &[Locking],
    scripts: Option<&Path>,
) -> Result<usize, String> {
    let (mut passed, mut failed, mut sum) = (0, 0, logic::Tally::default());
    for seed in seeds {
        for locking in modes {
            let name = format!("logic_{seed}_{}", passed + failed);
            match logic::run(&logic::Case::new(seed, *locking), stores.sort(&name).opener(true)) {
                Ok(tally) => {
                    passed += 1;
                    eprintln!("seed {seed}, {locking:?}: {} answers", tally.records);
                    sum.add(tally);
                }
                Err(problem) => {
                    failed += 1;
                    eprintln!("{problem}");
                    if let Some(folder) = scripts {
                        let path = folder.join(format!("{seed}-{locking:?}.slt"));
                        std::fs::write(&path, &problem.script).map_err(|e| format!("{}: {e}", path.display()))?;
                    }
                }
            }
        }
    }
    let logic::Tally { records, checkpoints, stages, reads } = sum;
    eprintln!("{records} answers compared; {checkpoints} checkpoint, {stages} staging and {reads} reading calls");
    eprintln!("test result: {passed} passed; {failed} failed");
    Ok(failed)
}

const PAGE: &str = include_str!("corpora/page.md");

/// The rows of the page, and how many inputs differ.
fn run_corpora(
    stores: &Stores,
    files: &[PathBuf],
    every: usize,
    first: usize,
    only: Option<&str>,
    verbose: bool,
) -> Result<(String, usize), String> {
    // The wrapper of SQLite's authorizer panics, and denies, where a name is not UTF-8: on both sides, and often.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload().downcast_ref::<String>();
        if !words.is_some_and(|words| words.contains("as authorizer param")) {
            usual(panic);
        }
    }));
    let (mut rows, mut sum) = (String::new(), corpora::Tally::default());
    for file in files {
        let mut inputs = corpora::inputs(file, every, first)?;
        inputs.retain(|input| only.is_none_or(|only| input.id == only));
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let mut watch = |input: &corpora::Input| {
            if verbose {
                eprintln!("  {}", input.id);
            }
        };
        let tally = corpora::run(&inputs, stores.sort(&name).opener(false), &mut watch)?;
        for difference in &tally.differences {
            eprintln!("  {}: {}", difference.id, difference.words);
        }
        for chance in &tally.by_chance {
            eprintln!("  {}: SQLite's own VFS does not always answer the same either: {}", chance.id, chance.words);
        }
        let corpora::Tally {
            inputs,
            left_out,
            statements,
            errors,
            images,
            cut_short,
            short_reads,
            by_chance,
            differences,
        } = &tally;
        let (by_chance, differ) = (by_chance.len(), differences.len());
        eprintln!(
            "{name}: {inputs} inputs ({images} images), {statements} statements, {differ} inputs differ; {left_out} left out, \
             {cut_short} in part, {short_reads} with short reads, {by_chance} by chance"
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            rows,
            "| `{name}` | {inputs} | {images} | {statements} | {errors} | {left_out} | {cut_short} | {short_reads} | {by_chance} | {differ} |"
        );
        sum.add(tally);
    }
    if sum.inputs + sum.left_out == 0 {
        return Err("no such input".into());
    }
    let failed = sum.differences.len();
    eprintln!("test result: {} passed; {failed} failed", sum.inputs - failed);
    Ok((rows, failed))
}
