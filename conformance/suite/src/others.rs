//! SQLite's other programs over the VFS: `speedtest1`, whose results must be those that it has with SQLite's own VFS, and
//! `threadtest3`, in which threads use databases all at once and look for errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::run::Settings;
use crate::source::{Tree, command};
use crate::{Result, Store, programs, run};

const SPEEDTEST_SETS: &[&str] = &["main", "cte", "fp", "orm", "trigger", "debug1"];
/// In percent of the usual: the results are compared, not the times.
const SPEEDTEST_SIZE: &str = "10";
/// Those that need no WAL.
const THREAD_TESTS: &[&str] =
    &["cgt_pager_1", "dynamic_triggers", "create_drop_index_1", "lookaside1", "vacuum1", "stress1", "shared1"];
const WRAPPED: &str = "-Wl,--wrap=fopen,--wrap=fopen64,--wrap=unlink";
const LIBRARIES: &[&str] = &["-lm", "-lz", "-lpthread", "-ldl"];

/// What came of one run of a program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Other {
    pub(crate) program: String,
    pub(crate) test: String,
    /// `None`: it passed.
    pub(crate) problem: Option<String>,
}

/// Builds and runs them. Whether all passed.
pub(crate) fn run(workspace: &Path, cache: &Path, tree: &Tree, settings: &Settings) -> Result<bool> {
    let folder = cache.join(format!("build-{}", tree.version));
    programs::compile(&folder, tree)?;
    let object = sqlite(&folder)?;
    let library = programs::library(workspace, cache)?;
    let sources = workspace.join("conformance/suite/c");
    let link = |name: &str, parts: &[&str]| -> Result<PathBuf> {
        let program = folder.join(name);
        let mut cc = Command::new("cc");
        cc.args(["-g", "-O1", "-I"]).arg(&folder).arg("-I").arg(tree.path.join("src")).arg("-o").arg(&program);
        cc.args(parts.iter().map(|part| tree.path.join(part))).arg(&object);
        cc.args(["vfs.c", "stdio.c", "unlink.c"].iter().map(|part| sources.join(part)));
        cc.arg(WRAPPED).arg(&library).args(LIBRARIES);
        command(&mut cc, &cache.join(format!("link-{name}.log")))?;
        Ok(program)
    };
    let speedtest = link("speedtest1", &["test/speedtest1.c"])?;
    let threadtest = link("threadtest3", &["test/threadtest3.c", "src/test_multiplex.c"])?;
    let mut results = Vec::new();
    for set in SPEEDTEST_SETS {
        results.push(one_speedtest(&speedtest, set, settings)?);
    }
    for test in THREAD_TESTS {
        let text = output(Command::new(&threadtest).arg(test), settings, true)?;
        let good = text.contains("0 errors out of 1 tests");
        let problem =
            (!good).then(|| text.lines().filter(|line| line.starts_with("Error")).collect::<Vec<_>>().join("; "));
        results.push(Other { program: "threadtest3".into(), test: (*test).into(), problem });
    }
    let failed = results.iter().filter(|result| result.problem.is_some()).count();
    for Other { program, test, problem } in &results {
        eprintln!("  {program} {test}: {}", problem.as_deref().unwrap_or("ok"));
    }
    eprintln!("test result: {} passed; {failed} failed", results.len() - failed);
    let path = cache.join(format!("report-programs-{}-{}.json", settings.store.name(), settings.locking.name()));
    let text = serde_json::to_string_pretty(&results).map_err(|e| e.to_string())?;
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(failed == 0)
}

/// SQLite without what only its test program needs.
fn sqlite(folder: &Path) -> Result<PathBuf> {
    let object = folder.join("sqlite3.o");
    if !object.exists() {
        eprintln!("compiling SQLite");
        let mut cc = Command::new("cc");
        cc.current_dir(folder).args(["-c", "-g", "-O2", "-DSQLITE_EXTRA_INIT=litefleet_suite_init", "-o"]);
        command(cc.arg("sqlite3.o.new").arg("sqlite3.c"), &folder.join("sqlite3.log"))?;
        fs::rename(folder.join("sqlite3.o.new"), &object).map_err(|e| format!("{}: {e}", object.display()))?;
    }
    Ok(object)
}

/// The same test set twice; the hash of all results must be the same.
fn one_speedtest(program: &Path, set: &str, settings: &Settings) -> Result<Other> {
    let hash = |ours: bool| -> Result<Option<String>> {
        let mut run = Command::new(program);
        run.args(["--testset", set, "--size", SPEEDTEST_SIZE, "--verify", "speedtest.db"]);
        let text = output(&mut run, settings, ours)?;
        Ok(text.lines().find(|line| line.starts_with("Verification Hash")).map(str::to_owned))
    };
    let (stock, ours) = (hash(false)?, hash(true)?);
    let problem = match (stock, ours) {
        (None, _) => Some("fails with SQLite's own VFS as well".to_owned()),
        (Some(stock), Some(ours)) if stock == ours => None,
        (Some(_), Some(_)) => Some("other results than with SQLite's own VFS".into()),
        (Some(_), None) => Some("did not end".into()),
    };
    Ok(Other { program: "speedtest1".into(), test: set.into(), problem })
}

/// Runs a program in a folder and over a store of its own; with SQLite's own VFS where not `ours`.
fn output(program: &mut Command, settings: &Settings, ours: bool) -> Result<String> {
    let scratch = run::scratch()?;
    let words = |e: std::io::Error| format!("{}: {e}", scratch.path().display());
    let root = fs::canonicalize(scratch.path()).map_err(words)?;
    let folder = root.join("run");
    fs::create_dir(&folder).map_err(words)?;
    let store = match settings.store {
        Store::Memory => "memory".to_owned(),
        Store::Embedded => format!("embedded:{}", root.join("store").display()),
        Store::Postgres => return Err("the other programs run over memory and embedded".into()),
    };
    // Outside its folder the bridge leaves everything to the operating system.
    let served = if ours { folder.clone() } else { root.join("nothing") };
    program.current_dir(&folder).stdin(Stdio::null()).env("LITEFLEET_SUITE_ROOT", served);
    program.env("LITEFLEET_SUITE_STORE", store);
    program.env("LITEFLEET_SUITE_SETTINGS", format!("locking={}", settings.locking.name()));
    let output = program.output().map_err(|e| format!("cannot start {}: {e}", program.get_program().display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
