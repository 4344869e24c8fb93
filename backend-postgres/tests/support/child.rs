//! Other processes: this test program, started again to do one thing.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use litefleet::FleetSettings;
use litefleet_conformance::faults::Process;
use litefleet_postgres::testing::pause;

use super::connect;

/// What a child does: writes numbers into databases until its folder says stop.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) url: String,
    pub(crate) schema: String,
    /// Where it notes what was acknowledged, and looks for a file `stop`.
    pub(crate) folder: PathBuf,
    /// Its first number; it counts on from there.
    pub(crate) first: i64,
    pub(crate) databases: Vec<String>,
    pub(crate) session_millis: u64,
    /// Opens with `lease=transaction`, so that several share the databases.
    pub(crate) shares: bool,
}

/// Starts a child. The test program must have an ignored test `child` that calls [`run`].
pub(crate) fn start(task: &Task) -> Child {
    let text = [
        task.url.clone(),
        task.schema.clone(),
        task.folder.display().to_string(),
        task.first.to_string(),
        task.databases.join(","),
        task.session_millis.to_string(),
        task.shares.to_string(),
    ];
    Command::new(std::env::current_exe().expect("this program"))
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env("LITEFLEET_CHILD", text.join("\n"))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("it starts again")
}

/// What the child was asked to do.
pub(crate) fn task() -> Option<Task> {
    let text = std::env::var("LITEFLEET_CHILD").ok()?;
    let mut lines = text.lines();
    let mut next = || lines.next().map(str::to_owned);
    Some(Task {
        url: next()?,
        schema: next()?,
        folder: next()?.into(),
        first: next()?.parse().ok()?,
        databases: next()?.split(',').map(str::to_owned).collect(),
        session_millis: next()?.parse().ok()?,
        shares: next()? == "true",
    })
}

fn append(folder: &Path, file: String, line: &str) {
    let mut file = File::options().create(true).append(true).open(folder.join(file)).expect("the folder is there");
    writeln!(file, "{line}").expect("there is room");
}

/// Does it.
pub(crate) fn run() {
    let Some(task) = task() else { return };
    let store = connect(&task.url, &task.schema, |config| config);
    let mut settings = FleetSettings {
        session_lifetime: Duration::from_millis(task.session_millis),
        session_margin: Duration::from_millis(task.session_millis / 5),
        ..FleetSettings::default()
    };
    settings.database.store_timeout = Duration::from_secs(2);
    settings.database.checkpoint_records = 50;
    let process = Process::new(Arc::new(store), settings);
    let parameters = if task.shares { "&lease=transaction" } else { "" };
    let mut number = task.first;
    while !task.folder.join("stop").exists() {
        let Some(name) = task.databases.get(usize::try_from(number).unwrap_or_default() % task.databases.len()) else {
            break;
        };
        let connection = process.open(name, parameters);
        connection.busy_timeout(Duration::from_secs(1)).expect("a handler can be set");
        // Several in a row on one connection, and then it is opened again.
        for _ in 0..10 {
            let written = connection
                .execute_batch("CREATE TABLE IF NOT EXISTS t (v INTEGER NOT NULL)")
                .and_then(|()| connection.execute("INSERT INTO t VALUES (?1)", [number]));
            match written {
                Ok(_) => append(&task.folder, format!("done-{name}"), &number.to_string()),
                Err(error) => {
                    let reason: rusqlite::Result<String> =
                        connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0));
                    let reason = reason.unwrap_or_else(|error| error.to_string());
                    let doubtful = reason.contains("may or may not have happened");
                    let file = if doubtful { "doubtful" } else { "failed" };
                    append(&task.folder, format!("{file}-{name}"), &format!("{number} {error}: {reason}"));
                    number += 1;
                    pause(Duration::from_millis(50));
                    break;
                }
            }
            number += 1;
        }
    }
    drop(process);
}

/// The numbers that children noted in files of this kind for a database.
pub(crate) fn noted(folder: &Path, kind: &str, name: &str) -> Vec<i64> {
    let text = fs::read_to_string(folder.join(format!("{kind}-{name}"))).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}
