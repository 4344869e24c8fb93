//! What became of a commit whose reply was lost: found out before anything else happens, so that no commit is reported as
//! failed that is done, or may yet be.

use super::commit::COMMIT_TRIES;
use super::core::Lease;
use super::database::Database;
use crate::codec::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{CommitRequest, HeadRequest, LeaseRequest, OpenRequest, Tail};

/// The most bytes of log that come along when an outcome is looked for.
const OUTCOME_TAIL: usize = 64 << 20;

/// What became of a commit whose reply was lost.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// It is done.
    Done,
    /// It never happened and never will.
    Undone,
    /// It is done, and then another process took the lease over, for this reason the database stops.
    DoneThenFenced(Error),
}

impl Database {
    /// Finds out what became of a commit whose reply was lost. An error: it did not happen and the database has stopped,
    /// or it cannot be known now, and the database has stopped. The caller holds `acquiring`.
    pub(super) async fn resolve(&self, request: &CommitRequest) -> Result<Fate> {
        metrics::counter!("litefleet_commits_unknown_total").increment(1);
        match self.resolve_once(request).await {
            Ok(fate) => {
                tracing::info!(database = %self.name, commit = %request.commit_id, ?fate, "unknown outcome resolved");
                Ok(fate)
            }
            Err(error) if error.kind() == ErrorKind::Fenced => Err(self.stop(error)),
            Err(error) => {
                let words = format!(
                    "commit {} at txid {} may or may not have happened, and that cannot be found out now: {}; opening the \
                     database again tells",
                    request.commit_id,
                    request.expected.next(),
                    error.message()
                );
                Err(self.stop(Error::commit_unknown(words).with_source(error)))
            }
        }
    }

    async fn resolve_once(&self, request: &CommitRequest) -> Result<Fate> {
        for _ in 0..COMMIT_TRIES {
            if let Some(fate) = self.outcome(request).await? {
                return Ok(fate);
            }
        }
        Err(Error::commit_unknown("the lease changed hands again and again"))
    }

    /// Looks at the head, and raises the epoch where the commit may still be on its way. `None`: look again.
    async fn outcome(&self, request: &CommitRequest) -> Result<Option<Fate>> {
        let (known, epoch) = (request.expected, request.epoch);
        let ask = HeadRequest { database: request.database, known, epoch: Some(epoch), tail_bytes: OUTCOME_TAIL };
        let reply = self.retry(|| self.fleet.store.head(ask)).await?;
        let head = &reply.head;
        // What the commit was made on may be lost, and something else stand in its place.
        self.check_history(head)?;
        if head.epoch > epoch {
            // A late open of our own may have raised the epoch: the lease is still ours, and was all the time.
            let done = head.txid == known.next() && head.commit_id == request.commit_id;
            if (done || head.txid == known) && self.adopt(head) {
                // The commit is done, whatever becomes of the lease: one that stays is given back later.
                if done
                    && request.release
                    && self.retry(|| self.fleet.store.release(request.database, head.epoch, Vec::new())).await.is_ok()
                {
                    self.core().lease = None;
                }
                return Ok(Some(if done { Fate::Done } else { Fate::Undone }));
            }
            // The epoch is over: what it was is what it will be.
            let done = match (reply.ended, reply.tail) {
                (Some(end), _) => end.txid == known.next() && end.commit_id == request.commit_id,
                (None, Tail::Complete(rows)) => match rows.first() {
                    Some(row) => {
                        let record = Record::decode(request.database, row.txid, &row.record)?;
                        record.body.commit_id == request.commit_id
                    }
                    None => false,
                },
                (None, _) => return Err(Error::commit_unknown("the store no longer knows how the epoch ended")),
            };
            // One that gave the lease back with it has lost nothing.
            if done && request.release {
                return Ok(Some(Fate::Done));
            }
            if done {
                return Ok(Some(Fate::DoneThenFenced(Error::fenced("another process took the lease over"))));
            }
            return Err(Error::fenced("another process took the lease over; the commit did not happen"));
        }
        if reply.head.txid > known {
            // Nobody else writes under our epoch, and nothing else of ours is under way.
            return if reply.head.commit_id == request.commit_id {
                Ok(Some(Fate::Done))
            } else {
                Err(Error::fenced(format!("txid {} is not this commit", reply.head.txid)))
            };
        }
        // It may still be on its way. Under a higher epoch it can no longer take effect.
        let live = self.retry(|| self.fleet.session.ensure()).await?;
        let open = OpenRequest {
            name: reply.name,
            create: false,
            lease: Some(LeaseRequest { session: live.session, force: false }),
            known: Some((request.database, known)),
            tail_bytes: 0,
        };
        let opened = match self.retry(|| self.fleet.store.open(open.clone())).await {
            Err(error) if error.kind() == ErrorKind::LeaseHeld => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.retry(|| self.fleet.session.renew()).await?;
                return Ok(None);
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.fleet.unreturned.perhaps_granted(&open.name, live.session);
                return Err(error);
            }
            opened => opened?,
        };
        if opened.database != request.database {
            self.fleet.unreturned.kept(opened.database, live.session);
            return Err(Error::fenced("the database was deleted"));
        }
        self.core().lease = Some(Lease { epoch: opened.head.epoch, session: live.session });
        self.check_history(&opened.head)?;
        if opened.head.epoch <= epoch {
            // Grants were lost, and this one is no higher than that of the commit.
            return Ok(None);
        }
        if opened.head.txid == known {
            return Ok(Some(Fate::Undone));
        }
        let done = opened.head.txid == known.next() && opened.head.commit_id == request.commit_id;
        // Otherwise another process has held the lease in between: how our epoch ended tells the rest.
        Ok(done.then_some(Fate::Done))
    }
}
