//! Damage to what a store has, through its own calls.

use std::sync::Arc;

use litefleet::store::{CheckpointRequest, Opened, PageRow, PageStore};
use litefleet::{Result, Txid, UnixMillis};

/// Puts rows in the place of those of a database's newest checkpoint, under the lease of whoever holds it.
pub async fn replace_rows(store: &Arc<dyn PageStore>, opened: &Opened, rows: Vec<PageRow>) -> Result<()> {
    let request = CheckpointRequest {
        database: opened.database,
        epoch: opened.head.epoch,
        txid: opened.head.checkpoint,
        since: Txid(0),
        // Later than any that the holder has begun.
        attempt: u64::from(u32::MAX),
        piece: 0,
        rows,
        last: false,
        time: UnixMillis(0),
        warm: Vec::new(),
    };
    store.checkpoint(request).await
}
