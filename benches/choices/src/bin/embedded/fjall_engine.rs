use std::{
    ops::Range,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::engine::{CACHE_BYTES, Commit, Engine, PageKey, log_key, page_and_txid, page_key};

pub struct Fjall {
    log: Keyspace,
    heads: Keyspace,
    pages: Keyspace,
    database: Database,
    /// Flush the page memtable, and wait for it, whenever so many bytes were checkpointed. Without it fjall takes
    /// checkpoints faster than it flushes them, and the memory of the memtables has no bound.
    flush_every: Option<usize>,
    unflushed: AtomicUsize,
}

impl Fjall {
    pub fn open(directory: &Path, flush_every: Option<usize>) -> Result<Self> {
        let database = Database::builder(directory)
            .cache_size(CACHE_BYTES as u64)
            .max_journaling_size(128 << 20)
            // Of two workers one leaves compactions to the other, so that flushes never wait behind them.
            .worker_threads(2)
            .open()?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(8 << 20);
        let large = || KeyspaceCreateOptions::default().max_memtable_size(16 << 20);
        Ok(Self {
            log: database.keyspace("log", small)?,
            heads: database.keyspace("head", small)?,
            pages: database.keyspace("page", large)?,
            database,
            flush_every,
            unflushed: AtomicUsize::new(0),
        })
    }
}

impl Engine for Fjall {
    fn commit(&self, batch: &[Commit]) -> Result<()> {
        let mut write = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for commit in batch {
            write.insert(
                &self.log,
                log_key(commit.database, commit.txid),
                commit.record,
            );
            write.insert(&self.heads, commit.database.to_be_bytes(), commit.head);
        }
        Ok(write.commit()?)
    }

    fn checkpoint(&self, rows: &[(PageKey, Vec<u8>)], dead: &[PageKey]) -> Result<()> {
        let mut write = self.database.batch().durability(Some(PersistMode::Buffer));
        for (key, image) in rows {
            write.insert(&self.pages, key, image.as_slice());
        }
        for key in dead {
            write.remove(&self.pages, key);
        }
        write.commit()?;
        if let Some(bound) = self.flush_every {
            let bytes = rows
                .iter()
                .map(|(key, image)| key.len() + image.len())
                .sum();
            if self.unflushed.fetch_add(bytes, Ordering::Relaxed) + bytes >= bound {
                self.unflushed.store(0, Ordering::Relaxed);
                self.pages.rotate_memtable_and_wait()?;
            }
        }
        Ok(())
    }

    fn newest(&self, database: u64, page: u32, snapshot: u64) -> Result<Option<(u64, usize)>> {
        let view = self.database.snapshot();
        let range = page_key(database, page, 0)..=page_key(database, page, snapshot);
        match view.range(&self.pages, range).next_back() {
            Some(row) => {
                let (key, image) = row.into_inner()?;
                Ok(Some((page_and_txid(&key).1, image.len())))
            }
            None => Ok(None),
        }
    }

    fn newest_in_range(&self, database: u64, pages: Range<u32>, snapshot: u64) -> Result<usize> {
        let view = self.database.snapshot();
        let range = page_key(database, pages.start, 0)..page_key(database, pages.end, 0);
        let (mut last, mut found) = (None, 0);
        for row in view.range(&self.pages, range).rev() {
            let (key, image) = row.into_inner()?;
            let (page, txid) = page_and_txid(&key);
            if txid <= snapshot && last != Some(page) {
                last = Some(page);
                found += usize::from(!image.is_empty());
            }
        }
        Ok(found)
    }

    fn head(&self, database: u64) -> Result<Option<u64>> {
        Ok(self.heads.get(database.to_be_bytes())?.map(|row| {
            let mut txid = [0; 8];
            txid.copy_from_slice(&row[..8]);
            u64::from_be_bytes(txid)
        }))
    }

    fn compact(&mut self) -> Result<()> {
        self.pages.rotate_memtable_and_wait()?;
        Ok(self.pages.major_compact()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
