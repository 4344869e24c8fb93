//! Listing past what is damaged: one database that cannot be read hides none of the others.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use litefleet::store::{
    CommitMode, CommitRequest, LeaseRequest, ListEntry, OpenRequest, Opened, PageStore, SessionRequest,
};
use litefleet::{CommitId, DatabaseName, Epoch, ErrorKind, Result, SessionId};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::damage::files;
use crate::now;

const DATABASES: u64 = 200;
const FLIPPED: Range<u64> = DATABASES / 3..DATABASES;

pub(crate) fn config(path: &Path) -> EmbeddedConfig {
    EmbeddedConfig::new(path).memtable_bytes(1 << 16)
}

/// Long, and like no other: so that blocks of the engine's files hold few of them, as they stand.
fn name(index: u64) -> DatabaseName {
    let mut random = StdRng::seed_from_u64(index);
    let text: String = (0..300).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
    DatabaseName::new(&text).unwrap()
}

pub(crate) fn commit_id(index: u64) -> CommitId {
    CommitId(StdRng::seed_from_u64(index + 1_000_000).random())
}

pub(crate) fn open(store: &EmbeddedStore, name: DatabaseName, session: SessionId) -> Opened {
    let lease = Some(LeaseRequest { session, force: false });
    now(store.open(OpenRequest { name, create: true, lease, known: None, tail_bytes: 0 })).unwrap()
}

fn commit(store: &EmbeddedStore, opened: &mut Opened, commit_id: CommitId, record: Bytes) {
    let request = CommitRequest { record, ..request(opened, commit_id) };
    now(store.commit(vec![request], CommitMode::Independent)).unwrap().remove(0).unwrap();
    (opened.head.txid, opened.head.commit_id) = (opened.head.txid.next(), commit_id);
}

/// The next commit of a database.
pub(crate) fn request(opened: &Opened, commit_id: CommitId) -> CommitRequest {
    CommitRequest {
        database: opened.database,
        epoch: opened.head.epoch,
        expected: opened.head.txid,
        follows: opened.head.commit_id,
        commit_id,
        size: 4096,
        record: Bytes::from_static(b"record"),
        staged: None,
        release: false,
    }
}

/// Many databases with a commit each, and enough after them that the engine has written them to its tables.
fn fill(path: &Path) {
    let store = EmbeddedStore::open(config(path)).unwrap();
    let session = SessionId([1; 16]);
    let lifetime = Duration::from_secs(3600);
    now(store.start_session(SessionRequest { session, label: "filler".into(), lifetime })).unwrap();
    for index in 0..DATABASES {
        let mut opened = open(&store, name(index), session);
        commit(&store, &mut opened, commit_id(index), Bytes::from_static(b"record"));
    }
    let mut after = open(&store, DatabaseName::new("~after").unwrap(), session);
    // The table of the heads has room for far fewer in memory.
    for index in 0..1500 {
        commit(&store, &mut after, commit_id(DATABASES + index), Bytes::from_static(&[0; 2000]));
    }
}

/// The engine's files but for its journals, and what is in them.
fn tables(path: &Path) -> (Vec<PathBuf>, Vec<Vec<u8>>) {
    let mut all = Vec::new();
    files(path, &mut all);
    all.retain(|path| path.extension().is_none_or(|extension| extension != "jnl"));
    // One may be gone by now.
    all.into_iter().filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).unzip()
}

pub(crate) fn in_a_table(path: &Path, wanted: &[u8]) -> bool {
    tables(path).1.iter().any(|bytes| bytes.windows(wanted.len()).any(|part| part == wanted))
}

/// Finds one of these that stands so often in one file of the engine's tables, and in no other, and flips a bit of it where
/// it stands last. Returns its number. What stands there more often is also what the engine finds its blocks by.
pub(crate) fn flip(path: &Path, among: Range<u64>, wanted: impl Fn(u64) -> Vec<u8>, times: usize) -> u64 {
    let (all, contents) = tables(path);
    for index in among {
        let wanted = wanted(index);
        let places = |bytes: &Vec<u8>| -> Vec<usize> {
            bytes.windows(wanted.len()).enumerate().filter(|(_, part)| *part == wanted).map(|(at, _)| at).collect()
        };
        let found: Vec<Vec<usize>> = contents.iter().map(places).collect();
        let mut with_any = found.iter().zip(&contents).zip(&all).filter(|((places, _), _)| !places.is_empty());
        if let (Some(((places, bytes), path)), None) = (with_any.next(), with_any.next())
            && places.len() == times
        {
            let mut bytes = bytes.clone();
            bytes[places[times - 1] + wanted.len() / 2] ^= 4;
            fs::write(path, bytes).unwrap();
            return index;
        }
    }
    panic!("the engine has none of them {times} times in its tables");
}

/// Everything that is listed, some at a time.
fn list(store: &EmbeddedStore, limit: usize) -> Result<Vec<ListEntry>> {
    let mut all: Vec<ListEntry> = Vec::new();
    loop {
        let after = all.last().map(|entry| entry.name.clone());
        let more = now(store.list("", after.as_ref(), limit))?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

fn names() -> Vec<DatabaseName> {
    let mut names: Vec<DatabaseName> = (0..DATABASES).map(name).collect();
    names.push(DatabaseName::new("~after").unwrap());
    names.sort();
    names
}

/// The damaged ones among the entries. All of the databases are there, in order, and the damaged ones say that they are.
fn damaged(entries: &[ListEntry]) -> Vec<DatabaseName> {
    let listed: Vec<DatabaseName> = entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(listed, names());
    let mut damaged = Vec::new();
    for entry in entries {
        if let Err(error) = &entry.state {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.message().contains(entry.name.as_str()), "{error}");
            damaged.push(entry.name.clone());
        }
    }
    damaged
}

/// One head that could not be read kept every database of the store from being listed.
#[test]
fn databases_are_listed_beside_one_whose_head_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    let flipped = flip(directory.path(), FLIPPED, |index| commit_id(index).0.to_vec(), 1);
    let store = EmbeddedStore::open(config(directory.path())).unwrap();
    for limit in [1, 7, 1000] {
        let damaged = damaged(&list(&store, limit).unwrap());
        assert!(damaged.contains(&name(flipped)), "{damaged:?}");
        // As many as stand in one block with it.
        assert!(damaged.len() < 60, "{}", damaged.len());
    }
}

/// It could be listed and not deleted, and there is no other mend: nobody can know its epoch.
#[test]
fn a_database_whose_head_is_damaged_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    flip(directory.path(), FLIPPED, |index| commit_id(index).0.to_vec(), 1);
    let store = EmbeddedStore::open(config(directory.path())).unwrap();
    let listed = list(&store, 1000).unwrap();
    for entry in &listed {
        let database = entry.database.expect("what its name means is whole");
        let deleted = now(store.delete(database, Epoch(0)));
        match entry.state {
            Ok(_) => assert_eq!(deleted.unwrap_err().kind(), ErrorKind::Fenced),
            Err(_) => deleted.unwrap(),
        }
    }
    let whole: Vec<DatabaseName> = listed.into_iter().filter(|e| e.state.is_ok()).map(|e| e.name).collect();
    drop(store);
    let store = EmbeddedStore::open(config(directory.path())).unwrap();
    let left: Vec<DatabaseName> = list(&store, 1000).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, whole);
    assert!(left.len() <= usize::try_from(DATABASES).unwrap(), "some were damaged");
}

/// A head that was missing altogether was taken for a database that was deleted: it could be listed, and nothing else.
#[test]
fn a_database_whose_head_is_missing_is_damaged_and_can_be_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let name = DatabaseName::new("headless").unwrap();
    let store = EmbeddedStore::open(config(directory.path())).unwrap();
    let session = SessionId([1; 16]);
    let start = SessionRequest { session, label: "holder".into(), lifetime: Duration::from_secs(3600) };
    now(store.start_session(start.clone())).unwrap();
    let mut opened = open(&store, name.clone(), session);
    commit(&store, &mut opened, commit_id(0), Bytes::from_static(b"record"));
    drop(store);
    let engine = fjall::Database::builder(directory.path().join("data")).open().unwrap();
    let heads = engine.keyspace("heads", fjall::KeyspaceCreateOptions::default).unwrap();
    let key = [&b"h"[..], &opened.database.get().to_be_bytes()].concat();
    assert!(heads.get(&key).unwrap().is_some());
    heads.remove(&key).unwrap();
    engine.persist(fjall::PersistMode::SyncAll).unwrap();
    drop((heads, engine));
    let store = EmbeddedStore::open(config(directory.path())).unwrap();
    for create in [false, true] {
        let request = OpenRequest { name: name.clone(), create, lease: None, known: None, tail_bytes: 0 };
        let error = now(store.open(request)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    let entry = list(&store, 10).unwrap().remove(0);
    assert_eq!(entry.database, Some(opened.database));
    assert_eq!(entry.state.unwrap_err().kind(), ErrorKind::Corrupt);
    now(store.delete(opened.database, Epoch(0))).unwrap();
    assert!(list(&store, 10).unwrap().is_empty());
    now(store.start_session(start)).unwrap();
    assert_eq!(open(&store, name, session).head.txid.get(), 0);
}

/// So did a name that could not be read: behind it nothing was listed.
#[test]
fn databases_are_listed_where_the_index_of_names_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    // Once as what the database is called, then as what is looked for.
    let flipped = flip(directory.path(), FLIPPED, |index| name(index).as_str().as_bytes().to_vec(), 2);
    let store = EmbeddedStore::open(config(directory.path())).unwrap();
    for limit in [1, 7, 1000] {
        let damaged = damaged(&list(&store, limit).unwrap());
        assert!(damaged.contains(&name(flipped)), "by its name it cannot be opened: {damaged:?}");
        assert!(damaged.len() < 60, "{}", damaged.len());
    }
}
