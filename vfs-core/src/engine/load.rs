//! What the store says, made the state here: the head and the log after an open, and what others have committed since.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::cache::CachedImage;
use super::core::{Core, Lease};
use super::database::{Database, Role};
use super::lease::LOAD_TRIES;
use super::rows::behind;
use super::tail::LogTail;
use crate::codec::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Head, HeadReply, HeadRequest, LeaseRequest, LogRow, OpenRequest, Opened, ReadRow, Tail};
use crate::types::{DatabaseId, Txid};

/// The most bytes of log that an open brings along; a longer tail is asked for on its own.
const INLINE_TAIL: usize = 4 << 20;

impl Database {
    pub(super) fn open_request(&self, lease: Option<LeaseRequest>, known: Option<(DatabaseId, Txid)>) -> OpenRequest {
        OpenRequest {
            name: self.name.clone(),
            // One that was there and is not any more was deleted.
            create: self.role == Role::Writer && !self.is_known() && self.create.load(Ordering::Acquire),
            lease,
            known,
            tail_bytes: INLINE_TAIL,
        }
    }

    /// Whether the store has told of the database by that name.
    pub(super) fn is_known(&self) -> bool {
        self.core().database.is_some()
    }

    pub(super) fn known(&self) -> Option<(DatabaseId, Txid)> {
        let core = self.core();
        core.database.filter(|_| !core.reload).map(|database| (database, core.head))
    }

    /// Asks the store for what is new, without a lease. The caller holds `acquiring`.
    pub(super) async fn refresh(&self) -> Result<()> {
        for _ in 0..LOAD_TRIES {
            // What the reply says may have been true no later than this.
            let asked = self.fleet.clock.monotonic();
            if self.refresh_once().await? {
                self.core().checked = asked;
                return Ok(());
            }
        }
        Err(Error::unavailable("the log changed while it was being read, several times over; try again"))
    }

    /// False when it has to be asked for again.
    async fn refresh_once(&self) -> Result<bool> {
        let Some((database, known)) = self.known() else { return self.load_again().await };
        let request = Self::head_request(database, known);
        let older = Mutex::new(None);
        let ask = || async {
            let reply = self.fleet.store.head(request).await?;
            // A follower may have asked a standby that is behind: it catches up, or another one answers.
            if self.role == Role::Follower && self.is_older(&reply.head) {
                *older.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
                return Err(behind(known));
            }
            Ok(reply)
        };
        let asked = self.retry(ask).await;
        let older = older.into_inner().unwrap_or_else(PoisonError::into_inner);
        let reply = match (asked, older) {
            (Err(error), _) if error.kind() == ErrorKind::NotFound => return Err(self.stop(error)),
            // A checkpoint is lost, as far as anybody can tell, and no commit.
            (Err(_), Some(older)) if older.head.txid >= known && self.core().oldest_pin().is_none() => older,
            (reply, _) => reply?,
        };
        self.take_head(database, known, reply).await
    }

    pub(super) fn head_request(database: DatabaseId, known: Txid) -> HeadRequest {
        HeadRequest { database, known, epoch: None, tail_bytes: INLINE_TAIL }
    }

    /// Loads the state where nothing is known of it, or what is cannot be continued. False when it has to be asked for again.
    pub(super) async fn load_again(&self) -> Result<bool> {
        match self.open_again().await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_known() => Err(self.stop(error)),
            opened => self.take_over_state(opened?, None).await,
        }
    }

    /// Takes over what the store says of the head. False when it has to be asked for again.
    pub(super) async fn take_head(&self, database: DatabaseId, known: Txid, reply: HeadReply) -> Result<bool> {
        if reply.name != self.name {
            // Who connects by the name means another one.
            return Err(self.stop(Error::not_found(format!("it was renamed to {}", reply.name))));
        }
        self.check_history(&reply.head)?;
        if self.advance(database, known, &reply.head, reply.tail, None).await? {
            return Ok(true);
        }
        self.reload(database).await?;
        Ok(false)
    }

    /// Whether a head is from before what is known here.
    fn is_older(&self, head: &Head) -> bool {
        let core = self.core();
        head.txid < core.head || head.checkpoint < core.checkpoint
    }

    /// Loads the state from the newest checkpoint on, in place of one whose continuation is gone. Nothing when the name is
    /// another's since it was asked for the head.
    async fn reload(&self, database: DatabaseId) -> Result<()> {
        match self.open_again().await {
            Ok(opened) if opened.database == database => self.load(opened, None).await.map(|_| ()),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens without a lease. One that is known is not created anew.
    async fn open_again(&self) -> Result<Opened> {
        let open = || async {
            let opened = self.fleet.store.open(self.open_request(None, None)).await?;
            let known = {
                let core = self.core();
                core.database.filter(|known| *known == opened.database).map(|_| core.head)
            };
            match known {
                // As for the head.
                Some(known) if self.role == Role::Follower && opened.head.txid < known => Err(behind(known)),
                _ => Ok(opened),
            }
        };
        self.retry(open).await
    }

    /// Makes what an open returned the state here. False when it has to be asked for again.
    pub(super) async fn take_over_state(&self, opened: Opened, lease: Option<Lease>) -> Result<bool> {
        let (known, shared) = {
            let core = self.core();
            let shared = core.shared || core.lease.is_none();
            (core.database.map(|database| (database, core.head, core.commit_id)), shared)
        };
        let Some((database, head, commit_id)) = known else { return self.load(opened, lease).await };
        if database != opened.database {
            return Err(self.stop(Error::not_found("it was deleted, and another one created under its name")));
        }
        self.check_history(&opened.head)?;
        if self.core().reload {
            return self.load(opened, lease).await;
        }
        let unchanged = opened.head.txid == head && opened.head.commit_id == commit_id;
        if !unchanged && !shared {
            let what = format!("the lease was lost, and another holder committed up to txid {}", opened.head.txid);
            return Err(self.stop(Error::fenced(what)));
        }
        let tail = match opened.tail {
            // Our state is the newest, and whole: nothing of the log is needed.
            Tail::Reload if unchanged => Tail::Complete(Vec::new()),
            tail => tail,
        };
        if self.advance(database, head, &opened.head, tail, lease).await? {
            return Ok(true);
        }
        // Records that we lack are gone, or a checkpoint is: begin again, and leave old snapshots to fail.
        self.core().reload = true;
        Ok(false)
    }

    /// Applies the records after `known`. False when they are gone, or the checkpoint that the tail here begins at is.
    async fn advance(
        &self,
        database: DatabaseId,
        known: Txid,
        head: &Head,
        tail: Tail,
        lease: Option<Lease>,
    ) -> Result<bool> {
        if head.checkpoint < self.core().checkpoint {
            return Ok(false);
        }
        match tail {
            Tail::Complete(rows) => self.append(database, known, &rows)?,
            Tail::Reload => return Ok(false),
            // So many, and nobody here reads what was before the checkpoint.
            Tail::Truncated if head.checkpoint > known && self.core().oldest_pin().is_none() => return Ok(false),
            Tail::Truncated => {
                let mut at = known;
                while at < head.txid {
                    if head.checkpoint > known && self.core().tail.weight() > self.largest_tail() {
                        return Ok(false);
                    }
                    let piece = match self.read_log_piece(database, at, head.txid).await {
                        Err(error) if error.kind() == ErrorKind::SnapshotTooOld => return Ok(false),
                        piece => piece?,
                    };
                    self.append(database, at, &piece)?;
                    at = self.core().head;
                }
            }
        }
        let now = self.fleet.clock.monotonic();
        let mut core = self.core();
        if core.head != head.txid || core.commit_id != head.commit_id {
            drop(core);
            return Ok(false);
        }
        core.note_head(head);
        self.bound_tail(&mut core, now);
        grant(&mut core, lease);
        Ok(true)
    }

    /// Makes records that follow what is known a part of it.
    fn append(&self, database: DatabaseId, known: Txid, rows: &[LogRow]) -> Result<()> {
        let records = decode(database, rows)?;
        if let Some(first) = records.first() {
            self.check_follows(first)?;
        }
        let mut core = self.core();
        if core.head != known {
            return Err(Error::internal("the head moved while nobody could write"));
        }
        for record in records {
            if let Err(error) = self.publish(&mut core, record, None) {
                drop(core);
                return Err(self.stop(error));
            }
        }
        Ok(())
    }

    /// Makes what an open returned the whole state. False when the log moved on meanwhile.
    pub(super) async fn load(&self, opened: Opened, lease: Option<Lease>) -> Result<bool> {
        let Opened { database, head, tail, warm, .. } = opened;
        let rows = match tail {
            Tail::Complete(rows) => rows,
            Tail::Reload => return Ok(false),
            Tail::Truncated => match self.long_tail(database, head.checkpoint, head.txid).await? {
                Some(rows) => rows,
                None => return Ok(false),
            },
        };
        let mut tail = LogTail::starting_at(head.checkpoint);
        for record in decode(database, &rows)? {
            if record.txid != tail.end().next() {
                return Ok(false);
            }
            tail.push(record.into())?;
        }
        let newest = tail.records().last().map_or(head.commit_id, |record| record.body.commit_id);
        if tail.end() != head.txid || newest != head.commit_id {
            return Ok(false);
        }
        self.check_continued(database, &head, &tail).await?;
        let now = self.fleet.clock.monotonic();
        let mut core = self.core();
        // Under the lock: who loads pages of the old state meanwhile keeps them under its name.
        self.forget_cache();
        core.reload = false;
        core.new_weight = tail.weight();
        core.new_pages = tail.patched_pages();
        core.database = Some(database);
        core.head = head.txid;
        core.commit_id = head.commit_id;
        core.size = head.size;
        core.checkpoint = head.checkpoint;
        core.checkpoints = vec![head.checkpoint];
        core.largest_size = tail.largest_size(head.txid).max(head.size);
        // Without a warm set the pages that the log names are the best guess.
        core.cold = warm.is_empty();
        core.tail = tail;
        // What was read first was another state's.
        core.warm.clear();
        core.note_head(&head);
        core.active = now;
        self.keep_warm(&mut core, database, &warm);
        grant(&mut core, lease);
        Ok(true)
    }

    /// A state that takes the place of the one here must be of the same history. SQLite would not notice: it knows a state by a
    /// counter that each commit raises by one, and a schema by another.
    async fn check_continued(&self, database: DatabaseId, head: &Head, tail: &LogTail) -> Result<()> {
        let known = match *self.core() {
            Core { database: Some(known), head, .. } if known == database => head,
            _ => return Ok(()),
        };
        self.check_history(head)?;
        if head.txid == known {
            return Ok(());
        }
        match tail.records().find(|record| record.txid == known.next()) {
            Some(record) => self.check_follows(record),
            // Those who write have come further than the newest checkpoint; the log may have it still.
            None => self.check_known(database, Some(head.txid)).await,
        }
    }

    /// Puts the rows that came with an open into the cache. Nobody has asked for them yet: one that fails its check is left
    /// for the read that does.
    fn keep_warm(&self, core: &mut Core, database: DatabaseId, rows: &[ReadRow]) {
        for (page, row_txid, image) in super::rows::images(rows).filter_map(Result::ok) {
            core.note_warm(page);
            // The rows are those of the checkpoint: a page that was staged since has a newer one.
            if core.tail.is_staged_after(page, row_txid, core.head) {
                continue;
            }
            if let Ok((from, image)) = core.tail.bring_forward(database, page, row_txid, core.head, image) {
                self.fleet.cache.insert(self.key(page, Txid::MAX), CachedImage { from, image });
            }
        }
    }
}

fn grant(core: &mut Core, lease: Option<Lease>) {
    if lease.is_some() {
        core.lease = lease;
        core.shared = false;
    }
}

fn decode(database: DatabaseId, rows: &[LogRow]) -> Result<Vec<Record>> {
    rows.iter().map(|row| Record::decode(database, row.txid, &row.record)).collect()
}
