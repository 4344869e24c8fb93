//! What the calls read: the small values of a database, the head, and the tail of the log.

use std::time::Duration;

use futures_util::future::try_join_all;
use litefleet::store::{HeadReply, HeadRequest, Tail};
use litefleet::{DatabaseId, DatabaseName, Error, PageSet, Result, Txid};

use super::FdbStore;
use crate::chunk::Assembler;
use crate::error::Outcome;
use crate::keys::{Keys, Kind};
use crate::knowledge::Core;
use crate::transact::{Pair, Piece, Priority, Step, Tx};
use crate::values::{EpochEndValue, HeadValue, LeaseValue, ProgressValue, StagingValue, Value};

pub(super) fn missing(id: DatabaseId) -> Error {
    Error::not_found(format!("there is no database with id {id}"))
}

/// The small values of a database as they were read, not yet decoded.
pub(super) struct Singles<'r> {
    database: DatabaseId,
    values: Vec<(Kind, &'r Pair)>,
}

impl<'r> Singles<'r> {
    pub(super) fn of(keys: &Keys, database: DatabaseId, pairs: &'r [Pair]) -> Self {
        let values = pairs.iter().filter_map(|pair| keys.kind_in(database, pair.key()).map(|kind| (kind, pair)));
        Self { database, values: values.collect() }
    }

    /// Whether the database does not exist.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn find<T: Value>(&self, kind: Kind) -> Result<Option<T>> {
        let found = self.values.iter().find(|(of, _)| *of == kind);
        found.map(|(_, pair)| T::decode(pair.key(), pair.value())).transpose()
    }

    fn get<T: Value>(&self, kind: Kind) -> Result<T> {
        let lost = || Error::corrupt(format!("{} {} is missing; restore it from a backup", T::WHAT, self.database));
        self.find(kind)?.ok_or_else(lost)
    }

    pub(super) fn core(&self) -> Result<Core> {
        Ok(Core {
            head: self.get::<HeadValue>(Kind::Head)?,
            staging: self.get::<StagingValue>(Kind::Staging)?,
            lease: self.get::<LeaseValue>(Kind::Lease)?,
        })
    }

    pub(super) fn progress(&self) -> Result<ProgressValue> {
        self.get(Kind::Progress)
    }

    /// Whether something that an open needs beside the core is damaged.
    pub(super) fn cannot_be_opened(&self) -> bool {
        self.progress().is_err() || self.warm().is_err()
    }

    pub(super) fn name(&self) -> Result<DatabaseName> {
        let name: String = self.get(Kind::Name)?;
        DatabaseName::new(&name)
    }

    pub(super) fn warm(&self) -> Result<PageSet> {
        Ok(self.find(Kind::Warm)?.unwrap_or_default())
    }
}

/// How many keys of the log's end an open reads before it knows how long the tail is.
const NEWEST_RECORDS: usize = 32;

/// How many records are read one reply after another, where more of them are wanted: small ones fit into one reply.
const STRETCH: u64 = 128;
/// How many such stretches are read at once.
const STRETCHES: u64 = 8;

/// For how long records are read in one transaction: FoundationDB allows five seconds, and a commit may be still to come.
const TIME: Duration = Duration::from_secs(2);

/// Records of the log as they were read.
#[derive(Default)]
pub(super) struct Records {
    assembler: Assembler,
    /// Whether there are more: than were wanted, or than there was time for.
    cut: bool,
}

impl FdbStore {
    /// The first records after `after`, as many as one reply holds, or one: where nobody knows yet how many there are. Few, as
    /// a rule; the others come with [`with_the_rest`](Self::with_the_rest).
    pub(super) async fn first_records(&self, tx: &Tx, database: DatabaseId, after: Txid) -> Outcome<Records> {
        self.stretch(tx, database, after, Txid::MAX, 0, self.cluster.now() + TIME).await
    }

    /// The first records and those that follow them, up to `to`, as many as have `bytes` bytes, or one more.
    pub(super) async fn with_the_rest(
        &self,
        tx: &Tx,
        database: DatabaseId,
        mut first: Records,
        to: Txid,
        bytes: usize,
    ) -> Outcome<Records> {
        let room = bytes.checked_sub(first.assembler.bytes());
        if let (true, Some(last), Some(room)) = (first.cut, first.assembler.last(), room) {
            let rest = self.records(tx, database, last, to, room, first.average()).await?;
            first.append(rest);
        }
        Ok(first)
    }

    /// The records after `after`, up to `to`, as many as have `bytes` bytes, or one more, and as there is time for. `size` is
    /// about what one has, if that is known.
    pub(super) async fn records(
        &self,
        tx: &Tx,
        database: DatabaseId,
        after: Txid,
        to: Txid,
        bytes: usize,
        size: Option<usize>,
    ) -> Outcome<Records> {
        let mut all = Records::default();
        let mut from = after;
        let until = self.cluster.now() + TIME;
        loop {
            // One reply of FoundationDB holds 80 kB: where there is more, as many are asked for at once as are wanted.
            let size = all.average().or(size);
            let room = bytes.saturating_sub(all.assembler.bytes());
            let count = size.map_or(1, |size| room as u64 / (size.max(1) as u64 * STRETCH) + 1).min(STRETCHES);
            let ends = (1..=count).map(|count| Txid(from.get().saturating_add(count * STRETCH)).min(to));
            let mut ends: Vec<Txid> = ends.collect();
            ends.dedup();
            let starts = std::iter::once(from).chain(ends.iter().copied());
            let stretches = starts.zip(&ends).map(|(from, end)| self.stretch(tx, database, from, *end, bytes, until));
            let mut left = ends.len();
            for records in try_join_all(stretches).await? {
                left -= 1;
                all.append(records);
                if all.cut || all.assembler.is_open() || all.assembler.bytes() > bytes {
                    all.cut |= left > 0 || ends.last().is_some_and(|end| *end < to);
                    return Ok(all);
                }
            }
            match ends.last() {
                // The log has no gaps: when less was there than was asked for, it has ended.
                Some(end) if *end < to && all.reaches(*end) => from = *end,
                _ => return Ok(all),
            }
            if self.cluster.now() >= until {
                all.cut = true;
                return Ok(all);
            }
        }
    }

    /// As [`records`](Self::records), one reply after another.
    async fn stretch(
        &self,
        tx: &Tx,
        id: DatabaseId,
        after: Txid,
        to: Txid,
        bytes: usize,
        until: Duration,
    ) -> Outcome<Records> {
        let mut assembler = Assembler::default();
        let mut range = self.keys.log_range(id, after, to);
        loop {
            let piece = tx.peek_range(&range, 0).await?;
            for pair in piece.pairs() {
                let (txid, number) = self.keys.log_in(id, pair.key())?;
                assembler.push(txid, number, pair.value())?;
            }
            // One at the least: so there is no call that gets nowhere.
            let over = assembler.count() > 0 && self.cluster.now() >= until;
            let cut = (over || assembler.bytes() > bytes) && !assembler.is_open();
            match piece.pairs().last() {
                Some(last) if piece.more && !cut => range.0 = crate::keys::after_key(last.key().to_vec()),
                _ => return Ok(Records { assembler, cut: piece.more }),
            }
        }
    }

    /// The end of the log, backwards: as many keys as a tail mostly has.
    pub(super) async fn newest_records(&self, tx: &Tx, database: DatabaseId) -> Outcome<Piece> {
        tx.peek_back(&self.keys.log_range(database, Txid(0), Txid::MAX), NEWEST_RECORDS).await
    }

    /// Of [`newest_records`](Self::newest_records) those after a txid, when they are all that there are.
    pub(super) fn if_it_reaches(&self, database: DatabaseId, newest: &Piece, after: Txid) -> Result<Option<Records>> {
        let oldest = match newest.pairs().last() {
            Some(pair) => Some(self.keys.log_in(database, pair.key())?),
            None => None,
        };
        let whole = !newest.more && newest.pairs().len() < NEWEST_RECORDS;
        if !whole && oldest.is_none_or(|oldest| oldest > (after.next(), 0)) {
            return Ok(None);
        }
        let mut assembler = Assembler::default();
        for pair in newest.pairs().iter().rev() {
            let (txid, piece) = self.keys.log_in(database, pair.key())?;
            if txid > after {
                assembler.push(txid, piece, pair.value())?;
            }
        }
        Ok(Some(Records { assembler, cut: false }))
    }

    pub(super) async fn head_of(&self, request: &HeadRequest) -> Result<HeadReply> {
        let done = self.cluster.run("head", Priority::Normal, |tx, _| self.try_head(tx, request)).await?;
        Ok(done.value)
    }

    async fn try_head(&self, tx: Tx, request: &HeadRequest) -> Outcome<Step<HeadReply>> {
        self.look(&tx, request).await.map(|(_, reply)| Step::Return(reply))
    }

    /// What a call tells of a head, and what every write is conditional on. Without a conflict.
    pub(super) async fn look(&self, tx: &Tx, request: &HeadRequest) -> Outcome<(Core, HeadReply)> {
        let database = request.database;
        let range = self.keys.singles(database);
        let end = async {
            match request.epoch {
                Some(epoch) => tx.peek::<EpochEndValue>(&self.keys.epoch_end(database, epoch)).await,
                None => Ok(None),
            }
        };
        let (values, records, end) =
            futures_util::try_join!(tx.peek_all(&range), self.first_records(tx, database, request.known), end)?;
        let singles = Singles::of(&self.keys, database, &values);
        if singles.is_empty() {
            return Err(missing(database).into());
        }
        let (core, progress) = (singles.core()?, singles.progress()?);
        let ended = end.filter(|_| request.epoch.is_some_and(|epoch| epoch < core.lease.epoch));
        self.knowledge.telling(database, tx.read_version().await?);
        let records = self.with_the_rest(tx, database, records, core.head.txid, request.tail_bytes).await?;
        let reply = HeadReply {
            name: singles.name()?,
            head: core.public(&progress),
            tail: tail(records, request.known, core.head.txid, &progress, request.tail_bytes)?,
            ended: ended.map(|found| found.end),
        };
        Ok((core, reply))
    }
}

/// The tail after a txid.
pub(super) fn tail(records: Records, after: Txid, head: Txid, progress: &ProgressValue, bytes: usize) -> Result<Tail> {
    if after < progress.log_start || after > head {
        return Ok(Tail::Reload);
    }
    if records.cut || records.assembler.bytes() > bytes {
        return Ok(Tail::Truncated);
    }
    let found = records.assembler.count() as u64;
    if records.assembler.is_open() || found != head.get() - after.get() {
        return Err(Error::corrupt(format!(
            "the log has {found} records after txid {after}, and the head is at {head}; restore the database from a backup"
        )));
    }
    Ok(Tail::Complete(records.assembler.rows()))
}

impl Records {
    /// Takes the records that follow.
    fn append(&mut self, next: Self) {
        self.assembler.append(next.assembler);
        self.cut = next.cut;
    }

    /// The bytes of one, on average.
    fn average(&self) -> Option<usize> {
        self.assembler.bytes().checked_div(self.assembler.count())
    }

    /// Whether this is the last of them.
    fn reaches(&self, txid: Txid) -> bool {
        self.assembler.last() == Some(txid)
    }

    /// The records when they are wanted as they are: whole ones, in order, no more than `bytes` unless it is one.
    pub(super) fn within(self, bytes: usize) -> Vec<litefleet::store::LogRow> {
        let mut sum = 0;
        let mut rows = self.assembler.rows();
        let fit = rows.iter().take_while(|row| {
            sum += row.record.len();
            sum <= bytes
        });
        let count = fit.count().max(1);
        rows.truncate(count);
        rows
    }
}
