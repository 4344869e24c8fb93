//! An fsync that fails: the operating system goes on showing what it was to write, and says so once. What is acknowledged
//! or shown afterwards must be on the disk all the same.
//!
//! A child works under the recorder (`record.c`), which lets fsyncs of journals fail and keeps what they were to write out
//! of the directory as it is after a power failure, unless it is written and synced again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use litefleet::store::{
    CheckpointRequest, CommitMode, CommitRequest, HeadRequest, LeaseRequest, OpenRequest, PageRow, PageStore, RowKind,
    SessionRequest,
};
use litefleet::{
    CommitId, DatabaseId, DatabaseName, Epoch, Error, ErrorKind, PageNo, Result, SessionId, Txid, UnixMillis,
};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::power_loss::{Disk, compile, parse};
use crate::{child, held_worker, now, open, workload};

const FAIL: &str = "RECORD_FAIL";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// More often than a store asks for it.
const EVER: u32 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    CommitOnce(i32),
    CommitTwice(i32),
    Unknown,
    OpenedAgain,
    Closing,
    ClosingBesideWorker,
    LeaveUnsynced,
    ToldAtTheOpen,
    Worker,
    Delete,
}

const ACTS: [Act; 12] = [
    Act::CommitOnce(EIO),
    Act::CommitOnce(ENOSPC),
    Act::CommitTwice(EIO),
    Act::CommitTwice(ENOSPC),
    Act::Unknown,
    Act::OpenedAgain,
    Act::Closing,
    Act::ClosingBesideWorker,
    Act::LeaveUnsynced,
    Act::ToldAtTheOpen,
    Act::Worker,
    Act::Delete,
];

/// Lets children act one after the other, and checks what is left by a power failure at the end.
fn run(acts: &[Act]) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("recorded");
    fs::create_dir(&root).unwrap();
    let (log, library) = (directory.path().join("record"), compile(directory.path()));
    let mut said = String::new();
    for act in acts {
        let number = ACTS.iter().position(|known| known == act).unwrap();
        let out = child::command("failed-sync", &root, number as u64, 0)
            .env("LD_PRELOAD", &library)
            .env("RECORD_ROOT", &root)
            .env("RECORD_LOG", &log)
            .env(FAIL, directory.path().join("fail"))
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        println!("{act:?}: {text}");
        assert!(out.status.success() && text.contains("all done"), "{act:?}");
        said.push_str(&String::from_utf8_lossy(&out.stdout));
    }
    let mut disk = Disk::default();
    for event in parse(&fs::read(&log).unwrap()) {
        disk.apply(&event);
    }
    let image = directory.path().join("image");
    disk.save(&image, &mut StdRng::seed_from_u64(0), 0.0);
    let store = open(&image.join("store"));
    for (id, acknowledged) in workload::acks(&said) {
        let found = head(&store, DatabaseId(id));
        if acts.contains(&Act::Delete) {
            assert_eq!(found.unwrap_err().kind(), ErrorKind::NotFound, "its deletion was reported");
            continue;
        }
        let found = found.unwrap();
        assert!(found >= acknowledged, "{acknowledged} commits were acknowledged, {found} are left");
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_commit_whose_sync_failed_is_on_the_disk_when_it_is_acknowledged() {
    run(&[Act::CommitOnce(EIO)]);
}

/// "No room" from an fsync was taken for a write that had not come: what could be read was believed.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_disk_that_is_full_at_the_sync_is_no_other_failure() {
    run(&[Act::CommitOnce(ENOSPC)]);
}

/// The engine was opened without its journals written again when that had failed once.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn journals_are_written_again_until_that_succeeds() {
    run(&[Act::CommitTwice(EIO)]);
    run(&[Act::CommitTwice(ENOSPC)]);
    run(&[Act::Unknown]);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_store_that_is_opened_anew_knows_that_its_journals_are_to_be_written_again() {
    run(&[Act::OpenedAgain]);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_sync_that_fails_as_the_store_is_closed_leaves_no_hole() {
    run(&[Act::Closing]);
}

/// The engine's worker was told of it, and had not told the others yet when the store had been closed: nobody knew of the
/// hole, and what was acknowledged later stood behind it.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_sync_of_the_engines_worker_that_fails_as_the_store_is_closed_leaves_no_hole() {
    run(&[Act::ClosingBesideWorker]);
}

/// It was the open's own sync that failed, and the next open believed what it saw.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_failure_that_an_open_is_told_of_leaves_no_hole() {
    run(&[Act::LeaveUnsynced, Act::ToldAtTheOpen]);
}

/// The engine's worker ended, and the engine was opened again as if nothing but that had happened.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_sync_of_the_engines_worker_that_fails_leaves_no_hole() {
    run(&[Act::Worker]);
}

/// "No room" promised that the database was still there. And whoever watched it slept on.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the recorder is preloaded as on Linux")]
fn a_deletion_whose_sync_failed_may_have_happened() {
    run(&[Act::Delete]);
}

fn head(store: &EmbeddedStore, database: DatabaseId) -> Result<u64> {
    let request = HeadRequest { database, known: Txid(u64::MAX), epoch: None, tail_bytes: 0 };
    Ok(now(store.head(request))?.head.txid.get())
}

struct Database {
    store: EmbeddedStore,
    id: DatabaseId,
    epoch: Epoch,
    txid: u64,
    last: CommitId,
}

impl Database {
    fn open(path: &Path) -> Result<Self> {
        let config = EmbeddedConfig::new(path).memtable_bytes(64 << 10);
        let store = EmbeddedStore::open(config)?;
        let session = SessionId(rand::rng().random());
        let lifetime = std::time::Duration::from_secs(1000);
        now(store.start_session(SessionRequest { session, label: "test".into(), lifetime }))?;
        let request = OpenRequest {
            name: DatabaseName::new("a").unwrap(),
            create: true,
            lease: Some(LeaseRequest { session, force: false }),
            known: None,
            tail_bytes: 0,
        };
        let opened = now(store.open(request))?;
        let (id, head) = (opened.database, opened.head);
        Ok(Self { store, id, epoch: head.epoch, txid: head.txid.get(), last: head.commit_id })
    }

    fn commit(&mut self) -> Result<()> {
        let request = CommitRequest {
            database: self.id,
            epoch: self.epoch,
            expected: Txid(self.txid),
            follows: self.last,
            commit_id: CommitId(rand::rng().random()),
            size: 4096,
            record: Bytes::from_static(&[7; 500]),
            staged: None,
            release: false,
        };
        let id = request.commit_id;
        now(self.store.commit(vec![request], CommitMode::Independent))?.remove(0)?;
        (self.txid, self.last) = (self.txid + 1, id);
        self.say();
        Ok(())
    }

    /// What it has was acknowledged, or can be seen.
    fn say(&self) {
        println!("ack {} {}", self.id, self.txid);
    }

    /// Writes what is durable with the next commit only.
    fn checkpoint_a_piece(&self) {
        let request = CheckpointRequest {
            database: self.id,
            epoch: self.epoch,
            txid: Txid(self.txid),
            since: Txid(0),
            attempt: 0,
            piece: 0,
            rows: vec![PageRow {
                page: PageNo(1),
                txid: Txid(self.txid),
                kind: RowKind::Image,
                bytes: Bytes::from_static(&[9; 4096]),
            }],
            last: false,
            time: UnixMillis(0),
            warm: Vec::new(),
        };
        now(self.store.checkpoint(request)).unwrap();
    }
}

/// What lets fsyncs fail.
struct Failure(PathBuf);

impl Failure {
    fn next(&self, error: i32, count: u32, thread: &str) {
        fs::write(&self.0, format!("{error} {count} {thread}")).unwrap();
    }

    fn is_over(&self) -> bool {
        !self.0.exists()
    }

    fn stop(&self) {
        fs::remove_file(&self.0).unwrap();
    }
}

pub(crate) fn child(path: &Path, number: u64) {
    let path = path.join("store");
    let failure = Failure(std::env::var_os(FAIL).unwrap().into());
    let _open = act(ACTS[usize::try_from(number).unwrap()], &path, &failure);
    println!("all done");
    // As if it was killed: what is open is not closed.
    std::process::exit(0);
}

fn act(act: Act, path: &Path, failure: &Failure) -> Database {
    if act == Act::ToldAtTheOpen {
        failure.next(EIO, 1, "*");
        let mut database = Database::open(path).or_else(|_| Database::open(path)).unwrap();
        assert!(failure.is_over());
        database.commit().unwrap();
        return database;
    }
    let mut database = Database::open(path).unwrap();
    database.commit().unwrap();
    match act {
        Act::CommitOnce(error) | Act::CommitTwice(error) => {
            failure.next(error, if matches!(act, Act::CommitOnce(_)) { 1 } else { 2 }, "");
            database.commit().unwrap();
            assert!(failure.is_over());
            database.commit().unwrap();
        }
        Act::Unknown => {
            fail_for_ever(&mut database, failure);
            assert!(head(&database.store, database.id).is_err(), "nothing is shown that may not be there");
            failure.stop();
            database.txid = head(&database.store, database.id).unwrap();
            database.say();
        }
        Act::OpenedAgain => {
            fail_for_ever(&mut database, failure);
            drop(database);
            failure.stop();
            database = Database::open(path).unwrap();
            database.say();
        }
        Act::Closing => {
            database.checkpoint_a_piece();
            failure.next(EIO, 1, "");
            drop(database);
            assert!(failure.is_over());
            database = Database::open(path).unwrap();
            database.commit().unwrap();
        }
        Act::ClosingBesideWorker => database = close_beside_worker(database, path, failure),
        Act::LeaveUnsynced => database.checkpoint_a_piece(),
        Act::Worker => {
            failure.next(EIO, 1, held_worker::NAME);
            // Until one of them comes between the store's sync and the worker's.
            for _ in 0..100_000 {
                if failure.is_over() {
                    break;
                }
                database.checkpoint_a_piece();
            }
            assert!(failure.is_over());
            database.commit().unwrap();
        }
        Act::Delete => delete_while_watched(&database, failure),
        Act::ToldAtTheOpen => {}
    }
    database
}

fn fail_for_ever(database: &mut Database, failure: &Failure) {
    failure.next(EIO, EVER, "");
    assert_eq!(database.commit().unwrap_err().kind(), ErrorKind::CommitUnknown);
}

fn close_beside_worker(mut database: Database, path: &Path, failure: &Failure) -> Database {
    let worker = held_worker::hold();
    // A table is full with these, and the worker is to write it out.
    for _ in 0..20 {
        database.checkpoint_a_piece();
    }
    worker.await_its_sync();
    database.checkpoint_a_piece();
    failure.next(EIO, 1, held_worker::NAME);
    worker.let_its_sync_fail();
    assert!(failure.is_over());
    drop(database);
    worker.assert_it_has_told();
    database = Database::open(path).unwrap();
    // The mark of the second proves that the first was durable.
    database.commit().unwrap();
    database.commit().unwrap();
    database
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn delete_while_watched(database: &Database, failure: &Failure) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut watching = database.store.watch(database.id, Txid::MAX);
    let mut look = || watching.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(look().is_pending());
    failure.next(ENOSPC, 1, "");
    let kind = |deleted: Result<()>| deleted.map_err(|error: Error| error.kind());
    let delete = || kind(now(database.store.delete(database.id, database.epoch)));
    assert_eq!(delete(), Err(ErrorKind::Unavailable), "it may be done or not");
    assert!(matches!(delete(), Ok(()) | Err(ErrorKind::NotFound)));
    assert!(woken.0.load(Ordering::SeqCst), "whoever watches is told");
    assert!(matches!(look(), Poll::Ready(Err(error)) if error.kind() == ErrorKind::NotFound));
}
