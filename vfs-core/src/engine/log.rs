//! Reading the log: what of it was too much to come with a head or an open, in pieces. A server that is behind the one that told of
//! the head may answer.

use std::time::Duration;

use super::database::Database;
use super::fleet::FleetInner;
use super::rows::behind;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{HeadRequest, Lineage, LogRow, Tail};
use crate::types::{DatabaseId, Txid};

/// The most bytes of log that come in one piece: what the default settings let a tail grow to.
const LARGEST_PIECE: usize = 64 << 20;

impl FleetInner {
    /// The first records after `after` up to `to`, which the store has told of: as many as come in one call. None: they are damaged, or
    /// gone. A server that is behind has none of them either: then another one is asked, or the same again, for as long as `limit`.
    pub(super) async fn read_log(
        &self,
        limit: Duration,
        database: DatabaseId,
        after: Txid,
        to: Txid,
    ) -> Result<Vec<LogRow>> {
        let lineage = [Lineage { database, max_txid: Txid::MAX }];
        let read = || async {
            let rows = self.store.read_log(&lineage, after, to).await?;
            if rows.is_empty() && !self.lacks_records(database, after).await? {
                return Err(behind(to));
            }
            Ok(rows)
        };
        self.retry(limit, read).await
    }

    /// Whether there is no record after `after`, and a head that is. Both as one server says at one moment: it may be another one
    /// than that which was asked for the records.
    async fn lacks_records(&self, database: DatabaseId, after: Txid) -> Result<bool> {
        // One byte of them would be enough.
        let request = HeadRequest { database, known: after, epoch: None, tail_bytes: 1 };
        match self.store.head(request).await {
            Ok(reply) => Ok(reply.head.txid > after && reply.tail == Tail::Complete(Vec::new())),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Database {
    /// The records after `after` up to `to`, which were too many to come with an open: in one call if possible. `None` when
    /// some of them are gone.
    pub(super) async fn long_tail(&self, database: DatabaseId, after: Txid, to: Txid) -> Result<Option<Vec<LogRow>>> {
        let request = HeadRequest { database, known: after, epoch: None, tail_bytes: LARGEST_PIECE };
        match self.retry(|| self.fleet.store.head(request)).await?.tail {
            Tail::Complete(mut rows) => {
                // A follower's writer goes on meanwhile.
                rows.retain(|row| row.txid <= to);
                Ok(Some(rows))
            }
            Tail::Reload => Ok(None),
            Tail::Truncated => match self.read_log(database, after, to).await {
                Err(error) if error.kind() == ErrorKind::SnapshotTooOld => Ok(None),
                rows => rows.map(Some),
            },
        }
    }

    /// The records after `after` up to `to`, in as many calls as it takes.
    async fn read_log(&self, database: DatabaseId, after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let mut rows: Vec<LogRow> = Vec::new();
        loop {
            let from = rows.last().map_or(after, |row| row.txid);
            if from >= to {
                return Ok(rows);
            }
            rows.extend(self.read_log_piece(database, from, to).await?);
        }
    }

    /// The first records after `after`, as many as come in one call.
    pub(super) async fn read_log_piece(&self, database: DatabaseId, after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let piece = self.fleet.read_log(self.settings().store_timeout, database, after, to).await?;
        if piece.first().map(|row| row.txid) != Some(after.next()) {
            return Err(Error::corrupt(format!("the log has no record after txid {after}")));
        }
        Ok(piece)
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
