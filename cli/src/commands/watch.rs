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
    // What is there already is told before the time counts, however long the store takes.
    let head = if args.after.is_some() { session.fleet.info(&args.name)?.head.txid } else { watch.known() };
    let reached = watch.known();
    let clock = SystemClock::default();
    let start = clock.monotonic();
    let over = || args.timeout.is_some_and(|most| clock.monotonic().saturating_sub(start) >= most);
    // It knows the calendar.
    let calendar = Connection::open_in_memory().map_err(|e| Failure::sqlite(None, &e))?;
    let left = tell(&portions(watch), (reached, head), args.count, over, |commit| print(args, commit, &calendar))?;
    match left {
        None | Some(0) => Ok(()),
        Some(left) => {
            let words = format!("{}: {left} commits fewer than were waited for", quoted(&args.name));
            Err(Failure::new(Exit::Failed, words))
        }
    }
}

/// Tells of commits until there were so many, or the time is over and all up to the head were told. Returns how many are left.
fn tell(
    portions: &Receiver<litefleet::Result<Portion>>,
    (mut reached, head): (Txid, Txid),
    mut left: Option<u64>,
    over: impl Fn() -> bool,
    mut print: impl FnMut(&Commit) -> Result<()>,
) -> Result<Option<u64>> {
    while left != Some(0) {
        if cancel::requested() {
            return Err(Failure::interrupted("no commits are waited for any more"));
        }
        if over() && reached >= head {
            break;
        }
        match portions.recv_timeout(ATTENTION) {
            Ok(portion) => {
                let portion = portion?;
                reached = portion.known;
                let most = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
                for commit in portion.commits.iter().take(most) {
                    print(commit)?;
                    left = left.map(|left| left - 1);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(left)
}

/// Commits, and the last one that the watch knows of: those between that were collected cannot be told.
struct Portion {
    commits: Vec<Commit>,
    known: Txid,
}

/// What the watch says, from a thread that ends with the first failure, or when nobody listens any more.
fn portions(mut watch: Watch) -> Receiver<litefleet::Result<Portion>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        loop {
            let seen = watch.next(STRETCH).map(|commits| Portion { commits, known: watch.known() });
            let failed = seen.is_err();
            if sender.send(seen).is_err() || failed {
                return;
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
    use std::cell::Cell;

    use litefleet::CommitId;

    use super::*;

    fn commit(txid: Txid) -> Commit {
        Commit { txid, time: UnixMillis(0), commit_id: CommitId([0; 16]), size: 0, record_bytes: 0 }
    }

    /// What the log still has was to be told, and the time was over before a slow store had said any of it.
    #[test]
    fn what_is_there_is_told_however_slow_the_store_is() {
        let (sender, receiver) = mpsc::channel();
        let (looks, told) = (Cell::new(0), Cell::new(0));
        let over = || {
            looks.set(looks.get() + 1);
            match looks.get() {
                3 => sender.send(Ok(Portion { commits: vec![commit(Txid(1))], known: Txid(1) })).unwrap(),
                // The second was collected.
                5 => sender.send(Ok(Portion { commits: Vec::new(), known: Txid(2) })).unwrap(),
                _ => {}
            }
            true
        };
        let count = |_: &Commit| {
            told.set(told.get() + 1);
            Ok(())
        };
        assert_eq!(tell(&receiver, (Txid(0), Txid(2)), None, over, count).unwrap(), None);
        assert_eq!(told.get(), 1);
    }

    /// The time counted only where nothing came for a while: a busy database was watched for ever.
    #[test]
    fn a_watch_ends_while_commits_keep_coming() {
        let (sender, receiver) = mpsc::channel();
        for txid in 3..6 {
            sender.send(Ok(Portion { commits: vec![commit(Txid(txid))], known: Txid(txid) })).unwrap();
        }
        let told = Cell::new(0);
        let count = |_: &Commit| {
            told.set(told.get() + 1);
            Ok(())
        };
        assert_eq!(tell(&receiver, (Txid(2), Txid(3)), None, || true, count).unwrap(), None);
        assert_eq!(told.get(), 1);
    }

    #[test]
    fn times_are_words() {
        let calendar = Connection::open_in_memory().unwrap();
        assert_eq!(words(UnixMillis(1_700_000_000_123), &calendar).unwrap(), "2023-11-14T22:13:20.123Z");
    }
}
