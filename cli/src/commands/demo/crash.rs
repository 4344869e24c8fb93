//! A process that is killed while it writes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use litefleet::DatabaseName;

use super::{WAIT, execute, settings};
use crate::args::Cli;
use crate::commands::{say, store};
use crate::failure::{Failure, Result};
use crate::session::{Access, Session};
use crate::store_url::StoreUrl;

/// Rows that the process commits, each in a transaction of its own.
pub(super) const COMMITTED_ROWS: u64 = 200;
/// Rows of 1,000 bytes of the transaction that it never commits: enough that some go to the store early.
pub(super) const OPEN_ROWS: u64 = 12_000;
/// What it says when all of them are written.
const OPEN: &str = "open";

/// What a killed process had said.
pub(super) struct Said {
    pub(super) pid: u32,
    /// The ids of the rows whose commit had returned.
    pub(super) acknowledged: Vec<u64>,
    /// Whether its last transaction was open.
    pub(super) open: bool,
}

/// Starts the process, kills it inside a transaction, and returns what it had said.
pub(super) fn start_and_kill(url: &StoreUrl, name: &DatabaseName) -> Result<Said> {
    let failed = |what: &str, e: &std::io::Error| Failure::failed(format!("cannot {what} the second process: {e}"));
    let program = std::env::current_exe().map_err(|e| failed("find the program of", &e))?;
    let child = Command::new(program)
        .env("LITEFLEET_STORE", url.to_variable())
        .args(["demo-writer", name.as_str(), &COMMITTED_ROWS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed("start", &e))?;
    let mut child = Killed(child);
    let mut said = Said { pid: child.0.id(), acknowledged: Vec::new(), open: false };
    if let Some(output) = child.0.stdout.take() {
        listen(output, &mut said).map_err(|e| failed("hear", &e))?;
    }
    child.kill().map_err(|e| failed("kill", &e))?;
    Ok(said)
}

/// Reads until the last transaction is open, or the process ends.
fn listen(output: ChildStdout, said: &mut Said) -> std::io::Result<()> {
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line == OPEN {
            said.open = true;
            break;
        }
        said.acknowledged.extend(line.parse::<u64>());
    }
    Ok(())
}

/// The process itself: commits rows one by one, says so, and then leaves a transaction open.
pub(crate) fn writer(cli: &Cli, name: &str, rows: u64) -> Result<()> {
    let url = store(cli)?;
    let name = DatabaseName::new(name)?;
    Session::run(&url, false, WAIT, settings(), |session| {
        let connection = session.connect(&name, Access::Write)?;
        for _ in 0..rows {
            execute(&connection, "INSERT INTO litefleet_demo (writer) VALUES ('killed')")?;
            say(connection.last_insert_rowid())?;
        }
        execute(&connection, "BEGIN")?;
        for _ in 0..OPEN_ROWS {
            execute(&connection, "INSERT INTO litefleet_demo (writer, bytes) VALUES ('open', randomblob(1000))")?;
        }
        say(OPEN)?;
        // Ends only when nobody is left to kill this process.
        let mut nothing = Vec::new();
        std::io::stdin().lock().read_to_end(&mut nothing)?;
        Ok(())
    })
}

/// A process that does not outlive this value.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(|_| ())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}
