//! The store: where databases live. [`PageStore`] is the contract that every back end keeps.
//!
//! A store knows nothing of SQLite. It keeps, for each database, one *head* (what is true), a *log* of commit records,
//! and *page rows* (the image of one page as of one transaction). Records and rows are opaque bytes to it: the engine
//! encodes them with a version and a checksum, and checks them whenever they come back.
//!
//! Each clause of the contract names the conformance case that proves it, as `case: name`; the crate
//! `litefleet-conformance` turns every case into a test of every back end.

mod basis;
pub mod deadline;
mod layers;
mod limits;
mod locks;
mod memory;
mod model;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod sockets;

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;
use crate::types::{DatabaseId, DatabaseName, Epoch, PageNo, PageRange, SessionId, Txid};

pub use basis::Pieces;
pub use layers::{
    Call, Deferred, Effect, Fault, FaultLayer, FaultPlan, Interceptor, Latency, LatencyLayer, Layer, Metered,
    MetricsLayer, Operation, OperationCounts, StoreCounters, Verdict,
};
pub use limits::StoreLimits;
pub use locks::SharedLocks;
pub use memory::MemoryStore;
#[cfg(test)]
pub(crate) use memory::Standby;
pub use model::{
    CheckpointRequest, CollectRequest, Collected, CommitRequest, DiscardRequest, Discarded, EpochEnd, Head, HeadReply,
    HeadRequest, Holder, LeaseRequest, Lineage, ListEntry, Listed, LogRow, OpenRequest, Opened, PageRow, PagesReply,
    Purged, ReadRow, RowKind, SessionRequest, SharedLock, SharedRequest, StageRequest, Staged, Tail,
};

/// Whether the commits of one call stand or fall together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// Each commit is judged alone: one that fails its condition does not touch the others.
    Independent,
    /// All or none: when one fails its condition none takes effect, and each of the others reports `Conflict`.
    Atomic,
}

/// A store of databases. Every method is one exchange with the store, unless it says otherwise.
///
/// **Kinds that any method may return:** `Unavailable` when the store cannot be reached, `Full` when there is no room
/// and nothing was changed, `Corrupt` when the store's own structures fail their checks, `Internal` for a defect.
/// After `Unavailable` any method can be called again with the same arguments and then does what it would have done
/// once, even if the first call did reach the store; only [`delete`](Self::delete) may then say `NotFound` (case:
/// `repeated_calls_do_no_harm`). [`commit`](Self::commit) promises more: `Unavailable` means that it certainly took no effect, and a lost reply is `CommitUnknown`.
///
/// **Fencing.** Every method that takes an `epoch` is serialised with [`open`](Self::open)'s grant of a lease to
/// somebody else, in the same store transaction. When the database's epoch is not the one given it returns `Fenced` and
/// changes nothing, whatever the clocks say (case: `every_write_is_fenced`).
///
/// **Deleted databases.** Every method that names a database by id returns `NotFound` after it was deleted (case:
/// `deleted_database_is_unreadable`).
///
/// **Time.** How long a call may take is the store's own setting; where the caller says until when it waits
/// ([`deadline`]), a store that tries again by itself should give up then, as it does when its own time is over.
///
/// **Cancelling.** A future that is dropped before it is ready leaves its effect unknown, and nothing locked (case:
/// `dropped_calls_leave_nothing_locked`) but what [`lock_shared`](Self::lock_shared) and [`lock_exclusive`](Self::lock_exclusive)
/// are for.
#[async_trait]
pub trait PageStore: Debug + Send + Sync + 'static {
    /// The bounds that callers must keep to. Constant for the life of the store.
    fn limits(&self) -> StoreLimits;

    /// How many calls of [`commit`](Self::commit) under way at a time serve a process best that has many databases. A store
    /// that works on one at a time says 1, as this does: then a batch is as large as it can be.
    fn commit_calls(&self) -> usize {
        1
    }

    /// Starts a session: the record that leases are bound to.
    ///
    /// Precondition: the id was never used. Starting it again before it ends is a renewal. `Invalid` when it has
    /// expired or ended (case: `session_cannot_come_back`).
    async fn start_session(&self, request: SessionRequest) -> Result<()>;

    /// Extends a session by its lifetime from now, by the store's clock.
    ///
    /// `Fenced` when it has expired or ended: it can never be renewed again, and every database must be opened again
    /// under a new session (case: `expired_session_is_not_renewed`). So it is when the store does not know the session:
    /// it may have been forgotten (case: `unknown_session_is_fenced`).
    async fn renew_session(&self, session: SessionId) -> Result<()>;

    /// Ends a session; all its leases are free at once (case: `ended_session_frees_its_leases`). Whether it can still
    /// write under their epochs until the next grant is left to the store. Ending an unknown session is no error.
    async fn end_session(&self, session: SessionId) -> Result<()>;

    /// Finds a database by name, or creates it (`create`), takes the lease when asked for one, and returns the head,
    /// the log after the newest completed checkpoint, and the rows of the warm pages: all as of one moment (case:
    /// `open_is_one_moment`).
    ///
    /// - `NotFound` when there is none and `create` is false (case: `open_without_create_finds_nothing`).
    /// - Two concurrent creations of one name make one database (case: `concurrent_creates_make_one`).
    /// - A lease is granted when nobody holds it, its holder's session has expired or ended, the asking session holds
    ///   it itself, or by `force`, which ends the holder's session in the same store transaction, or in one before it that
    ///   frees the lease as well: the deposed process learns of it at its next renewal, and its other leases are free
    ///   (case: `force_ends_the_holders_session`). Each grant raises the epoch by at least 1 (case: `each_grant_raises_the_epoch`), and
    ///   keeps the old epoch's last txid and commit id for at least a day (case: `epoch_end_is_kept`). Otherwise
    ///   `LeaseHeld`, and the message says who holds it and until when (case: `held_lease_is_refused`). `Fenced`, and
    ///   nothing is created, when the asking session has expired or ended or is unknown (case:
    ///   `expired_session_gets_no_lease`).
    /// - With `known`, the log after that txid instead of the log after the checkpoint, and no warm pages; or
    ///   [`Tail::Reload`] when records of it are gone (case: `open_with_known_txid`).
    /// - A tail of more than `tail_bytes`, or one that the store would read for too long, is [`Tail::Truncated`]: the caller reads it with
    ///   [`read_log`](Self::read_log) (case: `long_tail_is_truncated`).
    async fn open(&self, request: OpenRequest) -> Result<Opened>;

    /// Gives a lease back, and stores which pages the next open should get along with it, unless there are none: then
    /// those that were stored before stay (case: `warm_pages_come_with_the_open`). The epoch stays as it is until the next grant: a write of the old holder that
    /// arrives late is `Fenced` all the same, but releasing again succeeds and changes nothing (case:
    /// `released_epoch_cannot_write`).
    async fn release(&self, database: DatabaseId, epoch: Epoch, warm: Vec<PageNo>) -> Result<()>;

    /// The head, and the log records after `known`, as of one moment, or [`Tail::Reload`] when some of them are gone
    /// (case: `head_brings_what_is_new`). When the head's epoch is above `epoch`, also how `epoch` ended (case:
    /// `epoch_end_is_kept`). Needs no lease.
    ///
    /// Whoever gives an `epoch` asks what became of a commit, and believes the answer: with it, what is told is as
    /// durable as an acknowledged commit. A store where a commit can be seen before that waits until it is
    /// (`backend-postgres/tests/standby.rs`).
    async fn head(&self, request: HeadRequest) -> Result<HeadReply>;

    /// Locks the database for reading, as SQLite's SHARED does: until the lock is given back with
    /// [`unlock_shared`](Self::unlock_shared), or its session has expired or ended, no other session's
    /// [`lock_exclusive`](Self::lock_exclusive) is granted (cases: `shared_lock_keeps_the_writer_out`,
    /// `locks_end_with_their_session`). Nothing else asks for
    /// these locks: they are for those who have agreed on them, and no read or commit depends on them (case:
    /// `locks_bind_those_who_ask_for_them`). Returns the head as [`head`](Self::head) does, as of a moment of the call: what was
    /// committed under an exclusive lock before the grant is in it (cases: `shared_lock_comes_with_the_head`, `head_of_a_shared_lock_stands_still`).
    ///
    /// - `LeaseHeld` while another session, which lives, has locked exclusively, and the message says who (case:
    ///   `exclusive_lock_keeps_new_readers_out`). But a session that has a shared lock of the database already gets more of them
    ///   (case: `shared_lock_lets_in_others_of_its_session`).
    /// - `Fenced` when the session has expired or ended or is unknown (case: `expired_session_gets_no_shared_lock`).
    /// - A lock that is there already stays one (case: `shared_locks_are_counted_by_number`).
    ///
    /// After `LeaseHeld`, `Fenced` and `NotFound` there is no lock, unless it was there before; after any other error there may be
    /// one, as there may be one when a request arrives that had no answer.
    async fn lock_shared(&self, request: SharedRequest) -> Result<HeadReply>;

    /// Gives a shared lock back. One that is not there is no error (case: `shared_locks_are_counted_by_number`). Those that nobody
    /// gives back are forgotten, some time after their session has ended: by [`lock_exclusive`](Self::lock_exclusive) or
    /// [`purge`](Self::purge).
    async fn unlock_shared(&self, database: DatabaseId, lock: SharedLock) -> Result<()>;

    /// The holder of the lease locks the database exclusively. On condition of the epoch, and `Fenced` as well where the holder's
    /// session is over, whether or not somebody else has the lease (case: `exclusive_lock_ends_with_the_lease`).
    ///
    /// From then on, other sessions get no shared lock, also when the answer is `LeaseHeld`: another session that lives has one,
    /// which the message names. That is SQLite's PENDING: the holder asks again until they are gone, and no new ones have come
    /// (case: `exclusive_lock_keeps_new_readers_out`). Of two that ask at the same time, one for a shared lock and one for the
    /// exclusive one, one at most is granted (case: `shared_and_exclusive_race`).
    ///
    /// It ends with [`unlock_exclusive`](Self::unlock_exclusive), and with the lease, however that ends: given back, with a
    /// commit too, granted anew, or with its session (case: `exclusive_lock_ends_with_the_lease`).
    async fn lock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()>;

    /// The holder of the lease lets others lock the database again. On condition of the epoch (case:
    /// `exclusive_lock_ends_with_the_lease`).
    async fn unlock_exclusive(&self, database: DatabaseId, epoch: Epoch) -> Result<()>;

    /// For each page the newest row at or below `snapshot`, with its txid, and, when that row is a delta, the row it
    /// is based on too. Pages without a row are left out of the reply: they are holes (case: `newest_row_wins`).
    ///
    /// - `lineage` names the database first, then its ancestors, each with the largest txid that counts. The first
    ///   entry that has a row for the page decides (case: `lineage_falls_through`).
    /// - Rows come in order of page, each page once, whatever the order of the ranges and however they overlap (case:
    ///   `rows_come_in_order_of_page`); a base follows its delta (case: `delta_brings_its_base`).
    /// - A holder may read its own staged rows by a snapshot one above the head's txid (case:
    ///   `staged_rows_are_visible_above_the_head_only`).
    /// - `SnapshotTooOld` when the snapshot is below the horizon, checked in the same store transaction (case:
    ///   `read_below_the_horizon_fails`). That horizon comes with the rows: a hole is zeros as of it, and of no other
    ///   that the caller may have heard of before or since (cases: `rows_come_with_their_horizon`,
    ///   `holes_race_with_collection`).
    /// - The newest completed checkpoint of the database itself comes with them too, and the head's txid, from the same store
    ///   transaction: a caller that has heard of later ones was answered by a server that has lost them, or is behind, and rows
    ///   are missing among these (case: `rows_come_with_their_checkpoint`).
    /// - `Invalid` when the ranges hold more than [`StoreLimits::read_pages`] pages (case: `limits_are_enforced`).
    async fn read_pages(&self, lineage: &[Lineage], pages: &[PageRange], snapshot: Txid) -> Result<PagesReply>;

    /// Commits: for each request, if the head's epoch, txid and commit id are the ones given, puts the record at txid + 1,
    /// and sets the head's txid, commit id and size; with `release` it also gives the lease back (case:
    /// `commit_can_release`). One store transaction for the whole call where the store's limits allow it.
    ///
    /// The outer result is about the call as a whole: `Unavailable` (nothing took effect), `CommitUnknown` (anything
    /// may have). The inner ones, in order of the requests, are about each commit:
    /// - `Fenced`: the epoch is not the current one, or the lease was released.
    /// - `Conflict`: the txid is not the current one (case: `commit_needs_the_expected_txid`), the commit there is not the one
    ///   that the request was made on, all 16 bytes of its id (case: `commit_needs_the_commit_before_it`), a staging entry exists
    ///   that is not the request's own (case: `foreign_staging_blocks_commit`), the last request that was applied to its
    ///   own is not the one that it names (case: `lost_chunk_blocks_the_commit`), or, in an atomic call, another
    ///   request failed (case: `atomic_commit_is_all_or_none`).
    /// - `Invalid`: the record is over [`StoreLimits::record_bytes`] (case: `limits_are_enforced`), or another request
    ///   of the call names the same database: then none of those takes effect (case:
    ///   `naming_a_database_twice_is_invalid`).
    ///
    /// In [`CommitMode::Independent`] none fails for another's reason (case: `independent_commits_fail_alone`). An
    /// atomic call of more than [`StoreLimits::atomic_databases`] databases or [`StoreLimits::atomic_bytes`] bytes is
    /// `Invalid` as a whole (case: `atomic_limits_are_enforced`).
    ///
    /// The commit before it differs where the store has lost commits that were acknowledged, as a failover may do, and with
    /// them a grant: then two processes hold one epoch, and are told from each other by this alone. A head without a commit
    /// shows zeros (case: `new_database_is_empty`).
    ///
    /// A commit that is repeated with the same commit id and expected txid, under the same epoch, when it already is
    /// the head's last, succeeds and changes nothing, also when it released the lease (cases:
    /// `commit_is_idempotent_by_id`, `staged_commit_is_idempotent_by_id`).
    ///
    /// An acknowledged commit is durable as the store promises, and every later call sees it (cases:
    /// `acknowledged_commit_is_seen_by_all`, `acknowledged_commits_survive`).
    async fn commit(&self, requests: Vec<CommitRequest>, mode: CommitMode) -> Result<Vec<Result<()>>>;

    /// Waits until the head's txid is above `known`, and returns it; at once when it is already. After a time of the
    /// store's choosing, a few seconds at the most, it may return a txid that is not: then the caller calls again
    /// (case: `watch_tells_of_commits`). `NotFound` when the database is deleted meanwhile, too (case:
    /// `watch_ends_with_the_database`). Needs no lease.
    async fn watch(&self, database: DatabaseId, known: Txid) -> Result<Txid>;

    /// The commit records after `after`, up to `to`, in order and without a gap (case: `log_has_no_gap`), as many of
    /// them as fit in about [`StoreLimits::log_bytes`], at least one: the caller asks again from the last it got. `to` is
    /// at most the head's txid. Records up to an ancestor's `max_txid` come from the ancestor, those above from the
    /// database before it in the lineage (case: `log_falls_through_the_lineage`). `SnapshotTooOld` when records of the
    /// range are gone (case: `collected_log_is_refused`).
    async fn read_log(&self, lineage: &[Lineage], after: Txid, to: Txid) -> Result<Vec<LogRow>>;

    /// Writes rows of an open large transaction at txid + 1, and lists them under the staging entry, which the first
    /// call creates. On condition of epoch, txid, and the staging generation: another generation is `Conflict`, so a
    /// request that arrives after a discard does nothing (case: `late_stage_is_refused`). Staging a page again replaces
    /// its row (case: `restaging_replaces`). A request whose sequence is not above the largest that was applied under
    /// the generation succeeds and changes nothing, so that one that arrives late, or twice, undoes no later one (case:
    /// `stage_requests_keep_their_order`). `Invalid` when there are more than [`StoreLimits::write_rows`] rows (case:
    /// `limits_are_enforced`), one is a delta or of another txid, or two are of one page (case:
    /// `rows_that_cannot_be_are_invalid`). Invisible to everyone else until a commit names the generation (case:
    /// `staged_rows_are_visible_above_the_head_only`).
    ///
    /// The answer promises order, not durability: a server that has crashed may have lost the last requests that it
    /// acknowledged, and a commit makes sure of those before it. So each request names the last one that was
    /// acknowledged, and is `Conflict` when that is gone (case: `lost_chunk_blocks_the_next`), and the commit names the
    /// very last.
    async fn stage(&self, request: StageRequest) -> Result<()>;

    /// Raises the staging generation by 1 at once, deletes a bounded number of the rows that the staging entry lists,
    /// and when none is left the entry. Called with the same generation until [`Discarded::done`]; on condition of epoch
    /// and txid. Raises it also when there is no entry: a late first `stage` does no harm (case:
    /// `discard_raises_the_generation`). From the first call on, and until the entry is gone, no commit succeeds.
    ///
    /// When the generation is one above the request's, and there is no entry or it is being discarded, an earlier call
    /// has raised it and this one goes on. Any other generation is `Conflict`: a discard that arrives late undoes no
    /// later staging (case: `late_discard_is_refused`).
    async fn discard_staged(&self, request: DiscardRequest) -> Result<Discarded>;

    /// Writes page rows as of the checkpoint's txid; with `last`, marks the checkpoint as completed and sets the head's
    /// checkpoint and the warm pages, as with [`release`](Self::release), so that an open after a crash gets them too
    /// (case: `warm_pages_come_with_a_checkpoint`). On condition of epoch, and of head.checkpoint <= txid <= head.txid,
    /// else `Conflict` (case: `checkpoint_moves_forward_only`). Rows of a checkpoint that never completes do no harm
    /// (case: `half_a_checkpoint_is_harmless`). `Invalid` for rows as with [`stage`](Self::stage), but for deltas.
    ///
    /// A server that lost what it had acknowledged, in a failover, must not complete a checkpoint that rests on it. So it is
    /// `Conflict`, too, when the newest completed checkpoint is below `since` (case: `checkpoint_rests_on_one_before`), and
    /// when a piece that came before it in this attempt is not there (case: `lost_piece_blocks_the_checkpoint`). What an
    /// attempt reads may rest on rows of one before it that was not completed: so it is `Conflict`, too, for an attempt that
    /// is not the newest of the epoch that has begun here (case: `late_piece_of_an_attempt_is_refused`). [`Pieces`] judges
    /// both.
    async fn checkpoint(&self, request: CheckpointRequest) -> Result<()>;

    /// Raises the horizon as far as asked and allowed, then, in the same store transaction, deletes dead rows of the
    /// pages given, and log records. Returns the horizon.
    ///
    /// - The horizon becomes the largest completed checkpoint that is at most `at_most`, was completed at or before
    ///   `completed_before`, and is not above a pin; it never falls (cases: `horizon_never_falls`,
    ///   `horizon_is_found_among_many_checkpoints`). Where clocks made the times of checkpoints fall, it may be a smaller one,
    ///   until more checkpoints are made (case: `horizon_rises_past_checkpoints_of_a_wrong_clock`).
    /// - A row is dead when a newer row of its page has a txid at or below the horizon, and no row that is kept is
    ///   based on it; a zero row that is the newest at or below the horizon is dead with those before it, unless one of
    ///   those is kept as a base and would be read in its place (cases: `dead_rows_are_collected`,
    ///   `bases_outlive_their_deltas`, `zeros_hide_what_is_kept_before_them`, `nothing_a_snapshot_needs_is_collected`).
    ///   So a page without a row is zeros as of the horizon, whatever older records of the log say of it (case:
    ///   `random_histories_match_the_model`).
    /// - Log records are deleted up to the smaller of `log_through` and the horizon (case: `collected_log_is_refused`).
    /// - `Invalid` for more than [`StoreLimits::collect_pages`] pages (case: `limits_are_enforced`).
    async fn collect(&self, request: CollectRequest) -> Result<Collected>;

    /// Databases whose names begin with `prefix` and come after `after`, in byte order of the names, `limit` of them at
    /// the most (case: `listing_goes_by_bytes`). A database that exists under one name during the whole of a listing,
    /// page after page, appears exactly once (case: `listing_while_writing`).
    ///
    /// Where what a name means cannot be read because it is damaged, its entry says so and the others are listed all the
    /// same (`backend-embedded/tests/embedded/listing.rs`).
    async fn list(&self, prefix: &str, after: Option<&DatabaseName>, limit: usize) -> Result<Vec<ListEntry>>;

    /// Gives a database another name. On condition of the epoch, unless it has that name already: a try whose reply was lost may
    /// have given it, and the lease may be gone since. `Conflict` when another database has the name (cases: `rename_moves_the_name`, `one_of_many_gets_a_name`).
    async fn rename(&self, database: DatabaseId, epoch: Epoch, name: DatabaseName) -> Result<()>;

    /// Deletes a database: its name is free and its content unreadable at once; [`purge`](Self::purge) removes the
    /// bytes. On condition of the epoch. Its id is never used again (case: `deleted_database_is_unreadable`).
    ///
    /// A database whose head is damaged has no epoch that could be known, nobody can write to it, and there is no other mend
    /// than this one: it is deleted whatever the epoch (`backend-embedded/tests/embedded/listing.rs`,
    /// `backend-fdb/tests/scenarios.rs`, `backend-postgres/tests/errors.rs`).
    async fn delete(&self, database: DatabaseId, epoch: Epoch) -> Result<()>;

    /// Removes up to about `limit` rows and records of deleted databases, and sessions and epoch ends that are old
    /// enough to forget. Called until [`Purged::done`]. A call that is not the last and has removed anything at all says that
    /// it removed 1 at least, if only what is no row or record: 0 tells that somebody else held it up (case:
    /// `purge_removes_the_bytes`).
    async fn purge(&self, limit: usize) -> Result<Purged>;

    /// Every stored row of the database after (`page`, `txid`), in that order, staged and dead ones included, `limit`
    /// of them at the most: for verification (case: `scan_finds_every_row`).
    async fn scan(&self, database: DatabaseId, after: Option<(PageNo, Txid)>, limit: usize) -> Result<Vec<PageRow>>;
}
