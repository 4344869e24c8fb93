//! What a case works with: a store with a layer of faults, a fleet over it, and a VFS of its own.

use std::fmt::Write as _;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use litefleet::store::{Fault, FaultLayer, FaultPlan, Latency, LatencyLayer, Operation, PageStore};
use litefleet::vfs::{MainFile, OpenMode, Vfs};
use litefleet::{DatabaseName, Fleet, FleetSettings, LeaseMode, Role};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Connection, OpenFlags};
use tokio::runtime::Handle;

/// Supplies what the cases run over.
pub trait EngineHarness {
    /// A fresh store without any database.
    fn store(&self) -> Arc<dyn PageStore>;

    /// The settings of the fleets. Cases that are about one bound set that one themselves.
    fn settings(&self) -> FleetSettings;
}

/// The seeds of a random case: `ENGINE_SEED`, and `ENGINE_SEEDS` of them, or those that it has always.
pub(super) fn seeds(always: Range<u64>) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    number("ENGINE_SEED").map_or(always, |seed| seed..seed.saturating_add(number("ENGINE_SEEDS").unwrap_or(1)))
}

/// Settings under which nothing happens by time alone.
pub(super) fn timeless(mut settings: FleetSettings) -> FleetSettings {
    settings.session_lifetime = Duration::from_secs(24 * 3600);
    settings.database.checkpoint_idle = Duration::from_secs(24 * 3600);
    settings.database.snapshot_age = Duration::from_secs(24 * 3600);
    settings
}

/// A store, a fleet, and the VFS that the fleet is registered as.
#[derive(Debug)]
pub struct Bench {
    /// The fleet.
    pub fleet: Fleet,
    /// The name of its VFS.
    pub vfs: String,
    /// The faults of the store, for all fleets over it.
    pub faults: Arc<FaultPlan>,
    /// The store with its faults, without the fleet's own layer.
    pub store: Arc<dyn PageStore>,
    folder: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // One that is gone already was taken back by the case itself.
        let _gone = self.fleet.unregister(&self.vfs);
    }
}

impl Bench {
    /// Over a store of the harness, with its settings.
    pub fn new(harness: &dyn EngineHarness) -> Self {
        Self::with(harness, |_| {})
    }

    /// As [`new`](Self::new), with some settings changed.
    pub fn with(harness: &dyn EngineHarness, change: impl FnOnce(&mut FleetSettings)) -> Self {
        Self::layered(harness, |store| store, change)
    }

    /// As [`with`](Self::with), with a layer of the case's own around the store.
    pub fn layered(
        harness: &dyn EngineHarness,
        layer: impl FnOnce(Arc<dyn PageStore>) -> Arc<dyn PageStore>,
        change: impl FnOnce(&mut FleetSettings),
    ) -> Self {
        let mut settings = timeless(harness.settings());
        change(&mut settings);
        let faults = Arc::new(FaultPlan::default());
        let store = layer(Arc::new(FaultLayer::new(harness.store(), Arc::clone(&faults))));
        Self::over(store, faults, settings, None)
    }

    /// As [`with`](Self::with), on a runtime of the case's own, with a store whose every call has to be waited for.
    pub fn on_runtime(harness: &dyn EngineHarness, runtime: &Handle, change: impl FnOnce(&mut FleetSettings)) -> Self {
        let mut settings = timeless(harness.settings());
        change(&mut settings);
        let slow = LatencyLayer::new(harness.store(), Arc::new(Latency(Duration::from_micros(100))));
        Self::over(Arc::new(slow), Arc::default(), settings, Some(runtime.clone()))
    }

    /// As [`new`](Self::new), with the lease mode that `locking_mode=EXCLUSIVE` needs.
    pub fn keeping(harness: &dyn EngineHarness) -> Self {
        Self::with(harness, |settings| settings.database.lease = LeaseMode::Exclusive)
    }

    /// Over a store of the harness, with the default settings whatever the harness says: for exact counts.
    pub fn plain(harness: &dyn EngineHarness) -> Self {
        Self::with(harness, |settings| *settings = timeless(FleetSettings::default()))
    }

    fn over(
        store: Arc<dyn PageStore>,
        faults: Arc<FaultPlan>,
        settings: FleetSettings,
        runtime: Option<Handle>,
    ) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let vfs = format!("bench-{}", LAST.fetch_add(1, Ordering::Relaxed));
        let builder = Fleet::builder(Arc::clone(&store)).settings(settings);
        let builder = match runtime {
            Some(runtime) => builder.runtime(runtime),
            None => builder,
        };
        let fleet = builder.build().unwrap();
        fleet.register(&vfs, false).unwrap();
        Self { fleet, vfs, faults, store, folder: tempfile::tempdir().unwrap() }
    }

    /// Another fleet over the same store, as another process would have it.
    #[must_use]
    pub fn another(&self) -> Self {
        self.another_with(|_| {})
    }

    /// As [`another`](Self::another), with some settings changed.
    #[must_use]
    pub fn another_with(&self, change: impl FnOnce(&mut FleetSettings)) -> Self {
        let mut settings = self.fleet.settings().clone();
        change(&mut settings);
        Self::over(Arc::clone(&self.store), Arc::clone(&self.faults), settings, None)
    }

    /// The URI of a database, with more parameters where they are not empty.
    pub fn uri(&self, name: &str, parameters: &str) -> String {
        let more = if parameters.is_empty() { String::new() } else { format!("&{parameters}") };
        format!("file:{name}?vfs={}{more}", self.vfs)
    }

    /// Opens a database, creating it where there is none.
    pub fn open(&self, name: &str) -> Connection {
        self.open_with(name, "")
    }

    /// As [`open`](Self::open), with URI parameters.
    pub fn open_with(&self, name: &str, parameters: &str) -> Connection {
        self.try_open(name, parameters).unwrap()
    }

    /// As [`open_with`](Self::open_with), where it may fail.
    pub fn try_open(&self, name: &str, parameters: &str) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(self.uri(name, parameters), flags)
    }

    /// A path in a folder that goes away with the bench.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Spoils calls to the store.
    pub fn arm(&self, operation: Operation, after: u64, times: u64, effect: litefleet::store::Effect) {
        self.faults.arm(Fault { operation: Some(operation), after, times, effect });
    }

    /// Waits for a future of the store.
    pub fn wait<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Checks all that the store has of a database.
    pub fn verify(&self, name: &str) {
        let report = self.fleet.verify(&DatabaseName::new(name).unwrap(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "database {name}");
    }

    /// Checks a database by SQLite's own check and by the store's.
    pub fn check(&self, name: &str) {
        // Not through a reader of the fleet that is there: what another process sees counts as well.
        let other = self.another();
        let follower = other.open_with(name, "mode=ro");
        assert_eq!(text(&follower, "PRAGMA integrity_check"), "ok");
        drop(follower);
        self.verify(name);
    }

    /// Opens a database's file below SQLite.
    pub fn raw(&self, name: &str) -> MainFile {
        Vfs::new(self.fleet.clone()).open(&DatabaseName::new(name).unwrap(), OpenMode::Create, []).unwrap()
    }

    /// Reads bytes of a database's file, as a follower sees it.
    pub fn read(&self, name: &str, offset: u64, out: &mut [u8]) {
        let name = DatabaseName::new(name).unwrap();
        let database = self.fleet.connect(&name, Role::Follower, false);
        let snapshot = database.begin_read().unwrap();
        database.read(snapshot, offset, out).unwrap();
        database.unpin(snapshot);
        self.fleet.disconnect(&database);
    }

    /// Round trips so far of operations that depend on what is done, not on when.
    pub fn trips(&self) -> u64 {
        self.fleet.counters().round_trips() - self.fleet.counters().get(Operation::RenewSession).calls
    }
}

/// Runs statements.
pub(super) fn run(connection: &Connection, sql: &str) {
    if let Err(error) = try_run(connection, sql) {
        panic!("{sql}: {error}");
    }
}

/// Runs statements, each to its end: `execute_batch` takes one step of each.
pub(super) fn try_run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut batch = rusqlite::Batch::new(connection, sql);
    while let Some(mut statement) = batch.next()? {
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// The extended code with which statements fail.
pub(super) fn code(connection: &Connection, sql: &str) -> i32 {
    match try_run(connection, sql) {
        Ok(()) => 0,
        Err(error) => error_code(&error),
    }
}

/// The extended code of an error.
pub(super) fn error_code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().unwrap_or_else(|| panic!("an error of SQLite's, not {error}")).extended_code
}

/// The single value of a query, as text.
pub(super) fn text(connection: &Connection, sql: &str) -> String {
    let value: rusqlite::types::Value =
        connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    match value {
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Integer(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// The single value of a query, as a number.
pub(super) fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// A table of rows of some bytes each, the same for the same numbers.
pub(super) fn fill(connection: &Connection, table: &str, rows: u32, bytes: u32) {
    run(connection, &format!("CREATE TABLE IF NOT EXISTS {table}(k INTEGER PRIMARY KEY, v BLOB)"));
    run(
        connection,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO {table}(v) SELECT CAST(substr(replace(hex(zeroblob({bytes})), '0', char(65 + i % 26)), 1, \
             {bytes}) AS BLOB) FROM n"
        ),
    );
}

/// All of a database that SQL shows: the schema, and every row of every table.
pub(super) fn dump(connection: &Connection) -> Vec<String> {
    try_dump(connection, "main").unwrap()
}

/// As [`dump`], of one attached database.
pub(super) fn try_dump(connection: &Connection, schema: &str) -> rusqlite::Result<Vec<String>> {
    let mut out = Vec::new();
    let mut tables = Vec::new();
    let sql = format!("SELECT type, name, ifnull(sql, '') FROM {schema}.sqlite_schema ORDER BY type, name");
    let mut schema_rows = connection.prepare(&sql)?;
    let mut rows = schema_rows.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if kind == "table" {
            tables.push(name.clone());
        }
        out.push(format!("{kind} {name} {sql}"));
    }
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT rowid, * FROM {schema}.\"{table}\" ORDER BY rowid"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut line = table.clone();
            for column in 0..columns {
                let value: rusqlite::types::Value = row.get(column)?;
                let _written = write!(line, "|{value:?}");
            }
            out.push(line);
        }
    }
    Ok(out)
}
