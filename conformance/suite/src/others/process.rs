//! One run of a program, or several in the same folder and over the same store.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{self, Settings};
use crate::source::Tree;
use crate::stores::{self, Place};
use crate::{Result, Store};

use super::build::Programs;
use super::{Extent, Verdict};

/// What all cases share.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) programs: Programs,
    pub(super) tree: &'a Tree,
    pub(super) settings: &'a Settings,
    pub(super) extent: Extent,
}

/// A folder, and a store unless the programs run with SQLite's own VFS. Gone with this value.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    scene: &'a Scene<'a>,
    place: Option<Place<'a>>,
    root: tempfile::TempDir,
    folder: PathBuf,
}

/// What a program said, and how it ended unless well.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) text: String,
    pub(super) ended: Option<String>,
}

impl<'a> Scene<'a> {
    /// An empty folder, and an empty store.
    pub(super) fn stage(&'a self, ours: bool) -> Result<Stage<'a>> {
        let root = run::scratch()?;
        let words = |e: std::io::Error| format!("{}: {e}", root.path().display());
        let real = fs::canonicalize(root.path()).map_err(words)?;
        let folder = real.join("run");
        fs::create_dir(&folder).map_err(words)?;
        let place = ours.then(|| Place::new(self.settings, &real.join("store")));
        Ok(Stage { scene: self, place, root, folder })
    }

    pub(super) fn is_short(&self) -> bool {
        self.extent == Extent::Short
    }

    pub(super) fn store(&self) -> Store {
        self.settings.store
    }
}

impl Stage<'_> {
    /// The folder that programs run in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a program to its end, or until its time is over.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let words = |e: std::io::Error| format!("{}: {e}", self.folder.display());
        let path = self.scene.programs.path(program, self.place.is_some());
        let output = self.root.path().join("output");
        let out = File::create(&output).map_err(words)?;
        let mut command = Command::new(&path);
        command.args(arguments).current_dir(&self.folder).process_group(0).stdin(Stdio::null());
        command.env("LITEFLEET_SUITE_ROOT", &self.folder);
        if let Some(place) = &self.place {
            place.tell(&mut command);
            command.envs([stores::settings(self.scene.settings.store, self.scene.settings.locking)]);
        }
        command.stderr(out.try_clone().map_err(words)?).stdout(out);
        let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", path.display()))?;
        let end = run::wait(&mut child, self.scene.settings.most())?;
        let ended = (!end.is_good()).then(|| end.to_string());
        let text = String::from_utf8_lossy(&fs::read(&output).map_err(words)?).into_owned();
        Ok(Output { text, ended })
    }
}

/// What two runs say of each other, when both should print the same.
pub(super) fn same(stock: &Output, ours: &Output) -> Verdict {
    if let Some(how) = &stock.ended {
        return Verdict::Failed(format!("with SQLite's own VFS: {how}: {}", last_line(&stock.text)));
    }
    if let Some(how) = &ours.ended {
        return Verdict::Failed(format!("{how}: {}", last_line(&ours.text)));
    }
    if stock.text.trim().is_empty() {
        return Verdict::Failed("prints nothing that could be compared".into());
    }
    let (mut stock_lines, mut our_lines) = (stock.text.lines(), ours.text.lines());
    loop {
        match (stock_lines.next(), our_lines.next()) {
            (None, None) => return Verdict::Passed,
            (stock, ours) if stock == ours => {}
            (stock, ours) => {
                let shown = |line: Option<&str>| line.map_or("the end".to_owned(), |line| format!("{line:?}"));
                return Verdict::Failed(format!("{} instead of {}", shown(ours), shown(stock)));
            }
        }
    }
}

/// The last line that says something.
pub(super) fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output")
}
