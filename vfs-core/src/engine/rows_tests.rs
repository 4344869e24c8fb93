//! Pages without a row: zeros as of the horizon under which the store was asked, and of no other. And rows that a failover has
//! lost, or that a standby does not have yet.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::{FleetSettings, LeaseMode};
use crate::engine::database::{Database, Snapshot};
use crate::engine::meanwhile::Meanwhile;
use crate::engine::stage::STAGED_RUNS;
use crate::engine::{Fleet, Role, TransactionBuffer, commit_atomically};
use crate::error::ErrorKind;
use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation, PageStore, StoreLimits};
use crate::types::{DatabaseName, PAGE_SIZE, PageNo, Txid};

const SIZE: u64 = PAGE_SIZE as u64;
/// Pages that a transaction buffers before some are staged.
const BUFFERED: usize = 64;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where the page begins that this is about: page 2.
const AT: u64 = SIZE;

/// A process that has the database open.
struct Process {
    fleet: Fleet,
    database: Arc<Database>,
}

impl Process {
    /// Nothing happens by time alone, and all that may be collected is.
    fn new(store: &Arc<dyn PageStore>, role: Role, lease: LeaseMode) -> Self {
        let mut settings = FleetSettings { session_lifetime: DAY, ..FleetSettings::default() };
        settings.database.lease = lease;
        settings.database.retention = Duration::ZERO;
        settings.database.checkpoint_idle = DAY;
        settings.database.store_timeout = Duration::from_millis(50);
        settings.database.transaction_bytes = BUFFERED * PAGE_SIZE;
        let fleet = Fleet::builder(Arc::clone(store)).settings(settings).build().unwrap();
        let database = fleet.connect(&DatabaseName::new("a").unwrap(), role, role == Role::Writer);
        Self { fleet, database }
    }

    fn writer(store: &Arc<dyn PageStore>) -> Self {
        Self::new(store, Role::Writer, LeaseMode::Exclusive)
    }

    fn follower(store: &Arc<dyn PageStore>) -> Self {
        Self::new(store, Role::Follower, LeaseMode::Exclusive)
    }

    fn commit(&self, change: impl FnOnce(&Database, &mut TransactionBuffer)) -> Txid {
        let database = &self.database;
        let snapshot = database.begin_read().unwrap();
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        change(database, &mut buffer);
        let committed = database.commit(&mut buffer, snapshot).unwrap();
        database.end_write(&mut buffer);
        database.unpin(committed);
        committed.txid
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Txid {
        self.commit(|database, buffer| database.write(buffer, offset, bytes).unwrap())
    }

    /// Writes zeros over page 2 and many others, in so many runs that the record does not name them.
    fn stage_zeros(&self) -> Txid {
        self.commit(|database, buffer| {
            // The last ones may stay in the buffer, and come as patches.
            for run in 0..=(STAGED_RUNS + BUFFERED) as u64 {
                database.write(buffer, AT + 2 * run * SIZE, &[0; PAGE_SIZE]).unwrap();
            }
        })
    }

    /// A checkpoint, and all that it makes garbage. Returns the horizon.
    fn maintain(&self) -> Txid {
        self.fleet.wait(self.database.checkpoint()).unwrap();
        self.fleet.wait(self.database.collect()).unwrap().horizon
    }

    /// Gives the lease back where the mode says so, and has nothing in the cache.
    fn rest(&self) {
        self.fleet.wait(self.database.give_back());
        self.database.forget_cache();
    }

    /// Hears what is new.
    fn look(&self) -> Txid {
        let snapshot = self.database.begin_read().unwrap();
        self.database.unpin(snapshot);
        snapshot.txid
    }

    /// The first bytes of page 2.
    fn read(&self, snapshot: Snapshot) -> [u8; 8] {
        self.read_at(AT, snapshot)
    }

    fn read_at(&self, offset: u64, snapshot: Snapshot) -> [u8; 8] {
        let mut bytes = [1; 8];
        self.database.read(snapshot, offset, &mut bytes).unwrap();
        bytes
    }

    fn read_now(&self, offset: u64) -> [u8; 8] {
        let snapshot = self.database.begin_read().unwrap();
        let bytes = self.read_at(offset, snapshot);
        self.database.unpin(snapshot);
        bytes
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.fleet.disconnect(&self.database);
    }
}

fn memory() -> Arc<dyn PageStore> {
    Arc::new(MemoryStore::default())
}

/// The horizon that the reader knew was from before the transaction that made the page zeros: what the page held before was
/// read as its newest image, and stayed in the cache.
#[test]
fn page_that_was_collected_since_the_reader_looked_is_zeros() {
    let store = memory();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; PAGE_SIZE]);
    let follower = Process::follower(&store);
    follower.look();
    let zeroed = writer.stage_zeros();
    let pinned = follower.database.begin_read().unwrap();
    assert_eq!(pinned.txid, zeroed);
    assert_eq!(writer.maintain(), zeroed);
    assert_eq!(follower.read(pinned), [0; 8]);
    follower.database.unpin(pinned);
    assert_eq!(follower.read_now(AT), [0; 8]);
}

/// The horizon rose above the snapshot while the reply was on its way, and another connection heard of it: the page counted as
/// zeros as of the snapshot, and a patch before it was left out.
#[test]
fn horizon_that_rises_after_the_rows_were_read_hides_no_patch() {
    let store = memory();
    let writer = Arc::new(Process::writer(&store));
    let grown = writer.commit(|database, buffer| database.truncate(buffer, 4 * SIZE).unwrap());
    assert_eq!(writer.maintain(), grown);
    let (store, meanwhile) = Meanwhile::around(store);
    let follower = Arc::new(Process::follower(&store));
    follower.look();
    writer.write(AT, &[7; 8]);
    let pinned = follower.database.begin_read().unwrap();
    let newest = writer.write(3 * SIZE, &[8; 8]);
    assert_eq!(follower.look(), newest);
    let deed = {
        let (writer, follower) = (Arc::clone(&writer), Arc::clone(&follower));
        move || {
            assert_eq!(writer.maintain(), newest);
            assert_eq!(follower.look(), newest);
        }
    };
    meanwhile.arm(Operation::ReadPages, deed);
    assert_eq!(follower.read(pinned), [7; 8]);
    assert!(meanwhile.is_done(), "it was read from the store");
    follower.database.unpin(pinned);
}

/// A checkpoint took a page without a row for zeros from the beginning, and applied what its own tail still had from before the
/// horizon, for the sake of an old snapshot.
#[test]
fn checkpoint_begins_a_page_without_a_row_at_the_horizon() {
    let store = memory();
    let sharing = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    sharing.write(AT, &[7; PAGE_SIZE]);
    let old = sharing.database.begin_read().unwrap();
    let other = Process::writer(&store);
    let zeroed = other.stage_zeros();
    assert_eq!(sharing.look(), zeroed);
    assert_eq!(other.maintain(), zeroed);
    drop(other);
    let written = sharing.write(AT, &[9; 4]);
    assert_eq!(sharing.maintain(), zeroed, "the old snapshot still counts here");
    sharing.database.unpin(old);
    assert_eq!(sharing.maintain(), written);
    assert_eq!(Process::follower(&store).read_now(AT), [9, 9, 9, 9, 0, 0, 0, 0]);
}

/// The horizon is that of what was read: a page that the tail alone tells from zeros on begins there, wherever the horizon is.
#[test]
fn checkpoint_begins_a_page_that_was_not_read_where_its_tail_does() {
    let store = memory();
    let sharing = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    // Page 2 is staged: what its tail has of it does not begin from zeros.
    sharing.write(AT, &vec![5; 4 * BUFFERED * PAGE_SIZE]);
    let old = sharing.database.begin_read().unwrap();
    let appended = 10 * BUFFERED as u64 * SIZE;
    let before = sharing.write(appended, &[7; PAGE_SIZE]);
    let other = Process::writer(&store);
    assert_eq!(other.maintain(), before);
    drop(other);
    let written = sharing.commit(|database, buffer| {
        for offset in [AT, appended] {
            database.write(buffer, offset, &[9; 4]).unwrap();
        }
    });
    assert_eq!(sharing.maintain(), before, "the old snapshot still counts here");
    sharing.database.unpin(old);
    assert_eq!(sharing.maintain(), written);
    let follower = Process::follower(&store);
    assert_eq!(follower.read_now(AT), [9, 9, 9, 9, 5, 5, 5, 5]);
    assert_eq!(follower.read_now(appended), [9, 9, 9, 9, 7, 7, 7, 7]);
}

/// A store that may lose what it has.
fn mortal() -> (Arc<MemoryStore>, Arc<dyn PageStore>) {
    let store = Arc::new(MemoryStore::default());
    (Arc::clone(&store), store)
}

/// The rows of its last checkpoint were gone, and it read those before them, until something that it wrote was refused.
#[test]
fn reader_stops_when_the_store_has_lost_commits() {
    for lease in [LeaseMode::Exclusive, LeaseMode::Transaction] {
        let (memory, store) = mortal();
        let process = Process::new(&store, Role::Writer, lease);
        process.write(AT, &[7; PAGE_SIZE]);
        process.maintain();
        let standby = memory.standby();
        process.write(AT, &[8; PAGE_SIZE]);
        process.maintain();
        let pinned = process.database.begin_read().unwrap();
        process.rest();
        memory.fail_over_to(standby);
        let error = process.database.read(pinned, AT, &mut [0; 8]).unwrap_err();
        assert!(error.to_string().contains("the store has lost commits"), "{lease:?}: {error}");
        assert!(process.database.stopped().is_some());
    }
}

/// As before, and another process has taken the lease there since: the reader has lost more than that.
#[test]
fn reader_stops_when_another_holds_what_is_left() {
    let (memory, store) = mortal();
    let process = Process::writer(&store);
    process.write(AT, &[7; PAGE_SIZE]);
    process.maintain();
    let standby = memory.standby();
    process.write(AT, &[8; PAGE_SIZE]);
    process.maintain();
    let pinned = process.database.begin_read().unwrap();
    process.rest();
    memory.fail_over_to(standby);
    let other = Process::writer(&store);
    other.fleet.wait(other.database.seize_lease()).unwrap();
    let error = process.database.read(pinned, AT, &mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
}

/// The checkpoint is gone, and no commit is: what it had made rows of is in the log, and is read from there.
#[test]
fn reader_goes_on_when_the_store_has_lost_a_checkpoint() {
    for lease in [LeaseMode::Exclusive, LeaseMode::Transaction] {
        let (memory, store) = mortal();
        let process = Process::new(&store, Role::Writer, lease);
        process.write(AT, &[7; PAGE_SIZE]);
        process.maintain();
        process.write(AT, &[8; PAGE_SIZE]);
        let standby = memory.standby();
        process.maintain();
        let pinned = process.database.begin_read().unwrap();
        process.rest();
        memory.fail_over_to(standby);
        assert_eq!(process.read(pinned), [8; 8], "{lease:?}");
        process.database.unpin(pinned);
        process.write(AT, &[9; 4]);
        process.maintain();
        process.rest();
        assert_eq!(process.read_now(AT), [9, 9, 9, 9, 8, 8, 8, 8]);
    }
}

/// The patch since the lost checkpoint does not fit the row from before it: no checkpoint was ever made again.
#[test]
fn checkpoint_after_a_lost_one_rests_on_the_one_before() {
    let (memory, store) = mortal();
    let process = Process::writer(&store);
    process.write(AT, &[7; PAGE_SIZE]);
    process.maintain();
    process.write(AT, &[8; PAGE_SIZE]);
    let standby = memory.standby();
    process.maintain();
    memory.fail_over_to(standby);
    let written = process.write(AT, &[9; 4]);
    assert_eq!(process.maintain(), written);
    assert_eq!(Process::follower(&store).read_now(AT), [9, 9, 9, 9, 8, 8, 8, 8]);
}

/// A follower's open was answered by one standby, and its read by another one, which had not got so far.
#[test]
fn follower_reads_no_rows_of_a_standby_that_is_behind() {
    let (memory, store) = mortal();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; PAGE_SIZE]);
    writer.maintain();
    let behind = memory.standby();
    writer.write(AT, &[8; PAGE_SIZE]);
    writer.maintain();
    let ahead = memory.standby();
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    follower.rest();
    memory.fail_over_to(behind);
    let error = follower.database.read(pinned, AT, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    memory.fail_over_to(ahead);
    assert_eq!(follower.read(pinned), [8; 8]);
}

/// Rows that were staged stand after the checkpoint: it is there, and they are not.
#[test]
fn follower_reads_no_page_whose_staged_row_is_not_there_yet() {
    let (memory, store) = mortal();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; PAGE_SIZE]);
    writer.maintain();
    let behind = memory.standby();
    writer.write(AT, &vec![8; 4 * BUFFERED * PAGE_SIZE]);
    let ahead = memory.standby();
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    follower.rest();
    memory.fail_over_to(behind);
    let error = follower.database.read(pinned, AT, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    memory.fail_over_to(ahead);
    assert_eq!(follower.read(pinned), [8; 8]);
}

/// The older state was loaded: SQLite, which knows a state by a counter that each commit raises by one, could have kept pages, and a
/// schema, of the one that was lost.
#[test]
fn follower_never_goes_back() {
    let (memory, store) = mortal();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; PAGE_SIZE]);
    let behind = memory.standby();
    writer.write(AT, &[8; PAGE_SIZE]);
    writer.maintain();
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    follower.rest();
    let ahead = memory.standby();
    memory.fail_over_to(behind);
    let refused = || follower.database.begin_read().unwrap_err();
    assert_eq!(refused().kind(), ErrorKind::Unavailable);
    let behind = memory.standby();
    memory.fail_over_to(ahead);
    assert_eq!(follower.read(pinned), [8; 8]);
    follower.database.unpin(pinned);
    // It is all that is left.
    memory.fail_over_to(behind);
    let error = refused();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("open the database again"), "{error}");
    assert_eq!(Process::follower(&store).read_now(AT), [7; 8]);
}

/// A checkpoint is lost, and no commit: the follower had to wait for the next one.
#[test]
fn follower_goes_on_when_the_store_has_lost_a_checkpoint() {
    let (memory, store) = mortal();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; PAGE_SIZE]);
    writer.maintain();
    writer.write(AT, &[8; PAGE_SIZE]);
    let standby = memory.standby();
    writer.maintain();
    let follower = Process::follower(&store);
    assert_eq!(follower.read_now(AT), [8; 8]);
    memory.fail_over_to(standby);
    follower.rest();
    assert_eq!(follower.read_now(AT), [8; 8]);
}

/// A page that is not the one at `AT`.
const ELSEWHERE: u64 = 3 * SIZE;

/// A store whose last commit is lost, which this process has made or read. Another one has committed so often since.
fn overtaken(role: Role, lease: LeaseMode, commits: u8) -> (Process, Arc<dyn PageStore>) {
    let (memory, store) = mortal();
    let first = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    first.write(AT, &[7; 4 * PAGE_SIZE]);
    first.maintain();
    first.rest();
    let standby = memory.standby();
    let process = Process::new(&store, role, lease);
    if role == Role::Writer {
        process.write(AT, &[8; 8]);
        process.rest();
    } else {
        first.write(AT, &[8; 8]);
    }
    assert_eq!(process.read_now(AT), [8; 8]);
    memory.fail_over_to(standby);
    let other = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    for commit in 0..commits {
        other.write(ELSEWHERE, &[9 + commit; 8]);
    }
    other.rest();
    (process, store)
}

/// It went on with both: commits were told from each other by their txids alone, and what it wrote then rested on pages that
/// the store did not have.
#[test]
fn who_has_what_is_lost_stops_when_others_have_gone_on() {
    let transaction = LeaseMode::Transaction;
    for (role, lease) in [(Role::Writer, transaction), (Role::Follower, transaction)] {
        for commits in [1, 2, 5] {
            let (process, store) = overtaken(role, lease, commits);
            let error = process.database.begin_read().unwrap_err();
            assert!(error.to_string().contains("the store has lost commits"), "{role:?} {commits}: {error}");
            assert!(process.database.stopped().is_some());
            let fresh = Process::follower(&store);
            assert_eq!((fresh.read_now(AT), fresh.read_now(ELSEWHERE)), ([7; 8], [8 + commits; 8]));
        }
    }
}

/// As before, and there is a checkpoint by now, after which the state is loaded anew.
#[test]
fn who_has_what_is_lost_stops_when_others_have_made_a_checkpoint() {
    for role in [Role::Writer, Role::Follower] {
        let (process, store) = overtaken(role, LeaseMode::Transaction, 3);
        let other = Process::new(&store, Role::Writer, LeaseMode::Exclusive);
        other.write(ELSEWHERE, &[1; 8]);
        // The log stays.
        other.fleet.wait(other.database.checkpoint()).unwrap();
        process.database.core().reload = true;
        let error = process.database.begin_read().unwrap_err();
        assert!(error.to_string().contains("the store has lost commits"), "{role:?}: {error}");
    }
}

/// Within one read transaction it read rows of a checkpoint of the other history.
#[test]
fn read_transaction_reads_no_rows_of_another_history() {
    let (memory, store) = mortal();
    let writer = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    writer.write(AT, &[7; 4 * PAGE_SIZE]);
    writer.maintain();
    writer.rest();
    let standby = memory.standby();
    for _ in 0..3 {
        writer.write(AT, &[8; 8]);
    }
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    follower.rest();
    memory.fail_over_to(standby);
    let other = Process::new(&store, Role::Writer, LeaseMode::Exclusive);
    for commit in 0..5 {
        other.write(ELSEWHERE, &[9; 8]);
        if commit == 1 {
            other.maintain();
        }
    }
    let error = follower.database.read(pinned, ELSEWHERE, &mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
}

/// A large transaction over the page that is read: its rows are staged, and stand after the checkpoint.
fn large(byte: u8) -> Vec<u8> {
    vec![byte; 4 * BUFFERED * PAGE_SIZE]
}

/// A small commit was lost, and a large one stands in its place: no checkpoint tells of its rows.
#[test]
fn read_transaction_takes_no_staged_rows_of_another_history() {
    for role in [Role::Follower, Role::Writer] {
        let (memory, store) = mortal();
        let first = Process::new(&store, Role::Writer, LeaseMode::Transaction);
        first.write(AT, &[7; 4 * PAGE_SIZE]);
        first.maintain();
        first.rest();
        let standby = memory.standby();
        let reader = Process::new(&store, role, LeaseMode::Transaction);
        if role == Role::Writer { &reader } else { &first }.write(AT, &[8; 8]);
        let pinned = reader.database.begin_read().unwrap();
        reader.rest();
        memory.fail_over_to(standby);
        let other = Process::writer(&store);
        assert_eq!(other.write(ELSEWHERE, &large(9)), pinned.txid);
        let error = reader.database.read(pinned, ELSEWHERE, &mut [0; 8]).unwrap_err();
        assert!(error.to_string().contains("the store has lost commits"), "{role:?}: {error}");
    }
}

/// A reader in the middle of a read transaction over a page that a large commit has staged. A failover has lost that commit, and
/// another process has made a small one in its place.
fn without_its_staged_rows(store: &Arc<dyn PageStore>, memory: &MemoryStore) -> ([Process; 2], Process, Snapshot) {
    let first = Process::new(store, Role::Writer, LeaseMode::Transaction);
    first.write(AT, &[7; 4 * PAGE_SIZE]);
    first.maintain();
    first.rest();
    let standby = memory.standby();
    first.write(ELSEWHERE, &large(8));
    let follower = Process::follower(store);
    let pinned = follower.database.begin_read().unwrap();
    follower.rest();
    memory.fail_over_to(standby);
    let other = Process::writer(store);
    assert_eq!(other.write(AT, &[9; 8]), pinned.txid);
    ([first, other], follower, pinned)
}

/// The other way round: what it had read of was staged, and is gone. That is no damage.
#[test]
fn staged_rows_of_a_lost_commit_are_not_missed_as_damage() {
    let (memory, store) = mortal();
    let (_writers, follower, pinned) = without_its_staged_rows(&store, &memory);
    let error = follower.database.read(pinned, ELSEWHERE, &mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
}

/// Nobody could be asked what it is that does not fit, and then it was not told that it does not.
#[test]
fn what_does_not_fit_is_told_where_nobody_says_why() {
    let (memory, store) = mortal();
    let plan = Arc::new(FaultPlan::default());
    let store: Arc<dyn PageStore> = Arc::new(FaultLayer::new(store, Arc::clone(&plan)));
    let (_writers, follower, pinned) = without_its_staged_rows(&store, &memory);
    plan.arm(Fault { operation: Some(Operation::Head), after: 0, times: u64::MAX, effect: Effect::Refuse });
    let error = follower.database.read(pinned, ELSEWHERE, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(plan.hits() > 0, "it was asked");
    plan.disarm();
    let error = follower.database.read(pinned, ELSEWHERE, &mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
}

/// Both histories staged the page under one txid, which no row tells: the next read transaction finds out.
#[test]
fn large_commit_that_was_made_again_is_found_by_the_next_read_transaction() {
    let (memory, store) = mortal();
    let first = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    first.write(AT, &[7; 4 * PAGE_SIZE]);
    first.maintain();
    first.rest();
    let standby = memory.standby();
    first.write(ELSEWHERE, &large(8));
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    assert_eq!(follower.read_at(ELSEWHERE, pinned), [8; 8]);
    memory.fail_over_to(standby);
    let other = Process::writer(&store);
    assert_eq!(other.write(ELSEWHERE, &large(9)), pinned.txid);
    let error = follower.database.begin_read().unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
    follower.rest();
    let error = follower.database.read(pinned, ELSEWHERE, &mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
}

/// Readings of pages, of the head and of the log that it takes to read at an offset with nothing in the cache.
fn calls(process: &Process, offset: u64, pinned: Snapshot) -> [u64; 3] {
    process.database.forget_cache();
    let counters = process.fleet.counters();
    let count = || [Operation::ReadPages, Operation::Head, Operation::ReadLog].map(|of| counters.get(of).calls);
    let (before, all) = (count(), counters.round_trips());
    process.read_at(offset, pinned);
    let mut calls = count();
    for (now, before) in calls.iter_mut().zip(before) {
        *now -= before;
    }
    assert_eq!(counters.round_trips() - all, calls.iter().sum::<u64>(), "nothing else is asked");
    calls
}

/// A cache miss is one call, also in a long read transaction over what was staged since the checkpoint.
#[test]
fn staged_rows_that_the_tail_tells_of_are_not_asked_about() {
    let store = memory();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; 4 * PAGE_SIZE]);
    writer.write(500 * SIZE, &[7; PAGE_SIZE]);
    writer.maintain();
    writer.write(ELSEWHERE, &large(8));
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    for offset in [ELSEWHERE, 500 * SIZE, ELSEWHERE] {
        assert_eq!(calls(&follower, offset, pinned), [1, 0, 0]);
    }
    let held = writer.database.begin_read().unwrap();
    assert_eq!(calls(&writer, ELSEWHERE, held), [1, 0, 0]);
    writer.database.unpin(held);
}

/// Rows of a checkpoint that is under way, or was never completed, stand after the newest one as well: they are asked about once,
/// by the head where that is what is known, and not by a whole record.
#[test]
fn rows_of_half_a_checkpoint_are_asked_about_once() {
    let limits = StoreLimits { write_rows: 2, ..MemoryStore::default().limits() };
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::with_limits(Arc::new(SystemClock::default()), limits));
    let plan = Arc::new(FaultPlan::default());
    let faulty: Arc<dyn PageStore> = Arc::new(FaultLayer::new(Arc::clone(&store), Arc::clone(&plan)));
    let writer = Process::writer(&faulty);
    writer.write(AT, &vec![7; 8 * PAGE_SIZE]);
    writer.maintain();
    writer.commit(|database, buffer| {
        for page in 0..8 {
            database.write(buffer, AT + page * SIZE, &[8; 8]).unwrap();
        }
    });
    plan.arm(Fault { operation: Some(Operation::Checkpoint), after: 1, times: 100, effect: Effect::Full });
    writer.fleet.wait(writer.database.checkpoint()).unwrap_err();
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    assert_eq!(calls(&follower, AT, pinned), [1, 1, 0]);
    assert_eq!(calls(&follower, AT, pinned), [1, 0, 0]);
    assert_eq!(follower.read(pinned), [8; 8]);
}

/// A reader that has not heard of the newest checkpoint, after which so many others have committed. The log has lost what it knows.
fn without_the_record(commits: u64) -> (Process, Process, Snapshot) {
    let (memory, store) = mortal();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; 4 * PAGE_SIZE]);
    writer.maintain();
    let known = writer.write(AT, &[8; 8]);
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    assert_eq!(pinned.txid, known);
    follower.rest();
    for _ in 0..commits {
        writer.write(AT, &[9; 8]);
    }
    // The log stays.
    writer.fleet.wait(writer.database.checkpoint()).unwrap();
    let database = writer.database.status().database.unwrap();
    memory.lose_records(database, Txid(known.get() - 1)).unwrap();
    (writer, follower, pinned)
}

/// It waited for a server that has the record, and said that it was one that is behind.
#[test]
fn record_that_is_missed_where_others_have_gone_on_is_damage() {
    let (_writer, follower, pinned) = without_the_record(1);
    let error = follower.database.read(pinned, ELSEWHERE, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// The head tells that it is the commit which is known, and its record is not needed.
#[test]
fn record_of_the_head_is_not_missed_by_who_has_it() {
    let (_writer, follower, pinned) = without_the_record(0);
    assert_eq!(calls(&follower, ELSEWHERE, pinned), [1, 1, 0]);
}

/// A reader that met a checkpoint of others took over all that was committed since, until it was over its bound and the snapshot
/// was given up.
#[test]
fn read_transaction_that_meets_a_checkpoint_of_others_takes_nothing_over() {
    let (_, store) = mortal();
    let writer = Process::writer(&store);
    writer.write(AT, &[7; 4 * PAGE_SIZE]);
    let follower = Process::follower(&store);
    let pinned = follower.database.begin_read().unwrap();
    follower.rest();
    writer.write(ELSEWHERE, &[9; 8]);
    writer.fleet.wait(writer.database.checkpoint()).unwrap();
    assert_eq!(follower.read_at(ELSEWHERE, pinned), [7; 8]);
    assert_eq!(follower.database.status().txid, pinned.txid);
}

/// A commit whose reply was lost had not happened, and was sent again: onto another one than it had been made on.
#[test]
fn commit_is_not_sent_again_onto_another_history() {
    let (memory, store) = mortal();
    let plan = Arc::new(FaultPlan::default());
    let faulty: Arc<dyn PageStore> = Arc::new(FaultLayer::new(Arc::clone(&store), Arc::clone(&plan)));
    let (around, meanwhile) = Meanwhile::around(faulty);
    let process = Process::new(&around, Role::Writer, LeaseMode::Transaction);
    process.write(AT, &[7; 4 * PAGE_SIZE]);
    process.rest();
    let standby = memory.standby();
    process.write(AT, &[8; 8]);
    process.rest();
    let database = &process.database;
    let snapshot = database.begin_read().unwrap();
    let mut buffer = database.begin_write(snapshot, false).unwrap();
    plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::LoseRequest });
    let there = Arc::clone(&store);
    meanwhile.arm_before(Operation::Head, move || {
        memory.fail_over_to(standby);
        let other = Process::new(&there, Role::Writer, LeaseMode::Transaction);
        other.write(ELSEWHERE, &[9; 8]);
        other.rest();
    });
    buffer.set_foreign();
    database.write(&mut buffer, AT, &[1; 8]).unwrap();
    let error = database.commit(&mut buffer, snapshot).unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
    assert!(meanwhile.is_done());
    let fresh = Process::follower(&store);
    assert_eq!((fresh.read_now(AT), fresh.read_now(ELSEWHERE)), ([7; 8], [9; 8]));
}

/// A process that holds the lease, and a store that has lost that grant, and its last commit, to a failover. Another one has taken
/// the lease since, under the same epoch, and has committed so often.
fn with_one_epoch(commits: u8) -> (Process, Process, Arc<dyn PageStore>) {
    let (memory, store) = mortal();
    let before = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    before.write(AT, &[7; 4 * PAGE_SIZE]);
    before.rest();
    let process = Process::writer(&store);
    process.fleet.wait(process.database.fleet.session.ensure()).unwrap();
    let standby = memory.standby();
    process.write(AT, &[8; 8]);
    memory.fail_over_to(standby);
    let other = Process::writer(&store);
    for commit in 0..commits {
        other.write(ELSEWHERE, &[9 + commit; 8]);
    }
    assert_eq!(process.database.status().epoch, other.database.status().epoch);
    (process, other, store)
}

/// The epoch was right, and after one commit of the other process the txid was: the commit was taken, and rested on what the store
/// did not have. After two it was refused again and again, and the database went on.
#[test]
fn commit_on_what_is_lost_is_refused_under_the_same_epoch() {
    for commits in [1, 2] {
        let (process, other, store) = with_one_epoch(commits);
        let database = &process.database;
        let snapshot = database.begin_read().unwrap();
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        database.write(&mut buffer, AT + 100, &[1; 8]).unwrap();
        let error = database.commit(&mut buffer, snapshot).unwrap_err();
        assert!(error.to_string().contains("the store has lost commits"), "{commits}: {error}");
        assert!(database.stopped().is_some());
        let next = other.write(ELSEWHERE, &[1; 8]);
        assert_eq!(next, Txid(2 + u64::from(commits)), "whoever holds the lease goes on");
        let fresh = Process::follower(&store);
        assert_eq!((fresh.read_now(AT), fresh.read_now(AT + 100)), ([7; 8], [7; 8]));
    }
}

/// As before, for a commit of several databases: none of them is committed, and only the one that has lost something stops.
#[test]
fn commit_of_several_is_refused_under_the_same_epoch() {
    let (process, other, _) = with_one_epoch(1);
    let fleet = &process.fleet;
    let beside = fleet.connect(&DatabaseName::new("b").unwrap(), Role::Writer, true);
    let databases = [&beside, &process.database];
    let mut open = databases.map(|database| {
        let snapshot = database.begin_read().unwrap();
        let mut buffer = database.begin_write(snapshot, false).unwrap();
        buffer.set_foreign();
        database.write(&mut buffer, AT, &[1; 8]).unwrap();
        buffer
    });
    let mut parts = Vec::new();
    for (database, buffer) in databases.into_iter().zip(&mut open) {
        let prepared = fleet.wait(database.prepare_with_others(buffer)).unwrap().unwrap();
        parts.push((Arc::clone(database), prepared));
    }
    let error = commit_atomically(parts).unwrap_err();
    assert!(error.to_string().contains("the store has lost commits"), "{error}");
    assert!(process.database.stopped().is_some() && beside.stopped().is_none());
    assert_eq!(beside.status().txid, Txid(0));
    assert_eq!(other.write(ELSEWHERE, &[1; 8]), Txid(3));
    let follower = fleet.connect(&DatabaseName::new("b").unwrap(), Role::Follower, false);
    assert_eq!(follower.begin_read().unwrap().txid, Txid(0));
    for database in [&beside, &follower] {
        fleet.disconnect(database);
    }
}

/// The grant alone was lost, and what this process has committed is there: another one has committed on top of it.
#[test]
fn commit_beside_another_holder_of_the_epoch_stops_the_database() {
    let (memory, store) = mortal();
    let before = Process::new(&store, Role::Writer, LeaseMode::Transaction);
    before.write(AT, &[7; 4 * PAGE_SIZE]);
    before.rest();
    let standby = memory.standby();
    let process = Process::writer(&store);
    assert_eq!(process.read_now(AT), [7; 8]);
    memory.fail_over_to(standby);
    let other = Process::writer(&store);
    other.write(ELSEWHERE, &[9; 8]);
    assert_eq!(process.database.status().epoch, other.database.status().epoch);
    let database = &process.database;
    let snapshot = database.begin_read().unwrap();
    let mut buffer = database.begin_write(snapshot, false).unwrap();
    buffer.set_foreign();
    database.write(&mut buffer, AT, &[1; 8]).unwrap();
    let error = database.commit(&mut buffer, snapshot).unwrap_err();
    assert!(error.to_string().contains("the store has lost a grant of the lease"), "{error}");
    assert!(database.stopped().is_some());
}

/// The record named no staged pages, and those past the end of the file were not looked for: their rows stayed.
#[test]
fn rows_of_what_was_cut_off_again_are_collected() {
    let store = memory();
    let writer = Process::writer(&store);
    writer.write(0, &[1; 2 * PAGE_SIZE]);
    writer.commit(|database, buffer| {
        for run in 0..=(STAGED_RUNS + BUFFERED) as u64 {
            database.write(buffer, AT + 2 * run * SIZE, &[2; PAGE_SIZE]).unwrap();
        }
        database.truncate(buffer, 2 * SIZE).unwrap();
    });
    writer.maintain();
    let id = writer.database.status().database.unwrap();
    let rows = writer.fleet.wait(store.scan(id, None, usize::MAX)).unwrap();
    let beyond: Vec<_> = rows.iter().filter(|row| row.page > PageNo(2)).map(|row| row.page).collect();
    assert_eq!(beyond, []);
    assert_eq!(writer.read_now(AT), [2; 8]);
}
