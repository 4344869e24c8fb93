//! The state of an open database, and the rules of what in it follows from what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::database::Snapshot;
use super::sharing::StoreLocks;
use super::tail::LogTail;
use super::turn::Tries;
use crate::error::{Error, Result};
use crate::store::Head;
use crate::types::{CommitId, DatabaseId, Epoch, PageNo, SessionId, Txid, pages_for_size};

/// Pages that an open brings along.
pub(super) const WARM_PAGES: usize = 32;
/// A checkpoint of an idle database that fails again and again is tried once in so long at the least.
const LONGEST_SETBACK: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) epoch: Epoch,
    pub(super) session: SessionId,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pin {
    pub(super) count: usize,
    since: Duration,
}

/// A checkpoint failed, and is not tried again before a time, unless there is a commit.
#[derive(Clone, Copy, Debug)]
struct Setback {
    head: Txid,
    wait: Duration,
    until: Duration,
}

/// The state of an open database. Held only for short, never across a call to the store.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact, read alone")]
pub(super) struct Core {
    pub(super) database: Option<DatabaseId>,
    pub(super) lease: Option<Lease>,
    /// The lease was given back by this process, so that others may have written since.
    pub(super) shared: bool,
    /// Who else held the lease when the store was last heard of it.
    pub(super) holder: Option<String>,
    pub(super) head: Txid,
    pub(super) commit_id: CommitId,
    pub(super) size: u64,
    pub(super) checkpoint: Txid,
    pub(super) horizon: Txid,
    pub(super) generation: u64,
    /// Rows that were staged and not committed may still be in the store.
    pub(super) leftovers: bool,
    pub(super) tail: LogTail,
    /// Checkpoints of others, completed or not, that are of the history known here, as the store has told.
    vouched: BTreeSet<Txid>,
    /// Completed checkpoints that the tail may be trimmed to, in order.
    pub(super) checkpoints: Vec<Txid>,
    /// Weight of the records, and pages in them, since the newest checkpoint.
    pub(super) new_weight: usize,
    pub(super) new_pages: usize,
    /// A commit is under way that gives the lease back: reads ask the store meanwhile.
    pub(super) releasing: bool,
    /// The state here cannot be continued and is loaded again.
    pub(super) reload: bool,
    /// The largest size of the file since the newest completed checkpoint.
    pub(super) largest_size: u64,
    pub(super) pins: BTreeMap<Txid, Pin>,
    pub(super) writer: bool,
    /// Connections with a snapshot that lock exclusively: while there are any, nobody else becomes the writer.
    pub(super) exclusive: usize,
    /// What the store has locked for this process.
    pub(super) locks: StoreLocks,
    pub(super) stopped: Option<Error>,
    /// When the store was last asked for the head, and told it.
    pub(super) checked: Duration,
    /// When the last commit was made, or the last lock given back.
    pub(super) active: Duration,
    pub(super) connections: usize,
    /// The first pages that were read since the open: what the next open wants at once.
    pub(super) warm: Vec<PageNo>,
    /// The pages that were written last before the newest checkpoint, which took them from the tail.
    written: Vec<PageNo>,
    /// No warm pages came with the open, and none was read since.
    pub(super) cold: bool,
    /// Checkpoints that were begun here, and the epoch under which one was not completed since.
    pub(super) attempts: u64,
    pub(super) incomplete: Option<Epoch>,
    /// When the checkpoints made here are old enough for what they made garbage.
    pub(super) collect_at: Option<Duration>,
    /// The last checkpoint of an idle database, where it failed though the store was there.
    setback: Option<Setback>,
    pub(super) tries: Tries,
}

impl Core {
    pub(super) fn check(&self) -> Result<()> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// Somebody writes, or locks exclusively: the lease stays.
    pub(super) fn needs_lease(&self) -> bool {
        self.writer || self.exclusive > 0
    }

    /// A checkpoint of the idle database has failed, as it may each time: ever more time passes until the next.
    pub(super) fn note_setback(&mut self, now: Duration, least: Duration) {
        let before = self.setback.filter(|before| before.head == self.head);
        let wait = before.map_or(least, |before| before.wait.saturating_mul(2).min(LONGEST_SETBACK).max(least));
        self.setback = Some(Setback { head: self.head, wait, until: now.saturating_add(wait) });
    }

    /// Whether there is something for a checkpoint, and it may succeed.
    pub(super) fn wants_checkpoint(&self, now: Duration) -> bool {
        let waits = |setback: Setback| setback.head == self.head && now < setback.until;
        self.head > self.checkpoint && !self.setback.is_some_and(waits)
    }

    /// Takes over what the store says of the head, besides its txid.
    pub(super) fn note_head(&mut self, head: &Head) {
        self.horizon = head.horizon;
        self.generation = head.generation;
        self.leftovers |= head.staged;
        self.holder = head.holder.as_ref().map(|holder| holder.label.clone());
        self.note_checkpoint(head.checkpoint);
    }

    /// A checkpoint begins, under this epoch. Returns its number, and whether one before it under the same epoch was not
    /// completed.
    pub(super) fn begin_attempt(&mut self, epoch: Epoch) -> (u64, bool) {
        self.attempts += 1;
        (self.attempts, self.incomplete.replace(epoch) == Some(epoch))
    }

    /// A checkpoint was completed.
    pub(super) fn note_checkpoint(&mut self, checkpoint: Txid) {
        if checkpoint > self.checkpoint && checkpoint <= self.head {
            self.checkpoint = checkpoint;
            self.checkpoints.push(checkpoint);
            self.written = self.newest_written().collect();
            let new = self.tail.records().filter(|record| record.txid > checkpoint);
            (self.new_weight, self.new_pages) =
                new.fold((0, 0), |(weight, pages), r| (weight + r.weight, pages + r.body.pages.len()));
            self.largest_size = self
                .tail
                .records()
                .filter(|record| record.txid >= checkpoint)
                .map(|record| record.body.size)
                .fold(self.size, u64::max);
            self.trim();
        }
    }

    /// The store has the commit that is known here: it was asked because of these txids.
    pub(super) fn vouch(&mut self, txids: Vec<Txid>) {
        let checkpoint = self.checkpoint;
        self.vouched.retain(|txid| *txid > checkpoint);
        self.vouched.extend(txids);
    }

    /// Whether a checkpoint is of the history known here.
    pub(super) fn is_heard_of(&self, checkpoint: Txid) -> bool {
        checkpoint == self.checkpoint || self.vouched.contains(&checkpoint)
    }

    pub(super) fn pin(&mut self, now: Duration) -> Snapshot {
        let pin = self.pins.entry(self.head).or_insert(Pin { count: 0, since: now });
        pin.count += 1;
        pin.since = now;
        Snapshot { txid: self.head, size: self.size }
    }

    pub(super) fn unpin(&mut self, txid: Txid) {
        if let Some(pin) = self.pins.get_mut(&txid) {
            pin.count -= 1;
            if pin.count == 0 {
                self.pins.remove(&txid);
            }
        }
    }

    /// Remembers a page among the first that were read.
    pub(super) fn note_warm(&mut self, page: PageNo) {
        if self.warm.len() < WARM_PAGES && !self.warm.contains(&page) {
            self.warm.push(page);
        }
    }

    /// What the next open wants at once: the pages that were read first, and, where few were read from the store, those
    /// that were written last.
    pub(super) fn warm_set(&self) -> Vec<PageNo> {
        let mut warm = self.warm.clone();
        for page in std::iter::once(PageNo::FIRST).chain(self.newest_written()) {
            if warm.len() < WARM_PAGES && page.get() <= pages_for_size(self.size) && !warm.contains(&page) {
                warm.push(page);
            }
        }
        warm
    }

    /// The pages that were written last, some perhaps twice: those in the tail, and those that a checkpoint took from it.
    fn newest_written(&self) -> impl Iterator<Item = PageNo> {
        self.tail.newest_pages(WARM_PAGES).into_iter().chain(self.written.iter().copied()).take(WARM_PAGES)
    }

    /// Whether more snapshots than so many are in use.
    pub(super) fn has_pins_beside(&self, own: usize) -> bool {
        self.pins.values().map(|pin| pin.count).sum::<usize>() > own
    }

    /// The oldest snapshot in use.
    pub(super) fn oldest_pin(&self) -> Option<Txid> {
        self.pins.keys().next().copied()
    }

    /// Gives up snapshots that are older than allowed: their readers get `SnapshotTooOld` when they read on.
    pub(super) fn expire_pins(&mut self, now: Duration, age: Duration) -> usize {
        let head = self.head;
        let before = self.pins.len();
        self.pins.retain(|txid, pin| *txid == head || now.saturating_sub(pin.since) <= age);
        let expired = before - self.pins.len();
        if expired > 0 {
            self.trim();
        }
        expired
    }

    /// Forgets the records that no snapshot in use needs.
    pub(super) fn trim(&mut self) {
        let oldest = self.oldest_pin().unwrap_or(self.head);
        let keep = self.checkpoints.partition_point(|checkpoint| *checkpoint <= oldest);
        if let Some(start) = keep.checked_sub(1).and_then(|index| self.checkpoints.get(index)).copied() {
            self.tail.trim(start);
            self.checkpoints.drain(..keep - 1);
        }
    }
}
