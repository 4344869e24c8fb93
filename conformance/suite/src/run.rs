//! Runs test files: each as a process of its own, with a folder and a store of its own, as an ordinary user, and not for
//! ever.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, geteuid, getrlimit, kill_process_group, setrlimit};

use crate::kept;
use crate::outcome::{BRIDGE_FAILED, End, OWN_STORE, Outcome, PANICKED, UNSEEN};
use crate::programs::Programs;
use crate::server::Server;
use crate::source::{Release, Tree};
use crate::stores::{self, Place};
use crate::{Locking, Result, Store, cancel, clock};

/// Some tests fail as root, who may write everything: they run as nobody then.
const NOBODY: u32 = 65_534;
/// In memory, where the machine has it: these tests are about rules, not about a disk.
const MEMORY_FOLDER: &str = "/dev/shm";
/// The time for a file with SQLite's own VFS, and for one of SQLite's other programs.
const LIMIT: Duration = Duration::from_secs(300);
/// The time for a file: so many seconds, and so many times what it takes with SQLite's own VFS. Ours may be slower, processes that
/// take turns at an embedded store open and close it for each transaction, and what hangs need not hang for long.
const LIMIT_HERE: (f64, f64) = (80.0, 40.0);
/// Where each commit goes to a server, whose time is not ours alone.
const LIMIT_ON_A_SERVER: (f64, f64) = (300.0, 60.0);
/// The script of SQLite's that runs its tests with other settings.
const PERMUTATIONS: &str = "test/permutations.test";
/// Files that a process may have open: there are tests of what happens then, and the measure is the same on every machine.
const OPEN_FILES: u64 = 1024;
/// Where a process says what its test must not pass with: see `conformance/suite-vfs`.
const MARKS: &str = "LITEFLEET_SUITE_MARKS";
/// What the marks begin with, and the case that then fails.
const MARKED: &[(&str, &str)] =
    &[("own-", OWN_STORE), ("unseen-", UNSEEN), ("panicked-", PANICKED), ("failed-", BRIDGE_FAILED)];
const LOOK: Duration = Duration::from_millis(10);

/// How to run.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) store: Store,
    pub(crate) locking: Locking,
    pub(crate) jobs: usize,
    /// The time for a file, where it was given.
    pub(crate) limit: Option<Duration>,
    pub(crate) outputs: Option<PathBuf>,
    /// Runs every file with SQLite's own VFS again: the times of both are then of one run.
    pub(crate) stock_anew: bool,
    pub(crate) sqlite: Release,
    /// One of SQLite's: the same tests with another setting.
    pub(crate) permutation: Option<String>,
    /// With the store on Postgres.
    pub(crate) server: Option<Server>,
}

impl Settings {
    /// The time for a file with SQLite's own VFS.
    pub(crate) fn most(&self) -> Duration {
        self.limit.unwrap_or(LIMIT)
    }

    /// The time for a file that takes SQLite's own VFS so many seconds.
    fn for_ours(&self, stock: f64) -> Duration {
        let (from, times) = if self.store.is_shared() { LIMIT_ON_A_SERVER } else { LIMIT_HERE };
        self.limit.unwrap_or_else(|| Duration::from_secs_f64(from + times * stock))
    }
}

pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// Runs the files with SQLite's own VFS, those of which no clean run is known, or all: the measure of what ours should do.
///
/// What failed with it excuses ours, so only a run in which nothing failed is kept; one that did not end by its own summary
/// excuses nothing.
pub(crate) fn stock(
    programs: &Programs,
    tree: &Tree,
    files: &[String],
    settings: &Settings,
    cache: &Path,
) -> Result<Outcomes> {
    let suffix = settings.permutation.as_ref().map(|name| format!("-{name}")).unwrap_or_default();
    let path = cache.join(format!("stock-{}{suffix}.json", programs.build));
    let mut known = kept::read(&path)?;
    let is_missing = |file: &&String| settings.stock_anew || !known.contains_key(*file);
    let missing: Vec<String> = files.iter().filter(is_missing).cloned().collect();
    if !missing.is_empty() {
        eprintln!("{} files with SQLite's own VFS", missing.len());
        let job = |file: &str| one(&programs.stock, tree, file, settings, settings.most(), &[], false);
        let new = each(&missing, settings.jobs, &job)?;
        let clean = new.iter().filter(|(_, outcome)| outcome.failed.is_empty());
        kept::write(&path, known.iter().chain(clean).collect())?;
        known.extend(new);
    }
    known.retain(|file, _| files.binary_search(file).is_ok());
    Ok(known)
}

/// Sets how many files each process that is started may have open.
pub(crate) fn limit_open_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES))), maximum };
    setrlimit(Resource::Nofile, limit).map_err(|e| format!("the limit of open files: {e}"))
}

/// Runs the files with our VFS, the longest first.
pub(crate) fn ours(
    programs: &Programs,
    tree: &Tree,
    files: &[String],
    stock: &Outcomes,
    settings: &Settings,
) -> Result<Outcomes> {
    eprintln!("{} files over {}, locking={}", files.len(), settings.store.name(), settings.locking.name());
    let mut order = files.to_vec();
    let seconds = |file: &str| stock.get(file).map_or(0.0, |outcome| outcome.seconds);
    order.sort_by(|a, b| seconds(b).total_cmp(&seconds(a)));
    let job = |file: &str| {
        let pairs = [stores::settings(settings.store, settings.locking)];
        let limit = settings.for_ours(seconds(file));
        let (outcome, text) = one(&programs.ours, tree, file, settings, limit, &pairs, true)?;
        if let Some(folder) = settings.outputs.as_ref().filter(|_| !outcome.failed.is_empty()) {
            fs::create_dir_all(folder).map_err(|e| e.to_string())?;
            let path = folder.join(format!("{}.out", file.replace('/', "-")));
            fs::write(&path, &text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok((outcome, text))
    };
    each(&order, settings.jobs, &job)
}

fn each(files: &[String], jobs: usize, job: &(impl Fn(&str) -> Result<(Outcome, String)> + Sync)) -> Result<Outcomes> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new((Outcomes::new(), Vec::new())));
    let worker = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if cancel::is_requested() {
                return;
            }
            let result = job(file);
            let Ok(mut done) = done.lock() else { return };
            match result {
                Ok((outcome, _)) => {
                    if !outcome.failed.is_empty() {
                        eprintln!("  {file}: {} of {} cases", outcome.failed.len(), outcome.cases);
                    }
                    done.0.insert(file.clone(), outcome);
                    if done.0.len() % 100 == 0 {
                        eprintln!("  {} of {} files", done.0.len(), files.len());
                    }
                }
                Err(words) => done.1.push(format!("{file}: {words}")),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(worker);
        }
    });
    let (outcomes, errors) = done.into_inner().map_err(|_| "a worker panicked")?;
    if cancel::is_requested() {
        return Err("interrupted".into());
    }
    if errors.is_empty() { Ok(outcomes) } else { Err(errors.join("\n")) }
}

/// The folder in memory, where there is one.
pub(crate) fn memory_folder() -> Option<PathBuf> {
    Some(PathBuf::from(MEMORY_FOLDER)).filter(|folder| folder.is_dir())
}

pub(crate) fn scratch() -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("litefleet-suite-");
    let made = memory_folder().map_or_else(|| builder.tempdir(), |folder| builder.tempdir_in(folder));
    made.map_err(|e| format!("a scratch folder: {e}"))
}

/// Lets every user look into a folder: test programs run as another.
pub(crate) fn open_to_all(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(|e| format!("{}: {e}", folder.display()))
}

fn one(
    program: &Path,
    tree: &Tree,
    file: &str,
    settings: &Settings,
    limit: Duration,
    environment: &[(&str, String)],
    ours: bool,
) -> Result<(Outcome, String)> {
    let scratch = scratch()?;
    let words = |e: std::io::Error| format!("{}: {e}", scratch.path().display());
    let root = fs::canonicalize(scratch.path()).map_err(words)?;
    let (run, kept, marks) = (root.join("run"), root.join("store"), root.join("marks"));
    let output = root.join("output");
    for folder in [&run, &kept, &marks] {
        fs::create_dir(folder).map_err(words)?;
    }
    open_to_all(&root)?;
    if geteuid().is_root() {
        for folder in [&run, &kept, &marks] {
            chown(folder, Some(NOBODY), Some(NOBODY)).map_err(words)?;
        }
    }
    let mut command = Command::new(program);
    match &settings.permutation {
        None => command.arg(tree.path.join(file)),
        // It takes names without folders.
        Some(name) => command.arg(tree.path.join(PERMUTATIONS)).arg(name).args(file.rsplit('/').next()),
    };
    command.current_dir(&run).process_group(0).env_clear();
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", &run).env("LITEFLEET_SUITE_ROOT", &run);
    let place = ours.then(|| Place::new(settings, &kept));
    if let Some(place) = &place {
        place.tell(&mut command);
        command.env(MARKS, &marks);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let out = File::create(&output).map_err(words)?;
    command.stdin(Stdio::null()).stderr(out.try_clone().map_err(words)?).stdout(out);
    let start = clock::now();
    let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    let end = wait(&mut child, limit)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = fs::read(&output).map_err(words)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let prefix = settings.permutation.as_ref().map(|name| format!("{name}.")).unwrap_or_default();
    let mut outcome = Outcome::read(&text, &prefix, &end, seconds);
    for case in marked(&marks)? {
        outcome.mark(case);
    }
    Ok((outcome, text))
}

/// What processes have said of themselves.
fn marked(marks: &Path) -> Result<Vec<&'static str>> {
    let left = fs::read_dir(marks).map_err(|e| format!("{}: {e}", marks.display()))?;
    let names: Vec<String> = left.flatten().map(|mark| mark.file_name().to_string_lossy().into_owned()).collect();
    let is_there = |start: &str| names.iter().any(|name| name.starts_with(start));
    Ok(MARKED.iter().filter(|(start, _)| is_there(start)).map(|&(_, case)| case).collect())
}

/// Waits for a process, and ends what it has left.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<End> {
    let start = clock::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break Some(status);
        }
        if start.elapsed() > limit || cancel::is_requested() {
            break None;
        }
        clock::sleep(LOOK);
    };
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Fails where nothing is left of it.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let Some(status) = status else {
        child.wait().map_err(|e| e.to_string())?;
        if cancel::is_requested() {
            return Err("interrupted".into());
        }
        return Ok(End::Late(limit.as_secs()));
    };
    // Without an exit code it was a signal.
    Ok(status.code().map_or_else(|| End::Signal(status.signal().unwrap_or_default()), End::Exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_of_itself_is_seen() {
        let marks = tempfile::tempdir().expect("a folder");
        File::create(marks.path().join("first")).expect("a mark");
        assert!(marked(marks.path()).expect("the marks").is_empty());
        File::create(marks.path().join("own-17")).expect("a mark");
        assert_eq!(marked(marks.path()).expect("the marks"), [OWN_STORE]);
        File::create(marks.path().join("unseen-18")).expect("a mark");
        assert_eq!(marked(marks.path()).expect("the marks"), [OWN_STORE, UNSEEN]);
        for mark in ["panicked-18", "failed-19"] {
            File::create(marks.path().join(mark)).expect("a mark");
        }
        assert_eq!(marked(marks.path()).expect("the marks"), [OWN_STORE, UNSEEN, PANICKED, BRIDGE_FAILED]);
    }

    #[test]
    fn a_signal_is_no_exit_code() {
        let end = |script: &str, limit| {
            let mut child = Command::new("sh").args(["-c", script]).process_group(0).spawn().expect("a shell");
            wait(&mut child, limit).expect("its end")
        };
        let long = Duration::from_secs(60);
        assert_eq!((end("exit 3", long), end("kill -SEGV $$", long)), (End::Exit(3), End::Signal(11)));
        assert_eq!(end("sleep 60", Duration::ZERO), End::Late(0));
    }
}
