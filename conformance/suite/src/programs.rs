//! Builds SQLite's test program: compiled once, linked twice, with SQLite's own VFS and with ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::source::{Tree, command, target};

const BRIDGE: &[&str] = &["vfs.c", "stdio.c", "tclfs.c", "folder.c"];
const WRAPPED: &str = "-Wl,--wrap=fopen,--wrap=fopen64,--wrap=open,--wrap=open64,--wrap=opendir,--wrap=readdir,\
                       --wrap=readdir64,--wrap=closedir";
const LIBRARIES: &[&str] = &["-ltcl8.6", "-lm", "-lz", "-lpthread", "-ldl"];

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) stock: PathBuf,
    pub(crate) ours: PathBuf,
    /// Names what was built: figures of another build say nothing of this one.
    pub(crate) build: String,
}

/// Builds what is not built, and links anew.
pub(crate) fn build(workspace: &Path, cache: &Path, tree: &Tree) -> Result<Programs> {
    let folder = cache.join(format!("build-{}", tree.version));
    let object = compile(&folder, tree)?;
    let library = library(workspace, cache)?;
    let sources = workspace.join("conformance/suite/c");
    let programs = Programs {
        stock: folder.join("testfixture-stock"),
        ours: folder.join("testfixture-litefleet"),
        build: tree.version.clone(),
    };
    let mut stock = Command::new("cc");
    stock.args(["-g", "-o"]).arg(&programs.stock).arg(&object).arg(sources.join("stock.c")).args(LIBRARIES);
    command(&mut stock, &cache.join("link-stock.log"))?;
    let mut ours = Command::new("cc");
    ours.args(["-g", "-O2", "-Wall", "-Wextra", "-Werror", "-I/usr/include/tcl8.6", "-I"]).arg(&folder);
    ours.arg("-o").arg(&programs.ours).arg(&object).args(BRIDGE.iter().map(|name| sources.join(name)));
    ours.arg(WRAPPED).arg(&library).args(LIBRARIES);
    command(&mut ours, &cache.join("link.log"))?;
    Ok(programs)
}

/// All of the test program as one object file: the linker can then put either VFS behind it.
fn compile(folder: &Path, tree: &Tree) -> Result<PathBuf> {
    let object = folder.join("testfixture.o");
    if object.exists() {
        return Ok(object);
    }
    eprintln!("compiling SQLite's test program (a minute or two)");
    configure(folder, tree)?;
    let mut make = Command::new("make");
    make.current_dir(folder).args([
        "testfixture",
        "LTLINK=$(TCC) -r -nostdlib",
        "LIBTCL=",
        "TLIBS=",
        "OPTS=-DSQLITE_EXTRA_INIT=litefleet_suite_init",
    ]);
    command(&mut make, &folder.join("make.log"))?;
    fs::rename(folder.join("testfixture"), &object).map_err(|e| format!("{}: {e}", object.display()))?;
    Ok(object)
}

/// Makes the folder ready to build in, unless it is.
pub(crate) fn configure(folder: &Path, tree: &Tree) -> Result<()> {
    if folder.join("Makefile").exists() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut configure = Command::new(tree.path.join("configure"));
    configure.current_dir(folder).args(["--with-tcl=/usr/lib/tcl8.6", "--enable-all"]);
    command(&mut configure, &folder.join("configure.log"))
}

/// The VFS as a static library. In a Cargo run of its own, so that no other package makes it bring an SQLite.
pub(crate) fn library(workspace: &Path, cache: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["build", "--locked", "--profile", "suite", "-p", "litefleet-suite-vfs"]);
    cargo.env("CARGO_TARGET_DIR", target(workspace));
    command(&mut cargo, &cache.join("library.log"))?;
    Ok(target(workspace).join("suite").join("liblitefleet_suite_vfs.a"))
}
