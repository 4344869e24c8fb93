//! Waiting for commits: a watch of FoundationDB on the head.

use std::sync::PoisonError;
use std::time::Duration;

use litefleet::{DatabaseId, Result, Txid};
use tokio::time::Instant;

use super::FdbStore;
use super::read::missing;
use crate::error::{Fault, Outcome, code};
use crate::keys::Kind;
use crate::values::{HeadValue, Value};

/// How long one call waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it waits where a watch has told of nothing, because there are too many or for any other reason.
const WITHOUT_WATCH: Duration = Duration::from_millis(200);

/// How often a store says at the most that there are too many.
const WARNINGS: Duration = Duration::from_secs(60);

impl FdbStore {
    pub(super) async fn watch_head(&self, database: DatabaseId, known: Txid) -> Result<Txid> {
        match tokio::time::timeout(PATIENCE, self.next_change(database, known)).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Err(Fault::Refused(error))) => return Err(error),
            Err(_) => return self.txid(database).await,
            Ok(Err(Fault::Client(error))) if error.code() == code::TOO_MANY_WATCHES => {
                self.warn_of_polling();
            }
            // What was in the way, a plain read finds out, or goes around.
            Ok(Ok(None) | Err(Fault::Client(_) | Fault::Unknown(_))) => {
                let found = self.txid(database).await?;
                if found > known {
                    return Ok(found);
                }
            }
        }
        // The caller calls again, and it may be the same as this time.
        tokio::time::sleep(WITHOUT_WATCH).await;
        self.txid(database).await
    }

    /// Says it when it begins, and then not at every look of every follower.
    fn warn_of_polling(&self) {
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| now.saturating_duration_since(at) >= WARNINGS) {
            *warned = Some(now);
            tracing::warn!("more databases are watched than max_watches allows; the rest are polled");
        }
    }

    async fn txid(&self, database: DatabaseId) -> Result<Txid> {
        let key = self.keys.of(database, Kind::Head);
        let key = key.as_slice();
        let body = |tx: crate::transact::Tx, _| async move {
            tx.peek::<HeadValue>(key).await.map(crate::transact::Step::Return)
        };
        let head = self.cluster.run("watch", crate::transact::Priority::Normal, body).await?.value;
        head.map(|head| head.txid).ok_or_else(|| missing(database))
    }

    /// Waits for the next change of the head, unless it is above `known` already.
    async fn next_change(&self, database: DatabaseId, known: Txid) -> Outcome<Option<Txid>> {
        let key = self.keys.of(database, Kind::Head);
        let trx = self.cluster.watching()?;
        let value = trx.get(&key, true).await?.ok_or_else(|| missing(database))?;
        let head = HeadValue::decode(&key, &value)?;
        if head.txid > known {
            return Ok(Some(head.txid));
        }
        // The watch begins with the commit, and compares with what was read.
        let changed = trx.watch(&key);
        let _committed = trx.commit().await.map_err(|error| Fault::Client(*error))?;
        changed.await?;
        Ok(None)
    }
}
