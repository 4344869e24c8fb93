//! `litefleet watch`

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use litefleet::clock::{Clock, SystemClock};
use litefleet::{Commit, Txid, UnixMillis, Watch};
use rusqlite::Connection;
use serde_json::json;

use super::say;
use crate::args::WatchArgs;
use crate::cancel;
use crate::failure::{Exit, Failure, Result, quoted};
use crate::session::Session;

/// How soon an interruption is noticed.
const ATTENTION: Duration = Duration::from_millis(50);
/// A watch that nobody waits for any more ends after so long.
const STRETCH: Duration = Duration::from_secs(60);

pub(crate) fn run(session: &Session, args: &WatchArgs) -> Result<()> {
    let watch = session.fleet.watch(&args.name, args.after.map(Txid))?;
    let clock = SystemClock::default();
    let start = clock.monotonic();
    let commits = commits(watch);
    // It knows the calendar.
    let calendar = Connection::open_in_memory().map_err(|e| Failure::sqlite(None, &e))?;
    let mut left = args.count;
    while left != Some(0) {
        if cancel::requested() {
            return Err(Failure::interrupted("no commits are waited for any more"));
        }
        match commits.recv_timeout(ATTENTION) {
            Ok(commit) => {
                let commit = commit?;
                print(args, &commit, &calendar)?;
                left = left.map(|left| left - 1);
            }
            Err(RecvTimeoutError::Timeout) => {
                let over = args.timeout.is_some_and(|most| clock.monotonic().saturating_sub(start) >= most);
                match left {
                    _ if !over => {}
                    None => return Ok(()),
                    Some(left) => {
                        let words = format!("{}: {left} commits fewer than were waited for", quoted(&args.name));
                        return Err(Failure::new(Exit::Failed, words));
                    }
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

/// The commits, from a thread that ends with the first failure, or when nobody takes them any more.
fn commits(mut watch: Watch) -> Receiver<litefleet::Result<Commit>> {
    let (sender, receiver) = mpsc::sync_channel(256);
    std::thread::spawn(move || {
        loop {
            let seen: Vec<litefleet::Result<Commit>> = match watch.next(STRETCH) {
                Ok(commits) => commits.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            for commit in seen {
                let failed = commit.is_err();
                if sender.send(commit).is_err() || failed {
                    return;
                }
            }
        }
    });
    receiver
}

fn print(args: &WatchArgs, commit: &Commit, calendar: &Connection) -> Result<()> {
    let Commit { txid, size, .. } = commit;
    let time = words(commit.time, calendar)?;
    if args.json {
        let name = args.name.as_str();
        return say(json!({ "name": name, "txid": txid.get(), "time": time, "size": size }));
    }
    say(format_args!("{txid}\t{time}\t{size}"))
}

fn words(time: UnixMillis, calendar: &Connection) -> Result<String> {
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ?1 / 1000.0, 'unixepoch')";
    let millis = i64::try_from(time.get()).unwrap_or(i64::MAX);
    let words = calendar.query_row(sql, [millis], |row| row.get::<_, Option<String>>(0));
    Ok(words.map_err(|e| Failure::sqlite(None, &e))?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_words() {
        let calendar = Connection::open_in_memory().unwrap();
        assert_eq!(words(UnixMillis(1_700_000_000_123), &calendar).unwrap(), "2023-11-14T22:13:20.123Z");
    }
}
