//! Random SQL, in lockstep with stock SQLite: after every statement the same result or the same class of error, and at
//! intervals the same content, a clean check by SQLite and a clean check by the store.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use litefleet::LeaseMode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;

use super::bench::{Bench, EngineHarness, seeds, try_dump, try_run};

/// A connection of ours and one of stock SQLite that are given the same statements.
struct Pair {
    ours: Connection,
    stock: Connection,
    open: bool,
}

struct Lockstep<'a> {
    bench: &'a Bench,
    random: StdRng,
    pairs: Vec<Pair>,
    history: Vec<String>,
    seed: u64,
}

/// What a statement returned, as far as both must agree.
fn outcome(connection: &Connection, sql: &str) -> Result<Vec<String>, i32> {
    let mut out = Vec::new();
    let mut go = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut line = String::new();
            for column in 0..columns {
                let _written = write!(line, "{:?}|", row.get::<_, rusqlite::types::Value>(column)?);
            }
            out.push(line);
        }
        Ok(())
    };
    // BUSY is BUSY, whatever kind of it: stock SQLite has no snapshots in these journal modes.
    go().map(|()| out).map_err(|error| error.sqlite_error().map_or(-1, |e| e.extended_code & 0xff))
}

impl Lockstep<'_> {
    fn connect(&self) -> Pair {
        let ours = self.bench.open("main");
        let stock = Connection::open(self.bench.path("main.db")).unwrap();
        let attach = |connection: &Connection, name: &str| {
            try_run(connection, &format!("PRAGMA busy_timeout=0; ATTACH '{name}' AS second")).unwrap();
        };
        attach(&ours, "second");
        attach(&stock, &self.bench.path("second.db").display().to_string());
        Pair { ours, stock, open: false }
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.random_range(0..bound)
    }

    fn schema(&mut self) -> &'static str {
        if self.below(3) == 0 { "second" } else { "main" }
    }

    fn table(&mut self) -> String {
        let schema = self.schema();
        format!("{schema}.t{}", self.below(3))
    }

    fn bytes(&mut self) -> u32 {
        match self.below(8) {
            0 => self.below(30_000),
            1..3 => self.below(5000),
            _ => self.below(200),
        }
    }

    fn change(&mut self) -> String {
        let (table, bytes, key) = (self.table(), self.bytes(), self.below(60));
        match self.below(12) {
            0..4 => format!("INSERT INTO {table}(v) VALUES(zeroblob({bytes}) || '{key}')"),
            4 => {
                let (rows, each) = (self.below(120) + 1, self.below(700));
                format!(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
                     INSERT INTO {table}(v) SELECT hex(zeroblob({each})) || i FROM n"
                )
            }
            5..8 => format!("UPDATE {table} SET v = zeroblob({bytes}) || k WHERE k % 60 = {key}"),
            8..10 => format!("DELETE FROM {table} WHERE k % 30 = {}", key % 30),
            10 => format!("UPDATE {table} SET v = v || 'x' WHERE k % 2 = {}", key % 2),
            _ => format!("DELETE FROM {table} WHERE k > {key}"),
        }
    }

    fn define(&mut self) -> String {
        let (table, schema) = (self.table(), self.schema());
        let number = self.below(3);
        match self.below(6) {
            0 => format!("CREATE INDEX IF NOT EXISTS {schema}.i{number} ON t{number}(v, k)"),
            1 => format!("DROP INDEX IF EXISTS {schema}.i{number}"),
            2 => format!("DROP TABLE IF EXISTS {table}"),
            _ => format!("CREATE TABLE IF NOT EXISTS {table}(k INTEGER PRIMARY KEY, v)"),
        }
    }

    fn mode(&mut self) -> String {
        let schema = self.schema();
        let pick = |random: &mut StdRng, from: &[&str]| from[random.random_range(0..from.len())].to_owned();
        match self.below(9) {
            0 => {
                let mode = pick(&mut self.random, &["DELETE", "TRUNCATE", "PERSIST", "MEMORY"]);
                format!("PRAGMA {schema}.journal_mode={mode}")
            }
            1 => format!("PRAGMA {schema}.synchronous={}", self.below(4)),
            2 => {
                // Under it stock SQLite lets no other connection read.
                let kept = self.bench.fleet.settings().database.lease == LeaseMode::Exclusive;
                let alone = self.pairs.len() == 1 && kept;
                let mode = pick(&mut self.random, if alone { &["NORMAL", "EXCLUSIVE"] } else { &["NORMAL"] });
                format!("PRAGMA {schema}.locking_mode={mode}")
            }
            3 => format!("PRAGMA {schema}.cache_size={}", self.below(20) + 1),
            4 => format!("VACUUM {schema}"),
            5 => format!("PRAGMA {schema}.incremental_vacuum({})", self.below(20) + 1),
            6 => format!("PRAGMA {schema}.page_size={}", 512 << self.below(8)),
            7 => format!("PRAGMA {schema}.auto_vacuum={}", self.below(3)),
            _ => format!("PRAGMA {schema}.cache_spill={}", self.below(2)),
        }
    }

    fn transaction(&mut self) -> String {
        match self.below(10) {
            0 => "BEGIN".to_owned(),
            1 => "BEGIN IMMEDIATE".to_owned(),
            2..5 => "COMMIT".to_owned(),
            5 => "ROLLBACK".to_owned(),
            6 => format!("SAVEPOINT s{}", self.below(2)),
            7 => format!("RELEASE s{}", self.below(2)),
            _ => format!("ROLLBACK TO s{}", self.below(2)),
        }
    }

    fn query(&mut self) -> String {
        let table = self.table();
        match self.below(3) {
            0 => format!("SELECT count(*), sum(length(v)), max(k) FROM {table}"),
            1 => format!("SELECT k, length(v) FROM {table} ORDER BY v, k LIMIT 5"),
            _ => format!("SELECT k, substr(v, -20) FROM {table} WHERE k % 7 = {}", self.below(7)),
        }
    }

    fn statement(&mut self) -> String {
        match self.below(20) {
            0..9 => self.change(),
            9..11 => self.define(),
            11..13 => self.mode(),
            13..17 => self.transaction(),
            _ => self.query(),
        }
    }

    fn fail(&self, what: &str) -> ! {
        let from = self.history.len().saturating_sub(60);
        panic!("seed {}: {what}\nthe last statements:\n{}", self.seed, self.history[from..].join("\n"));
    }

    /// One statement on one connection. A reader never blocks the writer here, as it may there: so only one connection is
    /// used at a time while it is in a transaction.
    fn step(&mut self) {
        let busy = self.pairs.iter().position(|pair| pair.open);
        let count = u32::try_from(self.pairs.len()).unwrap();
        let index = busy.unwrap_or_else(|| self.below(count) as usize);
        if busy.is_none() && self.below(40) == 0 {
            self.history.push(format!("{index}: close and open again"));
            drop(self.pairs.remove(index));
            let new = self.connect();
            self.pairs.insert(index, new);
        }
        let sql = self.statement();
        self.history.push(format!("{index}: {sql}"));
        let pair = &self.pairs[index];
        let (ours, stock) = (outcome(&pair.ours, &sql), outcome(&pair.stock, &sql));
        if ours != stock {
            let reason = pair.ours.query_row("PRAGMA litefleet_error", [], |row| row.get::<_, String>(0));
            self.fail(&format!("{index}: {sql}\nours:  {ours:?}\nstock: {stock:?}\n{reason:?}"));
        }
        let (ours, stock) = (pair.ours.is_autocommit(), pair.stock.is_autocommit());
        if ours != stock {
            self.fail(&format!("{index}: {sql}: autocommit is {ours}, in stock SQLite {stock}"));
        }
        self.pairs[index].open = !ours;
    }

    fn compare(&mut self) {
        self.history.push("compare".to_owned());
        let open = self.pairs.iter().position(|pair| pair.open);
        for index in 0..self.pairs.len() {
            // A writer whose cache was full keeps readers of stock SQLite out.
            if open.is_some_and(|open| open != index) {
                continue;
            }
            let pair = &self.pairs[index];
            for schema in ["main", "second"] {
                let (ours, stock) = (try_dump(&pair.ours, schema), try_dump(&pair.stock, schema));
                match (ours, stock) {
                    (Ok(ours), Ok(stock)) if ours == stock => {}
                    (Err(_), Err(_)) => {}
                    (Ok(ours), Ok(stock)) => {
                        let first = ours.iter().zip(&stock).position(|(a, b)| a != b);
                        self.fail(&format!("{index}: {schema} differs, at line {first:?} of {}", stock.len()));
                    }
                    (ours, stock) => self.fail(&format!("{index}: {schema}: {:?} {:?}", ours.err(), stock.err())),
                }
                let check = format!("PRAGMA {schema}.integrity_check");
                let (ours, stock) = (outcome(&pair.ours, &check), outcome(&pair.stock, &check));
                if ours != stock {
                    self.fail(&format!("{index}: {check}: {ours:?}, in stock SQLite {stock:?}"));
                }
            }
        }
        for name in ["main", "second"] {
            let name = litefleet::DatabaseName::new(name).unwrap();
            if self.bench.fleet.exists(&name).unwrap() {
                let report = self.bench.fleet.verify(&name, &mut |_| ControlFlow::Continue(())).unwrap();
                if !report.problems.is_empty() {
                    self.fail(&format!("{name}: {:?}", report.problems));
                }
            }
        }
    }
}

fn lockstep(harness: &dyn EngineHarness, seed: u64, steps: u32) {
    let bench = Bench::new(harness);
    let random = StdRng::seed_from_u64(seed);
    let mut run = Lockstep { bench: &bench, random, pairs: Vec::new(), history: Vec::new(), seed };
    for _ in 0..if seed.is_multiple_of(2) { 3 } else { 1 } {
        let pair = run.connect();
        run.pairs.push(pair);
    }
    for table in ["main.t0", "main.t1", "second.t0"] {
        for connection in [&run.pairs[0].ours, &run.pairs[0].stock] {
            try_run(connection, &format!("CREATE TABLE {table}(k INTEGER PRIMARY KEY, v)")).unwrap();
        }
    }
    for step in 1..=steps {
        run.step();
        if step % 40 == 0 {
            run.compare();
        }
    }
}

/// Seeds of the test; a failure names its own.
const SEEDS: std::ops::Range<u64> = 0..6;

/// Three connections, or one that may lock exclusively, with two databases each.
pub fn random_sql_matches_stock_sqlite(harness: &dyn EngineHarness) {
    for seed in seeds(SEEDS) {
        lockstep(harness, seed, 400);
    }
}
