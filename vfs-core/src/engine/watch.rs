//! Waiting for the commits of a database, by whomever, without asking again and again.
//!
//! A watch tells of commits. That it has told of none does not prove that there was none: a follower that must be up to
//! date still asks the store, or lets its view be as old as its `staleness` allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::fleet::{Fleet, FleetInner};
use super::rows::behind;
use crate::codec::Record;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::store::{HeadRequest, LogRow, OpenRequest};
use crate::types::{CommitId, DatabaseId, DatabaseName, Txid, UnixMillis};

/// A commit that a [`Watch`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its txid.
    pub txid: Txid,
    /// When it was made, by the clock of the process that made it.
    pub time: UnixMillis,
    /// Its id.
    pub commit_id: CommitId,
    /// Bytes of the database file after it.
    pub size: u64,
    /// Bytes of its record in the log.
    pub record_bytes: usize,
}

/// Waits for the commits of one database. Holds no lease and keeps nothing from being collected.
#[derive(Debug)]
pub struct Watch {
    fleet: Arc<FleetInner>,
    name: DatabaseName,
    database: DatabaseId,
    known: Txid,
    /// The commit there, where it was heard of.
    commit_id: Option<CommitId>,
    /// The store has lost that commit.
    lost: Option<Error>,
    /// It has answered from before that commit, and not otherwise since.
    behind: AtomicBool,
}

impl Fleet {
    /// Watches a database: for the commits after `after`, or after its last one now. `NotFound` when there is none.
    pub fn watch(&self, name: &DatabaseName, after: Option<Txid>) -> Result<Watch> {
        let ask = OpenRequest { name: name.clone(), create: false, lease: None, known: None, tail_bytes: 0 };
        let limit = self.inner.settings.database.store_timeout;
        let opened = self.wait(self.inner.retry(limit, || self.inner.store.open(ask.clone())));
        let opened = opened.context(format_args!("database {name}: watch"))?;
        let head = opened.head;
        let known = after.unwrap_or(head.txid);
        let commit_id = (known == head.txid).then_some(head.commit_id);
        let (fleet, name) = (Arc::clone(&self.inner), name.clone());
        Ok(Watch {
            fleet,
            name,
            database: opened.database,
            known,
            commit_id,
            lost: None,
            behind: AtomicBool::new(false),
        })
    }
}

impl Watch {
    /// The last commit that it has told of, or that it began after.
    pub fn known(&self) -> Txid {
        self.known
    }

    /// Waits for commits, and returns them in order: those that were made while nobody waited as well, in portions that
    /// fit into memory. Empty when the time is over, and when all that there were had been collected: commits whose records
    /// are gone are left out.
    /// `NotFound` when the database was deleted. `Corrupt` when the record after the last commit that was told of cannot be
    /// read, and `Fenced` when the store has lost that commit, in a crash or a failover, and what comes next does not follow it: so it
    /// is at each call from then on. `Unavailable` while the store has not come so far again, also when the time is over before
    /// that of the store is.
    pub fn next(&mut self, timeout: Duration) -> Result<Vec<Commit>> {
        let fleet = Arc::clone(&self.fleet);
        fleet.check_process()?;
        let waited = fleet.bridge.wait(async { tokio::time::timeout(timeout, self.wait()).await });
        match waited {
            Ok(commits) => commits.context(format_args!("database {}: watch", self.name)),
            Err(_) if self.behind.load(Ordering::Relaxed) => {
                Err(behind(self.known)).context(format_args!("database {}: watch", self.name))
            }
            Err(_) => Ok(Vec::new()),
        }
    }

    async fn wait(&mut self) -> Result<Vec<Commit>> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let limit = self.fleet.settings.database.store_timeout;
        loop {
            let mut head = self.look().await?;
            if head <= self.known {
                let (store, database, known) = (&self.fleet.store, self.database, self.known);
                head = self.fleet.retry(limit, || store.watch(database, known)).await?;
            }
            if head <= self.known {
                continue;
            }
            let rows = match self.records(head).await {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld => {
                    self.pass_collected(head).await?;
                    if self.known >= head {
                        return Ok(Vec::new());
                    }
                    continue;
                }
                rows => rows?,
            };
            let mut commits = Vec::with_capacity(rows.len());
            for row in &rows {
                match self.take(row) {
                    Ok(commit) => commits.push(commit),
                    Err(error) if commits.is_empty() => return Err(error),
                    // Those before it are told, and the next call begins with it.
                    Err(_) => break,
                }
            }
            return Ok(commits);
        }
    }

    /// Asks for the head, which tells at the txid that is known whether the commit there is still the same.
    async fn look(&mut self) -> Result<Txid> {
        let (limit, database, known) = (self.fleet.settings.database.store_timeout, self.database, self.known);
        let request = HeadRequest { database, known, epoch: None, tail_bytes: 0 };
        let ask = || async {
            let head = self.fleet.store.head(request).await?.head;
            // As for a follower: a server that is behind catches up, or another one answers. What was not heard of is waited for.
            let is_behind = self.commit_id.is_some() && head.txid < known;
            self.behind.store(is_behind, Ordering::Relaxed);
            if is_behind { Err(behind(known)) } else { Ok(head) }
        };
        let head = self.fleet.retry(limit, ask).await?;
        if head.txid == known {
            match self.commit_id {
                Some(told) if told != head.commit_id => return Err(self.lose(told, head.commit_id)),
                _ => self.commit_id = Some(head.commit_id),
            }
        }
        Ok(head.txid)
    }

    /// The records after those that are known, up to the head: so many as can be read.
    async fn records(&self, head: Txid) -> Result<Vec<LogRow>> {
        let (limit, known) = (self.fleet.settings.database.store_timeout, self.known);
        let mut to = head;
        loop {
            match self.fleet.read_log(limit, self.database, known, to).await {
                // One of them: those before it can be told.
                Err(error) if error.kind() == ErrorKind::Corrupt && to > known.next() => {
                    to = Txid(known.get() + (to.get() - known.get()) / 2);
                }
                Ok(rows) if rows.is_empty() => return Err(self.gap()),
                rows => return rows,
            }
        }
    }

    /// Goes on where the log begins: all records after the newest checkpoint are there.
    async fn pass_collected(&mut self, head: Txid) -> Result<()> {
        let limit = self.fleet.settings.database.store_timeout;
        let request = HeadRequest { database: self.database, known: head, epoch: None, tail_bytes: 0 };
        let head = self.fleet.retry(limit, || self.fleet.store.head(request)).await?.head;
        if head.checkpoint > self.known {
            self.known = head.checkpoint;
            self.commit_id = (head.txid == head.checkpoint).then_some(head.commit_id);
        }
        Ok(())
    }

    /// The commit that a record makes, which must be the one after those that are known.
    fn take(&mut self, row: &LogRow) -> Result<Commit> {
        if row.txid != self.known.next() {
            return Err(self.gap());
        }
        let body = Record::decode(self.database, row.txid, &row.record)?.body;
        if let Some(told) = self.commit_id.filter(|told| told.link() != body.follows) {
            return Err(self.lose(told, body.commit_id));
        }
        self.known = row.txid;
        self.commit_id = Some(body.commit_id);
        let (time, commit_id, size) = (body.time, body.commit_id, body.size);
        Ok(Commit { txid: row.txid, time, commit_id, size, record_bytes: row.record.len() })
    }

    fn gap(&self) -> Error {
        Error::corrupt(format!("the log has no record after txid {}", self.known))
    }

    /// Ends: what was told is no part of what comes next.
    fn lose(&mut self, told: CommitId, found: CommitId) -> Error {
        let error = Error::fenced(format!(
            "the store has lost commits, in a crash or a failover: this watch knows commit {told} at txid {}, and the store has \
             commit {found}, which does not follow it; what it told of last is gone: look at the whole database, and watch it anew",
            self.known
        ));
        self.lost.insert(error).clone()
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
