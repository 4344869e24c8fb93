//! Connections that lock exclusively: SQLite keeps their lock between transactions, and does not look at the change counter again.
//! So nobody may commit meanwhile, in this process or, by the lease, in another; and their reads find out when it is lost.

use super::database::{Database, Snapshot};
use super::transaction::{another_writes, stale};
use crate::config::Locking;
use crate::error::{Context, Result};

/// A connection is counted as one that locks exclusively; not any more unless it is kept: after an error, and after a panic in the
/// store.
struct Place<'a> {
    database: &'a Database,
    kept: bool,
}

impl Place<'_> {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.database.end_exclusive();
        }
    }
}

impl Database {
    /// As [`begin_read`](Self::begin_read), for a connection that locks exclusively: until [`end_exclusive`](Self::end_exclusive) no
    /// other connection writes (with `locking=sqlite`: commits), and the lease stays. `LeaseHeld` while another one is writing.
    pub fn begin_exclusive(&self) -> Result<Snapshot> {
        let place = self.count_exclusive(false)?;
        let snapshot = self.begin_read()?;
        place.keep();
        Ok(snapshot)
    }

    /// A connection that has read before it locked exclusively keeps its snapshot, which must be the head and stay it.
    /// `writes`: it is the writer itself.
    pub fn make_exclusive(&self, snapshot: Snapshot, writes: bool) -> Result<()> {
        let place = self.count_exclusive(writes)?;
        self.fleet.bridge.wait(self.ensure_lease()).context(self.words("lock exclusively"))?;
        let head = self.core().head;
        if !writes && snapshot.txid != head {
            return Err(stale(snapshot, head).context(self.words("lock exclusively")));
        }
        place.keep();
        Ok(())
    }

    /// A connection that locked exclusively gives its snapshot up.
    pub fn end_exclusive(&self) {
        let mut core = self.core();
        core.exclusive = core.exclusive.saturating_sub(1);
    }

    /// Whether what a connection that locks exclusively has read is still what is stored: it takes no other lock that would find out.
    /// A look while the session lives; after that the lease is taken anew. `Conflict`: others have committed.
    pub fn check_exclusive(&self, snapshot: Snapshot) -> Result<()> {
        // Each read comes by here, also of a page in the cache: one look at the state is all that it takes.
        let (held, mut head) = self.lease_and_head()?;
        if !held {
            self.fleet.check_process()?;
            self.fleet.bridge.wait(self.ensure_lease()).context(self.words("read"))?;
            head = self.core().head;
        }
        if snapshot.txid == head { Ok(()) } else { Err(stale(snapshot, head).context(self.words("read"))) }
    }

    /// Counted before it has the lease: what is granted to it is not given back before it uses it.
    fn count_exclusive(&self, writes: bool) -> Result<Place<'_>> {
        let mut core = self.core();
        core.check()?;
        if !writes && core.writer && self.shuts_out() {
            return Err(another_writes().context(self.words("lock exclusively")));
        }
        core.exclusive += 1;
        Ok(Place { database: self, kept: false })
    }

    /// Whether a connection that locks exclusively and writer shut each other out here. With `locking=sqlite` the locks do it: such a
    /// reader lets others prepare a transaction, and none of them commit.
    pub(super) fn shuts_out(&self) -> bool {
        self.settings().locking == Locking::Snapshot
    }
}
