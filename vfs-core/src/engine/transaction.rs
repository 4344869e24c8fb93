//! Where read and write transactions begin and end: a snapshot is pinned, and one connection at a time becomes the writer.

use std::time::Duration;

use tracing::Instrument;

use super::TransactionBuffer;
use super::database::{Database, Role, Snapshot};
use super::lease::FIRST_PAUSE;
use super::turn::Try;
use crate::config::LeaseMode;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::types::Txid;

/// The place of the one writer, given up unless it is kept: after an error, and after a panic in the store.
struct WriterSlot<'a> {
    database: &'a Database,
    kept: bool,
}

impl WriterSlot<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for WriterSlot<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.database.core().writer = false;
            self.database.fleet.bridge.wait(self.database.give_back());
        }
    }
}

impl Database {
    /// Pins the head as the snapshot of a read transaction, after whatever the lease mode asks for.
    pub fn begin_read(&self) -> Result<Snapshot> {
        if let Some(snapshot) = self.pin_if_current()? {
            return Ok(snapshot);
        }
        let work = async {
            let begun = self.begin_by_the_store().await;
            self.learn_holder(begun.as_ref().err()).await;
            begun
        };
        self.fleet.bridge.wait(work.instrument(tracing::debug_span!("open", database = %self.name)))
    }

    pub(super) async fn begin_by_the_store(&self) -> Result<Snapshot> {
        let turn = self.turn().await;
        // Whoever was before may have done the work.
        if let Some(snapshot) = self.pin_if_current()? {
            return Ok(snapshot);
        }
        match (self.role, self.lease_mode()) {
            (Role::Writer, LeaseMode::Exclusive) => turn.make(Try::Lease, self.acquire_lease_since(turn.since)).await,
            (Role::Writer, LeaseMode::Transaction) | (Role::Follower, _) => turn.make(Try::Head, self.refresh()).await,
        }
        .context(self.words("open"))?;
        let mut core = self.core();
        core.check()?;
        Ok(core.pin(self.fleet.clock.monotonic()))
    }

    fn pin_if_current(&self) -> Result<Option<Snapshot>> {
        let live = self.fleet.session.live();
        let now = self.fleet.clock.monotonic();
        let staleness = if self.role == Role::Follower { self.settings().staleness } else { Duration::ZERO };
        let mut core = self.core();
        core.check()?;
        if core.database.is_none() {
            return Ok(None);
        }
        let current = match self.role {
            Role::Writer => {
                !core.releasing
                    && core.lease.is_some_and(|lease| live.is_some_and(|live| live.session == lease.session))
            }
            Role::Follower => !staleness.is_zero() && now.saturating_sub(core.checked) < staleness,
        };
        Ok(current.then(|| core.pin(now)))
    }

    /// Becomes the writer. `Conflict` when the snapshot is not the head any more, `LeaseHeld` when somebody else writes, or
    /// locks exclusively. `exclusive`: this one does.
    pub fn begin_write(&self, snapshot: Snapshot, exclusive: bool) -> Result<TransactionBuffer> {
        let busy = self.settings().busy;
        let start = self.fleet.clock.monotonic();
        while let Err(error) = self.take_writer_slot(snapshot, exclusive) {
            let waited = self.fleet.clock.monotonic().saturating_sub(start);
            if error.kind() != ErrorKind::LeaseHeld || waited >= busy {
                return Err(error.context(self.words("write")));
            }
            self.fleet.bridge.wait(self.fleet.pause(FIRST_PAUSE));
        }
        let slot = WriterSlot { database: self, kept: false };
        let buffer = self.fleet.bridge.wait(self.hold_for_write(snapshot)).context(self.words("write"))?;
        slot.keep();
        Ok(buffer)
    }

    fn take_writer_slot(&self, snapshot: Snapshot, exclusive: bool) -> Result<()> {
        let mut core = self.core();
        core.check()?;
        if self.role == Role::Follower {
            return Err(Error::invalid("opened read-only"));
        }
        // SQLite has read page 1 by now, and checked its cache against it: no other snapshot can take the place of this
        // one, so there is nothing to wait for.
        if snapshot.txid != core.head {
            return Err(stale(snapshot, core.head));
        }
        if core.writer {
            return Err(another_writes());
        }
        if core.exclusive > usize::from(exclusive) && self.shuts_out() {
            return Err(Error::lease_held("another connection of this process has locked the database exclusively"));
        }
        core.writer = true;
        Ok(())
    }

    async fn hold_for_write(&self, snapshot: Snapshot) -> Result<TransactionBuffer> {
        self.ensure_lease().await?;
        let (head, size) = {
            let core = self.core();
            (core.head, core.size)
        };
        if snapshot.txid != head {
            return Err(stale(snapshot, head));
        }
        Ok(TransactionBuffer::new(head, size))
    }

    /// The writer is done: whoever comes next may write. A transaction that did not commit leaves nothing staged.
    pub fn end_write(&self, buffer: &mut TransactionBuffer) {
        self.abandon(buffer);
        let left = {
            let mut core = self.core();
            core.leftovers |= !buffer.staged.is_empty();
            core.leftovers && core.lease.is_some() && core.stopped.is_none()
        };
        if left {
            // What cannot be discarded now is discarded by the next holder of the lease, or before the next staging.
            if let Err(error) = self.fleet.bridge.wait(self.discard_staged()) {
                tracing::warn!(database = %self.name, %error, "staged pages are left for later");
            }
        }
        let now = self.fleet.clock.monotonic();
        let (held, locked) = {
            let mut core = self.core();
            core.writer = false;
            core.active = now;
            (core.lease.is_some(), core.locks.exclusive.take())
        };
        if held && self.lease_mode() == LeaseMode::Transaction {
            self.fleet.bridge.wait(self.give_back());
        }
        if let Some(epoch) = locked {
            self.fleet.bridge.wait(self.end_exclusive_lock(epoch));
        }
    }
}

pub(super) fn another_writes() -> Error {
    Error::lease_held("another connection of this process is writing")
}

pub(super) fn stale(snapshot: Snapshot, head: Txid) -> Error {
    Error::conflict(format!("the read transaction is at txid {}, the database at {head}: begin again", snapshot.txid))
}
