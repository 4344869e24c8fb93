//! Bytes that SQLite reads in place: `PRAGMA mmap_size`.
//!
//! Each loan is a copy, which ends when SQLite gives it back: it takes the place of the copy in SQLite's own cache, and saves
//! no memory.

use std::collections::HashMap;

use bytes::Bytes;

/// SQLite may read a few bytes past a page that is damaged: it wants as many to be there.
pub(super) const SLACK: usize = 256;
/// As in SQLite's own VFS.
const LARGEST_LIMIT: u64 = 0x7fff_0000;

/// What one connection may read in place, and what it has.
#[derive(Debug, Default)]
pub struct Loans {
    /// Bytes from the beginning of the file.
    limit: u64,
    /// By address.
    lent: HashMap<usize, Bytes>,
}

impl Loans {
    /// How much of the file, from its beginning, is lent.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Sets it, unless something is lent.
    pub fn set_limit(&mut self, limit: u64) {
        if self.lent.is_empty() {
            self.limit = limit.min(LARGEST_LIMIT);
        }
    }

    pub(super) fn lend(&mut self, bytes: Vec<u8>) -> &[u8] {
        let bytes = Bytes::from(bytes);
        self.lent.entry(bytes.as_ptr().addr()).or_insert(bytes)
    }

    /// Takes back what was lent at an address. Of others nothing is known here.
    pub fn take_back(&mut self, address: *const u8) {
        self.lent.remove(&address.addr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_stays_while_something_is_lent() {
        let mut loans = Loans::default();
        loans.set_limit(1 << 20);
        let lent = loans.lend(vec![7; 600]).as_ptr();
        loans.set_limit(0);
        assert_eq!(loans.limit(), 1 << 20);
        loans.take_back(lent);
        loans.set_limit(1 << 40);
        assert_eq!(loans.limit(), LARGEST_LIMIT);
    }
}
