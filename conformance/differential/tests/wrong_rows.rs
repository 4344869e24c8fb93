//! Whether the comparison notices: a store that answers with an older row of a page, which is what it once was and so
//! passes its own checksum, must make a script fail: by a wrong answer, or by the checksum of a patch that comes on top.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use litefleet::store::{
    CheckpointRequest, CollectRequest, Collected, CommitMode, CommitRequest, DiscardRequest, Discarded, HeadReply,
    HeadRequest, Lineage, ListEntry, LogRow, MemoryStore, OpenRequest, Opened, PageRow, PageStore, PagesReply, Purged,
    SessionRequest, SharedLock, SharedRequest, StageRequest, StoreLimits,
};
use litefleet::{DatabaseId, DatabaseName, Epoch, Locking, PageNo, PageRange, Result, SessionId, Txid};
use litefleet_differential::logic::{Case, run};

/// From the `after`th reading of pages on, each is answered as of a while ago, where there are such rows.
#[derive(Debug)]
struct Stale {
    inner: MemoryStore,
    after: u64,
    reads: AtomicU64,
}

#[async_trait]
impl PageStore for Stale {
    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply> {
        let reply = self.inner.read_pages(lineage, pages, snapshot).await?;
        if self.reads.fetch_add(1, Ordering::Relaxed) < self.after || snapshot.get() < 3 {
            return Ok(reply);
        }
        // Where all rows are new there is nothing older, or it is collected: then the right answer it is.
        match self.inner.read_pages(lineage, pages, Txid(snapshot.get() - 2)).await {
            Ok(old) if old.rows.len() == reply.rows.len() => Ok(old),
            _ => Ok(reply),
        }
    }

    // Collections would take the older rows away.
    async fn collect(&self, _: CollectRequest) -> Result<Collected> {
        Ok(Collected { horizon: Txid(0), log_start: Txid(0), rows: 0, records: 0 })
    }

    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    async fn start_session(&self, request: SessionRequest) -> Result<()> {
        self.inner.start_session(request).await
    }

    async fn renew_session(&self, session: SessionId) -> Result<()> {
        self.inner.renew_session(session).await
    }

    async fn end_session(&self, session: SessionId) -> Result<()> {
        self.inner.end_session(session).await
    }

    async fn open(&self, request: OpenRequest) -> Result<Opened> {
        self.inner.open(request).await
    }

    async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()> {
        self.inner.release(database, epoch, warm).await
    }

    async fn head(&self, request: HeadRequest) -> Result<HeadReply> {
        self.inner.head(request).await
    }

    async fn lock_shared(&self, request: SharedRequest) -> Result<HeadReply> {
        self.inner.lock_shared(request).await
    }

    async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Result<()> {
        self.inner.unlock_shared(database, lock).await
    }

    async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.inner.lock_exclusive(database, epoch).await
    }

    async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.inner.unlock_exclusive(database, epoch).await
    }

    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>> {
        self.inner.commit(requests, mode).await
    }

    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        self.inner.watch(database, known).await
    }

    async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        self.inner.read_log(lineage, after, to).await
    }

    async fn stage(&self, request: StageRequest) -> Result<()> {
        self.inner.stage(request).await
    }

    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded> {
        self.inner.discard_staged(request).await
    }

    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()> {
        self.inner.checkpoint(request).await
    }

    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()> {
        self.inner.rename(database, epoch, name).await
    }

    async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Result<()> {
        self.inner.delete(database, epoch).await
    }

    async fn purge(&self, limit: usize) -> Result<Purged> {
        self.inner.purge(limit).await
    }

    async fn scan(&self, database: DatabaseId, after: Option<(PageNo, Txid)>, limit: usize) -> Result<Vec<PageRow>> {
        self.inner.scan(database, after, limit).await
    }
}

fn one(seed: u64, after: u64) -> Option<String> {
    let store: Arc<dyn PageStore> = Arc::new(Stale { inner: MemoryStore::default(), after, reads: AtomicU64::new(0) });
    let opener = Box::new(move || Ok(Arc::clone(&store)));
    run(&Case::new(seed, Locking::Sqlite), opener).err().map(|problem| problem.words)
}

#[test]
fn a_store_that_answers_with_older_rows_is_noticed() {
    let found: Vec<String> = (2..5).filter_map(|seed| one(seed, 20)).collect();
    assert!(!found.is_empty(), "three scripts have passed over a store that lies");
}

#[test]
fn the_same_store_without_older_rows_passes() {
    assert_eq!(one(2, u64::MAX), None);
}
