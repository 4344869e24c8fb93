//! Transactions through SQLite that keep invariants, and the ledger of what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::examine::Seen;
use super::process::{Process, pause};

pub(crate) const ACCOUNTS: i64 = 10;
pub(crate) const BALANCE: i64 = 100;
/// Bytes of one row.
pub(crate) const PAYLOAD: i64 = 1000;
/// How often something is tried again that must succeed for the workload to go on.
const TRIES: usize = 40;

const SCHEMA: &str = "
    CREATE TABLE tx (n INTEGER PRIMARY KEY, rows INTEGER);
    CREATE TABLE a (v INTEGER); INSERT INTO a VALUES (0);
    CREATE TABLE b (v INTEGER); INSERT INTO b VALUES (0);
    CREATE TABLE removed (v INTEGER); INSERT INTO removed VALUES (0);
    CREATE TABLE filler (id INTEGER PRIMARY KEY, tx INTEGER, payload BLOB);
    CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER);
    INSERT INTO account WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
        SELECT i, 100 FROM n;";

/// What became of the transactions of one database. Those that failed are not listed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promised {
    /// `COMMIT` returned without an error.
    pub acknowledged: BTreeSet<u64>,
    /// The database stopped and said that it cannot know.
    pub unknown: BTreeSet<u64>,
}

/// What became of all transactions.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Promised>);

impl Ledger {
    pub(crate) fn databases(&self) -> impl Iterator<Item = (&str, &Promised)> {
        self.0.iter().map(|(name, promised)| (name.as_str(), promised))
    }

    /// A transaction in some databases was acknowledged.
    pub fn acknowledge(&mut self, names: &[&str], n: u64) {
        for name in names {
            self.0.entry((*name).to_owned()).or_default().acknowledged.insert(n);
        }
    }

    /// Nobody knows.
    pub fn doubt(&mut self, names: &[&str], n: u64) {
        for name in names {
            self.0.entry((*name).to_owned()).or_default().unknown.insert(n);
        }
    }

    /// Adds the transactions of another ledger.
    pub fn merge(&mut self, other: &Self) {
        for (name, promised) in &other.0 {
            let own = self.0.entry(name.clone()).or_default();
            own.acknowledged.extend(&promised.acknowledged);
            own.unknown.extend(&promised.unknown);
        }
    }

    /// Whether a transaction was acknowledged anywhere.
    pub fn has(&self, n: u64) -> bool {
        self.0.values().any(|promised| promised.acknowledged.contains(&n))
    }

    /// After a look at the databases: what is there now stays there, and nothing is unknown any more.
    pub fn settle(&mut self, seen: Vec<Seen>) {
        for (promised, seen) in self.0.values_mut().zip(seen) {
            *promised = Promised { acknowledged: seen.transactions, unknown: BTreeSet::new() };
        }
    }

    fn all(&self, which: impl Fn(&Promised) -> &BTreeSet<u64>) -> BTreeSet<u64> {
        self.0.values().flat_map(|promised| which(promised).iter().copied()).collect()
    }

    /// Transactions that were acknowledged anywhere.
    pub fn acknowledged_anywhere(&self) -> usize {
        self.all(|promised| &promised.acknowledged).len()
    }

    /// Transactions of which nobody knows.
    pub fn doubts(&self) -> usize {
        self.all(|promised| &promised.unknown).difference(&self.all(|promised| &promised.acknowledged)).count()
    }

    /// Transactions that were acknowledged in a database.
    pub fn acknowledged(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, |promised| promised.acknowledged.len())
    }
}

/// Writes to two databases, the second of them attached as `e`.
#[derive(Debug)]
pub struct Workload<'a> {
    process: &'a Process,
    names: [String; 2],
    connection: Option<Connection>,
    next: u64,
    /// What was promised so far.
    pub ledger: Ledger,
    /// Errors that SQLite returned, with the transaction.
    pub errors: Vec<String>,
}

impl<'a> Workload<'a> {
    /// On the databases `d` and `e`. Numbers its transactions from `first` on.
    pub fn new(process: &'a Process, first: u64) -> Self {
        Self::on(process, ["d", "e"], first)
    }

    /// On any two databases.
    pub fn on(process: &'a Process, names: [&str; 2], first: u64) -> Self {
        let names = names.map(str::to_owned);
        Self { process, names, connection: None, next: first, ledger: Ledger::default(), errors: Vec::new() }
    }

    /// The number of the next transaction.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The connection, opened with `e` attached where it was closed.
    fn connection(&mut self) -> rusqlite::Result<&Connection> {
        if self.connection.is_none() {
            let connection = self.process.open(&self.names[0], "");
            let attach = format!("ATTACH '{}' AS e", self.process.uri(&self.names[1], ""));
            connection.execute_batch(&attach)?;
            // Few pages, so that SQLite writes before the end of a transaction.
            connection.execute_batch("PRAGMA main.cache_size = 8; PRAGMA e.cache_size = 8")?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_ref().expect("it was opened above"))
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.connection = None;
    }

    /// Makes the tables. `false` when that fails again and again.
    pub fn create(&mut self) -> bool {
        (0..TRIES).any(|_| {
            let made = self.connection().and_then(|connection| {
                for schema in ["main", "e"] {
                    let there: i64 =
                        connection
                            .query_row(&format!("SELECT count(*) FROM {schema}.sqlite_schema"), [], |row| row.get(0))?;
                    if there == 0 {
                        let tables = SCHEMA.replace("TABLE ", &format!("TABLE {schema}."));
                        let tables = tables.replace("INTO ", &format!("INTO {schema}."));
                        connection.execute_batch(&format!("BEGIN IMMEDIATE; {tables} COMMIT"))?;
                    }
                }
                Ok(())
            });
            if let Err(error) = &made {
                self.note("tables", error);
                self.recover();
            }
            made.is_ok()
        })
    }

    fn note(&mut self, what: impl std::fmt::Display, error: &rusqlite::Error) {
        let mut text = format!("{what}: {error} {:?}", error.sqlite_error().map(|e| e.extended_code));
        for schema in ["main", "e"] {
            let sql = format!("PRAGMA {schema}.litefleet_error");
            let words = self.connection.as_ref().map(|c| c.query_row(&sql, [], |row| row.get::<_, String>(0)));
            if let Some(Ok(words)) = words {
                text.extend([" [", &words, "]"]);
            }
        }
        self.errors.push(text);
    }

    /// After an error: rolls back, and opens again what has stopped. Returns whether the outcome is unknown.
    fn recover(&mut self) -> bool {
        let Some(connection) = &self.connection else { return false };
        if !connection.is_autocommit() {
            // It fails where the database has stopped.
            let _rolled_back = connection.execute_batch("ROLLBACK");
        }
        let mut unknown = false;
        let mut stopped = false;
        for schema in ["main", "e"] {
            let status =
                connection.query_row(&format!("PRAGMA {schema}.litefleet_status"), [], |row| row.get::<_, String>(0));
            let status = status.unwrap_or_default();
            stopped |= status.contains("\nstopped: ");
            unknown |= status.contains("may or may not have happened");
        }
        if stopped {
            self.close();
        }
        unknown
    }

    /// One transaction in the first database, or in both.
    fn transaction(&mut self, both: bool, rows: i64, commit: bool, remove: bool) -> bool {
        let n = self.next;
        self.next += 1;
        let end = if commit { "COMMIT" } else { "ROLLBACK" };
        let done = self.connection().and_then(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            work(connection, "main", n, rows, remove)?;
            if both {
                work(connection, "e", n, rows, remove)?;
            }
            connection.execute_batch(end)
        });
        let names = self.names.clone();
        let names: Vec<&str> = names.iter().take(1 + usize::from(both)).map(String::as_str).collect();
        match done {
            Ok(()) if commit => self.ledger.acknowledge(&names, n),
            Ok(()) => {}
            Err(error) => {
                self.note(n, &error);
                if self.recover() && commit {
                    self.ledger.doubt(&names, n);
                }
                return false;
            }
        }
        true
    }

    /// A transaction of a few pages.
    pub fn small(&mut self) {
        self.transaction(false, 1, true, false);
    }

    /// A transaction that is over the bounds of SQLite's cache and of the transaction buffer.
    pub fn large(&mut self) {
        self.transaction(false, 150, true, false);
    }

    /// The same, rolled back.
    pub fn large_rolled_back(&mut self) {
        self.transaction(false, 150, false, false);
    }

    /// Removes rows, so that pages become free.
    pub fn remove(&mut self) {
        self.transaction(false, 2, true, true);
    }

    /// A transaction in both databases.
    pub fn both(&mut self, rows: i64) {
        self.transaction(true, rows, true, false);
    }

    /// A statement outside of transactions.
    pub fn run(&mut self, sql: &str) {
        let done = self.connection().and_then(|connection| {
            connection.prepare(sql)?.query([])?.next()?;
            Ok(())
        });
        if let Err(error) = done {
            self.note(sql, &error);
            self.recover();
        }
    }

    /// Gives the leases back, as far as the store can be reached.
    pub fn release(&mut self) {
        self.run("PRAGMA main.litefleet_release");
        self.run("PRAGMA e.litefleet_release");
    }

    /// A transaction by this process that waits a little for the lease.
    pub fn visit(&mut self) {
        for _ in 0..10 {
            if self.transaction(false, 1, true, false) {
                break;
            }
            pause(Duration::from_millis(2));
        }
        self.close();
    }
}

fn work(connection: &Connection, schema: &str, n: u64, rows: i64, remove: bool) -> rusqlite::Result<()> {
    let n = i64::try_from(n).expect("few transactions");
    let run = |sql: &str| connection.execute(&sql.replace('$', &format!("{schema}.")), []);
    run("UPDATE $a SET v = v + 1")?;
    connection.execute(
        &format!(
            "INSERT INTO {schema}.filler (tx, payload) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
                WHERE i < ?2) SELECT ?1, randomblob({PAYLOAD}) FROM n"
        ),
        params![n, rows],
    )?;
    connection.execute(&format!("INSERT INTO {schema}.tx VALUES (?1, ?2)"), params![n, rows])?;
    for (id, by) in [(n % ACCOUNTS + 1, 7), ((n + 3) % ACCOUNTS + 1, -7)] {
        connection.execute(&format!("UPDATE {schema}.account SET balance = balance + ?1 WHERE id = ?2"), [by, id])?;
    }
    if remove {
        let removed = run("DELETE FROM $filler WHERE id % 3 <> 0")?;
        let removed = i64::try_from(removed).expect("few rows");
        connection.execute(&format!("UPDATE {schema}.removed SET v = v + ?1"), [removed])?;
    }
    run("UPDATE $b SET v = v + 1").map(|_| ())
}
