//! Transactions over several attached databases.

use std::sync::Arc;

use litefleet::store::MemoryStore;
use litefleet_conformance::faults::Process;

/// `BEGIN IMMEDIATE` locks every attached database for writing, and SQLite lists the journals of all of them in the
/// super-journal. Those that were not written never reach a commit point, and the commit was refused for it.
#[test]
fn attached_databases_that_were_only_locked_do_not_stop_a_commit() {
    let process = Process::new(Arc::new(MemoryStore::default()), Process::small());
    let connection = process.open("a", "");
    for name in ["b", "c"] {
        connection.execute(&format!("ATTACH '{}' AS {name}", process.uri(name, "")), []).unwrap();
    }
    connection.execute_batch("BEGIN IMMEDIATE; CREATE TABLE main.t (v); COMMIT").unwrap();
    connection.execute_batch("BEGIN IMMEDIATE; CREATE TABLE b.t (v); INSERT INTO main.t VALUES (1); COMMIT").unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
    let sql = "SELECT (SELECT count(*) FROM main.t) + (SELECT count(*) FROM b.sqlite_schema)";
    assert_eq!(connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}
