//! Tests of watches.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Fleet, Role};
use crate::error::{ErrorKind, Result};
use crate::store::{CommitMode, CommitRequest, LeaseRequest, MemoryStore, OpenRequest, PageStore, SessionRequest};
use crate::types::{CommitId, DatabaseName, SessionId, Txid};

const LONG: Duration = Duration::from_secs(60);

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
    let fleet = Fleet::builder(Arc::clone(&store)).build().unwrap();
    let name = DatabaseName::new("a").unwrap();
    let database = fleet.connect(&name, Role::Writer, true);
    for byte in [1, 2] {
        let snapshot = database.begin_read().unwrap();
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        database.write(&mut buffer, 0, &[byte; 100]).unwrap();
        let committed = database.commit(&mut buffer, snapshot).unwrap();
        database.end_write(&mut buffer);
        database.unpin(committed);
    }
    fleet.disconnect(&database);
    fleet.wait(commit_damaged(&*store, &name)).unwrap();
    let mut watch = fleet.watch(&name, Some(Txid(0))).unwrap();
    let told: Vec<Txid> = watch.next(LONG).unwrap().iter().map(|commit| commit.txid).collect();
    assert_eq!(told, [Txid(1), Txid(2)]);
    assert_eq!(watch.known(), Txid(2));
    for _ in 0..2 {
        let error = watch.next(LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert_eq!(watch.known(), Txid(2));
}
