//! Settings of the store: plain data.

use std::path::PathBuf;
use std::sync::Arc;

use litefleet::clock::{Clock, SystemClock};
use litefleet::store::StoreLimits;

/// How to open an embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The store's directory. Created when it does not exist; an existing one must be empty or a store.
    pub path: PathBuf,
    /// Bytes of blocks of the files kept in memory. Default 32 MiB.
    pub cache_bytes: u64,
    /// Bytes of page rows after which they are written out of memory to a table; for log records and heads, each, too.
    /// Up to twice as much of page rows, and up to four times of the others, is held in memory at the worst.
    /// Default 8 MiB.
    pub memtable_bytes: u64,
    /// With less free space on the file system than this, writing is refused as full; deleting with less than half.
    /// Merging of tables works in that space. Default 64 MiB.
    pub reserve_bytes: u64,
    /// Files kept open at the most. Default 900, as the engine has it.
    pub open_files: usize,
    /// Bounds that callers must keep to.
    pub limits: StoreLimits,
    /// Where the time comes from: sessions expire by its monotonic clock, ends of epochs are forgotten by the other.
    pub clock: Arc<dyn Clock>,
}

impl EmbeddedConfig {
    /// The default settings for a directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: 32 << 20,
            memtable_bytes: 8 << 20,
            reserve_bytes: 64 << 20,
            open_files: 900,
            limits: StoreLimits {
                read_pages: 1024,
                record_bytes: 8 << 20,
                atomic_databases: 128,
                atomic_bytes: 32 << 20,
                write_rows: 1024,
                collect_pages: 4096,
                log_bytes: 4 << 20,
            },
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// With another size of the block cache.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// With another bound on what is held in memory before it is written out.
    #[must_use]
    pub fn memtable_bytes(mut self, bytes: u64) -> Self {
        self.memtable_bytes = bytes;
        self
    }

    /// With another reserve of free space.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// With other limits: tests shrink them so that the hard paths run.
    #[must_use]
    pub fn limits(mut self, limits: StoreLimits) -> Self {
        self.limits = limits;
        self
    }

    /// With another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}
