//! The pieces of a checkpoint: whether those that came before one are there.

use super::CheckpointRequest;
use crate::error::{Error, Result};
use crate::types::{Epoch, Txid};

/// The pieces of a checkpoint in several that a store has, but for the one that completes it. It keeps the last one's for each
/// database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// The epoch that they were written under.
    pub epoch: Epoch,
    /// The attempt that they are of.
    pub attempt: u64,
    /// The checkpoint.
    pub txid: Txid,
    /// How many there are.
    pub count: u64,
}

impl Pieces {
    /// What there is with the piece of a request, of a checkpoint that is not completed, under the epoch of the lease.
    ///
    /// `Conflict` when one before it is not there, and when it is of an attempt that the holder has given up: it would
    /// come after rows that a later attempt has read.
    pub fn with(self, request: &CheckpointRequest) -> Result<Self> {
        let CheckpointRequest { epoch, attempt, txid, piece, .. } = *request;
        if self.epoch == epoch && self.attempt > attempt {
            return Err(Error::conflict(format!(
                "attempt {attempt} at the checkpoint was given up: attempt {} has begun",
                self.attempt
            )));
        }
        let same = (self.epoch, self.attempt, self.txid) == (epoch, attempt, txid);
        let count = if same { self.count } else { 0 };
        if piece > count {
            return Err(Error::conflict("the store has lost pieces of the checkpoint, in a crash or a failover"));
        }
        // One that comes again does not take back those after it.
        Ok(Self { epoch, attempt, txid, count: count.max(piece.saturating_add(1)) })
    }
}
