//! The layer: one implementation of the trait for every interceptor.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::store::{
    CheckpointRequest, CollectRequest, Collected, CommitMode, CommitRequest, DiscardRequest, Discarded, HeadReply,
    HeadRequest, Lineage, ListEntry, LogRow, OpenRequest, Opened, PageRow, PageStore, PagesReply, Purged, ReadRow,
    SessionRequest, SharedLock, SharedRequest, StageRequest, StoreLimits, Tail,
};
use crate::types::{DatabaseId, DatabaseName, Epoch, PageNo, PageRange, SessionId, Txid};

macro_rules! operations {
    ($($name:ident => $text:literal,)*) => {
        /// The methods of the trait, as values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each is the method of the same name")]
        pub enum Operation { $($name,)* }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The method's name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

operations! {
    StartSession => "start_session",
    RenewSession => "renew_session",
    EndSession => "end_session",
    Open => "open",
    Release => "release",
    Head => "head",
    LockShared => "lock_shared",
    UnlockShared => "unlock_shared",
    LockExclusive => "lock_exclusive",
    UnlockExclusive => "unlock_exclusive",
    Watch => "watch",
    ReadPages => "read_pages",
    Commit => "commit",
    ReadLog => "read_log",
    Stage => "stage",
    DiscardStaged => "discard_staged",
    Checkpoint => "checkpoint",
    Collect => "collect",
    List => "list",
    Rename => "rename",
    Delete => "delete",
    Purge => "purge",
    Scan => "scan",
}

/// One call on its way to the store.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The method.
    pub operation: Operation,
    /// Bytes of records and rows that it sends.
    pub sent: u64,
    /// When it began, where the interceptor said so: see [`Verdict::Since`].
    pub since: Option<Duration>,
}

/// What to do with a call.
#[derive(Debug)]
pub enum Verdict {
    /// Pass it on.
    Proceed,
    /// Pass it on, and tell this time, by the interceptor's own clock, to [`Interceptor::after`].
    Since(Duration),
    /// Wait, then pass it on.
    Wait(Duration),
    /// Do not pass it on; the caller gets this error.
    Fail(Error),
    /// Pass it on; the caller gets this error instead of the reply.
    ProceedThenFail(Error),
    /// The caller gets this error now; the call reaches the store when the interceptor delivers it.
    Late(Error),
}

/// A call that was held back.
pub type Deferred = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a layer does to the calls that pass it.
pub trait Interceptor: Debug + Send + Sync + 'static {
    /// Before a call is passed on.
    fn before(&self, call: Call) -> Verdict;

    /// After a call came back, with the bytes of records and rows that it brought.
    fn after(&self, call: Call, reply: Result<u64, &Error>);

    /// A commit was refused within a call that came back.
    fn refused(&self, call: Call, error: &Error);

    /// Takes a call that [`before`](Self::before) wanted late.
    fn defer(&self, deferred: Deferred);
}

/// A store around a store.
#[derive(Debug)]
pub struct Layer<I> {
    inner: Arc<dyn PageStore>,
    interceptor: Arc<I>,
}

impl<I: Interceptor> Layer<I> {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn PageStore>, interceptor: Arc<I>) -> Self {
        Self { inner, interceptor }
    }

    async fn pass<T, F, Fut>(&self, operation: Operation, sent: u64, call: F) -> Result<T>
    where
        T: Received + Send + 'static,
        F: FnOnce(Arc<dyn PageStore>) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let mut this = Call { operation, sent, since: None };
        let future = call(Arc::clone(&self.inner));
        match self.interceptor.before(this) {
            Verdict::Proceed => {}
            Verdict::Since(start) => this.since = Some(start),
            Verdict::Wait(time) => tokio::time::sleep(time).await,
            Verdict::Fail(error) => return Err(error),
            Verdict::ProceedThenFail(error) => {
                let _lost = future.await;
                return Err(error);
            }
            Verdict::Late(error) => {
                self.interceptor.defer(Box::pin(async move {
                    // The caller has long got its answer: nobody is left to hear this one.
                    let _unheard = future.await;
                }));
                return Err(error);
            }
        }
        let reply = future.await;
        self.interceptor.after(this, reply.as_ref().map(Received::bytes));
        if let Ok(reply) = &reply {
            reply.refusals().for_each(|error| self.interceptor.refused(this, error));
        }
        reply
    }
}

/// What came back with a reply.
trait Received {
    /// Bytes of records and rows.
    fn bytes(&self) -> u64;

    /// Parts of the call that were refused, while it did not fail as a whole.
    fn refusals(&self) -> impl Iterator<Item = &Error> {
        std::iter::empty()
    }
}

macro_rules! brings_nothing {
    ($($reply:ty),*) => {
        $(impl Received for $reply {
            fn bytes(&self) -> u64 {
                0
            }
        })*
    };
}

brings_nothing!((), Txid, Discarded, Collected, Purged, Vec<ListEntry>);

impl Received for Vec<Result<()>> {
    fn bytes(&self) -> u64 {
        0
    }

    fn refusals(&self) -> impl Iterator<Item = &Error> {
        self.iter().filter_map(|outcome| outcome.as_ref().err())
    }
}

fn rows_bytes(rows: &[PageRow]) -> u64 {
    rows.iter().map(|row| row.bytes.len() as u64).sum()
}

impl Received for Vec<PageRow> {
    fn bytes(&self) -> u64 {
        rows_bytes(self)
    }
}

fn read_bytes(rows: &[ReadRow]) -> u64 {
    rows.iter().map(|read| read.row.bytes.len() as u64).sum()
}

impl Received for PagesReply {
    fn bytes(&self) -> u64 {
        read_bytes(&self.rows)
    }
}

impl Received for Vec<LogRow> {
    fn bytes(&self) -> u64 {
        self.iter().map(|row| row.record.len() as u64).sum()
    }
}

impl Received for Tail {
    fn bytes(&self) -> u64 {
        match self {
            Self::Complete(rows) => rows.bytes(),
            Self::Truncated | Self::Reload => 0,
        }
    }
}

impl Received for Opened {
    fn bytes(&self) -> u64 {
        self.tail.bytes() + read_bytes(&self.warm)
    }
}

impl Received for HeadReply {
    fn bytes(&self) -> u64 {
        self.tail.bytes()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<I: Interceptor> PageStore for Layer<I> {
    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn commit_calls(&self) -> usize {
        self.inner.commit_calls()
    }

    async fn start_session(&self, request: SessionRequest) -> Result<()> {
        self.pass(Operation::StartSession, 0, |s| async move { s.start_session(request).await }).await
    }

    async fn renew_session(&self, session: SessionId) -> Result<()> {
        self.pass(Operation::RenewSession, 0, move |s| async move { s.renew_session(session).await }).await
    }

    async fn end_session(&self, session: SessionId) -> Result<()> {
        self.pass(Operation::EndSession, 0, move |s| async move { s.end_session(session).await }).await
    }

    async fn open(&self, request: OpenRequest) -> Result<Opened> {
        self.pass(Operation::Open, 0, |s| async move { s.open(request).await }).await
    }

    async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        self.pass(Operation::Release, 0, move |s| async move { s.release(database, epoch, warm).await }).await
    }

    async fn head(&self, request: HeadRequest) -> Result<HeadReply> {
        self.pass(Operation::Head, 0, move |s| async move { s.head(request).await }).await
    }

    async fn lock_shared(&self, request: SharedRequest) -> Result<HeadReply> {
        self.pass(Operation::LockShared, 0, move |s| async move { s.lock_shared(request).await }).await
    }

    async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        self.pass(Operation::UnlockShared, 0, move |s| async move { s.unlock_shared(database, lock).await }).await
    }

    async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.pass(Operation::LockExclusive, 0, move |s| async move { s.lock_exclusive(database, epoch).await }).await
    }

    async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.pass(Operation::UnlockExclusive, 0, move |s| async move { s.unlock_exclusive(database, epoch).await })
            .await
    }

    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        self.pass(Operation::Watch, 0, move |s| async move { s.watch(database, known).await }).await
    }

    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply> {
        let (lineage, pages) = (lineage.to_vec(), pages.to_vec());
        self.pass(Operation::ReadPages, 0, move |s| async move { s.read_pages(&lineage, &pages, snapshot).await }).await
    }

    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        let sent = requests.iter().map(|r| r.record.len() as u64).sum();
        self.pass(Operation::Commit, sent, move |s| async move { s.commit(requests, mode).await }).await
    }

    async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let lineage = lineage.to_vec();
        self.pass(Operation::ReadLog, 0, move |s| async move { s.read_log(&lineage, after, to).await }).await
    }

    async fn stage(&self, request: StageRequest) -> Result<()> {
        let sent = rows_bytes(&request.rows);
        self.pass(Operation::Stage, sent, |s| async move { s.stage(request).await }).await
    }

    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded> {
        self.pass(Operation::DiscardStaged, 0, move |s| async move { s.discard_staged(request).await }).await
    }

    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()> {
        let sent = rows_bytes(&request.rows);
        self.pass(Operation::Checkpoint, sent, |s| async move { s.checkpoint(request).await }).await
    }

    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        self.pass(Operation::Collect, 0, |s| async move { s.collect(request).await }).await
    }

    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.pass(Operation::List, 0, move |s| async move { s.list(&prefix, after.as_ref(), limit).await }).await
    }

    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()> {
        self.pass(Operation::Rename, 0, move |s| async move { s.rename(database, epoch, name).await }).await
    }

    async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.pass(Operation::Delete, 0, move |s| async move { s.delete(database, epoch).await }).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged> {
        self.pass(Operation::Purge, 0, move |s| async move { s.purge(limit).await }).await
    }

    async fn scan(&self, database: DatabaseId, after: Option<(PageNo, Txid)>, limit: usize) -> Result<Vec<PageRow>> {
        self.pass(Operation::Scan, 0, move |s| async move { s.scan(database, after, limit).await }).await
    }
}
