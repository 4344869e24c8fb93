//! Runs inputs on both sides, and compares.

use std::collections::BTreeSet;
use std::ffi::{CString, c_int};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::{ptr, thread};

use litefleet::vfs::{LockLevel, MainFile, OpenMode, Vfs};
use litefleet::{DatabaseName, Fleet};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::place::{Opener, Place};
use crate::session::{Answer, Session};

use super::input::Input;
use super::limits;

const BYSTANDER: &str = "bystander";
/// Statements of one script that run; some have thousands.
const MOST_STATEMENTS: usize = 300;
/// Of one statement: a trigger has many, and what is never complete is a statement to its end.
const MOST_SEMICOLONS: usize = 100;
/// What SQLite tells where an overflow page that it reads around its cache ends after the file. With a VFS that does not promise
/// `SQLITE_IOCAP_SUBPAGE_READ` it reads it through its cache, which has zeros for the rest.
const SHORT_READ: i32 = rusqlite::ffi::SQLITE_IOERR_SHORT_READ;
/// How often SQLite's own VFS is asked again where an input is not the same.
const TRIES: usize = 300;
/// The bystander is looked at after so many inputs.
const LOOK: usize = 250;

/// What was not the same.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Of which input.
    pub id: String,
    /// What.
    pub words: String,
}

/// What came of some inputs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Inputs that ran.
    pub inputs: usize,
    /// Inputs that were left out, as they ask for the time.
    pub left_out: usize,
    /// Statements that ran.
    pub statements: usize,
    /// Of these, those that ended in an error, on both sides.
    pub errors: usize,
    /// Inputs with a database, most of them corrupt.
    pub images: usize,
    /// Inputs that were compared only up to where SQLite's own rollback has left other bytes in its file. On a database that is
    /// whole these are in free pages; on one that is not they may be anywhere. Ours has the bytes from before.
    pub cut_short: usize,
    /// Inputs with a query whose answers were not compared, as SQLite read an overflow page around its cache that the file has in
    /// part.
    pub short_reads: usize,
    /// Inputs with an image to which SQLite's own VFS does not always give the same answers, with what was not the same.
    pub by_chance: Vec<Difference>,
    /// What was not the same.
    pub differences: Vec<Difference>,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.inputs += other.inputs;
        self.left_out += other.left_out;
        self.statements += other.statements;
        self.errors += other.errors;
        self.images += other.images;
        self.cut_short += other.cut_short;
        self.short_reads += other.short_reads;
        self.by_chance.extend(other.by_chance);
        self.differences.extend(other.differences);
    }
}

/// Everything that one side says.
#[derive(Debug, Default)]
struct Side {
    answers: Vec<String>,
    errors: usize,
    /// How many answers had come when a rollback left other bytes in the file, or a short read ended more than a query.
    cut_at: Option<usize>,
    /// Queries that a short read ended.
    short_reads: BTreeSet<usize>,
    /// The file at the end.
    image: Vec<u8>,
}

/// Runs inputs one after the other over one store. `watch` is told of each before it runs. An error is not a difference: it
/// is of this harness, or of the bystander.
pub fn run(inputs: &[Input], opener: Opener, watch: &mut dyn FnMut(&Input)) -> Result<Tally, String> {
    let place = Place::open(opener, Place::small()).map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let before = bystander(&place, true)?;
    let mut tally = Tally::default();
    for input in inputs {
        if limits::asks_for_time(&input.sql) {
            tally.left_out += 1;
            continue;
        }
        watch(input);
        let (stock, ours) = both(&place, folder.path(), input).map_err(|words| format!("{}: {words}", input.id))?;
        tally.inputs += 1;
        tally.images += usize::from(!input.image.is_empty());
        tally.statements += stock.answers.len();
        tally.errors += stock.errors;
        tally.cut_short += usize::from(stock.cut_at.is_some());
        tally.short_reads += usize::from(!stock.short_reads.is_empty());
        if let Some(words) = difference(&stock, &ours) {
            let found = Difference { id: input.id.clone(), words };
            if is_chance(&stock, input, folder.path(), TRIES)? {
                tally.by_chance.push(found);
            } else {
                tally.differences.push(found);
            }
        }
        if tally.inputs % LOOK == 0 && bystander(&place, false)? != before {
            return Err(format!("{}: another database has changed", input.id));
        }
    }
    // Also after the last that ran.
    if bystander(&place, false)? != before {
        return Err("another database has changed".into());
    }
    let fleet = place.fleet().ok_or("the store is not open")?;
    let report = fleet.verify(&name(BYSTANDER)?, &mut |_| ControlFlow::Continue(())).map_err(|e| e.to_string())?;
    if report.problems.is_empty() { Ok(tally) } else { Err(format!("bystander: {}", report.problems.join("; "))) }
}

/// Whether SQLite's own VFS answers otherwise when it is asked again. For some corrupt databases SQLite's answer depends on what is in
/// its memory, and where that is: each time it is another thread's, among blocks of other sizes with other bytes.
fn is_chance(before: &Side, input: &Input, folder: &Path, tries: usize) -> Result<bool, String> {
    if input.image.is_empty() {
        return Ok(false);
    }
    let mut random = StdRng::seed_from_u64(1);
    let mut kept = Vec::new();
    for _ in 0..tries {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for _ in 0..random.random_range(0..300) {
            let mut block = vec![0; random.random_range(1..9000)];
            random.fill(&mut block[..]);
            blocks.push(block);
        }
        kept.extend(blocks.iter().filter(|block| block.len() % 10 == 0).cloned());
        drop(blocks);
        let again = thread::scope(|scope| scope.spawn(|| stock(folder, input)).join());
        if difference(before, &again.map_err(|_| format!("{}: a panic", input.id))??).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn name(text: &str) -> Result<DatabaseName, String> {
    DatabaseName::new(text).map_err(|e| e.to_string())
}

/// A database that has nothing to do with the inputs: makes it, or says what is in it.
fn bystander(place: &Place, create: bool) -> Result<Vec<Vec<String>>, String> {
    let session = Session::open(&place.uri(BYSTANDER)).map_err(|e| e.to_string())?;
    if create {
        let fill = "INSERT INTO b SELECT value, printf('%0900d', value) FROM \
                    (WITH RECURSIVE n(value) AS (VALUES(1) UNION ALL SELECT value + 1 FROM n LIMIT 200) SELECT * FROM n)";
        for sql in ["CREATE TABLE b(x INTEGER PRIMARY KEY, y)", fill] {
            session.run(sql).map_err(|e| e.to_string())?;
        }
    }
    let mut found = Vec::new();
    for sql in ["SELECT * FROM b", "PRAGMA integrity_check"] {
        match session.run(sql).map_err(|e| e.to_string())? {
            Answer::Rows(rows) => found.extend(rows),
            Answer::Changed(_) => return Err("a query without rows".into()),
        }
    }
    Ok(found)
}

fn both(place: &Place, folder: &Path, input: &Input) -> Result<(Side, Side), String> {
    const OURS: &str = "input-of-a-fuzzer";
    let stock = stock(folder, input)?;
    let fleet = place.fleet().ok_or("the store is not open")?;
    let image = image(input);
    if !image.is_empty() {
        import(fleet, &name(OURS)?, image).map_err(|e| e.to_string())?;
    }
    let mut ours = side(&place.uri(OURS), OURS, &input.sql, None)?;
    if fleet.exists(&name(OURS)?).map_err(|e| e.to_string())? {
        ours.image = whole(export(fleet, &name(OURS)?).map_err(|e| e.to_string())?);
        fleet.remove(&name(OURS)?, true).map_err(|e| e.to_string())?;
    }
    Ok((stock, ours))
}

/// SQLite's own VFS takes a file of one byte for an empty one, for the sake of a system that cannot have empty files.
fn image(input: &Input) -> &[u8] {
    if input.image.len() == 1 { &[] } else { &input.image }
}

/// What SQLite's own VFS says of an input.
fn stock(folder: &Path, input: &Input) -> Result<Side, String> {
    // A database whose header says that it has a log beside it is one of rollback mode here. Ours sees to that itself.
    let mut image = image(input).to_vec();
    if let Some(versions) = image.get_mut(18..20).filter(|versions| versions.get(1) == Some(&2)) {
        versions.iter_mut().filter(|version| **version == 2).for_each(|version| *version = 1);
    }
    let file = folder.join("input-of-a-fuzzer");
    let _none = fs::remove_file(&file);
    if !image.is_empty() {
        fs::write(&file, &image).map_err(|e| e.to_string())?;
    }
    let path = file.display().to_string();
    let mut stock = side(&path, &path, &input.sql, Some(&file))?;
    stock.image = whole(fs::read(&file).unwrap_or_default());
    let _none = fs::remove_file(folder.join("input-of-a-fuzzer-journal"));
    Ok(stock)
}

/// Puts the bytes of a file into a database, whatever they are.
fn import(fleet: &Fleet, name: &DatabaseName, image: &[u8]) -> litefleet::Result<()> {
    let vfs = Vfs::new(fleet.clone());
    let mut file: MainFile = vfs.open(name, OpenMode::Create, [])?;
    file.lock(LockLevel::Shared)?;
    file.lock(LockLevel::Exclusive)?;
    file.write_as_foreigner()?;
    file.write(0, image)?;
    file.commit_point(None)?;
    file.commit_confirmed()?;
    file.unlock(LockLevel::None);
    Ok(())
}

fn export(fleet: &Fleet, name: &DatabaseName) -> litefleet::Result<Vec<u8>> {
    let vfs = Vfs::new(fleet.clone());
    let mut file: MainFile = vfs.open(name, OpenMode::ReadOnly, [])?;
    file.lock(LockLevel::Shared)?;
    let mut image = vec![0; usize::try_from(file.size()).unwrap_or(0)];
    let there = file.read(0, &mut image)?;
    image.truncate(there);
    file.unlock(LockLevel::None);
    Ok(image)
}

/// Runs a script on one side, and then looks at the database with a new connection. `file` is SQLite's own.
fn side(place: &str, shown: &str, sql: &str, file: Option<&Path>) -> Result<Side, String> {
    let mut side = Side::default();
    let read = || file.map(|file| fs::read(file).unwrap_or_default()).unwrap_or_default();
    let mut committed = read();
    let open = || -> Result<Session, String> {
        let mut session = Session::open(place).map_err(|e| e.to_string())?;
        limits::set(&mut session).map_err(|e| e.to_string())?;
        Ok(session)
    };
    let mut ask = |session: &Session, sql: &str| -> Option<Vec<Vec<String>>> {
        let answer = session.run(sql);
        if session.is_autocommit() && side.cut_at.is_none() {
            let now = read();
            // A commit raises the change counter.
            let undone = now != committed && now.get(24..28) == committed.get(24..28);
            side.cut_at = undone.then_some(side.answers.len());
            committed = now;
        }
        if file.is_some() && answer.as_ref().is_err_and(|failure| failure.code == SHORT_READ) {
            if session.is_query(sql) {
                side.short_reads.insert(side.answers.len());
            } else {
                side.cut_at.get_or_insert(side.answers.len());
            }
        }
        side.errors += usize::from(answer.is_err());
        // Only its name tells the one from the other.
        side.answers.push(without_names(format!("{answer:?}").replace(shown, "DATABASE")));
        match answer {
            Ok(Answer::Rows(rows)) => Some(rows),
            _ => None,
        }
    };
    seed_randomness()?;
    let session = open()?;
    for statement in statements(sql).take(MOST_STATEMENTS) {
        ask(&session, statement);
    }
    drop(session);
    let session = open()?;
    for sql in ["PRAGMA page_count", "PRAGMA freelist_count", "PRAGMA integrity_check(20)"] {
        ask(&session, sql);
    }
    let tables = "SELECT hex(name) FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY 1 LIMIT 20";
    for row in ask(&session, tables).unwrap_or_default() {
        let hex = row.first().map_or("", |name| name.trim_matches('\''));
        if let Some(name) = unhex(hex) {
            ask(&session, &format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")));
        }
    }
    drop(session);
    Ok(side)
}

/// A failed VACUUM tells the random name of the database that it attached, and EXPLAIN the address of a virtual table.
fn without_names(mut text: String) -> String {
    const MOST: usize = 16;
    for (before, least) in [("vacuum_", MOST), ("'vtab:", 6)] {
        let mut from = 0;
        while let Some(start) = text[from..].find(before).map(|at| from + at + before.len()) {
            from = start;
            let digits = text[start..].bytes().take(MOST).take_while(u8::is_ascii_hexdigit).count();
            if digits >= least {
                text.replace_range(start..start + digits, "");
            }
        }
    }
    text
}

fn unhex(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    String::from_utf8(bytes?).ok()
}

/// The statements of a script: each up to the semicolon with which SQLite finds it complete.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        if rest.trim().is_empty() {
            return None;
        }
        let mut ends = rest.match_indices(';').map(|(index, _)| index + 1).take(MOST_SEMICOLONS);
        let end = ends.find(|end| is_complete(&rest[..*end])).unwrap_or(rest.len());
        let (statement, after) = rest.split_at(end);
        rest = after;
        Some(statement)
    })
}

/// Where the largest rowid is taken, SQLite finds a free one by chance: the same on both sides.
#[expect(unsafe_code, reason = "rusqlite has no wrapper for sqlite3_test_control")]
fn seed_randomness() -> Result<(), String> {
    let (seed, none): (c_int, *mut rusqlite::ffi::sqlite3) = (1, ptr::null_mut());
    // SAFETY: this verb takes a number and a connection or none, as they are given. It writes to what all threads share, as
    // `run` may: it asks one side after the other, and nothing of the fleet takes SQLite's random numbers.
    let code = unsafe { rusqlite::ffi::sqlite3_test_control(rusqlite::ffi::SQLITE_TESTCTRL_PRNG_SEED, seed, none) };
    if code == rusqlite::ffi::SQLITE_OK { Ok(()) } else { Err(format!("the seed is not set: {code}")) }
}

#[expect(unsafe_code, reason = "rusqlite has no wrapper for sqlite3_complete")]
fn is_complete(sql: &str) -> bool {
    let Ok(text) = CString::new(sql) else { return true };
    // SAFETY: the text ends with NUL, and SQLite only reads it during the call.
    unsafe { rusqlite::ffi::sqlite3_complete(text.as_ptr()) == 1 }
}

fn difference(stock: &Side, ours: &Side) -> Option<String> {
    let (most, short_reads) = (stock.cut_at.unwrap_or(usize::MAX), &stock.short_reads);
    for (index, (stock, ours)) in stock.answers.iter().zip(&ours.answers).enumerate().take(most) {
        if short_reads.contains(&index) {
            if is_io_error(ours) {
                return Some(format!("statement {index}: {ours}"));
            }
        } else if stock != ours {
            // From a little before where they part.
            let same = stock.chars().zip(ours.chars()).take_while(|(stock, ours)| stock == ours).count();
            let part = |text: &str| text.chars().skip(same.saturating_sub(100)).take(300).collect::<String>();
            return Some(format!("statement {index}: {} instead of {}", part(ours), part(stock)));
        }
    }
    if stock.cut_at.is_some() {
        return None;
    }
    if stock.answers.len() != ours.answers.len() {
        return Some(format!("{} answers instead of {}", ours.answers.len(), stock.answers.len()));
    }
    let (stock, ours) = (database(&stock.image), database(&ours.image));
    if stock.len() != ours.len() {
        return Some(format!("a file of {} bytes instead of {}", ours.len(), stock.len()));
    }
    // The engine may put another change counter (bytes 24 to 28, and 92 to 96) where the old one was used before.
    let is_counter = |at: usize| (24..28).contains(&at) || (92..96).contains(&at);
    let mut bytes = stock.iter().zip(ours).enumerate();
    let at = bytes.find(|(at, (stock, ours))| stock != ours && !is_counter(*at))?.0;
    Some(format!("the files differ at byte {at}"))
}

/// Whether an answer is an I/O error, which the store must not have.
fn is_io_error(answer: &str) -> bool {
    let code = answer.split_once("Failure { code: ").and_then(|(_, rest)| rest.split(',').next()?.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == rusqlite::ffi::SQLITE_IOERR)
}

/// Whole pages: one that a file has in part is read as one with zeros behind it, and may have been written as such.
fn whole(mut image: Vec<u8>) -> Vec<u8> {
    if let Some(size) = page_size(&image) {
        image.resize(image.len().next_multiple_of(size), 0);
    }
    image
}

fn page_size(image: &[u8]) -> Option<usize> {
    match image.get(16..18)?.try_into().map(u16::from_be_bytes).ok()? {
        1 => Some(65_536),
        size if size >= 512 && size.is_power_of_two() => Some(usize::from(size)),
        _ => None,
    }
}

/// A file up to the end that its header names, where that counts: what a fuzzer has put behind it stays in SQLite's own
/// file, which nobody reads, and goes with the first commit of ours.
fn database(image: &[u8]) -> &[u8] {
    let word = |at: usize| image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    let Some(page_size) = page_size(image) else { return image };
    let pages = word(28).and_then(|pages| usize::try_from(pages).ok()).unwrap_or(0);
    let end = pages.saturating_mul(page_size);
    if end > 0 && word(24) == word(92) { image.get(..end).unwrap_or(image) } else { image }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;
    use crate::place::Sort;

    /// SQLite has one source of chance for all threads.
    fn one() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ran(image: &[u8], sql: &str) -> Tally {
        let _one = one();
        let input = Input { id: "made/1".into(), image: image.into(), sql: sql.into() };
        run(&[input], Sort::Memory.opener(false), &mut |_| ()).expect("the harness stands")
    }

    #[test]
    fn addresses_and_random_names_are_left_out() {
        let text = "'vtab:561C3B530988' vacuum_0123456789abcdef vacuum_ab 'vtab:x'";
        assert_eq!(without_names(text.into()), "'vtab:' vacuum_ vacuum_ab 'vtab:x'");
    }

    #[test]
    fn what_sqlite_picks_by_chance_is_the_same_on_both_sides() {
        let sql = "CREATE TABLE t(x); INSERT INTO t(rowid) VALUES(9223372036854775807);
                   INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); SELECT rowid FROM t;";
        let tally = ran(&[], sql);
        assert!(tally.differences.is_empty() && tally.cut_short == 0 && tally.errors == 0, "{tally:?}");
    }

    /// The last overflow page is there in part: SQLite reads it around its cache, over its own VFS alone.
    #[test]
    fn a_page_past_the_end_ends_the_comparison() {
        let place = Place::open(Sort::Memory.opener(false), Place::small()).expect("a store");
        let guard = one();
        let session = Session::open(&place.uri("made")).expect("a database");
        for sql in ["PRAGMA page_size = 512", "CREATE TABLE t(x, y)", "INSERT INTO t VALUES(zeroblob(8000), 1)"] {
            session.run(sql).expect("a row of many pages");
        }
        drop(session);
        let fleet = place.fleet().expect("it is open");
        let mut image = export(fleet, &name("made").expect("a name")).expect("its bytes");
        image.truncate(image.len() - 256);
        drop(guard);
        let tally = ran(&image, "SELECT x FROM t; SELECT y FROM t;");
        assert!(tally.differences.is_empty() && tally.errors > 0, "{tally:?}");
        assert_eq!((tally.short_reads, tally.cut_short), (1, 0), "{tally:?}");
    }

    #[test]
    fn no_script_gets_at_another_database() {
        let tally = ran(&[], "ATTACH 1.5 AS a; ATTACH 'b' AS b; CREATE TABLE a.t(x);");
        assert!(tally.differences.is_empty() && tally.errors == 3, "{tally:?}");
        assert!(!Path::new("1.5").exists());
    }

    #[test]
    fn a_difference_that_lasts_is_none_by_chance() {
        let _one = one();
        let folder = tempfile::tempdir().expect("a folder");
        let input = Input { id: "made/1".into(), image: vec![0; 1024], sql: "SELECT 1; SELECT * FROM t".into() };
        let first = stock(folder.path(), &input).expect("answers");
        assert!(!is_chance(&first, &input, folder.path(), 20).expect("the same answers"));
        let other = Side { answers: vec!["Ok(Rows([[\"2\"]]))".into()], ..Side::default() };
        assert!(is_chance(&other, &input, folder.path(), 20).expect("other answers"));
    }

    #[test]
    fn an_io_error_is_known_by_its_code() {
        let told = |code| format!("{:?}", Err::<Answer, _>(crate::session::Failure { code, message: "x, y".into() }));
        assert!(is_io_error(&told(10)) && is_io_error(&told(522)) && !is_io_error(&told(11)));
        assert!(!is_io_error("Ok(Changed(10))"));
    }
}
