use std::{ops::Range, path::Path, sync::Arc};

use anyhow::{Result, bail};
use redb::{Builder, Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};

use crate::engine::{CACHE_BYTES, Commit, Engine, PageKey, log_key, page_and_txid, page_key};

const LOG: TableDefinition<&[u8], &[u8]> = TableDefinition::new("log");
const HEADS: TableDefinition<u64, &[u8]> = TableDefinition::new("head");
const PAGES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("page");

pub struct Redb {
    /// The log and the heads; with one file also the pages.
    main: Arc<Database>,
    pages: Arc<Database>,
    quick_repair: bool,
    two_files: bool,
}

impl Redb {
    pub fn open(directory: &Path, quick_repair: bool, two_files: bool) -> Result<Self> {
        let file = |name: &str| -> Result<Arc<Database>> {
            let path = directory.join(name);
            let known = path.exists();
            let database = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
            if known {
                return Ok(Arc::new(database));
            }
            let write = database.begin_write()?;
            write.open_table(LOG)?;
            write.open_table(HEADS)?;
            write.open_table(PAGES)?;
            write.commit()?;
            Ok(Arc::new(database))
        };
        let main = file("main.redb")?;
        let pages = if two_files {
            file("pages.redb")?
        } else {
            Arc::clone(&main)
        };
        Ok(Self {
            main,
            pages,
            quick_repair,
            two_files,
        })
    }

    fn durable(&self, database: &Database) -> Result<WriteTransaction> {
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write.set_quick_repair(self.quick_repair);
        Ok(write)
    }
}

impl Engine for Redb {
    fn commit(&self, batch: &[Commit]) -> Result<()> {
        let write = self.durable(&self.main)?;
        {
            let mut log = write.open_table(LOG)?;
            let mut heads = write.open_table(HEADS)?;
            for commit in batch {
                log.insert(
                    log_key(commit.database, commit.txid).as_slice(),
                    commit.record.as_slice(),
                )?;
                heads.insert(commit.database, commit.head.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    fn checkpoint(&self, rows: &[(PageKey, Vec<u8>)], dead: &[PageKey]) -> Result<()> {
        let mut write = self.durable(&self.pages)?;
        if !self.two_files {
            write.set_quick_repair(false);
            write.set_durability(Durability::None)?;
        }
        {
            let mut pages = write.open_table(PAGES)?;
            for (key, image) in rows {
                pages.insert(key.as_slice(), image.as_slice())?;
            }
            for key in dead {
                pages.remove(key.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    fn newest(&self, database: u64, page: u32, snapshot: u64) -> Result<Option<(u64, usize)>> {
        let pages = self.pages.begin_read()?.open_table(PAGES)?;
        let (first, last) = (
            page_key(database, page, 0),
            page_key(database, page, snapshot),
        );
        let mut range = pages.range(first.as_slice()..=last.as_slice())?;
        match range.next_back() {
            Some(row) => {
                let (key, image) = row?;
                // Both engines hand over bytes of their own: ours copies, as a back end would have to.
                Ok(Some((
                    page_and_txid(key.value()).1,
                    image.value().to_vec().len(),
                )))
            }
            None => Ok(None),
        }
    }

    fn newest_in_range(&self, database: u64, numbers: Range<u32>, snapshot: u64) -> Result<usize> {
        let pages = self.pages.begin_read()?.open_table(PAGES)?;
        let (first, end) = (
            page_key(database, numbers.start, 0),
            page_key(database, numbers.end, 0),
        );
        let (mut last, mut found) = (None, 0);
        for row in pages.range(first.as_slice()..end.as_slice())?.rev() {
            let (key, image) = row?;
            let (page, txid) = page_and_txid(key.value());
            if txid <= snapshot && last != Some(page) {
                last = Some(page);
                found += usize::from(!image.value().to_vec().is_empty());
            }
        }
        Ok(found)
    }

    fn head(&self, database: u64) -> Result<Option<u64>> {
        let heads = self.main.begin_read()?.open_table(HEADS)?;
        Ok(heads.get(database)?.map(|row| {
            let mut txid = [0; 8];
            txid.copy_from_slice(&row.value()[..8]);
            u64::from_be_bytes(txid)
        }))
    }

    fn compact(&mut self) -> Result<()> {
        if self.two_files {
            bail!("not measured");
        }
        self.pages =
            Arc::new(Builder::new().create_with_backend(redb::backends::InMemoryBackend::new())?);
        let Some(main) = Arc::get_mut(&mut self.main) else {
            bail!("the database is shared")
        };
        while main.compact()? {}
        self.pages = Arc::clone(&self.main);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self { main, pages, .. } = *self;
        drop(pages);
        if let Some(main) = Arc::into_inner(main) {
            main.close()?;
        }
        Ok(())
    }
}
