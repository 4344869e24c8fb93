//! Shared locks and the exclusive one.

use litefleet::store::{HeadReply, SharedLock, SharedRequest};
use litefleet::{DatabaseId, Epoch, Error};
use tokio_postgres::Row;

use super::Inner;
use super::open::{HELD, SESSION_OVER, head_reply, session_over};
use super::outcome::{Asked, done, numbers};
use crate::error::{Fault, Outcome};
use crate::statements::Call;
use crate::wire::{bigint, column, count, id, maybe_bigint, tag};

/// The outcome of `lock_exclusive` that is none of the others': somebody still reads.
const READ: u64 = 18;
/// And the other.
const OVER: u64 = 19;

impl Inner {
    pub(super) async fn lock_shared(&self, request: &SharedRequest) -> Outcome<HeadReply> {
        let SharedRequest { lock, head } = request;
        let params = [
            bigint(head.database.get()),
            id(lock.session.bytes()),
            tag(lock.number),
            bigint(head.known.get()),
            maybe_bigint(head.epoch.map(Epoch::get)),
            count(head.tail_bytes),
        ];
        let rows = self.pool.call_telling(Call::LockShared, &params).await?;
        let first = rows.first().ok_or(Fault::Malformed("no row"))?;
        match column::<i16>(first, 0)? {
            SESSION_OVER => Err(session_over(lock.session).into()),
            HELD => Err(locked("exclusively", column(first, 5)?, column(first, 4)?).into()),
            _ => head_reply(head.database, &rows),
        }
    }

    pub(super) async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Outcome<()> {
        let params = [bigint(database.get()), id(lock.session.bytes()), tag(lock.number)];
        finished(&self.pool.call_telling(Call::UnlockShared, &params).await?, database, Epoch(0))
    }

    pub(super) async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Outcome<()> {
        let params = [bigint(database.get()), bigint(epoch.get())];
        let rows = self.pool.call_telling(Call::LockExclusive, &params).await?;
        match numbers(&rows)?.at(0)? {
            READ => {
                let row = rows.first().ok_or(Fault::Malformed("no row"))?;
                Err(locked("for reading", column(row, 2)?, column(row, 1)?).into())
            }
            OVER => Err(Error::fenced(format!("the session that holds the lease of epoch {epoch} is over")).into()),
            _ => finished(&rows, database, epoch),
        }
    }

    pub(super) async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Outcome<()> {
        let params = [bigint(database.get()), bigint(epoch.get())];
        finished(&self.pool.call_telling(Call::UnlockExclusive, &params).await?, database, epoch)
    }
}

fn finished(rows: &[Row], database: DatabaseId, epoch: Epoch) -> Outcome<()> {
    done(rows, Asked { database, epoch, expected: 0 })?;
    Ok(())
}

/// The name and the label may just have gone.
fn locked(how: &str, name: Option<&str>, by: Option<&str>) -> Error {
    let (name, by) = (name.unwrap_or("the database"), by.unwrap_or("a session that is over"));
    Error::lease_held(format!("{name} is locked {how} by {by}"))
}
