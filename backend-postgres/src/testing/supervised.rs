//! Processes that end with us.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Runs the command below it; when its input ends, it stops the command, and removes the folder unless it was told to keep
/// it. Signals to the whole group do not reach it, so that it can still clean up.
const SUPERVISOR: &str = r#"
trap '' INT TERM HUP
folder=$1; signal=$2; shift 2
"$@" </dev/null &
child=$!
read -r word
kill "-$signal" "$child" 2>/dev/null
wait "$child" 2>/dev/null
[ "$word" = keep ] || rm -rf "$folder"
"#;

/// A command with a supervisor above it.
#[derive(Debug)]
pub(super) struct Supervised {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Supervised {
    /// Starts a command that stops at `signal` and works in `folder`; [`as_user`] makes it another user's.
    pub(super) fn start(folder: &Path, signal: &str, log: &Path, command: &[String]) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(folder)
            .arg(signal)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("sh can be started");
        let input = shell.stdin.take();
        Self { shell, input }
    }

    /// Stops it, and keeps the folder.
    pub(super) fn stop(mut self) {
        self.end("keep");
    }

    fn end(&mut self, word: &str) {
        if let Some(mut input) = self.input.take() {
            let _gone = writeln!(input, "{word}");
        }
        let _gone = self.shell.wait();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.end("remove");
    }
}

/// Whether servers must run as somebody else.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The command, as the user that servers run as.
pub(super) fn as_user(command: &[String]) -> Vec<String> {
    let mut words = Vec::new();
    if is_root() {
        words.extend(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"].map(str::to_owned));
    }
    words.extend_from_slice(command);
    words
}

/// A new folder that belongs to the user that servers run as.
pub(super) fn folder(parent: Option<&Path>) -> PathBuf {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let folder = tempfile::Builder::new().prefix("litefleet-pg-").tempdir_in(parent).unwrap().keep();
    give(&folder);
    folder
}

/// Gives a file or folder to the user that servers run as.
pub(super) fn give(path: &Path) {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    if is_root() {
        let done = Command::new("chown").arg("postgres:postgres").arg(path).status().unwrap();
        assert!(done.success(), "there is no user postgres: install Debian's package postgresql");
    }
}
