//! Tests of watches.

use std::sync::Arc;
use std::time::Duration;

use super::{Commit, Watch};
use crate::config::{FleetSettings, LeaseMode};
use crate::engine::{Fleet, Role};
use crate::error::{ErrorKind, Result};
use crate::store::{
    CommitMode, CommitRequest, LeaseRequest, MemoryStore, OpenRequest, PageStore, SessionRequest, Standby,
};
use crate::types::{CommitId, DatabaseName, SessionId, Txid};

const LONG: Duration = Duration::from_secs(60);
/// Longer than the `store_timeout` of [`fleet`].
const SHORT: Duration = Duration::from_millis(200);

fn name() -> DatabaseName {
    DatabaseName::new("a").unwrap()
}

fn fleet(store: &Arc<dyn PageStore>) -> Fleet {
    fleet_for(store, Duration::from_millis(50))
}

/// A process that tries the store for so long.
fn fleet_for(store: &Arc<dyn PageStore>, store_timeout: Duration) -> Fleet {
    let mut settings = FleetSettings::default();
    settings.database.lease = LeaseMode::Transaction;
    settings.database.store_timeout = store_timeout;
    Fleet::builder(Arc::clone(store)).settings(settings).build().unwrap()
}

/// Another process commits so often.
fn commit(store: &Arc<dyn PageStore>, times: u8) {
    let fleet = fleet(store);
    let database = fleet.connect(&name(), Role::Writer, true);
    for _ in 0..times {
        let snapshot = database.begin_read().unwrap();
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        database.write(&mut buffer, 0, &snapshot.txid.next().get().to_be_bytes()).unwrap();
        let committed = database.commit(&mut buffer, snapshot).unwrap();
        database.end_write(&mut buffer);
        database.unpin(committed);
    }
    fleet.disconnect(&database);
}

fn txids(told: &[Commit]) -> Vec<u64> {
    told.iter().map(|commit| commit.txid.get()).collect()
}

/// A record that fails its check, as the next commit of a database that nobody holds.
async fn commit_damaged(store: &dyn PageStore, name: &DatabaseName) -> Result<()> {
    let session = SessionId([7; 16]);
    store.start_session(SessionRequest { session, label: "damage".into(), lifetime: LONG }).await?;
    let lease = Some(LeaseRequest { session, force: false });
    let opened =
        store.open(OpenRequest { name: name.clone(), create: false, lease, known: None, tail_bytes: 0 }).await?;
    let request = CommitRequest {
        database: opened.database,
        epoch: opened.head.epoch,
        expected: opened.head.txid,
        follows: opened.head.commit_id,
        commit_id: CommitId([7; 16]),
        size: opened.head.size,
        record: b"not what was written".as_slice().into(),
        staged: None,
        release: true,
    };
    store.commit(vec![request], CommitMode::Independent).await?.remove(0)
}

/// The commits before a record that cannot be read had come with it, and were never told of.
#[test]
fn commits_before_a_damaged_record_are_told() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    commit(&store, 2);
    let fleet = fleet(&store);
    fleet.wait(commit_damaged(&*store, &name())).unwrap();
    let mut watch = fleet.watch(&name(), Some(Txid(0))).unwrap();
    assert_eq!(txids(&watch.next(LONG).unwrap()), [1, 2]);
    assert_eq!(watch.known(), Txid(2));
    for _ in 0..2 {
        let error = watch.next(LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert_eq!(watch.known(), Txid(2));
}

/// A watch that has told of three commits, of which a failover has lost two. Others have committed so often since.
fn overtaken(commits: u8) -> (Watch, Arc<dyn PageStore>) {
    let memory = Arc::new(MemoryStore::default());
    let store: Arc<dyn PageStore> = Arc::clone(&memory) as _;
    commit(&store, 1);
    let standby = memory.standby();
    commit(&store, 2);
    let mut watch = fleet(&store).watch(&name(), Some(Txid(0))).unwrap();
    assert_eq!(txids(&watch.next(LONG).unwrap()), [1, 2, 3]);
    memory.fail_over_to(standby);
    commit(&store, commits);
    (watch, store)
}

/// It went on with the commits of the other history, from the first whose number it had not told: those before were never told.
#[test]
fn a_watch_ends_where_others_have_gone_on_without_what_it_told_of() {
    for commits in [2, 3, 5] {
        let (mut watch, store) = overtaken(commits);
        for _ in 0..2 {
            let error = watch.next(LONG).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced, "{commits}: {error}");
            assert!(error.to_string().contains("the store has lost commits"), "{commits}: {error}");
            assert_eq!(watch.known(), Txid(3));
            commit(&store, 1);
        }
        let mut anew = fleet(&store).watch(&name(), Some(Txid(1))).unwrap();
        assert_eq!(anew.next(LONG).unwrap().len(), usize::from(commits) + 2);
    }
}

/// It waited in silence, as for a commit that nobody makes.
#[test]
fn a_watch_says_that_the_store_is_behind_what_it_told_of() {
    let memory = Arc::new(MemoryStore::default());
    let store: Arc<dyn PageStore> = Arc::clone(&memory) as _;
    commit(&store, 1);
    let behind = memory.standby();
    commit(&store, 1);
    let mut watch = fleet(&store).watch(&name(), None).unwrap();
    let newest = memory.standby();
    memory.fail_over_to(behind);
    let error = watch.next(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    memory.fail_over_to(newest);
    commit(&store, 2);
    assert_eq!(txids(&watch.next(LONG).unwrap()), [3, 4]);
}

/// A watch that has told of two commits, of which the store has lost one; what it would have to come back to.
fn behind() -> (Watch, Arc<MemoryStore>, Standby) {
    let memory = Arc::new(MemoryStore::default());
    let store: Arc<dyn PageStore> = Arc::clone(&memory) as _;
    commit(&store, 1);
    let behind = memory.standby();
    commit(&store, 1);
    let patient = fleet_for(&store, LONG);
    let watch = patient.watch(&name(), None).unwrap();
    let newest = memory.standby();
    memory.fail_over_to(behind);
    (watch, memory, newest)
}

/// Who waited in short stretches was told of no commit again and again, as if nobody made one.
#[test]
fn a_watch_whose_time_is_over_says_that_the_store_is_behind() {
    let (mut watch, memory, newest) = behind();
    for _ in 0..3 {
        let error = watch.next(SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("answered from before txid 2"), "{error}");
    }
    memory.fail_over_to(newest);
    assert_eq!(watch.next(SHORT).unwrap(), []);
    let store: Arc<dyn PageStore> = memory;
    commit(&store, 1);
    assert_eq!(txids(&watch.next(LONG).unwrap()), [3]);
}

/// It was told that the store had lost something, of which nobody had told it.
#[test]
fn a_watch_after_a_txid_that_is_not_reached_waits_for_it() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    commit(&store, 1);
    let mut watch = fleet(&store).watch(&name(), Some(Txid(3))).unwrap();
    assert_eq!(watch.next(SHORT).unwrap(), []);
    std::thread::scope(|scope| {
        let next = scope.spawn(|| watch.next(LONG));
        commit(&store, 3);
        assert_eq!(txids(&next.join().unwrap().unwrap()), [4]);
    });
}
