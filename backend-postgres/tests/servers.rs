//! Servers and processes that die: nothing acknowledged is lost.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod support;

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::{Bouncer, Server, ServerOptions, pause, wait_until};
use rusqlite::Connection;
use support::child::{self, Task, noted};
use support::{connect, synchronous_pair};

/// What the other processes are: see `support/child.rs`.
#[test]
#[ignore = "the other tests start it in processes of their own"]
fn child() {
    child::run();
}

fn values(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT v FROM t ORDER BY rowid").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn stop(task: &Task, children: Vec<Child>) {
    std::fs::write(task.folder.join("stop"), "").unwrap();
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a child failed");
    }
    std::fs::remove_file(task.folder.join("stop")).unwrap();
}

/// Every number that was acknowledged is there, once, in the order of each process; none that failed is.
fn check(task: &Task) {
    let store = connect(&task.url, &task.schema, |config| config);
    let mut settings = FleetSettings::default();
    settings.database.store_timeout = Duration::from_secs(20);
    let process = Process::new(Arc::new(store), settings);
    let mut all = 0;
    for name in &task.databases {
        let found = values(&process.open(name, "&takeover=1"));
        let there: BTreeSet<i64> = found.iter().copied().collect();
        assert_eq!(there.len(), found.len(), "{name}: applied twice");
        let done: BTreeSet<i64> = noted(&task.folder, "done", name).into_iter().collect();
        let lost: Vec<&i64> = done.difference(&there).collect();
        assert!(lost.is_empty(), "{name}: acknowledged and lost: {lost:?}");
        let wrong: Vec<i64> =
            noted(&task.folder, "failed", name).into_iter().filter(|number| there.contains(number)).collect();
        assert!(wrong.is_empty(), "{name}: reported as failed, and there: {wrong:?}");
        assert_eq!(process.problems(name), Vec::<String>::new(), "{name}");
        all += done.len();
    }
    assert!(all > 50, "{all} commits only");
}

fn progress(task: &Task) -> usize {
    task.databases.iter().map(|name| noted(&task.folder, "done", name).len()).sum()
}

/// Waits until so many more commits were acknowledged.
fn wait_for_more(task: &Task, more: usize) {
    let wanted = progress(task) + more;
    wait_until("commits go on", Duration::from_secs(60), || progress(task) >= wanted);
}

fn task(url: String, folder: &tempfile::TempDir, databases: &[&str]) -> Task {
    Task {
        url,
        schema: "litefleet".into(),
        folder: folder.path().into(),
        first: 0,
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        session_millis: 3000,
        shares: false,
        holds: false,
    }
}

/// Each child has databases of its own, and one is shared by all.
fn several(task: &Task) -> (Vec<Task>, Task) {
    let child = |index: i64| Task {
        first: index * 1_000_000,
        databases: vec![format!("own-{index}"), "shared".into()],
        shares: true,
        ..task.clone()
    };
    let tasks: Vec<Task> = (1..=3).map(child).collect();
    let mut all = task.clone();
    all.databases = tasks.iter().flat_map(|task| task.databases.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    (tasks, all)
}

#[test]
fn killed_server_loses_nothing() {
    let server = Server::start(&ServerOptions { durable: true, ..ServerOptions::default() });
    let url = server.url();
    kill_under_load(server, url);
}

/// A pooler says that the server is gone in words of its own, and keeps its clients.
#[test]
fn killed_server_behind_a_pooler_loses_nothing() {
    let server = Server::start(&ServerOptions { durable: true, ..ServerOptions::default() });
    let bouncer = Bouncer::start(&server);
    kill_under_load(server, bouncer.url());
    assert!(bouncer.log().contains("server conn crashed?"), "{}", bouncer.log());
}

fn kill_under_load(mut server: Server, url: String) {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, all) = several(&task(url, &folder, &["shared"]));
    let children: Vec<Child> = tasks.iter().map(child::start).collect();
    for _ in 0..3 {
        wait_for_more(&all, 60);
        server.kill();
        pause(Duration::from_millis(300));
        server.resume();
    }
    wait_for_more(&all, 60);
    stop(&all, children);
    check(&all);
}

#[test]
fn server_that_is_restarted_in_order_is_used_again() {
    let mut server = Server::start(&ServerOptions::default());
    let store = connect(&server.url(), "litefleet", |config| config);
    let process = Process::new(Arc::new(store), FleetSettings::default());
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1)").unwrap();
    server.stop();
    server.resume();
    // Its connections are closed, which nobody who calls has to know.
    connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
    assert_eq!(values(&connection), [1, 2]);
}

/// A primary with a synchronous standby. The primary is killed, the standby promoted; the clients find it by their URL.
#[test]
fn promoted_standby_has_all_that_was_acknowledged() {
    let (mut primary, standby) = synchronous_pair();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable&target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let folder = tempfile::tempdir().unwrap();
    let (tasks, all) = several(&task(url, &folder, &["shared"]));
    let children: Vec<Child> = tasks.iter().map(child::start).collect();
    wait_for_more(&all, 100);
    primary.kill();
    standby.promote();
    wait_for_more(&all, 100);
    stop(&all, children);
    check(&all);
}

/// A process is stopped past its lease in the middle of transactions, another takes its databases and writes; continued, the
/// first can write nothing, and says why.
#[test]
fn process_that_was_stopped_past_its_lease_can_write_nothing() {
    let server = Server::start(&ServerOptions::default());
    drop(connect(&server.url(), "litefleet", |config| config));
    let folder = tempfile::tempdir().unwrap();
    let names = ["a", "b"];
    let first =
        Task { first: 1, holds: true, folder: folder.path().join("first"), ..task(server.url(), &folder, &names) };
    let second = Task { first: 1000, ..task(server.url(), &folder, &names) };
    std::fs::create_dir(&first.folder).unwrap();
    let mut stopped = child::start(&first);
    wait_until("its transactions are open", Duration::from_secs(30), || first.folder.join("open").exists());
    let pid = rustix::process::Pid::from_raw(i32::try_from(stopped.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let taker = child::start(&second);
    // It waits until the lease is over; then it has both.
    wait_for_more(&second, 60);
    std::fs::write(first.folder.join("go"), "").unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(stopped.wait().unwrap().success());
    stop(&second, vec![taker]);
    for name in names {
        assert_eq!(noted(&first.folder, "done", name), [], "{name}");
        assert_eq!(noted(&first.folder, "wrong", name), [], "{name}");
        let failed = std::fs::read_to_string(first.folder.join(format!("failed-{name}"))).unwrap();
        assert!(failed.contains(&format!("database {name}")), "it says which: {failed}");
        assert!(["lease", "epoch", "session"].iter().any(|word| failed.contains(word)), "it says why: {failed}");
        // What it tried is not there, which the check of the second looks at, too.
        std::fs::write(second.folder.join(format!("failed-{name}")), failed).unwrap();
    }
    check(&second);
}
