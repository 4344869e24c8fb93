//! What a failed import does to a database that another process has made meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litefleet::store::{Call, Deferred, Interceptor, Layer, MemoryStore, Operation, PageStore, Verdict};
use litefleet::{DatabaseName, Error, FleetSettings};
use rusqlite::Connection;

use super::super::demo::data::SAMPLE;
use super::database;
use crate::session::{Access, Session};
use crate::source;

const WAIT: Duration = Duration::from_secs(5);

type Deed = Box<dyn FnOnce() + Send>;

/// A store without room for commits, at which another process does something as soon as this one, having given its lease back,
/// has opened the database once more.
struct Full {
    given_back: AtomicBool,
    deed: Mutex<Option<Deed>>,
}

impl std::fmt::Debug for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Full")
    }
}

impl Interceptor for Full {
    fn before(&self, call: Call) -> Verdict {
        match call.operation {
            Operation::Commit => Verdict::Fail(Error::full("there is no room")),
            _ => Verdict::Proceed,
        }
    }

    fn after(&self, call: Call, _: Result<u64, &Error>) {
        match call.operation {
            Operation::Release => self.given_back.store(true, Ordering::SeqCst),
            Operation::Open if self.given_back.load(Ordering::SeqCst) => {
                let deed = self.deed.lock().unwrap().take();
                if let Some(deed) = deed {
                    std::thread::spawn(deed).join().unwrap();
                }
            }
            _ => {}
        }
    }

    fn refused(&self, _: Call, _: &Error) {}

    fn defer(&self, _: Deferred) {}
}

fn session<T>(store: Arc<dyn PageStore>, body: impl FnOnce(&Session) -> T) -> T {
    Session::over(store, WAIT, FleetSettings::default(), |session| Ok(body(session))).unwrap()
}

/// Between the look whether it was empty and its removal another process took the lease, and committed: that was removed.
#[test]
fn a_failed_import_removes_nothing_that_another_process_has_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source.db");
    Connection::open(&path).unwrap().execute_batch(SAMPLE).unwrap();
    let from = source::open(&path, WAIT).unwrap();
    let name = DatabaseName::new("a").unwrap();
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let committed = Arc::new(AtomicBool::new(false));
    let deed: Deed = {
        let (store, name, committed) = (Arc::clone(&store), name.clone(), Arc::clone(&committed));
        Box::new(move || {
            session(store, |other| {
                let writer = other.connect(&name, Access::Create).unwrap();
                writer.busy_timeout(Duration::ZERO).unwrap();
                let wrote = writer.execute_batch("CREATE TABLE t (v)").is_ok();
                committed.store(wrote, Ordering::SeqCst);
            });
        })
    };
    let full = Arc::new(Full { given_back: AtomicBool::new(false), deed: Mutex::new(Some(deed)) });
    session(Arc::new(Layer::new(Arc::clone(&store), Arc::clone(&full))), |this| {
        database(this, &from, &name, false, String::new()).unwrap_err();
    });
    assert!(full.deed.lock().unwrap().is_none(), "it has come between");
    let exists = session(store, |look| look.fleet.exists(&name).unwrap());
    assert_eq!(exists, committed.load(Ordering::SeqCst), "it is removed exactly if nobody has committed to it");
}
