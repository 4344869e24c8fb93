//! Page rows: a page at a snapshot is the newest row at or below it, and the patches of the log after that row.

use std::collections::HashMap;

use bytes::Bytes;

use super::TransactionBuffer;
use super::cache::CachedImage;
use super::core::Core;
use super::database::{Database, Role};
use super::fencing::TRIES;
use super::turn::Try;
use crate::codec::{decode_row, zero_image};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Lineage, PageRow, PagesReply, ReadRow, RowKind};
use crate::types::{DatabaseId, PageNo, PageRange, PageSet, Txid, pages_for_size};

/// The images that rows hold, each as of its row's txid: deltas are applied to the bases that follow them.
pub(super) fn images(rows: &[ReadRow]) -> impl Iterator<Item = Result<(PageNo, Txid, Bytes)>> + '_ {
    let mut rows = rows.iter().peekable();
    std::iter::from_fn(move || {
        let ReadRow { database, row } = rows.next()?;
        let base = match row.kind {
            RowKind::Delta { base } => rows.next_if(|next| next.row.page == row.page && next.row.txid == base),
            RowKind::Image | RowKind::Zero => None,
        };
        Some(image(*database, row, base).map(|image| (row.page, row.txid, image)))
    })
}

fn image(database: DatabaseId, row: &PageRow, base: Option<&ReadRow>) -> Result<Bytes> {
    let base = match base {
        Some(found) => {
            let (page, txid) = (found.row.page, found.row.txid);
            Some(decode_row(found.database, &found.row)?.image(found.database, page, txid, None)?)
        }
        None => None,
    };
    decode_row(database, row)?.image(database, row.page, row.txid, base.as_ref())
}

/// What the store said of some pages.
struct Told {
    /// Where the tail began when it was asked.
    start: Txid,
    /// A page without a row is zeros as of this.
    horizon: Txid,
    images: HashMap<PageNo, (Txid, Bytes)>,
}

impl Told {
    fn new(start: Txid, reply: &PagesReply) -> Result<Self> {
        let images = images(&reply.rows).map(|image| image.map(|(page, txid, image)| (page, (txid, image))));
        Ok(Self { start, horizon: reply.horizon, images: images.collect::<Result<_>>()? })
    }

    /// A page's image, and since when it is that at the latest.
    fn image(&self, page: PageNo) -> (Txid, Bytes) {
        self.images.get(&page).cloned().unwrap_or_else(|| (self.horizon, zero_image()))
    }
}

/// A set of pages as the ranges of a request.
pub(super) fn ranges(pages: impl IntoIterator<Item = PageNo>) -> Vec<PageRange> {
    pages.into_iter().collect::<PageSet>().ranges().collect()
}

impl Database {
    /// Loads pages from the store into the cache. Pages that do not exist are left out.
    pub(super) async fn load_pages(&self, snapshot: Txid, pages: &[PageNo]) -> Result<HashMap<PageNo, Bytes>> {
        let lineage = self.lineage()?;
        let limit = self.fleet.store.limits().read_pages.max(1);
        let mut out = HashMap::with_capacity(pages.len());
        let pages = self.keep_sufficient(snapshot, pages, &mut out)?;
        for chunk in pages.chunks(limit) {
            let ranges = ranges(chunk.iter().copied());
            // Rows fit the tail that was there when they were read: a checkpoint that is completed meanwhile takes records
            // from it, and the rows in their place are not among these. Then they are read again.
            let mut looked = 0;
            loop {
                let start = self.core().tail.start();
                let reply = self.read_rows(&lineage, &ranges, snapshot, start).await?;
                if is_behind(&reply, snapshot, start) {
                    looked += 1;
                    if looked > TRIES {
                        return Err(behind(snapshot));
                    }
                    self.look_for_checkpoint().await?;
                    continue;
                }
                let database = lineage[0].database;
                self.check_rows(database, &reply).await?;
                let told = Told::new(start, &reply)?;
                match self.keep_told(database, snapshot, chunk, &told, &mut out) {
                    Ok(true) => break,
                    Ok(false) => {}
                    // Rows of another history may be what does not fit.
                    Err(error) if error.kind() == ErrorKind::Corrupt && !self.has_lease()? => {
                        return Err(match self.check_known(database, reply.head).await {
                            Err(lost) if lost.kind() == ErrorKind::Fenced => lost,
                            _ => error,
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let last_page = pages_for_size(self.core().size);
        self.learn(&out, last_page);
        Ok(out)
    }

    /// Rows as of a snapshot. Those that come from before the snapshot, or the checkpoint that the tail starts at, are of no use.
    async fn read_rows(
        &self,
        lineage: &[Lineage],
        ranges: &[PageRange],
        snapshot: Txid,
        start: Txid,
    ) -> Result<PagesReply> {
        let read = || async {
            let reply = self.fleet.store.read_pages(lineage, ranges, snapshot).await?;
            // A follower may have asked a standby that is behind: it catches up, or another one answers.
            if self.role == Role::Follower && is_behind(&reply, snapshot, start) {
                return Err(behind(snapshot));
            }
            Ok(reply)
        };
        self.retry(read).await
    }

    /// Without the lease rows may be those of another history, after a failover that lost the one that is read here: where nobody
    /// here has heard of their txids, it is looked whether the store still has what is known.
    async fn check_rows(&self, database: DatabaseId, reply: &PagesReply) -> Result<()> {
        if self.has_lease()? {
            return Ok(());
        }
        let unheard = unheard_of(&self.core(), reply);
        if unheard.is_empty() {
            return Ok(());
        }
        self.check_known(database, reply.head).await?;
        self.core().vouch(unheard);
        Ok(())
    }

    /// Rows came from before what the store has told: it has lost a checkpoint, or commits. What it has is loaded, or the
    /// database stops.
    pub(super) async fn look_for_checkpoint(&self) -> Result<()> {
        // A commit that is under way ends first, or the taking of a lease.
        let turn = self.turn().await;
        let lease = self.core().lease;
        match lease {
            Some(lease) => turn.make(Try::Head, self.look_again_alone(lease.epoch)).await,
            None => turn.make(Try::Head, self.refresh()).await,
        }
    }

    /// Keeps the images of those pages that the tail alone tells, and returns the others.
    fn keep_sufficient(
        &self,
        snapshot: Txid,
        pages: &[PageNo],
        out: &mut HashMap<PageNo, Bytes>,
    ) -> Result<Vec<PageNo>> {
        let database = self.id()?;
        let mut core = self.core();
        let core = &mut *core;
        check_snapshot(core, snapshot)?;
        let mut others = Vec::with_capacity(pages.len());
        for page in pages {
            if core.tail.is_sufficient(*page, snapshot) {
                self.keep(core, database, snapshot, *page, (Txid(0), zero_image()), out)?;
            } else {
                others.push(*page);
            }
        }
        Ok(others)
    }

    /// Brings the image of a row forward to the snapshot, and puts it into the cache.
    fn keep(
        &self,
        core: &mut Core,
        database: DatabaseId,
        snapshot: Txid,
        page: PageNo,
        (row, image): (Txid, Bytes),
        out: &mut HashMap<PageNo, Bytes>,
    ) -> Result<()> {
        let (from, image) = core.tail.bring_forward(database, page, row, snapshot, image)?;
        let before = core.tail.next_change(page, snapshot);
        self.fleet.cache.insert(self.key(page, before), CachedImage { from, image: image.clone() });
        core.note_warm(page);
        out.insert(page, image);
        Ok(())
    }

    /// Brings the images of rows forward to the snapshot, and puts them into the cache. False when the tail does not start
    /// where it did when the rows were asked for.
    fn keep_told(
        &self,
        database: DatabaseId,
        snapshot: Txid,
        pages: &[PageNo],
        told: &Told,
        out: &mut HashMap<PageNo, Bytes>,
    ) -> Result<bool> {
        let mut core = self.core();
        let core = &mut *core;
        check_snapshot(core, snapshot)?;
        if core.tail.start() != told.start {
            return Ok(false);
        }
        for page in pages {
            self.keep(core, database, snapshot, *page, told.image(*page), out)?;
        }
        Ok(true)
    }

    /// The rows that an open transaction has staged.
    pub(super) async fn read_staged(
        &self,
        buffer: &TransactionBuffer,
        pages: &[PageNo],
    ) -> Result<HashMap<PageNo, Bytes>> {
        let lineage = self.lineage()?;
        let at = buffer.base.next();
        let mut out = HashMap::with_capacity(pages.len());
        for chunk in pages.chunks(self.fleet.store.limits().read_pages.max(1)) {
            let ranges = ranges(chunk.iter().copied());
            let reply = self.retry(|| self.fleet.store.read_pages(&lineage, &ranges, at)).await?;
            for image in images(&reply.rows) {
                let (page, txid, image) = image?;
                if txid == at {
                    out.insert(page, image);
                }
            }
        }
        Ok(out)
    }
}

/// The txids in a reply that nobody here has heard of: of its checkpoint, and of rows after that. There are rows of a checkpoint that
/// is not completed, and those that were staged, which the tail tells of.
fn unheard_of(core: &Core, reply: &PagesReply) -> Vec<Txid> {
    let rows = reply.rows.iter().map(|read| &read.row).filter(|row| row.txid > reply.checkpoint);
    let unknown = rows.filter(|row| !core.tail.is_staged_at(row.page, row.txid)).map(|row| row.txid);
    std::iter::once(reply.checkpoint).chain(unknown).filter(|txid| !core.is_heard_of(*txid)).collect()
}

/// Whether what the store has told of is missing where it answered.
fn is_behind(reply: &PagesReply, snapshot: Txid, start: Txid) -> bool {
    reply.checkpoint < start || reply.head.is_some_and(|head| head < snapshot)
}

pub(super) fn behind(known: Txid) -> Error {
    Error::unavailable(format!(
        "the store answered from before txid {known}, which it has told of: a server that is behind, or has lost it; \
         if it stays so, open the database again"
    ))
}

/// Whether the tail here is of use for a snapshot.
pub(super) fn check_snapshot(core: &Core, snapshot: Txid) -> Result<()> {
    let (start, head) = (core.tail.start(), core.head);
    if (start..=head).contains(&snapshot) {
        return Ok(());
    }
    Err(Error::snapshot_too_old(format!(
        "the read transaction is at txid {snapshot}, kept are those from {start} to {head}"
    )))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
