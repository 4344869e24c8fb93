//! Runs test files: each as a process of its own, with a folder and a store of its own, as an ordinary user, and not for
//! ever.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process_group};

use crate::outcome::Outcome;
use crate::programs::Programs;
use crate::server::Server;
use crate::source::Tree;
use crate::stores::{self, Place};
use crate::{Locking, Result, Store, clock};

/// Some tests fail as root, who may write everything: they run as nobody then.
const NOBODY: u32 = 65_534;
/// In memory, where the machine has it: these tests are about rules, not about a disk.
const MEMORY_FOLDER: &str = "/dev/shm";
/// The time for a file: so many seconds, and so many times what it takes with SQLite's own VFS.
const LIMIT_FROM: f64 = 20.0;
const LIMIT_TIMES: f64 = 15.0;
/// The script of SQLite's that runs its tests with other settings.
const PERMUTATIONS: &str = "test/permutations.test";
const LOOK: Duration = Duration::from_millis(10);

/// How to run.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) store: Store,
    pub(crate) locking: Locking,
    pub(crate) jobs: usize,
    pub(crate) limit: Duration,
    pub(crate) outputs: Option<PathBuf>,
    /// One of SQLite's: the same tests with another setting.
    pub(crate) permutation: Option<String>,
    /// With the store on Postgres.
    pub(crate) server: Option<Server>,
}

pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// Runs the files with SQLite's own VFS, those that have not been: the measure of what ours should do.
pub(crate) fn stock(
    programs: &Programs,
    tree: &Tree,
    files: &[String],
    settings: &Settings,
    cache: &Path,
) -> Result<Outcomes> {
    let suffix = settings.permutation.as_ref().map(|name| format!("-{name}")).unwrap_or_default();
    let kept = cache.join(format!("stock-{}{suffix}.json", programs.build));
    let text = fs::read_to_string(&kept).unwrap_or_else(|_| "{}".into());
    let mut known: Outcomes = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", kept.display()))?;
    let missing: Vec<String> = files.iter().filter(|file| !known.contains_key(*file)).cloned().collect();
    if !missing.is_empty() {
        eprintln!("{} files with SQLite's own VFS", missing.len());
        let job = |file: &str| one(&programs.stock, tree, file, settings, settings.limit, &[], false);
        known.extend(each(&missing, settings.jobs, &job)?);
        let text = serde_json::to_string(&known).map_err(|e| e.to_string())?;
        fs::write(&kept, text).map_err(|e| format!("{}: {e}", kept.display()))?;
    }
    known.retain(|file, _| files.binary_search(file).is_ok());
    Ok(known)
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
    let seconds = |file: &String| stock.get(file).map_or(0.0, |outcome| outcome.seconds);
    order.sort_by(|a, b| seconds(b).total_cmp(&seconds(a)));
    let job = |file: &str| {
        let mut pairs = vec![stores::settings(settings.store, settings.locking)];
        if settings.locking == Locking::Sqlite {
            // Then the tests find everything as on a disk: SQLite makes the same calls.
            pairs.push(("LITEFLEET_SUITE_PLAIN_DISK", "1".into()));
        }
        // Ours may be slower, and what hangs need not hang for long.
        let limit =
            Duration::from_secs_f64(LIMIT_FROM + LIMIT_TIMES * stock.get(file).map_or(0.0, |stock| stock.seconds));
        let (outcome, text) = one(&programs.ours, tree, file, settings, limit.min(settings.limit), &pairs, true)?;
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
    let (run, kept) = (root.join("run"), root.join("store"));
    let output = root.join("output");
    for folder in [&run, &kept] {
        fs::create_dir(folder).map_err(words)?;
    }
    if geteuid().is_root() {
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).map_err(words)?;
        for folder in [&run, &kept] {
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
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let out = File::create(&output).map_err(words)?;
    command.stdin(Stdio::null()).stderr(out.try_clone().map_err(words)?).stdout(out);
    let start = clock::now();
    let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    let ended = wait(&mut child, limit)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = fs::read(&output).map_err(words)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut outcome = Outcome::read(&text, ended, seconds);
    if let Some(prefix) = settings.permutation.as_ref().map(|name| format!("{name}.")) {
        for case in &mut outcome.failed {
            *case = case.strip_prefix(&prefix).unwrap_or(case).to_owned();
        }
    }
    Ok((outcome, text))
}

/// Waits for a process, and ends what it has left. How it ended, unless well.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<String>> {
    let start = clock::now();
    let status: Option<ExitStatus> = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break Some(status);
        }
        if start.elapsed() > limit {
            break None;
        }
        clock::sleep(LOOK);
    };
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Fails where nothing is left of it.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    match status {
        Some(status) if status.success() => Ok(None),
        Some(status) => Ok(Some(status.to_string())),
        None => {
            child.wait().map_err(|e| e.to_string())?;
            Ok(Some(format!("not done after {} s", limit.as_secs())))
        }
    }
}
