//! What asks the store in a process that is forked from one that has it open, beside writing. Alone in its program: no other
//! thread may be in the middle of something when it is forked.
#![cfg(unix)]

use std::io;
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litefleet::store::PageStore;
use litefleet::{DatabaseName, FleetSettings};
use litefleet_conformance::faults::Process;
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};

/// Runs the calls in a forked process. Each must fail there.
fn are_refused(mut calls: impl FnMut(&mut dyn FnMut(bool)) + Send + Sync + 'static) {
    let in_the_child = move || {
        let (mut count, mut first) = (0, None);
        calls(&mut |refused| {
            count += 1;
            if !refused {
                first.get_or_insert(count);
            }
        });
        // The number of the call in the place of an error's.
        first.map_or(Ok(()), |call| Err(io::Error::from_raw_os_error(call)))
    };
    let mut child = Command::new("true");
    // SAFETY: no other thread of this program holds a lock now, so that the child may call anything.
    #[expect(unsafe_code, reason = "what a fork does can only be seen in one")]
    unsafe {
        child.pre_exec(in_the_child)
    };
    match child.status() {
        Ok(status) => assert!(status.success()),
        Err(error) => panic!("call {:?} was not refused in the child", error.raw_os_error()),
    }
}

const LARGE: &str = "INSERT INTO u WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) \
    SELECT randomblob(3000) FROM n";

/// Only locks and commits were refused. What the child did beside them it did as the other process: a checkpoint wrote into
/// the same file at the same place, and on a server it read the other's answers.
#[test]
fn a_forked_process_does_not_ask_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn PageStore> = Arc::new(EmbeddedStore::open(EmbeddedConfig::new(folder.path())).unwrap());
    let process = Process::new(store, FleetSettings { cache_bytes: 16 * 4246, ..Process::small() });
    let connection = process.open("a", "");
    connection.execute_batch("CREATE TABLE u (b); CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    connection.execute_batch(LARGE).unwrap();
    let exclusive = process.open("a", "");
    for locked in [&connection, &exclusive] {
        locked.execute_batch("PRAGMA cache_size = 8").unwrap();
    }
    exclusive.execute_batch("PRAGMA locking_mode = EXCLUSIVE; SELECT v FROM t").unwrap();
    // What goes on in the background is over then.
    exclusive.query_row("PRAGMA litefleet_checkpoint", [], |_| Ok(())).unwrap();
    connection.execute_batch("BEGIN; SELECT v FROM t").unwrap();
    let fleet = process.fleet().clone();
    let (name, other) = (DatabaseName::new("a").unwrap(), DatabaseName::new("b").unwrap());
    let mut watch = fleet.watch(&name, None).unwrap();
    let connections = Arc::new(Mutex::new([connection, exclusive]));
    let inherited = Arc::clone(&connections);
    are_refused(move |refused| {
        for inherited in inherited.lock().unwrap().iter() {
            let all = inherited.query_row("SELECT sum(length(b)) FROM u", [], |row| row.get::<_, i64>(0));
            refused(all.is_err());
            for pragma in ["litefleet_checkpoint", "litefleet_release"] {
                refused(inherited.query_row(&format!("PRAGMA {pragma}"), [], |_| Ok(())).is_err());
            }
        }
        refused(fleet.info(&name).is_err());
        refused(fleet.exists(&name).is_err());
        refused(fleet.list("", None, 10).is_err());
        refused(fleet.verify(&name, &mut |_| ControlFlow::Continue(())).is_err());
        refused(fleet.collect(&name, true).is_err());
        refused(fleet.rename(&name, &other, true).is_err());
        refused(fleet.remove(&name, true).is_err());
        refused(fleet.purge(&mut |_| ControlFlow::Continue(())).is_err());
        refused(fleet.watch(&name, None).is_err());
        refused(watch.next(Duration::ZERO).is_err());
    });
    let connections = connections.lock().unwrap();
    connections[0].execute_batch("COMMIT").unwrap();
    connections[1].execute_batch("INSERT INTO t VALUES (2)").unwrap();
    let verified = process.fleet().verify(&DatabaseName::new("a").unwrap(), &mut |_| ControlFlow::Continue(()));
    assert_eq!(verified.unwrap().problems, Vec::<String>::new());
}
