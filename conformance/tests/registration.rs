//! What a fleet is registered as, in a process of its own: the default VFS is everybody's.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::sync::{Arc, Mutex, PoisonError};

use litefleet::store::MemoryStore;
use litefleet::{ErrorKind, Fleet};
use rusqlite::Connection;

/// One test at a time.
static DEFAULT: Mutex<()> = Mutex::new(());

fn fleet() -> Fleet {
    Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap()
}

/// Whether who names no VFS opens a database of a fleet: as a file it could not be made, without its folder.
fn is_default() -> bool {
    Connection::open("no-such-folder/a").is_ok_and(|connection| {
        connection.query_row("PRAGMA litefleet_status", [], |row| row.get::<_, String>(0)).is_ok()
    })
}

/// It was put behind the operating system's: who named no VFS wrote to local files from then on.
#[test]
fn a_fleet_that_is_the_default_stays_it_when_it_is_registered_again() {
    let _one = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    let (fleet, other) = (fleet(), fleet());
    assert!(!is_default());
    fleet.register("default", true).unwrap();
    assert!(is_default());
    fleet.register("default", false).unwrap();
    assert!(is_default(), "registered again");
    fleet.register("by-another-name", false).unwrap();
    other.register("of-another", false).unwrap();
    assert!(is_default(), "others were registered");
    fleet.unregister("by-another-name").unwrap();
    other.unregister("of-another").unwrap();
    fleet.unregister("default").unwrap();
    assert!(!is_default());
    fleet.register("default", false).unwrap();
    assert!(!is_default(), "it was taken back in between");
    fleet.unregister("default").unwrap();
}

/// It was said to be registered, and the name went on to mean the other, or the other was found no more.
#[test]
fn a_name_of_another_vfs_is_refused() {
    let _one = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    let (fleet, other) = (fleet(), fleet());
    for default in [false, true] {
        for name in ["unix", "unix-excl", "memdb"] {
            let refused = fleet.register(name, default).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        }
    }
    assert!(!is_default());
    fleet.register("taken", false).unwrap();
    assert_eq!(other.register("taken", false).unwrap_err().kind(), ErrorKind::Invalid);
    fleet.unregister("taken").unwrap();
    other.register("taken", false).unwrap();
    other.unregister("taken").unwrap();
}
