//! What a request rests on: what came before it, was acknowledged, and may be lost all the same, in a crash or a failover. Every
//! store judges it in the same way.

use super::model::{CheckpointRequest, CommitRequest, StageRequest, Staged};
use crate::error::{Error, Result};
use crate::types::{CommitId, Epoch, Txid};

impl CommitRequest {
    /// `Conflict` unless the head, which is at the expected txid, shows the commit that this one was made on.
    pub fn check_follows(&self, last: CommitId) -> Result<()> {
        if self.follows == last {
            return Ok(());
        }
        let (follows, expected) = (self.follows, self.expected);
        Err(Error::conflict(format!(
            "the store has lost commits, in a crash or a failover: this one was made on commit {follows} at txid {expected}, \
             and the head shows {last} there"
        )))
    }
}

impl StageRequest {
    /// Whether it is to be applied to an entry whose last request was `last` (0: there is no entry); else it was before, or a
    /// later one was. `Conflict` when what it rests on is gone.
    pub fn is_due(&self, last: u64) -> Result<bool> {
        if self.sequence <= last {
            return Ok(false);
        }
        if self.after > last { Err(lost_staged(self.after, last)) } else { Ok(true) }
    }
}

impl Staged {
    /// `Conflict` unless the last request that was applied to the entry is the one that the commit names.
    pub fn check_last(&self, last: u64) -> Result<()> {
        if self.last == last { Ok(()) } else { Err(lost_staged(self.last, last)) }
    }
}

fn lost_staged(acknowledged: u64, last: u64) -> Error {
    Error::conflict(format!(
        "the store has lost staged pages, in a crash or a failover: request {acknowledged} was acknowledged, and the last \
         that is there is {last}"
    ))
}

impl CheckpointRequest {
    /// `Conflict` unless it is between the newest completed checkpoint and the head, and rests on one that is there.
    pub fn check_place(&self, newest: Txid, head: Txid) -> Result<()> {
        if self.txid < newest || self.txid > head {
            return Err(Error::conflict(format!(
                "checkpoint {} is not between the newest checkpoint {newest} and the head {head}",
                self.txid
            )));
        }
        if self.since > newest {
            return Err(Error::conflict(format!(
                "the store has lost the checkpoint {}, in a crash or a failover: the newest is {newest}",
                self.since
            )));
        }
        Ok(())
    }
}

/// The pieces of a checkpoint in several that a store has, but for the one that completes it. It keeps the last such
/// one's for each database, also when it is completed.
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
    /// What there is after a request under the epoch of the lease. `newest`: the newest completed checkpoint.
    ///
    /// `Conflict` when it is of an attempt that the holder has given up, since it would come after rows that a later
    /// attempt has read; and, unless the checkpoint is completed already, when a piece before it is not there.
    pub fn with(self, request: &CheckpointRequest, newest: Txid) -> Result<Self> {
        let CheckpointRequest { epoch, attempt, txid, piece, .. } = *request;
        if self.epoch == epoch && self.attempt > attempt {
            return Err(Error::conflict(format!(
                "attempt {attempt} at the checkpoint was given up: attempt {} has begun",
                self.attempt
            )));
        }
        if txid <= newest {
            return Ok(self);
        }
        let same = (self.epoch, self.attempt, self.txid) == (epoch, attempt, txid);
        let count = if same { self.count } else { 0 };
        if piece > count {
            return Err(Error::conflict("the store has lost pieces of the checkpoint, in a crash or a failover"));
        }
        if request.last {
            return Ok(self);
        }
        // One that comes again does not take back those after it.
        Ok(Self { epoch, attempt, txid, count: count.max(piece.saturating_add(1)) })
    }
}
