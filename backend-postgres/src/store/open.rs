//! Opening, releasing, and the head.

use std::time::Duration;

use litefleet::store::{EpochEnd, Head, HeadReply, HeadRequest, Holder, LogRow, OpenRequest, Opened, ReadRow, Tail};
use litefleet::{CommitId, DatabaseId, DatabaseName, Epoch, Error, PageNo, PageSet, SessionId, Txid};
use tokio_postgres::Row;

use super::Inner;
use super::outcome::{Asked, done};
use super::rows::{Stored, push};
use crate::error::{Fault, Outcome};
use crate::statements::Call;
use crate::wire::{Blob, Id, Numbers, Param, bigint, bigints, boolean, column, count, maybe_bigint, maybe_id, text};

/// The sorts of rows that `open` and `head` answer with.
const HEAD: i16 = 0;
const RECORD: i16 = 1;
const PAGE: i16 = 2;
const EPOCH_END: i16 = 3;
const NOT_FOUND: i16 = 10;
pub(super) const SESSION_OVER: i16 = 11;
pub(super) const HELD: i16 = 12;

/// An answer of `open` or `head`, put together.
struct Reply {
    database: DatabaseId,
    created: bool,
    name: DatabaseName,
    head: Head,
    tail: Tail,
    warm: Vec<ReadRow>,
    ended: Option<EpochEnd>,
}

impl Inner {
    pub(super) async fn open(&self, request: &OpenRequest) -> Outcome<Opened> {
        let session = request.lease.map(|lease| lease.session);
        let known = request.known;
        let params = [
            text(request.name.as_str()),
            boolean(request.create),
            maybe_id(session.map(SessionId::bytes)),
            boolean(request.lease.is_some_and(|lease| lease.force)),
            maybe_bigint(known.map(|(database, _)| database.get())),
            maybe_bigint(known.map(|(_, txid)| txid.get())),
            count(request.tail_bytes),
        ];
        let rows = self.pool.call(Call::Open, &params).await?;
        let first = rows.first().ok_or(Fault::Malformed("no row"))?;
        let name = &request.name;
        match column::<i16>(first, 0)? {
            NOT_FOUND => Err(Error::not_found(format!("there is no database named {name}")).into()),
            SESSION_OVER => Err(session_over(session.unwrap_or_default()).into()),
            HELD => {
                let label: Option<String> = column(first, 4)?;
                let left = Duration::from_micros(Numbers::of(first, 1)?.at(0)?);
                let (label, left) = (label.unwrap_or_default(), left.as_secs_f64());
                let words = format!("{name} is held by {label} for at least {left:.1} s more unless it is released");
                Err(Error::lease_held(words).into())
            }
            _ => {
                let Reply { database, created, head, tail, warm, .. } = Reply::of(&rows)?;
                Ok(Opened { database, created, head, tail, warm })
            }
        }
    }

    pub(super) async fn head(&self, request: &HeadRequest) -> Outcome<HeadReply> {
        let params = [
            bigint(request.database.get()),
            bigint(request.known.get()),
            maybe_bigint(request.epoch.map(Epoch::get)),
            count(request.tail_bytes),
        ];
        let call = if request.epoch.is_some() { Call::SettledHead } else { Call::Head };
        head_reply(request.database, &self.pool.call(call, &params).await?)
    }

    pub(super) async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Outcome<()> {
        let params = [bigint(database.get()), bigint(epoch.get()), warm_pages(&warm)];
        let rows = self.pool.call(Call::Release, &params).await?;
        done(&rows, Asked { database, epoch, expected: 0 })?;
        Ok(())
    }
}

/// What is said of the head, where it is there.
pub(super) fn head_reply(database: DatabaseId, rows: &[Row]) -> Outcome<HeadReply> {
    let first = rows.first().ok_or(Fault::Malformed("no row"))?;
    if column::<i16>(first, 0)? == NOT_FOUND {
        return Err(Error::not_found(format!("there is no database with id {database}")).into());
    }
    let Reply { name, head, tail, ended, .. } = Reply::of(rows)?;
    Ok(HeadReply { name, head, tail, ended })
}

pub(super) fn session_over(session: SessionId) -> Error {
    Error::fenced(format!("session {session} has expired or was never started"))
}

impl Reply {
    fn of(rows: &[Row]) -> Outcome<Self> {
        let (first, rest) = rows.split_first().ok_or(Fault::Malformed("no row"))?;
        let numbers = Numbers::of(first, 1)?;
        if column::<i16>(first, 0)? != HEAD {
            return Err(Fault::Malformed("the head is missing"));
        }
        let database = DatabaseId(numbers.at(0)?);
        let (mut log, mut warm, mut ended) = (Vec::new(), Vec::new(), None);
        for row in rest {
            let numbers = Numbers::of(row, 1)?;
            let bytes = |index| column::<Option<Blob>>(row, index).map(|blob| blob.map(|Blob(bytes)| bytes));
            match column::<i16>(row, 0)? {
                RECORD => log.push(LogRow { txid: Txid(numbers.at(0)?), record: bytes(6)?.unwrap_or_default() }),
                PAGE => {
                    let stored = Stored {
                        page: numbers.at(0)?,
                        txid: numbers.at(1)?,
                        kind: i16::try_from(numbers.at(2)?).map_err(|_| Fault::Malformed("a kind of row"))?,
                        base: numbers.maybe(3)?,
                        bytes: bytes(6)?.unwrap_or_default(),
                    };
                    push(database, stored, bytes(7)?, &mut warm)?;
                }
                EPOCH_END => {
                    let commit_id = commit_id(row)?;
                    ended = Some(EpochEnd { epoch: Epoch(numbers.at(0)?), txid: Txid(numbers.at(1)?), commit_id });
                }
                _ => return Err(Fault::Malformed("a row of no known sort")),
            }
        }
        let tail = match numbers.at(9)? {
            0 => Tail::Complete(log),
            1 => Tail::Truncated,
            _ => Tail::Reload,
        };
        let head = head(
            [numbers.at(2)?, numbers.at(3)?, numbers.at(4)?, numbers.at(5)?, numbers.at(6)?, numbers.at(7)?],
            numbers.at(8)? != 0,
            numbers.at(10)?,
            commit_id(first)?,
            column::<Option<Id>>(first, 3)?,
            column::<Option<String>>(first, 4)?,
        );
        // Ends of epochs that are not over are not asked for; one that is later than the caller's head cannot be.
        let ended = ended.filter(|end| end.epoch < head.epoch);
        let name = DatabaseName::new(column(first, 5)?)?;
        Ok(Self { database, created: numbers.at(1)? != 0, name, head, tail, warm, ended })
    }
}

/// Warm pages, each once.
pub(super) fn warm_pages(warm: &[PageNo]) -> Param {
    let pages: PageSet = warm.iter().copied().collect();
    bigints(pages.pages().map(|page| page.get().into()))
}

fn commit_id(row: &Row) -> Outcome<CommitId> {
    Ok(CommitId(column::<Option<Id>>(row, 2)?.ok_or(Fault::Malformed("a commit id is missing"))?.0))
}

/// A head of its columns: epoch, txid, size, checkpoint, horizon, generation.
pub(super) fn head(
    [epoch, txid, size, checkpoint, horizon, generation]: [u64; 6],
    staged: bool,
    left_micros: u64,
    commit_id: CommitId,
    holder: Option<Id>,
    label: Option<String>,
) -> Head {
    let holder = holder.map(|Id(session)| Holder {
        session: SessionId(session),
        label: label.unwrap_or_default(),
        expires_in: Some(Duration::from_micros(left_micros)),
    });
    Head {
        epoch: Epoch(epoch),
        holder,
        txid: Txid(txid),
        commit_id,
        size,
        checkpoint: Txid(checkpoint),
        horizon: Txid(horizon),
        generation,
        staged,
    }
}
