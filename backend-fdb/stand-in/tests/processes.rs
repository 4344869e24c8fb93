//! One cluster, several processes: shared, killed, stopped. The cluster is this process's, or a real one.
#![expect(unsafe_code, reason = "starting the network thread")]
#![expect(clippy::unwrap_used, reason = "in functions that tests share, as in tests")]
#![expect(clippy::print_stdout, reason = "a child process reports to its parent")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use foundationdb::api::{FdbApiBuilder, NetworkAutoStop};
use foundationdb::{Database, FdbError, RangeOption};
use litefleet_fdb_stand_in_control::{StandIn, real_cluster};

const ROLE: &str = "LITEFLEET_TEST_ROLE";
const CLUSTER: &str = "LITEFLEET_TEST_CLUSTER";

/// The keys of these tests; each test has a folder of its own below.
const PREFIX: &str = "litefleet-stand-in-processes/";

fn start_network() {
    static NETWORK: std::sync::OnceLock<NetworkAutoStop> = std::sync::OnceLock::new();
    NETWORK.get_or_init(|| {
        let network = FdbApiBuilder::default().build().expect("an API version that the library has");
        // SAFETY: the process ends without unloading the library; the value is never dropped.
        unsafe { network.boot() }.expect("a network thread")
    });
}

fn open(cluster_file: &str) -> Database {
    start_network();
    Database::from_path(cluster_file).expect("the cluster")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn key(name: &str) -> Vec<u8> {
    [PREFIX.as_bytes(), name.as_bytes()].concat()
}

/// A cluster that children can open by the file.
struct Shared {
    /// The folder of the test's keys.
    name: String,
    file: PathBuf,
    database: Database,
    _directory: tempfile::TempDir,
}

fn shared(name: &str) -> Shared {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (own, file) = real_cluster().map_or_else(
        || {
            let stand_in = StandIn::create(directory.path(), name).expect("a cluster file");
            let served = stand_in.serve(directory.path());
            (stand_in.cluster_file().to_owned(), PathBuf::from(served.cluster_file()))
        },
        |file| (file.to_str().expect("a path in UTF-8").to_owned(), file),
    );
    let shared = Shared { name: name.to_owned(), file, database: open(&own), _directory: directory };
    shared.clear().expect("a commit without conflict");
    shared
}

impl Shared {
    fn clear(&self) -> Result<(), FdbError> {
        run(async {
            let transaction = self.database.create_trx()?;
            transaction.clear_range(&key(&format!("{}/", self.name)), &key(&format!("{}0", self.name)));
            transaction.commit().await?;
            Ok(())
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The stand-in's is gone with it, and may be killed by now.
        if real_cluster().is_some()
            && let Err(error) = self.clear()
        {
            eprintln!("the keys of {} are left behind: {error}", self.name);
        }
    }
}

/// A child process, and its report line by line.
struct Worker {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Worker {
    fn start(role: &str, cluster_file: &Path) -> Self {
        Self::start_with(role, cluster_file, "")
    }

    fn start_with(role: &str, cluster_file: &Path, commands: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--exact", "the_child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(CLUSTER, cluster_file)
            .env("LITEFLEET_STAND_IN_COMMANDS", commands)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let stdin = child.stdin.take().expect("its input");
        Self { child, lines, stdin }
    }

    /// The next line that is a report; none when the child has ended.
    fn report(&mut self) -> Option<String> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix('@').map(str::to_owned))
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the child reads");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("the command kill").success());
    }
}

fn say(line: &str) {
    println!("\n@{line}");
    std::io::stdout().flush().expect("the parent listens");
}

fn heard() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent tells");
    line.trim().to_owned()
}

#[test]
#[ignore = "not a test: what the other tests run as a child process"]
fn the_child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let file = std::env::var(CLUSTER).expect("the parent sets it");
    match role.as_str() {
        "write" => run(write(&open(&file))),
        "pause" => run(read_pause_and_write(&open(&file))),
        "watch" => run(watch(&open(&file))),
        "once" => run(async {
            let transaction = open(&file).create_trx().unwrap();
            transaction.set(&key("once"), b"x");
            say(&transaction.commit().await.err().map_or(0, |error| error.code()).to_string());
        }),
        "serve" => {
            let directory = Path::new(&file).parent().expect("a folder");
            let stand_in = StandIn::at(Path::new(&file));
            let served = stand_in.serve(directory);
            stand_in.command("latency commit=2000000");
            say(served.cluster_file());
            heard();
        }
        other => panic!("no role '{other}'"),
    }
}

/// Commits pairs of keys without end, and reports each commit that was acknowledged.
async fn write(database: &Database) {
    for number in 0.. {
        let transaction = database.create_trx().unwrap();
        transaction.set(&key(&format!("killed/a{number:06}")), b"x");
        transaction.set(&key(&format!("killed/b{number:06}")), b"x");
        transaction.commit().await.unwrap();
        say(&number.to_string());
    }
}

async fn read_pause_and_write(database: &Database) {
    let transaction = database.create_trx().unwrap();
    transaction.get(&key("stopped/head"), false).await.unwrap();
    say("read");
    heard();
    transaction.set(&key("stopped/head"), b"from the stopped process");
    say(&transaction.commit().await.err().map_or(0, |error| error.code()).to_string());
}

async fn watch(database: &Database) {
    let transaction = database.create_trx().unwrap();
    let watch = transaction.watch(&key("watched/a"));
    transaction.commit().await.unwrap();
    say("watching");
    watch.await.unwrap();
    say("changed");
}

#[test]
fn what_a_killed_process_was_told_is_there_and_no_commit_is_half_there() {
    let shared = shared("killed");
    for round in 0..5 {
        let mut worker = Worker::start("write", &shared.file);
        let mut last = 0;
        for _ in 0..10 + round {
            last = worker.report().expect("the child commits").parse().expect("a number");
        }
        worker.child.kill().unwrap();
        while let Some(line) = worker.report() {
            last = line.parse().expect("a number");
        }
        let keys = |letter: char| {
            let transaction = shared.database.create_trx().unwrap();
            let range = RangeOption::from((key(&format!("killed/{letter}")), key(&format!("killed/{letter}~"))));
            let range = RangeOption { mode: foundationdb::options::StreamingMode::WantAll, ..range };
            run(transaction.get_range(&range, 1, false)).unwrap().len()
        };
        let (a, b) = (keys('a'), keys('b'));
        assert_eq!(a, b, "each commit has a key of both kinds");
        assert!(a > last, "{last} was acknowledged, and {a} commits are there");
        run(async {
            let transaction = shared.database.create_trx().unwrap();
            transaction.clear_range(&key("killed/"), &key("killed0"));
            transaction.commit().await.unwrap();
        });
    }
}

#[test]
fn a_stopped_process_that_goes_on_meets_what_was_changed_meanwhile() {
    let shared = shared("stopped");
    let mut worker = Worker::start("pause", &shared.file);
    assert_eq!(worker.report().as_deref(), Some("read"));
    worker.signal("-STOP");
    run(async {
        let transaction = shared.database.create_trx().unwrap();
        transaction.set(&key("stopped/head"), b"taken");
        transaction.commit().await.unwrap();
    });
    worker.tell("go on");
    worker.signal("-CONT");
    assert_eq!(worker.report().as_deref(), Some("1020"));
    let transaction = shared.database.create_trx().unwrap();
    let head = run(transaction.get(&key("stopped/head"), false)).unwrap();
    assert_eq!(head.as_deref(), Some(&b"taken"[..]));
}

#[test]
fn a_watch_tells_another_process() {
    let shared = shared("watched");
    let mut worker = Worker::start("watch", &shared.file);
    assert_eq!(worker.report().as_deref(), Some("watching"));
    run(async {
        let transaction = shared.database.create_trx().unwrap();
        transaction.set(&key("watched/a"), b"x");
        transaction.commit().await.unwrap();
    });
    assert_eq!(worker.report().as_deref(), Some("changed"));
}

#[test]
#[cfg_attr(real_cluster, ignore = "kills the cluster")]
fn a_commit_whose_cluster_is_killed_has_an_unknown_result() {
    let directory = tempfile::tempdir().unwrap();
    let stand_in = StandIn::create(directory.path(), "server").unwrap();
    let mut worker = Worker::start("serve", Path::new(stand_in.cluster_file()));
    let served = worker.report().expect("the child serves");
    let database = open(&served);
    run(async {
        let transaction = database.create_trx().unwrap();
        transaction.get_read_version().await.unwrap();
        transaction.set(&key("server/a"), b"x");
        let commit = transaction.commit();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        worker.child.kill().unwrap();
        assert_eq!(commit.await.expect_err("no reply").code(), 1021);
    });
}

#[test]
#[cfg_attr(real_cluster, ignore = "injects faults")]
fn the_environment_gives_new_clusters_their_commands() {
    let directory = tempfile::tempdir().unwrap();
    let stand_in = StandIn::create(directory.path(), "environment").unwrap();
    let file = Path::new(stand_in.cluster_file());
    let report = |commands| Worker::start_with("once", file, commands).report();
    assert_eq!(report("").as_deref(), Some("0"));
    assert_eq!(report("latency commit=10; next commit.1020").as_deref(), Some("1020"));
}
