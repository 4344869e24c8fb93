//! Checkpoints. They conflict with takeovers, collections and each other, and not with commits.

use litefleet::store::CheckpointRequest;
use litefleet::{Result, UnixMillis};

use super::FdbStore;
use super::read::{Singles, missing};
use crate::error::Outcome;
use crate::keys::Kind;
use crate::transact::{Priority, Step, Tx, only};
use crate::values::{ProgressValue, encode_row};

impl FdbStore {
    pub(super) async fn write_checkpoint(&self, request: &CheckpointRequest) -> Result<()> {
        self.limits.check_checkpoint(request)?;
        Self::check_row_bytes("checkpoint", &request.rows)?;
        let body = |tx, unknown| self.try_checkpoint(tx, request, unknown);
        let done = self.cluster.run("checkpoint", Priority::Background, body).await?;
        if let Some(committed) = done.committed {
            self.knowledge.committed(committed);
            self.knowledge.changed(request.database, committed.0);
        }
        Ok(())
    }

    async fn try_checkpoint(&self, tx: Tx, request: &CheckpointRequest, unknown: bool) -> Outcome<Step<()>> {
        let id = request.database;
        // Commits raise the head meanwhile, which makes the condition no less true.
        tx.conflict_with_writers(&only(self.keys.of(id, Kind::Lease)))?;
        let progress_key = self.keys.of(id, Kind::Progress);
        tx.conflict_with_writers(&only(progress_key.clone()))?;
        let (singles, time_key) = (self.keys.singles(id), self.keys.checkpoint(id, request.txid));
        let time = async { if request.last { tx.peek::<UnixMillis>(&time_key).await } else { Ok(None) } };
        let (values, time) = futures_util::try_join!(tx.peek_all(&singles), time)?;
        let singles = Singles::of(&self.keys, id, &values);
        if singles.is_empty() {
            return Err(missing(id).into());
        }
        let (core, before) = (singles.core()?, singles.progress()?);
        self.knowledge.telling(id, tx.read_version().await?);
        if let Err(fenced) = core.fence(request.epoch) {
            // A try whose reply was lost may have come before: then its rows are there.
            let first = request.rows.first().filter(|_| unknown && !request.last);
            let Some(row) = first else { return Err(fenced.into()) };
            let found = tx.peek_bytes(&self.keys.row(id, row.page, row.txid)).await?;
            let written = found.is_some_and(|found| *found == encode_row(row.kind, &row.bytes));
            return if written { Ok(Step::Return(())) } else { Err(fenced.into()) };
        }
        request.check_place(before.checkpoint, core.head.txid)?;
        let checkpoint = if request.last { request.txid } else { before.checkpoint };
        let pieces = before.pieces.with(request, before.checkpoint)?;
        let progress = ProgressValue { checkpoint, pieces, ..before };
        for row in &request.rows {
            tx.put_row(&self.keys.row(id, row.page, row.txid), &encode_row(row.kind, &row.bytes))?;
        }
        // A collection that has looked at the rows before must look again.
        tx.conflict_with_readers(&progress_key)?;
        if progress != before {
            tx.put(&progress_key, &progress)?;
        }
        if request.last && time.is_none() {
            tx.put_quietly(&time_key, &request.time)?;
        }
        if request.last {
            self.put_warm(&tx, id, &request.warm)?;
        }
        Ok(Step::Commit(()))
    }
}
