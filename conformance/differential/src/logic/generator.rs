//! Makes a script: chooses what comes next, asks SQLite over its own VFS, and writes down the answer.

use std::path::Path;

use litefleet::Locking;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};

use crate::session::{Answer, Failure, Session};

use super::queries::query;
use super::run::Case;
use super::script::{Part, Script};
use super::statements::{change_rows, change_schema, create_table};

/// Tables, and their columns that can be written.
const CATALOG: &str = "SELECT m.name, group_concat(p.name, ' ') FROM sqlite_schema m, pragma_table_info(m.name) p \
                       WHERE m.type = 'table' AND m.name LIKE 't%' GROUP BY 1 ORDER BY 1";
/// In thousands: what takes longer is given up, here as there.
const STEPS: u32 = 80;

/// A connection, here or there.
pub(super) fn open(case: &Case, place: &str) -> Result<Session, Failure> {
    let mut session = Session::open(place)?;
    session.limit_steps(STEPS)?;
    if case.locking == Locking::Snapshot {
        session.tell_plainly_busy();
    }
    Ok(session)
}

/// A table as the generator knows it, which may be wrong: then SQLite says so, on both sides.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
}

struct Generator<'a> {
    case: &'a Case,
    rng: StdRng,
    path: &'a str,
    sessions: Vec<Option<Session>>,
    part: Part,
    tables: Vec<Table>,
    number: u32,
    /// Which connection is asked.
    now: usize,
}

/// Makes the script of a case, with a database in this folder.
pub(super) fn script(case: &Case, folder: &Path) -> Result<Script, Failure> {
    let path = folder.join("stock.db").display().to_string();
    let mut generator = Generator {
        case,
        rng: StdRng::seed_from_u64(case.seed),
        path: &path,
        sessions: Vec::new(),
        part: Part::default(),
        tables: Vec::new(),
        number: 0,
        now: 0,
    };
    let mut script = Script::new();
    for index in 0..case.parts {
        generator.begin(index == 0)?;
        for _ in 0..case.steps {
            generator.step()?;
        }
        generator.end()?;
        script.push(std::mem::take(&mut generator.part));
    }
    Ok(script)
}

impl Generator<'_> {
    /// Asks the present connection, and writes it down.
    fn emit(&mut self, sql: &str) -> Result<Result<Answer, Failure>, Failure> {
        if self.sessions.get(self.now).is_none_or(Option::is_none) {
            let session = open(self.case, self.path)?;
            let room = self.sessions.len().max(self.now + 1);
            self.sessions.resize_with(room, || None);
            self.sessions[self.now] = Some(session);
            // A lock of another connection can be in its way, as in that of any statement.
            let pages = self.case.cache_pages();
            let _answer = self.emit(&format!("PRAGMA cache_size = {pages}"))?;
        }
        let session = self.sessions.get(self.now).and_then(Option::as_ref);
        let session = session.ok_or_else(|| Failure { code: 0, message: "no connection".into() })?;
        let answer = session.run(sql);
        self.part.add(self.now, sql, &answer);
        Ok(answer)
    }

    fn begin(&mut self, first: bool) -> Result<(), Failure> {
        self.now = 0;
        if first {
            let page_size = self.case.page_size;
            let _answer = self.emit(&format!("PRAGMA page_size = {page_size}"))?;
            let _answer = self.emit(&format!("PRAGMA auto_vacuum = {}", self.case.auto_vacuum))?;
            if self.case.locking == Locking::Snapshot {
                // What SQLite has that is like snapshots.
                if let Some(Some(session)) = self.sessions.first() {
                    session.run("PRAGMA journal_mode = WAL")?;
                }
            }
            let table = create_table(&mut self.rng, 0);
            let _answer = self.emit(&table)?;
        }
        self.refresh()
    }

    fn end(&mut self) -> Result<(), Failure> {
        for index in 0..self.sessions.len() {
            if self.sessions[index].as_ref().is_some_and(|session| !session.is_autocommit()) {
                self.now = index;
                let how = if self.rng.random_bool(0.5) { "COMMIT" } else { "ROLLBACK" };
                let _answer = self.emit(how)?;
                if self.sessions[index].as_ref().is_some_and(|session| !session.is_autocommit()) {
                    let _answer = self.emit("ROLLBACK")?;
                }
            }
        }
        self.now = 0;
        self.refresh()?;
        for table in self.tables.clone() {
            let _answer = self.emit(&format!("SELECT * FROM {}", table.name))?;
        }
        let _answer = self.emit("PRAGMA integrity_check")?;
        self.sessions.clear();
        Ok(())
    }

    /// Looks which tables there are.
    fn refresh(&mut self) -> Result<(), Failure> {
        if let Ok(Answer::Rows(rows)) = self.emit(CATALOG)? {
            let named = rows.iter().filter_map(|row| Some((row.first()?, row.get(1)?)));
            let plain = |text: &str| text.trim_matches('\'').to_owned();
            self.tables = named
                .map(|(name, columns)| Table {
                    name: plain(name),
                    columns: plain(columns).split("\\20").map(str::to_owned).collect(),
                })
                .collect();
        }
        Ok(())
    }

    fn in_transaction(&self) -> bool {
        self.sessions.get(self.now).and_then(Option::as_ref).is_some_and(|session| !session.is_autocommit())
    }

    fn step(&mut self) -> Result<(), Failure> {
        if self.case.connections > 1 && (self.case.interleaved || !self.in_transaction()) && self.rng.random_bool(0.3) {
            self.now = self.rng.random_range(0..self.case.connections);
        }
        let inside = self.in_transaction();
        let rng = &mut self.rng;
        let roll = rng.random_range(0..1000);
        let (sql, look) = match roll {
            0..70 if inside => {
                (["COMMIT", "COMMIT", "END", "ROLLBACK"].choose(rng).unwrap_or(&"COMMIT").to_string(), true)
            }
            0..80 => {
                let kinds = ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "BEGIN DEFERRED"];
                (kinds.choose(rng).unwrap_or(&"BEGIN").to_string(), false)
            }
            80..120 => (format!("SAVEPOINT s{}", rng.random_range(0..3)), false),
            120..150 if inside => (format!("ROLLBACK TO s{}", rng.random_range(0..3)), true),
            150..170 if inside => (format!("RELEASE s{}", rng.random_range(0..3)), true),
            170..180 => ("VACUUM".to_owned(), false),
            180..190 => ("PRAGMA integrity_check".to_owned(), false),
            190..195 => ("PRAGMA incremental_vacuum(3)".to_owned(), false),
            195..200 => ("PRAGMA quick_check".to_owned(), false),
            200..260 => {
                self.number += 1;
                (change_schema(rng, &self.tables, self.number), true)
            }
            260..600 => (change_rows(rng, &self.tables), false),
            _ => (query(rng, &self.tables), false),
        };
        let _answer = self.emit(&sql)?;
        if look { self.refresh() } else { Ok(()) }
    }
}
