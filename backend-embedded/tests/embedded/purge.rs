//! That what one call of a purge does is bounded, and that whoever waits for the end sees it get on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use litefleet::clock::ManualClock;
use litefleet::store::{Opened, PageStore, SessionRequest};
use litefleet::{DatabaseName, SessionId};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};

use crate::now;

const SESSION: SessionId = SessionId([1; 16]);

fn start(path: &Path, clock: &Arc<ManualClock>) -> EmbeddedStore {
    let store = EmbeddedStore::open(EmbeddedConfig::new(path).clock(clock.clone())).unwrap();
    let lifetime = Duration::from_secs(100 * 3600);
    now(store.start_session(SessionRequest { session: SESSION, label: "test".into(), lifetime })).unwrap();
    store
}

fn open(store: &EmbeddedStore, name: &str) -> Opened {
    crate::listing::open(store, DatabaseName::new(name).unwrap(), SESSION)
}

/// Databases that nobody has ever written to, and that are deleted.
fn delete_empty(store: &EmbeddedStore, count: u32) {
    for index in 0..count {
        let opened = open(store, &format!("empty-{index}"));
        now(store.delete(opened.database, opened.head.epoch)).unwrap();
    }
}

/// How many calls it takes.
fn purge(store: &EmbeddedStore, limit: usize) -> u32 {
    for calls in 1..100 {
        let purged = now(store.purge(limit)).unwrap();
        if purged.done {
            return calls;
        }
        assert!(purged.removed > 0, "call {calls} looked as if it had been held up");
    }
    panic!("it never ends");
}

/// It looked as if somebody else held it up, and a fleet ended it with an error.
#[test]
fn a_purge_of_empty_databases_is_seen_to_get_on() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let store = start(folder.path(), &clock);
    delete_empty(&store, 25);
    assert!(purge(&store, 10) > 2);
}

/// What has nothing left counted as nothing: one call removed all of it, however many there were, and commits waited.
#[test]
fn a_purge_of_databases_of_which_nothing_is_left_is_bounded_too() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::default()));
    let store = start(folder.path(), &clock);
    delete_empty(&store, 25);
    clock.advance(Duration::from_secs(25 * 3600));
    // Each grant forgets some ends of epochs, whosesoever they are.
    for _ in 0..2 {
        open(&store, "other");
    }
    assert_eq!(purge(&store, 10), 3);
}
