//! The page cache: one budget of bytes for all databases of the process.
//!
//! An entry is keyed by database, page, and the first change *after* the image ([`Txid::MAX`]: none so far). So the image
//! of an untouched page stays valid however many commits pass, and a commit only moves the entries of the pages that it
//! changes. An entry also names the change that made it, so that a reader can tell that it is not from after its snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::error::{Error, Result};
use crate::types::{PAGE_SIZE, PageNo, Txid};

/// What an entry takes besides its page, measured: see `docs/decisions/0003-page-cache.md`.
const ENTRY_OVERHEAD: usize = 150;
/// The most pages that the cache is prepared for: with more it only learns a little more slowly what is read often.
const MOST_ESTIMATED: usize = 1 << 24;
/// Below this one shard holds everything: a part of so little would be too small for its entries.
const SMALL_CACHE: usize = 4 << 20;

/// Which image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    /// The open database, unique in the process.
    pub(crate) instance: u64,
    /// The page.
    pub(crate) page: PageNo,
    /// The first change of the page after the image.
    pub(crate) before: Txid,
}

/// An image, and the change that made it.
#[derive(Clone, Debug)]
pub(crate) struct CachedImage {
    pub(crate) from: Txid,
    pub(crate) image: Bytes,
}

/// What the cache did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounters {
    /// Pages found.
    pub hits: u64,
    /// Pages not found.
    pub misses: u64,
    /// Images held now.
    pub entries: u64,
    /// The most images that may be held.
    pub capacity: u64,
}

/// Every entry weighs the same: a page and what it takes to keep it.
#[derive(Clone, Debug)]
struct Weight;

const WEIGHT: u64 = (PAGE_SIZE + ENTRY_OVERHEAD) as u64;

impl Weighter<CacheKey, CachedImage> for Weight {
    fn weight(&self, _: &CacheKey, _: &CachedImage) -> u64 {
        WEIGHT
    }
}

#[derive(Debug)]
pub(crate) struct PageCache {
    cache: Cache<CacheKey, CachedImage, Weight>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl PageCache {
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let bytes = bytes.max(16 * (PAGE_SIZE + ENTRY_OVERHEAD));
        let mut options = OptionsBuilder::new();
        options
            .estimated_items_capacity((bytes / PAGE_SIZE).min(MOST_ESTIMATED))
            .weight_capacity(bytes as u64)
            .hot_allocation(0.75);
        if bytes < SMALL_CACHE {
            options.shards(1);
        }
        let options = options.build().map_err(|e| Error::internal("the cache's options").with_source(e))?;
        let cache = Cache::with_options(options, Weight, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Ok(Self { cache, hits: AtomicU64::new(0), misses: AtomicU64::new(0) })
    }

    /// Looks without counting: one read may look twice.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<CachedImage> {
        self.cache.get(key)
    }

    /// Counts one page as found or missed.
    pub(crate) fn count(&self, found: bool) {
        let counter = if found { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn contains(&self, key: &CacheKey) -> bool {
        self.cache.peek(key).is_some()
    }

    /// How many images may be held.
    pub(crate) fn capacity(&self) -> usize {
        usize::try_from(self.cache.capacity() / WEIGHT).unwrap_or(usize::MAX)
    }

    pub(crate) fn insert(&self, key: CacheKey, value: CachedImage) {
        self.cache.insert(key, value);
    }

    pub(crate) fn remove(&self, key: &CacheKey) -> Option<CachedImage> {
        self.cache.remove(key).map(|(_, value)| value)
    }

    pub(crate) fn counters(&self) -> CacheCounters {
        CacheCounters {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.cache.len() as u64,
            capacity: self.cache.capacity() / WEIGHT,
        }
    }
}
