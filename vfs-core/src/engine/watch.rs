//! Waiting for the commits of a database, by whomever, without asking again and again.
//!
//! A watch tells of commits. That it has told of none does not prove that there was none: a follower that must be up to
//! date still asks the store, or lets its view be as old as its `staleness` allows.

use std::sync::Arc;
use std::time::Duration;

use super::fleet::{Fleet, FleetInner};
use crate::codec::Record;
use crate::error::{Context, ErrorKind, Result};
use crate::store::{HeadRequest, Lineage, LogRow, OpenRequest};
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
}

impl Fleet {
    /// Watches a database: for the commits after `after`, or after its last one now. `NotFound` when there is none.
    pub fn watch(&self, name: &DatabaseName, after: Option<Txid>) -> Result<Watch> {
        let ask = OpenRequest { name: name.clone(), create: false, lease: None, known: None, tail_bytes: 0 };
        let limit = self.inner.settings.database.store_timeout;
        let opened = self.wait(self.inner.retry(limit, || self.inner.store.open(ask.clone())));
        let opened = opened.context(format_args!("database {name}: watch"))?;
        let known = after.unwrap_or(opened.head.txid);
        Ok(Watch { fleet: Arc::clone(&self.inner), name: name.clone(), database: opened.database, known })
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
    /// read: so it is at each call from then on.
    pub fn next(&mut self, timeout: Duration) -> Result<Vec<Commit>> {
        let fleet = Arc::clone(&self.fleet);
        fleet.check_process()?;
        let waited = fleet.bridge.wait(async { tokio::time::timeout(timeout, self.wait()).await });
        match waited {
            Ok(commits) => commits.context(format_args!("database {}: watch", self.name)),
            Err(_) => Ok(Vec::new()),
        }
    }

    async fn wait(&mut self) -> Result<Vec<Commit>> {
        let limit = self.fleet.settings.database.store_timeout;
        let (database, store) = (self.database, &self.fleet.store);
        loop {
            let known = self.known;
            let head = self.fleet.retry(limit, || store.watch(database, known)).await?;
            if head <= known {
                continue;
            }
            let rows = match self.records(head).await {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld => {
                    // All records after the newest checkpoint are there.
                    let request = HeadRequest { database, known: head, epoch: None, tail_bytes: 0 };
                    let checkpoint = self.fleet.retry(limit, || store.head(request)).await?.head.checkpoint;
                    self.known = self.known.max(checkpoint);
                    if self.known >= head {
                        return Ok(Vec::new());
                    }
                    continue;
                }
                rows => rows?,
            };
            let mut commits = Vec::with_capacity(rows.len());
            for row in rows {
                let body = match Record::decode(database, row.txid, &row.record) {
                    Ok(record) => record.body,
                    Err(error) if commits.is_empty() => return Err(error),
                    // Those before it are told, and the next call begins with it.
                    Err(_) => break,
                };
                let (time, commit_id, size) = (body.time, body.commit_id, body.size);
                commits.push(Commit { txid: row.txid, time, commit_id, size, record_bytes: row.record.len() });
                self.known = row.txid;
            }
            return Ok(commits);
        }
    }

    /// The records after those that are known, up to the head: so many as can be read.
    async fn records(&self, head: Txid) -> Result<Vec<LogRow>> {
        let (limit, known) = (self.fleet.settings.database.store_timeout, self.known);
        let lineage = [Lineage { database: self.database, max_txid: Txid::MAX }];
        let mut to = head;
        loop {
            match self.fleet.retry(limit, || self.fleet.store.read_log(&lineage, known, to)).await {
                // One of them: those before it can be told.
                Err(error) if error.kind() == ErrorKind::Corrupt && to > known.next() => {
                    to = Txid(known.get() + (to.get() - known.get()) / 2);
                }
                rows => return rows,
            }
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
