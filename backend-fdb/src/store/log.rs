//! Reading the log.

use litefleet::store::{Lineage, LogRow};
use litefleet::{Error, Result, Txid};

use super::FdbStore;
use super::read::{Singles, missing};
use crate::error::Outcome;
use crate::transact::{Priority, Step, Tx};

impl FdbStore {
    pub(super) async fn log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>> {
        let done =
            self.cluster.run("read the log", Priority::Normal, |tx, _| self.try_log(tx, lineage, after, to)).await?;
        Ok(done.value)
    }

    async fn try_log(&self, tx: Tx, lineage: &[Lineage], after: Txid, to: Txid) -> Outcome<Step<Vec<LogRow>>> {
        let limit = self.limits.log_bytes;
        let mut rows: Vec<LogRow> = Vec::new();
        let mut bytes = 0;
        // Ancestors come last and hold the older records.
        for (index, entry) in lineage.iter().enumerate().rev() {
            let from = lineage.get(index + 1).map_or(after, |parent| after.max(parent.max_txid));
            let to = to.min(entry.max_txid);
            let range = self.keys.singles(entry.database);
            let room = limit.saturating_sub(bytes);
            let (values, records) =
                futures_util::try_join!(tx.peek_all(&range), self.records(&tx, entry.database, from, to, room, None))?;
            let singles = Singles::of(&self.keys, entry.database, &values);
            if singles.is_empty() {
                return Err(missing(entry.database).into());
            }
            let to = to.min(singles.core()?.head.txid);
            if from >= to {
                continue;
            }
            let log_start = singles.progress()?.log_start;
            if from < log_start {
                return Err(Error::snapshot_too_old(format!(
                    "records after {from} were asked for, those up to {log_start} are gone"
                ))
                .into());
            }
            let found = records.within(room);
            let mut expected = from;
            for row in &found {
                expected = expected.next();
                if row.txid != expected {
                    let message = format!("the log lacks the record {expected}; restore the database from a backup");
                    return Err(Error::corrupt(message).into());
                }
            }
            let size: usize = found.iter().map(|row| row.record.len()).sum();
            if !rows.is_empty() && bytes + size > limit {
                break;
            }
            let complete = expected == to;
            bytes += size;
            rows.extend(found);
            if !complete {
                break;
            }
        }
        Ok(Step::Return(rows))
    }
}
