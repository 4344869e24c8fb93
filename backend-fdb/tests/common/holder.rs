//! A process that holds databases, as the engine would, without the engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use litefleet::clock::Randomness;
use litefleet::store::{
    CheckpointRequest, CommitMode, CommitRequest, Head, HeadRequest, LeaseRequest, Lineage, OpenRequest, Opened,
    PageRow, PageStore, RowKind, SessionRequest, StageRequest, Tail,
};
use litefleet::{CommitId, DatabaseId, DatabaseName, Epoch, PageNo, PageRange, Result, SessionId, Txid, UnixMillis};
use litefleet_fdb::FdbStore;

pub(crate) const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn name(text: &str) -> DatabaseName {
    DatabaseName::new(text).expect("a valid name")
}

pub(crate) async fn session(store: &FdbStore, lifetime: Duration) -> SessionId {
    let session = SessionId(Randomness::from_os().id());
    let request = SessionRequest { session, label: format!("label-of-{session}"), lifetime };
    store.start_session(request).await.expect("a new session starts");
    session
}

pub(crate) fn open_request(text: &str, session: Option<SessionId>) -> OpenRequest {
    let lease = session.map(|session| LeaseRequest { session, force: false });
    OpenRequest { name: name(text), create: true, lease, known: None, tail_bytes: 1 << 20 }
}

pub(crate) async fn take(store: &FdbStore, text: &str, session: SessionId, force: bool) -> Result<Opened> {
    let mut request = open_request(text, None);
    request.lease = Some(LeaseRequest { session, force });
    store.open(request).await
}

/// The holder of a database, and what it believes.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) store: Arc<FdbStore>,
    pub(crate) session: SessionId,
    pub(crate) database: DatabaseId,
    pub(crate) epoch: Epoch,
    pub(crate) txid: Txid,
    /// The commit there.
    pub(crate) last: CommitId,
}

impl Holder {
    pub(crate) async fn new(store: &Arc<FdbStore>, session: SessionId, text: &str) -> Self {
        Self::taking(store, session, text, false).await.expect("the lease is free")
    }

    pub(crate) async fn taking(store: &Arc<FdbStore>, session: SessionId, text: &str, force: bool) -> Result<Self> {
        let opened = take(store, text, session, force).await?;
        let Head { epoch, txid, commit_id: last, .. } = opened.head;
        Ok(Self { store: Arc::clone(store), session, database: opened.database, epoch, txid, last })
    }

    pub(crate) fn request(&self, record: &[u8]) -> CommitRequest {
        CommitRequest {
            database: self.database,
            epoch: self.epoch,
            expected: self.txid,
            follows: self.last,
            commit_id: CommitId(Randomness::from_os().id()),
            size: 4096,
            record: Bytes::copy_from_slice(record),
            staged: None,
            release: false,
        }
    }

    /// Takes note of a commit that succeeded.
    pub(crate) fn note(&mut self, id: CommitId) {
        (self.txid, self.last) = (self.txid.next(), id);
    }

    pub(crate) async fn send(&mut self, request: CommitRequest) -> Result<()> {
        let id = request.commit_id;
        let mut outcomes = self.store.commit(vec![request], CommitMode::Independent).await?;
        outcomes.pop().expect("one commit, one outcome")?;
        self.note(id);
        Ok(())
    }

    pub(crate) async fn commit(&mut self, record: &[u8]) -> Result<()> {
        let request = self.request(record);
        self.send(request).await
    }

    pub(crate) async fn head(&self) -> Head {
        self.try_head().await.expect("the database exists")
    }

    pub(crate) async fn try_head(&self) -> Result<Head> {
        let request = HeadRequest { database: self.database, known: Txid(0), epoch: None, tail_bytes: 0 };
        self.store.head(request).await.map(|reply| reply.head)
    }

    /// All records.
    pub(crate) async fn log(&self) -> Vec<Bytes> {
        let request = HeadRequest { database: self.database, known: Txid(0), epoch: None, tail_bytes: usize::MAX };
        match self.store.head(request).await.expect("the database exists").tail {
            Tail::Complete(rows) => rows.into_iter().map(|row| row.record).collect(),
            other => panic!("expected all records, got {other:?}"),
        }
    }

    pub(crate) async fn checkpoint(&self, rows: Vec<PageRow>, last: bool) -> Result<()> {
        let (database, epoch, txid, time) = (self.database, self.epoch, self.txid, UnixMillis(0));
        self.store
            .checkpoint(CheckpointRequest {
                database,
                epoch,
                txid,
                since: Txid(0),
                attempt: 0,
                piece: 0,
                rows,
                last,
                time,
                warm: Vec::new(),
            })
            .await
    }

    pub(crate) async fn stage(&self, sequence: u64, rows: Vec<PageRow>) -> Result<()> {
        let (database, epoch, expected) = (self.database, self.epoch, self.txid);
        self.store
            .stage(StageRequest { database, epoch, expected, generation: 0, sequence, after: sequence - 1, rows })
            .await
    }

    /// The bytes of pages as of the present head.
    pub(crate) async fn read(&self, first: u32, last: u32) -> Result<Vec<PageRow>> {
        let lineage = [Lineage { database: self.database, max_txid: Txid::MAX }];
        let range = PageRange::new(PageNo(first), PageNo(last));
        let reply = self.store.read_pages(&lineage, &[range], self.txid).await?;
        Ok(reply.rows.into_iter().map(|read| read.row).collect())
    }
}

/// A row of a page that does not compress, the same each time.
pub(crate) fn image(page: u32, txid: Txid) -> PageRow {
    let mut state = u64::from(page).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ txid.get();
    let mut bytes = Vec::with_capacity(4096);
    while bytes.len() < 4096 {
        // Xorshift: any bytes will do, as long as they come again.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    PageRow { page: PageNo(page), txid, kind: RowKind::Image, bytes: bytes.into() }
}
