//! A disk that runs full.
//!
//! The tests run in a child in a mount namespace of its own, with a small file system in memory.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use litefleet::store::{
    CommitMode, CommitRequest, HeadRequest, LeaseRequest, Lineage, OpenRequest, PageStore, SessionRequest,
};
use litefleet::{CommitId, DatabaseId, DatabaseName, Epoch, ErrorKind, Result, SessionId, Txid};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::Rng;

use crate::{child, now};

const MIB: u64 = 1 << 20;
const BALLAST: u64 = 16;

fn run(role: &str) {
    let directory = tempfile::tempdir().unwrap();
    let inner = child::command(role, directory.path(), 0, 0);
    let mut outer = Command::new("unshare");
    outer
        .args(["--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs -o size=48m tmpfs \"$0\" && exec \"$@\""])
        .arg(directory.path())
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null());
    let out = outer.output().expect("unshare can be run");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{text}");
    assert!(
        out.status.success() && text.contains("the disk was full"),
        "the test needs unshare(1) and mount namespaces; leave it out by name where there are none. {text}"
    );
}

/// The store sees in time that the room goes down to its reserve.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs a mount namespace")]
fn a_full_disk_refuses_commits_until_there_is_room() {
    run("full-reserve");
}

/// Something else takes the last byte, and the engine fails in the middle of its work.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs a mount namespace")]
fn an_engine_that_fails_on_a_full_disk_is_opened_again() {
    run("full-engine");
}

struct Database {
    store: EmbeddedStore,
    id: DatabaseId,
    epoch: Epoch,
    txid: u64,
}

/// Bytes that do not compress, fast.
fn record(txid: u64) -> Bytes {
    let mut word = txid;
    let mut next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.to_be_bytes()
    };
    (0..37_500).flat_map(|_| next()).collect::<Vec<u8>>().into()
}

/// That of the commit at a txid.
fn commit_id(txid: u64) -> CommitId {
    CommitId([u8::try_from(txid % 251).unwrap(); 16])
}

impl Database {
    fn open(path: &Path, reserve: u64) -> Self {
        let config = EmbeddedConfig::new(path).reserve_bytes(reserve).memtable_bytes(2 * MIB);
        let store = EmbeddedStore::open(config).unwrap();
        let session = SessionId(rand::rng().random());
        let lifetime = std::time::Duration::from_secs(1000);
        now(store.start_session(SessionRequest { session, label: "full".into(), lifetime })).unwrap();
        let request = OpenRequest {
            name: DatabaseName::new("a").unwrap(),
            create: true,
            lease: Some(LeaseRequest { session, force: false }),
            known: None,
            tail_bytes: 0,
        };
        let opened = now(store.open(request)).unwrap();
        Self { store, id: opened.database, epoch: opened.head.epoch, txid: opened.head.txid.get() }
    }

    fn commit(&mut self) -> Result<()> {
        let request = CommitRequest {
            database: self.id,
            epoch: self.epoch,
            expected: Txid(self.txid),
            follows: commit_id(self.txid),
            commit_id: commit_id(self.txid + 1),
            size: self.txid,
            record: record(self.txid + 1),
            staged: None,
            release: false,
        };
        now(self.store.commit(vec![request], CommitMode::Independent))?.remove(0)?;
        self.txid += 1;
        Ok(())
    }

    fn head(&self) -> Result<u64> {
        let request = HeadRequest { database: self.id, known: Txid(u64::MAX), epoch: None, tail_bytes: 0 };
        Ok(now(self.store.head(request))?.head.txid.get())
    }

    fn check_log(&self) {
        let lineage = [Lineage { database: self.id, max_txid: Txid::MAX }];
        let mut at = 0;
        while at < self.txid {
            for row in now(self.store.read_log(&lineage, Txid(at), Txid(self.txid))).unwrap() {
                at += 1;
                assert_eq!((row.txid, row.record), (Txid(at), record(at)));
            }
        }
    }
}

pub(crate) fn child(path: &Path, reserve: u64) {
    let ballast = path.join("ballast");
    fs::write(&ballast, vec![1; usize::try_from(BALLAST * MIB).unwrap()]).unwrap();
    let path = path.join("store");
    let mut database = Database::open(&path, reserve);
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let error = loop {
            if let Err(error) = database.commit() {
                break error;
            }
            assert!(database.txid < 1000, "the disk never runs full");
        };
        println!("after {} commits: {error}", database.txid);
        kinds.push(error.kind());
        let head = database.head();
        println!("  head {head:?}");
        match error.kind() {
            ErrorKind::Full => assert_eq!(head.unwrap(), database.txid, "nothing was done, and reading goes on"),
            ErrorKind::CommitUnknown => database.txid = head.unwrap_or(database.txid),
            kind => panic!("{kind:?} does not say that the disk is full"),
        }
        if reserve > 0 {
            assert_eq!(error.kind(), ErrorKind::Full);
            assert!(error.message().contains("make room"), "{error}");
        }
        // Still refused, and still nothing done.
        assert!(database.commit().is_err());
    }
    println!("the disk was full: {kinds:?}");
    fs::remove_file(ballast).unwrap();
    if let Err(error) = database.commit() {
        // Whoever had an unknown outcome reads the head first.
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        database.txid = database.head().unwrap();
        database.commit().unwrap();
    }
    for _ in 0..10 {
        database.commit().unwrap();
    }
    database.check_log();
    let txid = database.txid;
    drop(database);
    let database = Database::open(&path, reserve);
    assert_eq!(database.txid, txid);
    database.check_log();
}
