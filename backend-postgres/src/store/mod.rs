//! The contract, as calls of the schema's functions. One file per group of methods; here is what they share.
//!
//! Every call runs to its end, by whoever waits for it, and on the store's own runtime once nobody does: a caller that is
//! gone leaves no half-read connection behind, and it does not matter on which thread, or in which runtime, a caller waits.

mod commit;
mod finished;
mod grants;
mod locks;
mod naming;
mod open;
mod outcome;
mod read;
mod rows;
mod sessions;
mod watch;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt};
use litefleet::store::{
    CheckpointRequest, CollectRequest, Collected, CommitMode, CommitRequest, DiscardRequest, Discarded, HeadReply,
    HeadRequest, Lineage, ListEntry, LogRow, OpenRequest, Opened, PageRow, PageStore, PagesReply, Purged,
    SessionRequest, SharedLock, SharedRequest, StageRequest, StoreLimits,
};
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, PageNo, PageRange, Result, SessionId, Txid};
use tokio::runtime::{Builder, Runtime};

use crate::config::PostgresConfig;
use crate::error::Outcome;
use crate::pool::Pool;
use crate::statements::Statements;
use crate::{schema, tls};
use finished::Finished;
use grants::Grants;
use watch::Watchers;

#[cfg(feature = "testing")]
pub(crate) use commit::scalars;

/// How long to wait for the answer of a renewal: a connection that is dead must be found out while there is time for another.
const CONTROL_PATIENCE: Duration = Duration::from_secs(4);
/// For the next renewal, of those that were given up, so many may still have no answer.
const CONTROL_SPARE: usize = 3;

/// What calls need, on whichever thread they run.
#[derive(Debug)]
pub(crate) struct Inner {
    config: Arc<PostgresConfig>,
    pool: Arc<Pool>,
    /// For sessions and watches: a renewal must not wait until a long read is done.
    control: Pool,
    watchers: Watchers,
    grants: Grants,
}

/// A store on Postgres.
#[derive(Debug)]
pub struct PostgresStore {
    inner: Arc<Inner>,
    /// Always there until it is dropped.
    runtime: Option<Runtime>,
}

impl PostgresStore {
    /// Connects, and makes the schema or brings it up to date where that is needed.
    ///
    /// - `Unavailable`: no server of the URL can be reached now; the message says why, of each.
    /// - `Invalid`: it can never work as it is: a wrong password, missing rights, a certificate that is not trusted, a
    ///   schema of a newer version.
    /// - `NotFound`: the schema is not there, and it is not to be made ([`PostgresConfig::migrate`]).
    pub async fn connect(config: PostgresConfig) -> Result<Self> {
        let store = Self::start(config)?;
        let inner = Arc::clone(&store.inner);
        store.run(async move { inner.prepare().await }).await?;
        Ok(store)
    }

    /// As [`connect`](Self::connect), waiting on this thread. It must not be one that runs asynchronous tasks.
    pub fn connect_blocking(config: PostgresConfig) -> Result<Self> {
        let store = Self::start(config)?;
        let inner = Arc::clone(&store.inner);
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let ready = async move {
            let _nobody_waits = sender.send(inner.prepare().await);
        };
        store.handle()?.spawn(ready);
        receiver.recv().map_err(|_| Error::internal("connecting to Postgres ended without an answer"))??;
        Ok(store)
    }

    fn start(mut config: PostgresConfig) -> Result<Self> {
        // Before the runtime: in an asynchronous task it could not be dropped again.
        config.check()?;
        config.tell_statement_timeout();
        let tls = tls::connector(&config)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("litefleet-postgres")
            .enable_all()
            .build()
            .map_err(|e| Error::internal("cannot start the threads of the Postgres store").with_source(e))?;
        let config = Arc::new(config);
        let statements = Arc::new(Statements::new(&config.quoted_schema()));
        let last = Arc::new(AtomicUsize::new(0));
        let pool = |size, patience| {
            Pool::new(Arc::clone(&config), tls.clone(), Arc::clone(&statements), size, patience, Arc::clone(&last))
        };
        let calls = Arc::new(pool(config.pool_size, config.call_timeout));
        let inner = Inner {
            control: pool(1, CONTROL_PATIENCE).with_spare(CONTROL_SPARE).with_lender(&calls),
            pool: calls,
            watchers: Watchers::default(),
            grants: Grants::default(),
            config: Arc::clone(&config),
        };
        Ok(Self { inner: Arc::new(inner), runtime: Some(runtime) })
    }

    fn handle(&self) -> Result<&tokio::runtime::Handle> {
        self.runtime.as_ref().map(Runtime::handle).ok_or_else(|| Error::internal("the Postgres store is closed"))
    }

    /// Runs a call to its end, whether the caller waits for it or not.
    async fn run<T: Send + 'static>(&self, call: impl Future<Output = Outcome<T>> + Send + 'static) -> Result<T> {
        Ok(Finished::new(self.handle()?.clone(), call).await?)
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The store may be dropped on a thread of another runtime, where waiting would panic.
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    /// Boxed: the compiler cannot see through it that it may change threads.
    fn prepare(&self) -> BoxFuture<'_, Outcome<()>> {
        let prepare = async {
            let mut client = self.control.client().await?;
            schema::prepare(&mut client, &self.config).await
        };
        prepare.boxed()
    }
}

#[async_trait]
impl PageStore for PostgresStore {
    fn limits(&self) -> StoreLimits {
        self.inner.config.limits
    }

    /// The server works for one half of the databases while SQLite prepares the other half's next transactions.
    fn commit_calls(&self) -> usize {
        2
    }

    async fn start_session(&self, request: SessionRequest) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.start_session(request).await }).await
    }

    async fn renew_session(&self, session: SessionId) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.renew_session(session).await }).await
    }

    async fn end_session(&self, session: SessionId) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.end_session(session).await }).await
    }

    async fn open(&self, request: OpenRequest) -> Result<Opened> {
        let inner = Arc::clone(&self.inner);
        if request.lease.is_none() {
            return self.run(async move { inner.open(&request).await }).await;
        }
        let (mut turn, _grant) = self.inner.grants.begin(&request.name);
        let call = async move {
            turn.come().await;
            let outcome = inner.open(&request).await;
            drop(turn);
            outcome
        };
        self.run(call).await
    }

    async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.release(database, epoch, warm).await }).await
    }

    async fn head(&self, request: HeadRequest) -> Result<HeadReply> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.head(&request).await }).await
    }

    async fn lock_shared(&self, request: SharedRequest) -> Result<HeadReply> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.lock_shared(&request).await }).await
    }

    async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.unlock_shared(database, lock).await }).await
    }

    async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.lock_exclusive(database, epoch).await }).await
    }

    async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.unlock_exclusive(database, epoch).await }).await
    }

    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.watch(database, known).await }).await
    }

    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply> {
        let (inner, lineage) = (Arc::clone(&self.inner), lineage.to_vec());
        let wanted = self.inner.config.limits.check_read(pages)?;
        self.run(async move { inner.read_pages(&lineage, &wanted, snapshot).await }).await
    }

    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        let inner = Arc::clone(&self.inner);
        Finished::new(self.handle()?.clone(), async move { inner.commit(requests, mode).await }).await
    }

    async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let (inner, lineage) = (Arc::clone(&self.inner), lineage.to_vec());
        self.run(async move { inner.read_log(&lineage, after, to).await }).await
    }

    async fn stage(&self, request: StageRequest) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.stage(request).await }).await
    }

    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.discard(request).await }).await
    }

    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.checkpoint(request).await }).await
    }

    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.collect(request).await }).await
    }

    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        let inner = Arc::clone(&self.inner);
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.run(async move { inner.list(&prefix, after.as_ref(), limit).await }).await
    }

    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.rename(database, epoch, &name).await }).await
    }

    async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.delete(database, epoch).await }).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.purge(limit).await }).await
    }

    async fn scan(&self, database: DatabaseId, after: Option<(PageNo, Txid)>, limit: usize) -> Result<Vec<PageRow>> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.scan(database, after, limit).await }).await
    }
}
