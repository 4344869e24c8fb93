//! What goes into a store and what comes back: plain values.

use std::time::Duration;

use bytes::Bytes;

use crate::error::Result;
use crate::types::{CommitId, DatabaseId, DatabaseName, Epoch, PageNo, PageRange, SessionId, Txid, UnixMillis};

/// Starts a session.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    /// Random, never used before.
    pub session: SessionId,
    /// Who this is, for people: host name and process id.
    pub label: String,
    /// How long it lives after each renewal.
    pub lifetime: Duration,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The session it is bound to.
    pub session: SessionId,
    /// The session's label.
    pub label: String,
    /// How long the session still lives by the store's clock; zero when it has expired. `None` for a store without a
    /// clock.
    pub expires_in: Option<Duration>,
}

/// What is true of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The current epoch.
    pub epoch: Epoch,
    /// Who holds the lease, if anyone. A holder whose session has expired is still named.
    pub holder: Option<Holder>,
    /// The last commit.
    pub txid: Txid,
    /// The last commit's id; zeros for the empty database.
    pub commit_id: CommitId,
    /// Bytes of the database file.
    pub size: u64,
    /// The newest completed checkpoint.
    pub checkpoint: Txid,
    /// Snapshots below it cannot be read any more.
    pub horizon: Txid,
    /// The staging generation.
    pub generation: u64,
    /// Whether a staging entry exists.
    pub staged: bool,
}

/// Asks for the lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest {
    /// The session to bind it to.
    pub session: SessionId,
    /// Take it over even from a live session, which ends by that.
    pub force: bool,
}

/// Opens a database.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Its name.
    pub name: DatabaseName,
    /// Create it when it does not exist.
    pub create: bool,
    /// Take the lease.
    pub lease: Option<LeaseRequest>,
    /// The state that the caller already has. Ignored when the name now means another database.
    pub known: Option<(DatabaseId, Txid)>,
    /// The most bytes of log records to return.
    pub tail_bytes: usize,
}

/// A commit record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// The transaction it commits.
    pub txid: Txid,
    /// The encoded record.
    pub record: Bytes,
}

/// The end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// All the records, in order.
    Complete(Vec<LogRow>),
    /// More bytes than asked for: read them with [`read_log`](super::PageStore::read_log).
    Truncated,
    /// Records after the known txid are gone: start again from the checkpoint.
    Reload,
}

/// What an open returns.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The database.
    pub database: DatabaseId,
    /// Whether this call created it.
    pub created: bool,
    /// Its head, after the grant when a lease was asked for.
    pub head: Head,
    /// The log after the checkpoint, or after the known txid.
    pub tail: Tail,
    /// The newest rows at or below the checkpoint of the warm pages, with their bases, in the order of
    /// [`read_pages`](super::PageStore::read_pages).
    pub warm: Vec<ReadRow>,
}

/// Asks for the head.
#[derive(Clone, Copy, Debug)]
pub struct HeadRequest {
    /// The database.
    pub database: DatabaseId,
    /// The caller has everything up to here.
    pub known: Txid,
    /// The caller's epoch, to learn how it ended; `None` for a follower.
    pub epoch: Option<Epoch>,
    /// The most bytes of log records to return.
    pub tail_bytes: usize,
}

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: Epoch,
    /// The last commit under it or before it.
    pub txid: Txid,
    /// That commit's id.
    pub commit_id: CommitId,
}

/// What a head request returns.
#[derive(Clone, Debug)]
pub struct HeadReply {
    /// The database's name now.
    pub name: DatabaseName,
    /// The head.
    pub head: Head,
    /// The records after the known txid.
    pub tail: Tail,
    /// How the caller's epoch ended, when it has and the store still knows.
    pub ended: Option<EpochEnd>,
}

/// A lock that a process has for those of its connections that read a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedLock {
    /// The session that it is bound to.
    pub session: SessionId,
    /// Tells it from others of the session: a number that was not used in it for another lock of the database, so that a call
    /// that arrives late changes no other one.
    pub number: u64,
}

/// Asks for a shared lock, and for the head.
#[derive(Clone, Copy, Debug)]
pub struct SharedRequest {
    /// The lock.
    pub lock: SharedLock,
    /// The database, and what is asked of its head.
    pub head: HeadRequest,
}

/// One database of a lineage: itself, or an ancestor up to a txid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The database.
    pub database: DatabaseId,
    /// Rows and records above do not count.
    pub max_txid: Txid,
}

/// What a page row holds. The store needs it to keep bases and to drop zeros; the engine encodes it too, and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// The whole image.
    Image,
    /// The difference to the image row of the same page at this older txid.
    Delta {
        /// The txid of the base. The base is always an [`Image`](RowKind::Image).
        base: Txid,
    },
    /// All zeros, like a page that has no row.
    Zero,
}

/// The image of one page as of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRow {
    /// The page.
    pub page: PageNo,
    /// The transaction.
    pub txid: Txid,
    /// What the bytes are.
    pub kind: RowKind,
    /// The encoded row.
    pub bytes: Bytes,
}

/// A row, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRow {
    /// The database of the lineage that it was found in.
    pub database: DatabaseId,
    /// The row.
    pub row: PageRow,
}

/// What a reading of pages returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesReply {
    /// The rows.
    pub rows: Vec<ReadRow>,
    /// The horizon under which they were read, the largest of the lineage's databases: a page without a row is zeros as
    /// of it.
    pub horizon: Txid,
    /// The newest completed checkpoint of the first of them, under which they were read: pages that changed up to there
    /// have rows that say so.
    pub checkpoint: Txid,
    /// The head's txid of the first of them, when they were read: rows that were staged up to there are there. `None` from a
    /// store that did not look, since it never answers as of a time before one that it has told of.
    pub head: Option<Txid>,
}

/// One commit.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The database.
    pub database: DatabaseId,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// What the head's txid must be; the record goes to the next one.
    pub expected: Txid,
    /// What the head's commit id must be: the commit that this one was made on, at `expected`; zeros on the empty database.
    pub follows: CommitId,
    /// Unique to this attempt.
    pub commit_id: CommitId,
    /// Bytes of the database file after it.
    pub size: u64,
    /// The encoded record.
    pub record: Bytes,
    /// The staged rows that become visible with it. `None` asserts that no staging entry exists.
    pub staged: Option<Staged>,
    /// Give the lease back with it.
    pub release: bool,
}

/// What a commit rests on of what was staged: all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The staging generation.
    pub generation: u64,
    /// The sequence of its last request, which was acknowledged.
    pub last: u64,
}

/// Writes rows of an open large transaction.
#[derive(Clone, Debug)]
pub struct StageRequest {
    /// The database.
    pub database: DatabaseId,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// What the head's txid must be; the rows go to the next one.
    pub expected: Txid,
    /// The staging generation, from the head or the last discard.
    pub generation: u64,
    /// Grows from each request of the generation to the next, from 1.
    pub sequence: u64,
    /// The sequence of the last request of the generation that was acknowledged; 0 when none was. Below `sequence`.
    pub after: u64,
    /// The rows: images or zeros, no deltas, at txid `expected` + 1; no page twice.
    pub rows: Vec<PageRow>,
}

/// Discards what was staged.
#[derive(Clone, Copy, Debug)]
pub struct DiscardRequest {
    /// The database.
    pub database: DatabaseId,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// What the head's txid must be.
    pub expected: Txid,
    /// The staging generation that ends, from the head; the same in each call until it is done.
    pub generation: u64,
    /// The most rows to delete in this call.
    pub limit: usize,
}

/// What a discard did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// The staging generation from now on.
    pub generation: u64,
    /// Whether everything is gone; else call again.
    pub done: bool,
}

/// Writes rows of a checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointRequest {
    /// The database.
    pub database: DatabaseId,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// The checkpoint: all rows have this txid.
    pub txid: Txid,
    /// The completed checkpoint that it rests on: pages that did not change since then get no row.
    pub since: Txid,
    /// Which attempt at a checkpoint it is under this epoch: a larger number than any before.
    pub attempt: u64,
    /// How many pieces of this attempt came before this one and were acknowledged.
    pub piece: u64,
    /// The rows; no page twice.
    pub rows: Vec<PageRow>,
    /// Marks the checkpoint as completed.
    pub last: bool,
    /// The time of completion, kept with the checkpoint for retention.
    pub time: UnixMillis,
    /// With `last`: the pages that the next open should get along with it, when there are any.
    pub warm: Vec<PageNo>,
}

/// Collects garbage.
#[derive(Clone, Debug)]
pub struct CollectRequest {
    /// The database.
    pub database: DatabaseId,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// The oldest snapshot in use, or any later txid.
    pub at_most: Txid,
    /// Only checkpoints that were completed by then count.
    pub completed_before: UnixMillis,
    /// The pages whose dead rows are deleted.
    pub pages: Vec<PageRange>,
    /// The log records to delete, as far as the horizon allows.
    pub log_through: Txid,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The horizon now.
    pub horizon: Txid,
    /// All records after this txid are still there.
    pub log_start: Txid,
    /// Rows deleted.
    pub rows: u64,
    /// Records deleted.
    pub records: u64,
}

/// A line of a listing.
#[derive(Clone, Debug)]
pub struct ListEntry {
    /// The name.
    pub name: DatabaseName,
    /// The id, where it can be read: also when the head is damaged.
    pub database: Option<DatabaseId>,
    /// What it means; `Corrupt` where that is damaged. It is one database's misfortune: the others are listed.
    pub state: Result<Listed>,
}

/// A database as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id.
    pub database: DatabaseId,
    /// The head.
    pub head: Head,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Rows and records removed, or somewhat more: work that has removed none of them may count as one. With 0, and something
    /// left, the call got no further.
    pub removed: u64,
    /// Whether nothing is left to remove.
    pub done: bool,
}
