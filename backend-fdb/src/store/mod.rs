//! The contract, on FoundationDB. One file per group of methods; `change.rs` has what the conditional ones share.
//!
//! Every call is one transaction, or several that could each be the last. Calls that only read take a snapshot, without
//! conflict ranges; what a write depends on it conflicts on, and nothing else (`docs/decisions/0011`).

mod change;
mod checkpoint;
mod collect;
mod commit;
mod create;
mod dead;
mod ids;
mod lease;
mod locks;
mod log;
mod names;
mod naming;
mod open;
mod pages;
mod purge;
mod read;
mod readers;
mod sessions;
mod stage;
mod watch;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use foundationdb::directory::{Directory, DirectoryLayer};
use litefleet::clock::Randomness;
use litefleet::store::{
    CheckpointRequest, CollectRequest, Collected, CommitMode, CommitRequest, DiscardRequest, Discarded, HeadReply,
    HeadRequest, Lineage, ListEntry, LogRow, OpenRequest, Opened, PageRow, PageStore, PagesReply, Purged,
    SessionRequest, SharedLock, SharedRequest, StageRequest, StoreLimits,
};
use litefleet::{DatabaseId, DatabaseName, Epoch, Error, PageNo, PageRange, Result, SessionId, Txid};

use crate::config::FdbConfig;
use crate::error::Outcome;
use crate::keys::Keys;
use crate::knowledge::Knowledge;
use crate::sessions::Sessions;
use crate::transact::{Cluster, Priority, Step, Tx, Written};
use crate::{chunk, network};
use names::Names;
use readers::Readers;

/// The version of the layout of keys.
const FORMAT: u64 = 1;

/// The most bytes of one page row.
const ROW_BYTES: usize = 64 * 1024;

/// About how many bytes the deletions of one transaction may take.
const DELETION_BYTES: usize = 400_000;

/// A store on a FoundationDB cluster, under a prefix of its own.
pub struct FdbStore {
    cluster: Cluster,
    keys: Keys,
    limits: StoreLimits,
    knowledge: Arc<Knowledge>,
    sessions: Sessions,
    randomness: Randomness,
    names: Names,
    readers: Readers,
    /// Ids that are reserved and not used yet.
    ids: tokio::sync::Mutex<Range<u64>>,
    /// Up to where the sessions were purged.
    purged: Mutex<Option<SessionId>>,
    /// Up to which database the ends of epochs were purged. Processes begin anywhere, and so not all at the same ones.
    purged_ends: AtomicU64,
    /// When it was said last that there are too many watches.
    warned: Mutex<Option<tokio::time::Instant>>,
}

impl fmt::Debug for FdbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdbStore").field("keys", &self.keys).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl FdbStore {
    /// Opens the store under a prefix of a cluster, or makes one when there is nothing there. The first open of a process
    /// starts FoundationDB's network thread, which runs until the process ends.
    ///
    /// # Errors
    ///
    /// - `Invalid`: the settings cannot be, the client library is too old, or there is something else under the prefix, or
    ///   a store of a newer format.
    /// - `Unavailable`: the cluster cannot be reached within the time-out.
    pub async fn open(config: FdbConfig) -> Result<Self> {
        config.check()?;
        if config.limits.record_bytes > chunk::MAX_RECORD_BYTES {
            return Err(Error::invalid(format!("records have at most {} bytes", chunk::MAX_RECORD_BYTES)));
        }
        network::start(&config.network)?;
        let cluster = Cluster::connect(&config)?;
        let prefix = if config.directory.is_empty() {
            config.prefix.clone()
        } else {
            directory(&cluster, &config.directory).await?
        };
        let randomness = Randomness::from_os();
        let [owner @ .., _, _, _, _, _, _, _, _] = randomness.id();
        let [start @ .., _, _, _, _, _, _, _, _] = randomness.id();
        let store = Self {
            cluster,
            limits: config.limits_under(prefix.len())?,
            keys: Keys::new(prefix),
            knowledge: Arc::new(Knowledge::new(owner)),
            sessions: Sessions::new(config.clock),
            randomness,
            names: Names::default(),
            readers: Readers::default(),
            ids: tokio::sync::Mutex::new(0..0),
            purged: Mutex::default(),
            purged_ends: AtomicU64::new(u64::from_be_bytes(start)),
            warned: Mutex::default(),
        };
        store.cluster.run("open the store", Priority::Normal, |tx, _| store.try_format(tx)).await?;
        network::stop_at_exit();
        Ok(store)
    }

    /// As [`open`](Self::open), for callers that are not asynchronous. It may be called on any thread.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and `Unavailable` when no thread can be started.
    pub fn open_blocking(config: FdbConfig) -> Result<Self> {
        let failed = |error: std::io::Error| Error::unavailable(format!("no thread to open the store on: {error}"));
        // A thread of its own, since a runtime cannot be entered on a thread that serves one already.
        let opening = std::thread::Builder::new().name("litefleet-fdb-open".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
            runtime.block_on(Self::open(config))
        });
        let opened = opening.map_err(failed)?.join();
        opened.unwrap_or_else(|_| Err(Error::internal("the thread that opened the store has panicked")))
    }

    /// What this instance has written since it was opened.
    pub fn written(&self) -> Written {
        self.cluster.written()
    }

    /// Checks that what is under the prefix is a store of this format, or nothing.
    async fn try_format(&self, tx: Tx) -> Outcome<Step<()>> {
        let (key, all) = (self.keys.format(), self.keys.all());
        match tx.get::<u64>(&key).await? {
            Some(FORMAT) => Ok(Step::Return(())),
            Some(other) => Err(Error::invalid(format!(
                "the store has format {other}, and this program knows {FORMAT}: use the program that wrote it, or a newer one"
            ))
            .into()),
            None => {
                if !tx.peek_range(&all, 1).await?.pairs().is_empty() {
                    let message = "there are keys under the prefix that are no store's; choose another prefix";
                    return Err(Error::invalid(message).into());
                }
                tx.put(&key, &FORMAT)?;
                Ok(Step::Commit(()))
            }
        }
    }

    fn purged_up_to(&self) -> MutexGuard<'_, Option<SessionId>> {
        self.purged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store's own layout cannot hold.
    fn check_row_bytes(what: &str, rows: &[PageRow]) -> Result<()> {
        match rows.iter().map(|row| row.bytes.len()).find(|bytes| *bytes > ROW_BYTES) {
            Some(bytes) => Err(Error::invalid(format!("{what}: a row of {bytes} bytes, the limit is {ROW_BYTES}"))),
            None => Ok(()),
        }
    }
}

/// The prefix that the directory layer has for a path.
async fn directory(cluster: &Cluster, path: &[String]) -> Result<Vec<u8>> {
    let failed = |error: &dyn fmt::Debug| {
        let path = path.join("/");
        Error::unavailable(format!("the directory {path} of FoundationDB cannot be opened: {error:?}"))
    };
    let opened = cluster.database().run(|trx, _| async move {
        let opened = DirectoryLayer::default().create_or_open(&trx, path, None, None).await;
        let directory = opened.map_err(foundationdb::FdbBindingError::DirectoryError)?;
        directory.bytes().map(<[u8]>::to_vec).map_err(foundationdb::FdbBindingError::DirectoryError)
    });
    // A store that cannot be reached must not keep its caller waiting for ever.
    match tokio::time::timeout(cluster.timeout(), opened).await {
        Ok(Ok(prefix)) => Ok(prefix),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(failed(&"the time is over")),
    }
}

#[async_trait]
impl PageStore for FdbStore {
    fn limits(&self) -> StoreLimits {
        self.limits
    }

    async fn start_session(&self, request: SessionRequest) -> Result<()> {
        self.start(&request).await
    }

    async fn renew_session(&self, session: SessionId) -> Result<()> {
        self.renew(session).await
    }

    async fn end_session(&self, session: SessionId) -> Result<()> {
        self.end(session).await
    }

    async fn open(&self, request: OpenRequest) -> Result<Opened> {
        self.open_database(&request).await
    }

    async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        self.release_lease(database, epoch, warm).await
    }

    async fn head(&self, request: HeadRequest) -> Result<HeadReply> {
        self.head_of(&request).await
    }

    async fn lock_shared(&self, request: SharedRequest) -> Result<HeadReply> {
        self.lock_for_reading(&request).await
    }

    async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        self.unlock_for_reading(database, lock).await
    }

    async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.lock_for_holder(database, epoch).await
    }

    async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.unlock_for_holder(database, epoch).await
    }

    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        self.watch_head(database, known).await
    }

    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply> {
        self.pages(lineage, pages, snapshot).await
    }

    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        self.commit_all(&requests, mode).await
    }

    async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        self.log(lineage, after, to).await
    }

    async fn stage(&self, request: StageRequest) -> Result<()> {
        self.stage_rows(&request).await
    }

    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded> {
        self.discard(&request).await
    }

    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()> {
        self.write_checkpoint(&request).await
    }

    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        self.collect_garbage(&request).await
    }

    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        self.list_databases(prefix, after, limit).await
    }

    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()> {
        self.rename_database(database, epoch, &name).await
    }

    async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.delete_database(database, epoch).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged> {
        self.purge_deleted(limit).await
    }

    async fn scan(&self, database: DatabaseId, after: Option<(PageNo, Txid)>, limit: usize) -> Result<Vec<PageRow>> {
        self.scan_rows(database, after, limit).await
    }
}
