//! A Postgres server of one's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::supervised::{Supervised, as_user, folder, give};
use super::{free_port, wait_until};

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Lines of `postgresql.conf`, besides the usual ones.
    pub settings: Vec<String>,
    /// Lines of `pg_hba.conf` that come before "everybody may".
    pub access: Vec<String>,
    /// Whether a committed transaction is on the disk, as servers have it unless told otherwise. Tests that never cut the
    /// power do without.
    pub durable: bool,
    /// Bytes of a small disk of its own at [`Server::small_disk`]: for a tablespace that gets full. Only root can have it.
    pub small_disk: Option<u64>,
    /// Where the server's folder is made; the folder for temporary files by default.
    pub parent: Option<PathBuf>,
}

/// A server that is removed with this value.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    port: u16,
    small_disk: Option<u64>,
    running: Option<Supervised>,
}

/// Mounts a small disk that only the server and its processes see, and starts it there.
const WITH_SMALL_DISK: &str = r#"
mount -t tmpfs -o "size=$1,uid=$(id -u postgres),gid=$(id -g postgres),mode=700" tmpfs "$2" && shift 2 && exec "$@"
"#;

/// The path of one of Postgres's programs: in the folder `LITEFLEET_POSTGRES_BIN`, or the newest of Debian's. A folder that
/// has a server alone works with Debian's `psql` and the like.
pub(super) fn program(name: &str) -> PathBuf {
    if let Ok(folder) = std::env::var("LITEFLEET_POSTGRES_BIN") {
        let path = Path::new(&folder).join(name);
        assert!(path.exists() || name != "postgres", "LITEFLEET_POSTGRES_BIN: there is no {}", path.display());
        if path.exists() {
            return path;
        }
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("postgres").exists())
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, folder)| folder.join(name));
    newest.expect("no Postgres server here: install Debian's package postgresql, or set LITEFLEET_POSTGRES_BIN")
}

fn run(command: &[String]) {
    let words = as_user(command);
    let output = Command::new(&words[0]).args(&words[1..]).output().expect("the command can be started");
    assert!(
        output.status.success(),
        "{} failed:\n{}{}",
        command[0],
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Server {
    /// Makes and starts a server.
    pub fn start(options: &ServerOptions) -> Self {
        let folder = folder(options.parent.as_deref());
        let data = folder.join("data");
        let initdb = program("initdb").display().to_string();
        let arguments = ["-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"];
        let mut command = vec![initdb];
        command.extend(arguments.map(str::to_owned));
        command.push(data.display().to_string());
        run(&command);
        let server = Self { folder, port: free_port(), small_disk: options.small_disk, running: None };
        server.configure(options);
        server.begin()
    }

    /// A standby of this server, which streams from it under a name.
    #[must_use]
    pub fn standby(&self, name: &str, options: &ServerOptions) -> Self {
        let folder = folder(options.parent.as_deref());
        let backup = program("pg_basebackup").display().to_string();
        let from = format!("host=127.0.0.1 port={} user=postgres application_name={name}", self.port);
        let data = folder.join("data").display().to_string();
        run(&[backup, "-R".into(), "-c".into(), "fast".into(), "-d".into(), from, "-D".into(), data]);
        let server = Self { folder, port: free_port(), small_disk: None, running: None };
        server.configure(options);
        server.begin()
    }

    fn configure(&self, options: &ServerOptions) {
        if options.small_disk.is_some() {
            let small = self.small_disk();
            fs::create_dir(&small).unwrap();
            give(&small);
        }
        let mut lines = vec![
            format!("port = {}", self.port),
            "listen_addresses = '127.0.0.1'".to_owned(),
            // Files in its folder: else one that is killed leaves shared memory behind.
            "dynamic_shared_memory_type = mmap".to_owned(),
            format!("unix_socket_directories = '{}'", self.folder.display()),
            "max_connections = 300".to_owned(),
            "log_checkpoints = off".to_owned(),
        ];
        if !options.durable {
            lines.push("fsync = off".to_owned());
        }
        lines.extend(options.settings.iter().cloned());
        let data = self.folder.join("data");
        let own = data.join("litefleet.conf");
        fs::write(&own, lines.join("\n") + "\n").unwrap();
        give(&own);
        let main = data.join("postgresql.conf");
        let before = fs::read_to_string(&main).unwrap();
        if !before.contains("litefleet.conf") {
            fs::write(&main, before + "\ninclude 'litefleet.conf'\n").unwrap();
        }
        if !options.access.is_empty() {
            let rules = data.join("pg_hba.conf");
            let before = fs::read_to_string(&rules).unwrap();
            fs::write(&rules, format!("{}\n{before}", options.access.join("\n"))).unwrap();
        }
    }

    fn begin(mut self) -> Self {
        self.resume();
        self
    }

    /// Starts it again after it was stopped or killed.
    pub fn resume(&mut self) {
        if let Some(dead) = self.running.take() {
            dead.stop();
        }
        let program = program("postgres").display().to_string();
        let data = self.folder.join("data").display().to_string();
        let log = self.folder.join("log");
        let mut command = as_user(&[program, "-D".into(), data]);
        if let Some(bytes) = self.small_disk {
            let mut mounting = vec!["unshare".to_owned(), "--mount".into(), "sh".into(), "-c".into()];
            mounting.extend([WITH_SMALL_DISK.to_owned(), "sh".into(), bytes.to_string()]);
            mounting.push(self.small_disk().display().to_string());
            mounting.append(&mut command);
            command = mounting;
        }
        self.running = Some(Supervised::start(&self.folder, "QUIT", &log, &command));
        wait_until("the server is ready", Duration::from_secs(60), || self.is_ready());
    }

    fn is_ready(&self) -> bool {
        let program = program("pg_isready");
        let port = self.port.to_string();
        Command::new(program).args(["-q", "-h", "127.0.0.1", "-p", &port]).status().is_ok_and(|status| status.success())
    }

    /// The process id of the server.
    pub fn pid(&self) -> i32 {
        let file = self.folder.join("data/postmaster.pid");
        let text = fs::read_to_string(file).expect("the server runs");
        text.lines().next().and_then(|line| line.parse().ok()).expect("its first line is the process id")
    }

    /// Kills the server and all its processes at once, as a power failure would.
    pub fn kill(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a process id");
        // The others see that their parent is gone, and end by themselves.
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        if let Some(dead) = self.running.take() {
            dead.stop();
        }
        let file = self.folder.join("data/postmaster.pid");
        wait_until("the server's processes are gone", Duration::from_secs(20), || !self.is_ready());
        let _left = fs::remove_file(file);
    }

    /// Stops it in order, and keeps what it has.
    pub fn stop(&mut self) {
        let program = program("pg_ctl").display().to_string();
        let data = self.folder.join("data").display().to_string();
        run(&[program, "-D".into(), data, "-m".into(), "fast".into(), "-w".into(), "stop".into()]);
        if let Some(stopped) = self.running.take() {
            stopped.stop();
        }
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        let program = program("pg_ctl").display().to_string();
        let data = self.folder.join("data").display().to_string();
        run(&[program, "-D".into(), data, "-w".into(), "promote".into()]);
    }

    /// Gives it a certificate and a key, for its next start; from then on it also accepts TLS.
    pub fn encrypt(&self, certificate: &str, key: &str) {
        let data = self.folder.join("data");
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let file = data.join(name);
            fs::write(&file, text).unwrap();
            give(&file);
        }
        let own = data.join("litefleet.conf");
        let before = fs::read_to_string(&own).unwrap();
        fs::write(&own, before + "ssl = on\n").unwrap();
    }

    /// Where its small disk is.
    pub fn small_disk(&self) -> PathBuf {
        self.folder.join("small")
    }

    /// Makes its small disk as large as this.
    pub fn enlarge_small_disk(&self, bytes: u64) {
        let (pid, size) = (self.pid().to_string(), format!("remount,size={bytes}"));
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "mount", "-o", &size]).arg(self.small_disk());
        assert!(command.status().unwrap().success(), "the small disk cannot be enlarged");
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of everything that it has.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its URL, for the user `postgres` and the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Runs SQL with `psql`, as the superuser; returns what it prints, without decoration.
    pub fn sql(&self, sql: &str) -> String {
        let program = program("psql");
        let port = self.port.to_string();
        let arguments =
            ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p", &port];
        let output = Command::new(program).args(arguments).args(["-c", sql, "postgres"]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.take().is_none() {
            let _left = fs::remove_dir_all(&self.folder);
        }
    }
}
