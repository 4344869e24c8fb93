//! Damage that the engine meets as it merges its tables: it takes no more writes then, of any database.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::thread;

use litefleet::store::{CommitMode, HeadRequest, LeaseRequest, OpenRequest, PageStore};
use litefleet::{DatabaseName, ErrorKind, Txid};
use litefleet_embedded::EmbeddedStore;
use log::{LevelFilter, Log, Metadata, Record};

use crate::held_worker::{NAME, NEVER};
use crate::left_over::{Databases, SESSION};
use crate::listing::{commit_id, config, request};
use crate::{child, now};

/// The store could not be opened any more, most of the time: nothing of any database could be read, and commits were unknown.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "a thread's end is seen as on Linux")]
fn a_store_that_cannot_merge_its_tables_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let out = child::command("merging", folder.path(), 0, 0).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("all done"), "{text}");
}

pub(crate) fn child(path: &Path) {
    let all = Databases::damaged(path);
    log::set_logger(&ENDED).unwrap();
    log::set_max_level(LevelFilter::Trace);
    // Each grant writes to the table of the heads, until a worker ends over it; the last may fail.
    let lease = Some(LeaseRequest { session: SESSION, force: false });
    let name = DatabaseName::new("granted").unwrap();
    let grant = OpenRequest { name, create: true, lease, known: None, tail_bytes: 0 };
    while !ENDED.any() {
        let _granted = now(all.store.open(grant.clone()));
    }
    let before = all.other.clone();
    drop(all);
    // From here on a worker ends over it each time before the engine is open.
    ENDED.hold_openings();
    let store = EmbeddedStore::open(config(path)).unwrap();
    let head = || {
        let request = HeadRequest { database: before.database, known: Txid::MAX, epoch: None, tail_bytes: 0 };
        now(store.head(request)).unwrap().head
    };
    assert_eq!(head().txid, before.head.txid);
    assert_eq!(now(store.list("", None, 10)).unwrap().len(), 3);
    let opened = litefleet::store::Opened { head: head(), ..before.clone() };
    let failed = now(store.commit(vec![request(&opened, commit_id(0))], CommitMode::Independent));
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable, "it is certain");
    assert_eq!(head().txid, before.head.txid);
    println!("all done");
}

/// Workers that have ended over an error.
#[derive(Debug)]
struct Ended {
    hold: bool,
    /// As they stand among the threads until they are gone.
    threads: Vec<PathBuf>,
}

struct Watch {
    ended: Mutex<Ended>,
    moved: Condvar,
}

static ENDED: Watch = Watch { ended: Mutex::new(Ended { hold: false, threads: Vec::new() }), moved: Condvar::new() };

impl Watch {
    fn any(&self) -> bool {
        !self.ended.lock().unwrap().threads.is_empty()
    }

    fn hold_openings(&self) {
        *self.ended.lock().unwrap() = Ended { hold: true, threads: Vec::new() };
    }
}

impl Log for Watch {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        if thread::current().name() == Some(NAME) && text.contains("crashed") {
            let this = Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap());
            self.ended.lock().unwrap().threads.push(this);
            self.moved.notify_all();
        } else if text.contains("Database recovery successful") && self.ended.lock().unwrap().hold {
            let ended = self.ended.lock().unwrap();
            let none = |ended: &mut Ended| ended.threads.is_empty();
            let (mut ended, over) = self.moved.wait_timeout_while(ended, NEVER, none).unwrap();
            assert!(!over.timed_out(), "no worker has met the damage");
            for thread in ended.threads.drain(..) {
                while thread.exists() {
                    thread::yield_now();
                }
            }
        }
    }

    fn flush(&self) {}
}
