//! Builds the programs: SQLite compiled once, each program linked twice, with SQLite's own VFS and with ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::source::{Tree, command};
use crate::{Result, programs};

/// Name, and what it is made of.
const SOURCES: &[(&str, &[&str])] = &[
    ("speedtest1", &["test/speedtest1.c"]),
    ("wordcount", &["test/wordcount.c"]),
    ("kvtest", &["test/kvtest.c"]),
    ("threadtest3", &["test/threadtest3.c", "src/test_multiplex.c"]),
    ("mptester", &["mptest/mptest.c"]),
];
const BRIDGE: &[&str] = &["vfs.c", "scripts.c", "turns.c", "stdio.c", "posix.c"];
const WRAPPED: &str = "-Wl,--wrap=fopen,--wrap=fopen64,--wrap=unlink,--wrap=stat,--wrap=access";
const LIBRARIES: &[&str] = &["-lm", "-lz", "-lpthread", "-ldl"];
const OPTIONS: &[&str] = &["-DSQLITE_ENABLE_RTREE", "-DSQLITE_ENABLE_FTS5", "-DSQLITE_EXTRA_INIT=litefleet_suite_init"];

/// The folder with the programs.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// A program, with our VFS or with SQLite's own.
    pub(super) fn path(&self, name: &str, ours: bool) -> PathBuf {
        self.folder.join(format!("{name}-{}", if ours { "litefleet" } else { "stock" }))
    }
}

/// Builds what is not built, and links anew.
pub(super) fn all(workspace: &Path, cache: &Path, tree: &Tree) -> Result<Programs> {
    let folder = cache.join(format!("build-{}", tree.version));
    let object = sqlite(&folder, tree)?;
    let library = programs::library(workspace, cache)?;
    let sources = workspace.join("conformance/suite/c");
    let made = Programs { folder };
    for (name, parts) in SOURCES {
        for ours in [false, true] {
            let mut inputs: Vec<PathBuf> = parts.iter().map(|part| tree.path.join(part)).collect();
            inputs.push(object.clone());
            if ours {
                inputs.extend(BRIDGE.iter().map(|part| sources.join(part)));
                inputs.push(library.clone());
            } else {
                inputs.push(sources.join("stock.c"));
            }
            let program = made.path(name, ours);
            if is_newest(&program, &inputs, &sources)? {
                continue;
            }
            // Another run may be using the old one.
            let new = program.with_extension("new");
            let mut cc = Command::new("cc");
            cc.args(OPTIONS).args(["-g", "-O1", "-I"]).arg(&made.folder).arg("-I").arg(tree.path.join("src"));
            cc.arg("-o").arg(&new).args(&inputs);
            if ours {
                cc.arg(WRAPPED).args(programs::client_library(cache)?);
            }
            command(cc.args(LIBRARIES), &cache.join(format!("link-{name}.log")))?;
            fs::rename(&new, &program).map_err(|e| format!("{}: {e}", program.display()))?;
        }
    }
    Ok(made)
}

/// Whether a program is newer than all that it is made of, and all headers.
fn is_newest(program: &Path, inputs: &[PathBuf], headers: &Path) -> Result<bool> {
    let time = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified());
    let Ok(made) = time(program) else { return Ok(false) };
    let words = |e: std::io::Error| format!("{}: {e}", headers.display());
    let headers = fs::read_dir(headers).map_err(words)?.flatten().map(|entry| entry.path());
    let older = |path: &Path| time(path).is_ok_and(|time| time < made);
    Ok(headers.filter(|path| path.extension().is_some_and(|end| end == "h")).all(|path| older(&path))
        && inputs.iter().all(|path| older(path)))
}

/// SQLite without what only its test program needs. Compiled again when the options are others.
fn sqlite(folder: &Path, tree: &Tree) -> Result<PathBuf> {
    let object = folder.join("sqlite3-programs.o");
    let made_with = folder.join("sqlite3-programs.options");
    let options = OPTIONS.join("\n");
    if object.exists() && fs::read_to_string(&made_with).is_ok_and(|made_with| made_with == options) {
        return Ok(object);
    }
    eprintln!("compiling SQLite");
    programs::configure(folder, tree)?;
    let mut make = Command::new("make");
    command(make.current_dir(folder).args(["sqlite3.c", "sqlite3.h"]), &folder.join("make-sqlite.log"))?;
    let new = folder.join("sqlite3-programs.o.new");
    let mut cc = Command::new("cc");
    cc.current_dir(folder).args(["-c", "-g", "-O2"]).args(OPTIONS).arg("-o").arg(&new).arg("sqlite3.c");
    command(&mut cc, &folder.join("sqlite3.log"))?;
    fs::rename(&new, &object).map_err(|e| format!("{}: {e}", object.display()))?;
    fs::write(&made_with, options).map_err(|e| format!("{}: {e}", made_with.display()))?;
    Ok(object)
}
