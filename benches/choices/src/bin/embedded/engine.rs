//! What both engines must do for Litefleet, and nothing more.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{fjall_engine::Fjall, redb_engine::Redb};

pub const CACHE_BYTES: usize = 64 << 20;

/// Database id, kind byte, txid.
pub type LogKey = [u8; 17];
/// Database id, page number, txid; all big-endian.
pub type PageKey = [u8; 20];

pub fn log_key(database: u64, txid: u64) -> LogKey {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&database.to_be_bytes());
    key[8] = b'L';
    key[9..].copy_from_slice(&txid.to_be_bytes());
    key
}

pub fn page_key(database: u64, page: u32, txid: u64) -> PageKey {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&database.to_be_bytes());
    key[8..12].copy_from_slice(&page.to_be_bytes());
    key[12..].copy_from_slice(&txid.to_be_bytes());
    key
}

/// The page number and the txid of a page row.
pub fn page_and_txid(key: &[u8]) -> (u32, u64) {
    let mut page = [0; 4];
    let mut txid = [0; 8];
    page.copy_from_slice(&key[8..12]);
    txid.copy_from_slice(&key[12..20]);
    (u32::from_be_bytes(page), u64::from_be_bytes(txid))
}

/// One commit of one database: its log record and its new head.
pub struct Commit {
    pub database: u64,
    pub txid: u64,
    pub record: [u8; 200],
    pub head: [u8; 80],
}

pub trait Engine: Send + Sync {
    /// Atomic and durable when it returns, with one fsync.
    fn commit(&self, batch: &[Commit]) -> Result<()>;
    /// Atomic; made durable by the next `commit`, unless the engine keeps pages in a file of their own.
    fn checkpoint(&self, rows: &[(PageKey, Vec<u8>)], dead: &[PageKey]) -> Result<()>;
    /// The txid of the newest row of a page at or below the snapshot, read through a fresh read snapshot of the engine.
    fn newest(&self, database: u64, page: u32, snapshot: u64) -> Result<Option<(u64, usize)>>;
    /// The same for a range of pages by one scan: how many pages were found.
    fn newest_in_range(
        &self,
        database: u64,
        pages: std::ops::Range<u32>,
        snapshot: u64,
    ) -> Result<usize>;
    /// The head row's first eight bytes: the txid in these runs.
    fn head(&self, database: u64) -> Result<Option<u64>>;
    /// Gives space back as far as the engine offers it.
    fn compact(&mut self) -> Result<()>;
    fn close(self: Box<Self>) -> Result<()>;
}

pub fn open(name: &str, directory: &Path) -> Result<Box<dyn Engine>> {
    std::fs::create_dir_all(directory)?;
    Ok(match name {
        "fjall" => Box::new(Fjall::open(directory, None)?),
        "fjall-bounded" => Box::new(Fjall::open(directory, Some(8 << 20))?),
        "redb" => Box::new(Redb::open(directory, false, false)?),
        "redb-quick" => Box::new(Redb::open(directory, true, false)?),
        "redb-2files" => Box::new(Redb::open(directory, false, true)?),
        _ => bail!("no engine {name}"),
    })
}
