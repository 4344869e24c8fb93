//! The header of an SQLite database file: the first 100 bytes of page 1. Facts from SQLite's file format documentation.

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whether page 1 is that of an SQLite database that we can read (an encrypted one is not).
pub(super) fn is_sqlite(page: &[u8]) -> bool {
    page.starts_with(MAGIC)
}

fn word(page: &[u8], at: usize) -> u32 {
    page.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// The change counter: other connections compare it to know whether their caches are stale.
pub(super) fn change_counter(page: &[u8]) -> u32 {
    word(page, 24)
}

/// Sets the change counter and its copy, which says that the size field is valid.
pub(super) fn set_change_counter(page: &mut [u8], value: u32) {
    for at in [24, 92] {
        if let Some(field) = page.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }
}

/// Whether a counter is the one that was used before another, or one before that. Counters wrap around: "before" is the
/// half of the circle behind.
fn is_used(counter: u32, last: u32) -> bool {
    last.wrapping_sub(counter) < u32::MAX / 2
}

/// Whether the counter of a page was used in the state before.
pub(super) fn counter_was_used(page: &[u8], before: &[u8]) -> bool {
    is_sqlite(before) && is_used(change_counter(page), change_counter(before))
}

/// Whether nothing differs, but perhaps a change counter that was used before: a rollback has written back the page as SQLite
/// knows it, which is not told when a commit gets a fresh counter.
pub(super) fn is_written_back(page: &[u8], before: &[u8]) -> bool {
    // A commit is told by its counter, without looking at the rest.
    if !is_sqlite(page) || !counter_was_used(page, before) {
        return false;
    }
    let mut same = page.to_vec();
    set_change_counter(&mut same, change_counter(before));
    same == before
}

/// The size of the file in bytes, when the header says it.
pub(super) fn file_size(page: &[u8]) -> Option<u64> {
    let pages = word(page, 28);
    if !is_sqlite(page) || pages == 0 || word(page, 24) != word(page, 92) {
        return None;
    }
    Some(u64::from(pages) * u64::from(page_size(page)?))
}

/// SQLite's own page size.
pub(super) fn page_size(page: &[u8]) -> Option<u32> {
    match page.get(16..18).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)? {
        1 => Some(65_536),
        size if size >= 512 && size.is_power_of_two() => Some(size.into()),
        _ => None,
    }
}

/// A database that says that it is in WAL mode is kept in rollback mode: there is no WAL here. The read version alone
/// decides for SQLite, which writes both alike. Returns whether anything was changed.
pub(super) fn clear_wal_mode(page: &mut [u8]) -> bool {
    if !is_sqlite(page) {
        return false;
    }
    match page.get_mut(18..20) {
        Some([write, read]) if *read == 2 => {
            *read = 1;
            // A write version that SQLite does not know makes the database one for reading only, with or without a log.
            *write = if *write == 2 { 1 } else { *write };
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fuzzer's database had a write version of 1 beside a read version of 2. SQLite takes that for a database with a log,
    /// and could not open it here at all: `SQLITE_CANTOPEN`.
    #[test]
    fn the_read_version_alone_says_that_there_is_a_log() {
        for (stored, kept) in [([2, 2], [1, 1]), ([1, 2], [1, 1]), ([3, 2], [3, 1]), ([2, 1], [2, 1]), ([1, 3], [1, 3])]
        {
            let mut page = b"SQLite format 3\0\x10\0".to_vec();
            page.extend(stored);
            page.resize(100, 0);
            assert_eq!(clear_wal_mode(&mut page), stored != kept, "{stored:?}");
            assert_eq!(page[18..20], kept, "{stored:?}");
        }
    }
}
