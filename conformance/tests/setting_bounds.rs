//! Settings at their ends: each is refused with a clear error, or works.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use litefleet::store::{MemoryStore, PageStore};
use litefleet::{DatabaseName, DatabaseSettings, ErrorKind, Fleet, FleetSettings, Result};
use litefleet_conformance::faults::Process;
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// So long nothing here takes: who waits for ever fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Zero, the smallest that is more, and the largest that can be said in a URI.
const NUMBERS: [&str; 3] = ["0", "1", "18446744073709551615"];

const DURATIONS: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
const SIZES: [usize; 3] = [0, 1, usize::MAX];

/// Runs something that must come to an end.
fn ends(what: &str, body: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let run = std::thread::spawn(move || {
        body();
        let _nobody_waits = done.send(());
    });
    match ended.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: it does not end"),
        _ => assert!(run.join().is_ok(), "{what}"),
    }
}

/// Two connections, a transaction that spills, a rollback, a checkpoint, a follower.
fn work(process: &Process, parameters: &str) -> rusqlite::Result<()> {
    let writer = process.open("a", parameters);
    writer.execute_batch(
        "CREATE TABLE IF NOT EXISTS t (v); PRAGMA cache_size = 8; BEGIN;
         INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT randomblob(1000) FROM n;
         COMMIT; BEGIN; DELETE FROM t; ROLLBACK; DELETE FROM t WHERE rowid % 2",
    )?;
    writer.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(()))?;
    let counted =
        |connection: &Connection| connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    let (second, follower) = (process.open("a", parameters), process.follow("a"));
    assert_eq!(counted(&second)?, counted(&writer)?);
    assert_eq!(counted(&follower)?, counted(&writer)?);
    drop((writer, second, follower));
    process.fleet().collect(&DatabaseName::new("a").unwrap(), false).unwrap();
    assert_eq!(process.problems("a"), Vec::<String>::new());
    Ok(())
}

fn stores(folder: &Path) -> [Arc<dyn PageStore>; 2] {
    let embedded = EmbeddedStore::open(EmbeddedConfig::new(folder.join("store"))).unwrap();
    [Arc::new(MemoryStore::default()), Arc::new(embedded)]
}

/// Works with fleet settings, or is refused as invalid when it is built.
fn fleet_works(what: &str, settings: &FleetSettings) {
    let folder = tempfile::tempdir().unwrap();
    for store in stores(folder.path()) {
        let settings = settings.clone();
        ends(what, move || match Fleet::builder(Arc::clone(&store)).settings(settings.clone()).build() {
            Ok(fleet) => {
                drop(fleet);
                work(&Process::new(store, settings), "").unwrap();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
        });
    }
}

#[test]
fn every_parameter_of_a_uri() {
    for name in DatabaseSettings::PARAMETERS {
        for value in NUMBERS.iter().chain(&["18446744073709551616", "-1", ""]) {
            let parameters = format!("&{name}={value}");
            let what = parameters.clone();
            ends(&what, move || {
                let process = Process::new(Arc::new(MemoryStore::default()), FleetSettings::default());
                let uri = process.uri("a", &parameters);
                match Connection::open_with_flags(uri, OpenFlags::default()) {
                    Ok(_) => work(&process, &parameters).unwrap(),
                    Err(error) => assert_eq!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen), "{error}"),
                }
            });
        }
    }
}

type ChangeTime = fn(&mut FleetSettings, Duration);
type ChangeSize = fn(&mut FleetSettings, usize);

/// A session that never ends made the memory store panic.
#[test]
fn every_time_of_a_fleet() {
    let changes: [(&str, ChangeTime); 9] = [
        ("session_lifetime", |settings, time| settings.session_lifetime = time),
        ("session_margin", |settings, time| settings.session_margin = time),
        ("lease_idle", |settings, time| settings.database.lease_idle = time),
        ("busy", |settings, time| settings.database.busy = time),
        ("store_timeout", |settings, time| settings.database.store_timeout = time),
        ("staleness", |settings, time| settings.database.staleness = time),
        ("snapshot_age", |settings, time| settings.database.snapshot_age = time),
        ("checkpoint_idle", |settings, time| settings.database.checkpoint_idle = time),
        ("retention", |settings, time| settings.database.retention = time),
    ];
    for (name, change) in changes {
        for time in DURATIONS {
            let mut settings = FleetSettings::default();
            change(&mut settings, time);
            fleet_works(&format!("{name} {time:?}"), &settings);
        }
    }
}

#[test]
fn every_size_of_a_fleet() {
    let changes: [(&str, ChangeSize); 7] = [
        ("cache_bytes", |settings, size| settings.cache_bytes = size),
        ("commit_calls", |settings, size| settings.commit_calls = Some(size)),
        ("worker_threads", |settings, size| settings.worker_threads = size),
        ("checkpoint_bytes", |settings, size| settings.database.checkpoint_bytes = size),
        ("checkpoint_records", |settings, size| settings.database.checkpoint_records = size),
        ("checkpoint_pages", |settings, size| settings.database.checkpoint_pages = size),
        ("transaction_bytes", |settings, size| settings.database.transaction_bytes = size),
    ];
    for (name, change) in changes {
        for size in SIZES {
            let mut settings = FleetSettings::default();
            change(&mut settings, size);
            fleet_works(&format!("{name} {size}"), &settings);
        }
    }
}

#[test]
fn every_size_of_the_embedded_store() {
    type Change = fn(EmbeddedConfig, u64) -> EmbeddedConfig;
    let changes: [(&str, Change); 4] = [
        ("cache_bytes", EmbeddedConfig::cache_bytes),
        ("memtable_bytes", EmbeddedConfig::memtable_bytes),
        ("reserve_bytes", EmbeddedConfig::reserve_bytes),
        ("open_files", |mut config, size| {
            config.open_files = usize::try_from(size).unwrap();
            config
        }),
    ];
    for (name, change) in changes {
        for size in [0, 1, u64::MAX] {
            let folder = tempfile::tempdir().unwrap();
            let config = change(EmbeddedConfig::new(folder.path()), size);
            ends(&format!("{name} {size}"), move || {
                let opened: Result<EmbeddedStore> = EmbeddedStore::open(config);
                match opened {
                    Ok(store) => {
                        let worked = work(&Process::new(Arc::new(store), FleetSettings::default()), "");
                        // Nothing may be written to a disk that has less room than is kept free.
                        let full = name == "reserve_bytes" && size > 1;
                        assert_eq!(worked.is_err(), full, "{worked:?}");
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
                }
                drop(folder);
            });
        }
    }
}

/// A session is over before the store has answered under it: that is said, and not tried for ever.
#[test]
fn a_session_that_is_too_short_to_do_anything_under_it_is_an_error() {
    ends("a short session", || {
        let store = litefleet::store::LatencyLayer::new(
            Arc::new(MemoryStore::default()),
            Arc::new(litefleet::store::Latency(Duration::from_millis(20))),
        );
        let settings = FleetSettings { session_lifetime: Duration::from_millis(5), ..FleetSettings::default() };
        let process = Process::new(Arc::new(store), settings);
        let connection = process.open("a", "");
        connection.execute_batch("CREATE TABLE t (v)").unwrap_err();
        let words: String = connection.query_row("PRAGMA litefleet_error", [], |row| row.get(0)).unwrap();
        assert!(words.contains("session_lifetime"), "{words}");
        let removed = process.fleet().remove(&DatabaseName::new("a").unwrap(), false).unwrap_err();
        assert!(matches!(removed.kind(), ErrorKind::NotFound | ErrorKind::Unavailable), "{removed}");
    });
}
