//! Tests of commits.

use std::sync::Arc;

use crate::engine::tail::LogTail;
use crate::engine::{Fleet, Role};
use crate::store::MemoryStore;
use crate::types::{DatabaseName, Txid};

/// It was told as failed, although the store has it.
#[test]
fn a_commit_that_cannot_be_taken_over_is_done() {
    let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
    let name = DatabaseName::new("a").unwrap();
    let database = fleet.connect(&name, Role::Writer, true);
    let snapshot = database.begin_read().unwrap();
    let mut buffer = database.begin_write(snapshot, false).unwrap();
    database.write(&mut buffer, 0, b"there").unwrap();
    // The record that comes does not follow this.
    database.core().tail = LogTail::starting_at(Txid(5));
    let committed = database.commit(&mut buffer, snapshot).unwrap();
    assert_eq!((committed.txid, committed.size), (Txid(1), 5));
    assert!(database.stopped().is_some());
    database.end_write(&mut buffer);
    database.unpin(committed);
    fleet.disconnect(&database);
    let again = fleet.connect(&name, Role::Writer, true);
    let snapshot = again.begin_read().unwrap();
    let mut bytes = [0; 5];
    again.read(snapshot, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"there");
    again.unpin(snapshot);
    fleet.disconnect(&again);
}

/// Each commit left the image that nobody could read any more in the cache, since the committer's own snapshot counted as a reader's.
#[test]
fn a_commit_leaves_the_old_image_to_other_readers_only() {
    let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
    let database = fleet.connect(&DatabaseName::new("a").unwrap(), Role::Writer, true);
    let mut snapshot = database.begin_read().unwrap();
    let mut commit = |bytes: &[u8]| {
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        database.write(&mut buffer, 0, bytes).unwrap();
        snapshot = database.commit(&mut buffer, snapshot).unwrap();
        database.end_write(&mut buffer);
        fleet.cache().entries
    };
    assert_eq!([commit(b"one"), commit(b"two"), commit(b"six")], [1, 1, 1]);
    let reader = database.begin_read().unwrap();
    assert_eq!(commit(b"ten"), 2);
    let mut bytes = [0; 3];
    database.read(reader, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"six");
    database.unpin(reader);
    database.unpin(snapshot);
    fleet.disconnect(&database);
}
