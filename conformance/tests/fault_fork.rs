//! A process that is forked from one that has a store open. Alone in its program: no other thread may be in the middle of
//! something when it is forked.
#![cfg(unix)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use litefleet::store::PageStore;
use litefleet_conformance::faults::Process;
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rusqlite::Connection;

/// Both wrote into one store, as if it had one owner.
#[test]
fn a_forked_process_does_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PageStore> = Arc::new(EmbeddedStore::open(EmbeddedConfig::new(folder.path())).unwrap());
    let mut settings = Process::small();
    // Large enough for pages to be on their way to the store while the transaction goes on.
    settings.database.transaction_bytes = 320 * 4096;
    let process = Process::new(store, settings);
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    let large = "INSERT INTO u WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) \
        SELECT randomblob(3000) FROM n";
    connection.execute_batch("CREATE TABLE u (b); PRAGMA cache_size = 8; BEGIN; INSERT INTO t VALUES (2)").unwrap();
    connection.execute_batch(large).unwrap();
    let uri = process.uri("a", "");
    let connection = Arc::new(Mutex::new(connection));
    let inherited = Arc::clone(&connection);
    let in_the_child = move || {
        let inherited = inherited.lock().unwrap();
        let stages = inherited.execute_batch(large);
        let commits = inherited.execute_batch("COMMIT");
        let writes = inherited.execute_batch("INSERT INTO t VALUES (3)");
        let opens = Connection::open(&uri).and_then(|new| new.execute_batch("INSERT INTO t VALUES (4)"));
        let refused = [stages, commits, writes, opens].iter().all(Result::is_err);
        if refused { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    };
    let mut child = Command::new("true");
    // SAFETY: no other thread of this program holds a lock now, so that the child may call anything.
    #[expect(unsafe_code, reason = "what a fork does can only be seen in one")]
    unsafe {
        child.pre_exec(in_the_child)
    };
    assert!(child.status().expect("the child is refused everything").success());
    let connection = connection.lock().unwrap();
    connection.execute_batch("COMMIT; INSERT INTO t VALUES (5)").unwrap();
    let values = || -> rusqlite::Result<Vec<i64>> {
        connection.prepare("SELECT v FROM t ORDER BY v")?.query_map([], |row| row.get(0))?.collect()
    };
    assert_eq!(values().unwrap(), [1, 2, 5]);
}
