//! Somebody who writes to one database, without an engine in between.

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{
    CommitMode, CommitRequest, LeaseRequest, OpenRequest, PageRow, PageStore as _, RowKind, SessionRequest,
    StageRequest, Staged,
};
use litefleet::{CommitId, DatabaseId, DatabaseName, Epoch, PageNo, SessionId, Txid};
use litefleet_postgres::PostgresStore;
use tokio::runtime::Runtime;

pub(crate) struct Writer {
    pub(crate) store: Arc<PostgresStore>,
    pub(crate) runtime: Runtime,
    pub(crate) database: DatabaseId,
    pub(crate) epoch: Epoch,
    pub(crate) txid: Txid,
    /// The commit there.
    pub(crate) last: CommitId,
}

impl Writer {
    pub(crate) fn new(store: impl Into<Arc<PostgresStore>>, name: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let store = store.into();
        let session = SessionId(rand::random());
        let request = SessionRequest { session, label: "test".into(), lifetime: Duration::from_secs(600) };
        runtime.block_on(store.start_session(request)).expect("a session starts");
        let open = OpenRequest {
            name: DatabaseName::new(name).expect("a name"),
            create: true,
            lease: Some(LeaseRequest { session, force: false }),
            known: None,
            tail_bytes: 1 << 20,
        };
        let opened = runtime.block_on(store.open(open)).expect("it opens");
        let (database, head) = (opened.database, opened.head);
        Self { store, runtime, database, epoch: head.epoch, txid: head.txid, last: head.commit_id }
    }

    /// Its next commit.
    pub(crate) fn request(&self, bytes: usize) -> CommitRequest {
        CommitRequest {
            database: self.database,
            epoch: self.epoch,
            expected: self.txid,
            follows: self.last,
            commit_id: CommitId(rand::random()),
            size: 4096,
            record: (0..bytes).map(|_| rand::random::<u8>()).collect::<Vec<u8>>().into(),
            staged: None,
            release: false,
        }
    }

    /// Stages the page whose number is the sequence of the request, after another that was acknowledged.
    pub(crate) fn stage(&self, sequence: u32, after: u64) -> litefleet::Result<()> {
        let row = PageRow {
            page: PageNo(sequence),
            txid: self.txid.next(),
            kind: RowKind::Image,
            bytes: vec![7; 100].into(),
        };
        self.runtime.block_on(self.store.stage(StageRequest {
            database: self.database,
            epoch: self.epoch,
            expected: self.txid,
            generation: 0,
            sequence: sequence.into(),
            after,
            rows: vec![row],
        }))
    }

    /// Commits what was staged up to a request, in the form for one commit, or that of the function.
    pub(crate) fn flip(&mut self, last: u64, mode: CommitMode) -> litefleet::Result<()> {
        let request = CommitRequest { staged: Some(Staged { generation: 0, last }), ..self.request(10) };
        self.send(request, mode)
    }

    pub(crate) fn commit(&mut self, bytes: usize) -> litefleet::Result<()> {
        self.send(self.request(bytes), CommitMode::Independent)
    }

    fn send(&mut self, request: CommitRequest, mode: CommitMode) -> litefleet::Result<()> {
        let id = request.commit_id;
        let mut outcomes = self.runtime.block_on(self.store.commit(vec![request], mode))?;
        outcomes.pop().expect("one for each")?;
        (self.txid, self.last) = (self.txid.next(), id);
        Ok(())
    }
}
