//! Staging, checkpoints, and garbage.

use litefleet::Txid;
use litefleet::store::{CheckpointRequest, CollectRequest, Collected, DiscardRequest, Discarded, Purged, StageRequest};

use super::Inner;
use super::open::warm_pages;
use super::outcome::{Asked, done};
use super::rows::{columns, ranges};
use crate::error::{Fault, Outcome};
use crate::statements::Call;
use crate::wire::{bigint, boolean, column, count, number};

impl Inner {
    pub(super) async fn stage(&self, request: StageRequest) -> Outcome<()> {
        self.config.limits.check_stage(&request)?;
        let StageRequest { database, epoch, expected, generation, sequence, after, rows } = request;
        let [pages, kinds, _, bytes] = columns(rows);
        let params = [
            bigint(database.get()),
            bigint(epoch.get()),
            bigint(expected.get()),
            bigint(generation),
            bigint(sequence),
            bigint(after),
            pages,
            kinds,
            bytes,
        ];
        let rows = self.pool.call(Call::Stage, &params).await?;
        done(&rows, Asked { database, epoch, expected: expected.get() })?;
        Ok(())
    }

    pub(super) async fn discard(&self, request: DiscardRequest) -> Outcome<Discarded> {
        let DiscardRequest { database, epoch, expected, generation, limit } = request;
        let params =
            [bigint(database.get()), bigint(epoch.get()), bigint(expected.get()), bigint(generation), count(limit)];
        let rows = self.pool.call(Call::Discard, &params).await?;
        let numbers = done(&rows, Asked { database, epoch, expected: expected.get() })?;
        Ok(Discarded { generation: generation.saturating_add(1), done: numbers.at(1)? != 0 })
    }

    pub(super) async fn checkpoint(&self, request: CheckpointRequest) -> Outcome<()> {
        self.config.limits.check_checkpoint(&request)?;
        let CheckpointRequest { database, epoch, txid, since, attempt, piece, rows, last, time, warm } = request;
        let [pages, kinds, bases, bytes] = columns(rows);
        let params = [
            bigint(database.get()),
            bigint(epoch.get()),
            bigint(txid.get()),
            bigint(since.get()),
            bigint(attempt),
            bigint(piece),
            boolean(last),
            bigint(time.get()),
            pages,
            kinds,
            bases,
            bytes,
            warm_pages(&warm),
        ];
        let rows = self.pool.call(Call::Checkpoint, &params).await?;
        done(&rows, Asked { database, epoch, expected: txid.get() })?;
        Ok(())
    }

    pub(super) async fn collect(&self, request: CollectRequest) -> Outcome<Collected> {
        let wanted = self.config.limits.check_collect(&request)?;
        let CollectRequest { database, epoch, at_most, completed_before, log_through, .. } = request;
        let [firsts, lasts] = ranges(&wanted.ranges().collect::<Vec<_>>());
        let params = [
            bigint(database.get()),
            bigint(epoch.get()),
            bigint(at_most.get()),
            bigint(completed_before.get()),
            firsts,
            lasts,
            bigint(log_through.get()),
        ];
        let rows = self.pool.call(Call::Collect, &params).await?;
        let numbers = done(&rows, Asked { database, epoch, expected: 0 })?;
        Ok(Collected {
            horizon: Txid(numbers.at(1)?),
            log_start: Txid(numbers.at(2)?),
            rows: numbers.at(3)?,
            records: numbers.at(4)?,
        })
    }

    pub(super) async fn purge(&self, limit: usize) -> Outcome<Purged> {
        let rows = self.pool.call(Call::Purge, &[count(limit)]).await?;
        let row = rows.first().ok_or(Fault::Malformed("no row"))?;
        Ok(Purged { removed: number(column(row, 0)?)?, done: column(row, 1)? })
    }
}
