//! SQLite's locks between processes. With `locking=sqlite` and `lease=transaction` a process has a lock in the store for as long
//! as one of its connections reads, and who writes asks the store to be alone before it writes into the file.
//!
//! Nothing that is read or committed rests on these locks: readers have their snapshots, and what a process may write is
//! decided by the lease. They keep the promise of a rollback journal, that nobody commits beside a reader, and nobody reads while
//! somebody commits. One that ends with its session, which the process could not renew, keeps nobody out any more; who reads
//! on has its snapshot.

use std::future::Future;

use super::database::{Database, Role, Snapshot};
use super::lease::LOAD_TRIES;
use super::session::Ended;
use super::turn::Try;
use crate::config::{LeaseMode, Locking};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::deadline::{self, Deadline};
use crate::store::{HeadReply, SharedLock, SharedRequest};
use crate::types::{DatabaseId, Epoch, SessionId, Txid};

/// What this process has locked of a database in the store.
#[derive(Debug, Default)]
pub(super) struct StoreLocks {
    /// Connections that read under the lock, or are about to.
    readers: usize,
    /// The lock that the store has granted for them.
    shared: Option<Held>,
    /// An epoch under which a request to let others in had no answer: it may yet arrive, and would let them in beside whoever
    /// wants to be alone by then.
    unlocking: Option<Epoch>,
    /// The epoch under which others were asked to keep out, while the lease of that epoch is held.
    pub(super) exclusive: Option<Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    lock: SharedLock,
    /// A request for it had no answer: it may yet arrive, also after the lock was given back.
    astray: bool,
}

impl StoreLocks {
    /// Whether a connection reads under a lock of the store.
    pub(super) fn has_readers(&self) -> bool {
        self.readers > 0
    }
}

/// A connection is counted as a reader; not any more unless it is kept: after an error, and after a panic in the store.
struct Reader<'a> {
    database: &'a Database,
    kept: bool,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.database.end_shared();
        }
    }
}

/// A lock that the store may have and nobody here uses. It is written down, to be given back later, unless that is settled: after an
/// error, and after a panic in the store.
struct Doubtful<'a> {
    database: &'a Database,
    id: DatabaseId,
    lock: SharedLock,
    settled: bool,
}

impl Drop for Doubtful<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.database.fleet.unreturned.perhaps_locked(self.id, self.lock);
        }
    }
}

impl Database {
    /// Whether the locks of connections exclude those of other processes. A follower that may be behind asks nobody.
    pub fn locks_between_processes(&self) -> bool {
        let settings = self.settings();
        settings.locking == Locking::Sqlite
            && settings.lease == LeaseMode::Transaction
            && (self.role == Role::Writer || settings.staleness.is_zero())
    }

    /// As [`begin_read`](Self::begin_read), under a lock that keeps other processes from a commit, until
    /// [`end_shared`](Self::end_shared). `LeaseHeld` while one of them wants to commit.
    pub fn begin_shared(&self) -> Result<Snapshot> {
        {
            let mut core = self.core();
            core.check()?;
            core.locks.readers += 1;
        }
        let mut reader = Reader { database: self, kept: false };
        let snapshot = match self.pin_if_locked()? {
            Some(snapshot) => snapshot,
            None => self.fleet.bridge.wait(self.begin_shared_by_the_store())?,
        };
        reader.kept = true;
        Ok(snapshot)
    }

    async fn begin_shared_by_the_store(&self) -> Result<Snapshot> {
        let turn = self.turn().await;
        if let Some(snapshot) = self.pin_if_locked()? {
            return Ok(snapshot);
        }
        turn.make(Try::Head, self.lock_shared()).await.context(self.words("lock"))?;
        let mut core = self.core();
        core.check()?;
        Ok(core.pin(self.fleet.clock.monotonic()))
    }

    /// The head, where the store need not be asked: it has the lock already, and nobody but this process can have committed.
    fn pin_if_locked(&self) -> Result<Option<Snapshot>> {
        let (held, _) = self.lease_and_head()?;
        let live = self.fleet.session.live();
        let mut core = self.core();
        let locked = core.locks.shared.is_some_and(|held| live.is_some_and(|live| live.session == held.lock.session));
        Ok((held && locked && core.database.is_some()).then(|| core.pin(self.fleet.clock.monotonic())))
    }

    /// Locks the database in the store, and takes over what has been committed. The caller holds `acquiring`.
    async fn lock_shared(&self) -> Result<()> {
        let mut ended = Ended::default();
        for _ in 0..LOAD_TRIES {
            let Some((database, known)) = self.known() else {
                self.load_again().await?;
                continue;
            };
            let asked = self.fleet.clock.monotonic();
            let reply = loop {
                let live = self.retry(|| self.fleet.session.ensure()).await?;
                match self.ask_for_lock(database, known, live.session).await {
                    Err(error) if error.kind() == ErrorKind::Fenced => {
                        // The session expired on the way: `ensure` finds that out and starts another.
                        if self.retry(|| self.fleet.session.renew()).await?.is_some() {
                            return Err(error);
                        }
                        ended.note()?;
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.stop(error)),
                    reply => break reply?,
                }
            };
            if self.take_head(database, known, reply).await? {
                self.core().checked = asked;
                return Ok(());
            }
        }
        Err(Error::unavailable("the log changed while it was being read, several times over; try again"))
    }

    async fn ask_for_lock(&self, database: DatabaseId, known: Txid, session: SessionId) -> Result<HeadReply> {
        let before = self.core().locks.shared.filter(|held| held.lock.session == session);
        // A number of its own: a call that gives another one back may still be on its way.
        let number = || self.fleet.next_instance();
        let lock = before.map_or_else(|| SharedLock { session, number: number() }, |held| held.lock);
        let mut doubtful = Doubtful { database: self, id: database, lock, settled: before.is_some() };
        let request = SharedRequest { lock, head: Self::head_request(database, known) };
        let (reply, astray) = self.retry_noting(|| self.fleet.store.lock_shared(request)).await;
        let over = reply.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced);
        let refused =
            matches!(&reply, Err(error) if matches!(error.kind(), ErrorKind::LeaseHeld | ErrorKind::NotFound));
        doubtful.settled |= reply.is_ok() || over || refused && !astray;
        let mut core = self.core();
        if over {
            core.locks.shared = None;
        } else if reply.is_ok() || before.is_some() {
            core.locks.shared = Some(Held { lock, astray: astray || before.is_some_and(|held| held.astray) });
        }
        drop(core);
        reply
    }

    /// A connection does not read under the lock any more. With the last one the lock is given back.
    pub fn end_shared(&self) {
        if self.fleet.check_process().is_err() {
            return;
        }
        let (held, database) = {
            let mut core = self.core();
            core.locks.readers = core.locks.readers.saturating_sub(1);
            if core.locks.readers > 0 {
                return;
            }
            match (core.locks.shared.take(), core.database) {
                (Some(held), Some(database)) => (held, database),
                _ => return,
            }
        };
        // One of a session that is over has ended with it.
        if self.fleet.session.current() != Some(held.lock.session) {
            return;
        }
        let mut doubtful = Doubtful { database: self, id: database, lock: held.lock, settled: false };
        // While a panic unwinds, another one would be the end of the process.
        if std::thread::panicking() {
            return;
        }
        // One try: nobody waits for the store to end a read, and what has no answer is given back later.
        match self.fleet.bridge.wait(self.once(self.fleet.store.unlock_shared(database, held.lock))) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(database = %self.name, %error, "a lock is still to be given back");
            }
            _ => doubtful.settled = !held.astray,
        }
    }

    /// Calls the store once.
    async fn once<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        deadline::scope(Deadline::after(self.settings().store_timeout), call).await
    }

    /// The writer wants to be alone. `LeaseHeld` while another process reads; new readers are kept out all the same, from now on
    /// until the lease is given back, or the writer is done.
    pub fn begin_exclusive_lock(&self) -> Result<()> {
        if !self.locks_between_processes() {
            return Ok(());
        }
        let lock = async {
            let unlocking = self.core().locks.unlocking;
            // Under a new epoch it is refused.
            if unlocking.is_some_and(|epoch| self.is_current(epoch)) {
                let _one = self.acquiring.lock().await;
                self.acquire_lease().await?;
            }
            self.under_lease(|epoch| self.lock_exclusive(epoch)).await
        };
        self.fleet.bridge.wait(lock).context(self.words("write"))
    }

    async fn lock_exclusive(&self, epoch: Epoch) -> Result<()> {
        let database = self.id()?;
        // First of all: also where no reply comes the store may have it.
        self.core().locks.exclusive = Some(epoch);
        self.fleet.store.lock_exclusive(database, epoch).await
    }

    /// Before a commit is sent under an epoch that is not the one under which the writer was alone: the lease was lost and taken
    /// anew meanwhile, and others may have begun to read. `Conflict` where they have.
    pub(super) async fn lock_again(&self, epoch: Epoch) -> Result<()> {
        if self.core().locks.exclusive.is_none_or(|locked| locked == epoch) {
            return Ok(());
        }
        match self.retry(|| self.lock_exclusive(epoch)).await {
            Err(error) if error.kind() == ErrorKind::LeaseHeld => {
                let words = "the lease was lost for a moment, and another process has begun to read: begin again";
                Err(Error::conflict(words).with_source(error))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.stop(error)),
            locked => locked,
        }
    }

    /// The writer that was alone under an epoch is done, or has given up. Where its lease stays for something else, others are let
    /// in again.
    pub(super) async fn end_exclusive_lock(&self, epoch: Epoch) {
        let Ok(database) = self.id() else { return };
        if !self.is_current(epoch) {
            return;
        }
        match self.once(self.fleet.store.unlock_exclusive(database, epoch)).await {
            // The lease is gone, and the lock with it.
            Err(error) if !matches!(error.kind(), ErrorKind::Fenced | ErrorKind::NotFound) => {
                self.core().locks.unlocking = Some(epoch);
                tracing::warn!(database = %self.name, %error, "other processes are kept out for as long as the lease is held");
            }
            _ => {}
        }
    }
}
