//! What the change counter in page 1 tells: others of a commit, and a rollback from a commit.

use super::TransactionBuffer;
use super::buffer::Source;
use super::database::Database;
use super::header;
use crate::codec::zero_image;
use crate::error::Result;
use crate::types::{PAGE_SIZE, PageNo};

impl Database {
    /// Whether the buffer holds what a rollback of SQLite's has written back, and not a commit: the file has its size again,
    /// and page 1 its bytes, while a commit would have raised the change counter in it. Other pages may differ: what a
    /// transaction wrote early into free pages is not written back (`docs/decisions/0013-rollbacks.md`).
    ///
    /// True of a commit as well where SQLite does not know the change counter of the snapshot, or has raised it already
    /// under the lock that it holds: the caller must know better.
    pub fn is_rolled_back(&self, buffer: &TransactionBuffer) -> bool {
        if buffer.foreign || buffer.size == 0 || buffer.size != buffer.base_size {
            return false;
        }
        let now = match buffer.source(PageNo::FIRST) {
            Source::Buffer(image) => Some(image),
            Source::Base => None,
            Source::Staged | Source::Zeros => return false,
        };
        // Where that cannot be known, the commit that follows finds out.
        let before = self.pages(buffer.base, &[PageNo::FIRST]).unwrap_or_default();
        let Some(before) = before.first().filter(|before| header::is_sqlite(before)) else { return false };
        // Its smaller pages may be free ones but for the first.
        let size = header::page_size(before).and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE_SIZE);
        now.is_none_or(|now| match (now.get(..size), before.get(..size)) {
            (Some(now), Some(before)) => header::is_written_back(now, before),
            _ => header::is_written_back(now, before),
        })
    }

    /// Other connections tell by the change counter that their caches are stale: a value that was used before would
    /// deceive them, so it is replaced. Returns whether page 1 was changed here.
    pub(super) fn freshen_counter(&self, buffer: &mut TransactionBuffer) -> Result<bool> {
        if buffer.size == 0 {
            return Ok(false);
        }
        let now = self.buffered_pages(buffer, &[PageNo::FIRST])?;
        let before =
            if buffer.base_size == 0 { vec![zero_image()] } else { self.pages(buffer.base, &[PageNo::FIRST])? };
        let (Some(now), Some(before)) = (now.first(), before.first()) else { return Ok(false) };
        if !header::is_sqlite(now) {
            return Ok(false);
        }
        let (used, next) = (header::change_counter(before), header::change_counter(now));
        let fresh = match (header::counter_was_used(now, before), buffer.header_altered) {
            (true, _) => used.wrapping_add(1),
            (false, true) => next.wrapping_add(1),
            (false, false) => return Ok(false),
        };
        let mut page = now.to_vec();
        header::set_change_counter(&mut page, fresh);
        buffer.pages.insert(PageNo::FIRST, page.into_boxed_slice());
        Ok(true)
    }
}
