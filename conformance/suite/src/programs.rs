//! Builds SQLite's test program: compiled once, linked twice, with SQLite's own VFS and with ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha1::Digest as _;

use crate::Result;
use crate::source::{self, Tree, command, target};

const BRIDGE: &[&str] = &["vfs.c", "scripts.c", "turns.c", "stdio.c", "tclfs.c", "folder.c"];
const WRAPPED: &str = "-Wl,--wrap=fopen,--wrap=fopen64,--wrap=open,--wrap=open64,--wrap=opendir,--wrap=readdir,\
                       --wrap=readdir64,--wrap=closedir";
#[cfg(feature = "fdb")]
const FEATURES: &[&str] = &["--features", "fdb"];
#[cfg(not(feature = "fdb"))]
const FEATURES: &[&str] = &[];
const LIBRARIES: &[&str] = &["-ltcl8.6", "-lm", "-lz", "-lpthread", "-ldl"];
const CONFIGURE: &[&str] = &["--with-tcl=/usr/lib/tcl8.6", "--enable-all"];
const MAKE: &[&str] = &[
    "OPTS=-DSQLITE_EXTRA_INIT=litefleet_suite_init",
    "LTLINK=$(TCC) -r -nostdlib",
    "LIBTCL=",
    "TLIBS=",
    // The same in releases from 3.49 on.
    "T.link.tcl=$(T.tcl.env.source); TCL_LIB_SPEC=; TCL_LIBS=; $(T.cc.sqlite) -r -nostdlib",
    "LDFLAGS.libsqlite3=",
];

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) stock: PathBuf,
    pub(crate) ours: PathBuf,
    /// Names what was built, and with which options: figures of another build say nothing of this one.
    pub(crate) build: String,
}

/// Builds what is not built, and links anew.
pub(crate) fn build(workspace: &Path, cache: &Path, tree: &Tree) -> Result<Programs> {
    let build = format!("{}-{}", tree.version, options());
    let folder = cache.join(format!("build-{build}"));
    let object = compile(&folder, tree)?;
    let library = library(workspace, cache)?;
    let sources = workspace.join("conformance/suite/c");
    let programs =
        Programs { stock: folder.join("testfixture-stock"), ours: folder.join("testfixture-litefleet"), build };
    let mut stock = Command::new("cc");
    stock.arg("-g").arg(&object).arg(sources.join("stock.c")).args(LIBRARIES);
    link(&mut stock, &programs.stock, &cache.join("link-stock.log"))?;
    let mut ours = Command::new("cc");
    ours.args(["-g", "-O2", "-Wall", "-Wextra", "-Werror", "-I/usr/include/tcl8.6", "-I"]).arg(&folder);
    ours.arg(&object).args(BRIDGE.iter().map(|name| sources.join(name)));
    ours.arg(WRAPPED).arg(&library).args(LIBRARIES).args(client_library(cache)?);
    link(&mut ours, &programs.ours, &cache.join("link.log"))?;
    Ok(programs)
}

/// Links a program. Another run may be using the old one.
fn link(cc: &mut Command, program: &Path, log: &Path) -> Result<()> {
    let new = program.with_extension("new");
    command(cc.arg("-o").arg(&new), log)?;
    fs::rename(&new, program).map_err(|e| format!("{}: {e}", program.display()))
}

/// Names the options.
fn options() -> String {
    let all = [CONFIGURE, MAKE].concat().join("\n");
    source::hex(&sha1::Sha1::digest(all.as_bytes())[..4])
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
    make.current_dir(folder).arg("testfixture").args(MAKE);
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
    configure.current_dir(folder).args(CONFIGURE);
    command(&mut configure, &folder.join("configure.log"))
}

/// What links FoundationDB's client library, where stores may be on it.
pub(crate) fn client_library(cache: &Path) -> Result<Vec<String>> {
    let Some(folder) = client_folder(cache)? else { return Ok(Vec::new()) };
    let folder = folder.display();
    // The old form of the tag wins over `LD_LIBRARY_PATH`, where cargo has named the folder with the stand-in.
    Ok(vec![format!("-L{folder}"), "-lfdb_c".into(), format!("-Wl,--disable-new-dtags,-rpath,{folder}")])
}

#[cfg(not(feature = "fdb"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
fn client_folder(_: &Path) -> Result<Option<PathBuf>> {
    Ok(None)
}

/// Where the client library is: the stand-in is where cargo has built it, beside us. Of the real one there is a copy, since
/// the test programs run as somebody who may not read it where it is.
#[cfg(feature = "fdb")]
fn client_folder(cache: &Path) -> Result<Option<PathBuf>> {
    const NAME: &str = "libfdb_c.so";
    let Some(real) = std::env::var_os("LITEFLEET_FDB_LIBRARY_DIR").filter(|folder| !folder.is_empty()) else {
        let us = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
        return Ok(Some(us.parent().ok_or("this program is in no folder")?.join("deps")));
    };
    let (real, folder) = (Path::new(&real).join(NAME), cache.join("client"));
    let copy = || {
        fs::create_dir_all(&folder)?;
        fs::copy(&real, folder.join("new"))?;
        fs::rename(folder.join("new"), folder.join(NAME))
    };
    copy().map_err(|e| format!("{}: {e}", real.display()))?;
    Ok(Some(folder))
}

/// The VFS as a static library. In a Cargo run of its own, so that no other package makes it bring an SQLite.
pub(crate) fn library(workspace: &Path, cache: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["build", "--locked", "--profile", "suite", "-p", "litefleet-suite-vfs"]);
    cargo.args(FEATURES);
    cargo.env("CARGO_TARGET_DIR", target(workspace));
    command(&mut cargo, &cache.join("library.log"))?;
    Ok(target(workspace).join("suite").join("liblitefleet_suite_vfs.a"))
}
