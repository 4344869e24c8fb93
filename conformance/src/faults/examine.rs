//! What is in a database, and whether it can be.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::process::{Process, code, pause};
use super::workload::{ACCOUNTS, BALANCE, Ledger};

/// A database as one read transaction saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The transactions whose rows are there.
    pub transactions: BTreeSet<u64>,
    /// Bytes of payload.
    pub payload: i64,
}

/// One statement, so one read transaction.
const WHOLE: &str = "
    SELECT (SELECT count(*) FROM tx), (SELECT v FROM a), (SELECT v FROM b), (SELECT sum(balance) FROM account),
        (SELECT count(*) FROM account), (SELECT coalesce(sum(rows), 0) FROM tx), (SELECT v FROM removed),
        (SELECT count(*) FROM filler), (SELECT coalesce(sum(length(payload)), 0) FROM filler)";

/// Checks that a database holds whole transactions only. Returns how many; `None` before the first.
pub fn look(connection: &Connection) -> rusqlite::Result<Result<Option<i64>, String>> {
    let numbers = connection.query_row(WHOLE, [], |row| {
        (0..9).map(|column| row.get::<_, i64>(column)).collect::<rusqlite::Result<Vec<_>>>()
    });
    let numbers = match numbers {
        Ok(numbers) => numbers,
        Err(rusqlite::Error::SqliteFailure(_, Some(text))) if text.contains("no such table") => return Ok(Ok(None)),
        Err(error) => return Err(error),
    };
    let [count, a, b, sum, accounts, written, removed, there, payload] = numbers[..] else {
        return Ok(Err("nine columns".to_owned()));
    };
    let wrong = |words: &str| Ok(Err(format!("{words}: {numbers:?}")));
    if count != a || count != b {
        return wrong("the counters do not count the transactions");
    }
    if sum != ACCOUNTS * BALANCE || accounts != ACCOUNTS {
        return wrong("the sum over the accounts has changed");
    }
    if written - removed != there || payload != there * super::workload::PAYLOAD {
        return wrong("rows of transactions are missing, or too many");
    }
    Ok(Ok(Some(count)))
}

/// As [`look`], for a follower, who may be told to try again.
pub(crate) fn glance(connection: &Connection) -> Result<(), String> {
    match look(connection) {
        Ok(found) => found.map(|_| ()),
        Err(error) => match code(&error) {
            Some(ErrorCode::DatabaseBusy | ErrorCode::CannotOpen) => Ok(()),
            _ => Err(format!("a follower reads: {error}")),
        },
    }
}

/// As [`read_once`], again where a writer's collection took away what was being read: there is no retention.
fn read(process: &Process, name: &str) -> Result<Seen, String> {
    for _ in 0..50 {
        match read_once(process, name) {
            Err(wrong) if wrong.contains("snapshot too old") || wrong.contains("error code=517") => {
                pause(Duration::from_millis(1));
            }
            read => return read,
        }
    }
    read_once(process, name)
}

/// Reads a database whole, and checks it in every way there is.
fn read_once(process: &Process, name: &str) -> Result<Seen, String> {
    let connection = process.follow(name);
    let words = |error: rusqlite::Error| {
        let own = connection.query_row("PRAGMA litefleet_error", [], |row| row.get::<_, String>(0));
        format!("database {name}: {error} [{}], {:?}", own.unwrap_or_default(), process.problems(name))
    };
    match look(&connection) {
        Ok(Ok(None)) => return Ok(Seen::default()),
        Ok(Ok(Some(_))) => {}
        Ok(Err(wrong)) => return Err(format!("database {name}: {wrong}")),
        // It was never created.
        Err(error) if code(&error) == Some(ErrorCode::CannotOpen) => return Ok(Seen::default()),
        Err(error) => return Err(words(error)),
    }
    let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(words)?;
    if integrity != "ok" {
        return Err(format!("database {name}: integrity_check: {integrity}"));
    }
    let mut statement = connection.prepare("SELECT n FROM tx").map_err(words)?;
    let transactions = statement.query_map([], |row| row.get::<_, i64>(0)).map_err(words)?;
    let transactions: rusqlite::Result<BTreeSet<u64>> = transactions.map(|n| n.map(i64::unsigned_abs)).collect();
    let payload = connection
        .query_row("SELECT coalesce(sum(length(payload)), 0) FROM filler", [], |row| row.get(0))
        .map_err(words)?;
    let seen = Seen { transactions: transactions.map_err(words)?, payload };
    match process.problems(name) {
        problems if problems.is_empty() => Ok(seen),
        problems => Err(format!("database {name}: verify: {problems:?}")),
    }
}

/// Compares the databases with the ledger of those that wrote to them.
pub fn examine(process: &Process, ledger: &Ledger) -> Result<Vec<Seen>, String> {
    let mut all = Vec::new();
    for (name, promised) in ledger.databases() {
        let seen = read(process, name)?;
        if let Some(lost) = promised.acknowledged.difference(&seen.transactions).next() {
            return Err(format!("database {name}: transaction {lost} was acknowledged and is lost"));
        }
        let mut unexpected = seen.transactions.difference(&promised.acknowledged);
        if let Some(surprise) = unexpected.find(|n| !promised.unknown.contains(n)) {
            return Err(format!("database {name}: transaction {surprise} was reported as failed and is there"));
        }
        all.push((promised, seen));
    }
    // A transaction over several databases is in all of them or in none.
    for (promised, seen) in &all {
        for n in promised.unknown.intersection(&seen.transactions) {
            if all.iter().any(|(other, there)| other.unknown.contains(n) && !there.transactions.contains(n)) {
                return Err(format!("transaction {n} is in one database and not in the other"));
            }
        }
    }
    Ok(all.into_iter().map(|(_, seen)| seen).collect())
}
