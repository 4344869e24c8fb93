//! A lease that another process holds: who it is, and taking it by force.

use std::sync::Arc;

use litefleet::store::{MemoryStore, PageStore};
use litefleet::{DatabaseName, ErrorKind, FleetSettings, LeaseMode, Role};
use litefleet_conformance::faults::{Process, code};
use rusqlite::{Connection, ErrorCode};

fn process(store: &Arc<dyn PageStore>, label: &str, lease: LeaseMode) -> Process {
    let mut settings = FleetSettings { label: label.to_owned(), ..FleetSettings::default() };
    settings.database.lease = lease;
    Process::new(Arc::clone(store), settings)
}

fn read(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
}

/// Right after a lock was refused since another process has the lease, the status said that nobody has.
#[test]
fn status_names_the_holder_that_was_in_the_way() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let first = process(&store, "the-first", LeaseMode::Exclusive);
    let holder = first.open("a", "");
    holder.execute_batch("CREATE TABLE t (v)").unwrap();
    let second = process(&store, "the-second", LeaseMode::Exclusive);
    let refused = second.open("a", "");
    assert_eq!(code(&read(&refused).unwrap_err()), Some(ErrorCode::DatabaseBusy));
    let status: String = refused.query_row("PRAGMA litefleet_status", [], |row| row.get(0)).unwrap();
    assert!(status.contains("\nholder: the-first, as last heard\n"), "{status}");
    drop(holder);
    assert_eq!(read(&refused).unwrap(), 1);
    let status: String = refused.query_row("PRAGMA litefleet_status", [], |row| row.get(0)).unwrap();
    assert!(status.contains("\nholder: the-second\n"), "{status}");
}

/// It forced nothing where the database was loaded here already, and left the setting behind for every connection.
#[test]
fn collection_by_force_takes_the_lease_once() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let forcing = process(&store, "forcing", LeaseMode::Transaction);
    let loaded = forcing.open("a", "");
    loaded.execute_batch("CREATE TABLE t (v)").unwrap();
    let holding = process(&store, "holding", LeaseMode::Exclusive);
    let holder = holding.open("a", "");
    holder.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let name = DatabaseName::new("a").unwrap();
    assert_eq!(forcing.fleet().collect(&name, false).unwrap_err().kind(), ErrorKind::LeaseHeld);
    let report = forcing.fleet().collect(&name, true).unwrap();
    assert_eq!(report.checkpoint.get(), 2);
    let database = forcing.fleet().connect(&name, Role::Writer, false);
    assert!(!database.settings().takeover, "only this once");
    forcing.fleet().disconnect(&database);
    loaded.execute_batch("INSERT INTO t VALUES (2)").unwrap();
}
