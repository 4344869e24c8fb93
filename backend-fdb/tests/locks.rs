//! Locks between processes, where the contract's cases do not see them: what they conflict on, what a lock does that arrives after
//! it was given back, and what is left of sessions that are over.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::holder::{Holder, LONG, session};
use common::{Place, by_hand, keys_between};
use litefleet::clock::{Clock, ManualClock};
use litefleet::store::{HeadReply, HeadRequest, PageStore, SharedLock, SharedRequest};
use litefleet::{DatabaseId, ErrorKind, Result, SessionId, Txid};
use litefleet_fdb::FdbStore;

/// Up to so much later a commit arrives whose reply was lost.
const LATE: Duration = Duration::from_millis(500);

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

/// A process whose clock is moved by hand.
async fn store_by(place: &Place, clock: &Arc<ManualClock>) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config().clock(clock.clone())).await.expect("the store opens"))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    match result {
        Err(error) if error.kind() == kind => {}
        other => panic!("expected {kind:?}, got {other:?}"),
    }
}

/// A session that locks a database for reading.
#[derive(Clone)]
struct Reader {
    store: Arc<FdbStore>,
    database: DatabaseId,
    session: SessionId,
}

impl Reader {
    async fn new(store: &Arc<FdbStore>, holder: &Holder) -> Self {
        Self { store: Arc::clone(store), database: holder.database, session: session(store, LONG).await }
    }

    async fn lock(&self, number: u64) -> Result<HeadReply> {
        let head = HeadRequest { database: self.database, known: Txid(0), epoch: None, tail_bytes: 0 };
        self.store.lock_shared(SharedRequest { lock: SharedLock { session: self.session, number }, head }).await
    }

    async fn unlock(&self, number: u64) {
        let lock = SharedLock { session: self.session, number };
        self.store.unlock_shared(self.database, lock).await.expect("the database is there");
    }
}

impl Holder {
    async fn lock(&self) -> Result<()> {
        self.store.lock_exclusive(self.database, self.epoch).await
    }

    async fn unlock(&self) -> Result<()> {
        self.store.unlock_exclusive(self.database, self.epoch).await
    }

    /// How many keys of shared locks there are, and of marks of the exclusive one.
    async fn keys_of_locks(&self, place: &Place) -> (usize, usize) {
        let id = u8::try_from(self.database.get()).expect("a small id");
        let count = async |first: u8| keys_between(place, &[5, 1, id, first], &[5, 1, id, first + 1]).await;
        (count(0x15).await, count(0x14).await)
    }
}

/// Requests for versions, reads and commits.
fn requests(place: &Place) -> [u64; 3] {
    let reads = ["gets", "get_keys", "ranges"].iter().map(|name| place.counter(name)).sum();
    [place.counter("read_versions"), reads, place.counter("commits")]
}

async fn counted<T>(place: &Place, action: impl Future<Output = T>) -> ([u64; 3], T) {
    let before = requests(place);
    let value = action.await;
    let after = requests(place);
    (std::array::from_fn(|kind| after[kind] - before[kind]), value)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts requests, which only the stand-in tells")]
async fn locks_cost_one_transaction() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let mut holder = Holder::new(&ours, session(&ours, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    let reader = Reader::new(&theirs, &holder).await;
    let (spent, locked) = counted(&place, reader.lock(1)).await;
    assert_eq!(locked.expect("nobody is in the way").head.txid, Txid(1));
    assert_eq!(spent, [1, 6, 1], "small values, log; session, lock, the session's locks, mark");
    let (spent, locked) = counted(&place, reader.lock(1)).await;
    locked.expect("it is there");
    assert_eq!(spent, [1, 6, 0]);
    let (spent, locked) = counted(&place, holder.lock()).await;
    refused(locked, ErrorKind::LeaseHeld);
    assert_eq!(spent, [1, 6, 1], "head and lease, name; session, locks before and after its own; the reader's session");
    let late = Reader::new(&theirs, &holder).await;
    let (spent, locked) = counted(&place, late.lock(1)).await;
    refused(locked, ErrorKind::LeaseHeld);
    assert_eq!(spent, [1, 7, 0], "the session of the holder, too");
    let (spent, ()) = counted(&place, reader.unlock(1)).await;
    assert_eq!(spent, [1, 1, 1]);
    let (spent, locked) = counted(&place, holder.lock()).await;
    locked.expect("nobody reads");
    assert_eq!(spent, [1, 5, 1]);
    let (spent, unlocked) = counted(&place, holder.unlock()).await;
    unlocked.expect("it has the lease");
    assert_eq!(spent, [1, 1, 1]);
    let (spent, committed) = counted(&place, holder.commit(b"record")).await;
    committed.expect("the holder can");
    assert_eq!(spent, [0, 0, 1], "a commit knows nothing of locks");
    assert_eq!(place.counter("conflicts"), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "counts conflicts, which only the stand-in tells")]
async fn commits_and_renewals_are_in_no_locks_way() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let mut holder = Holder::new(&ours, session(&ours, LONG).await, "a").await;
    let readers = [Reader::new(&theirs, &holder).await, Reader::new(&theirs, &holder).await];
    // What a lock has read is out of date before its commit arrives.
    place.command("latency version=2000 read=2000");
    let stop = Arc::new(AtomicBool::new(false));
    let mut locking = tokio::task::JoinSet::new();
    for reader in readers.clone() {
        let stop = Arc::clone(&stop);
        locking.spawn(async move {
            let mut seen = Txid(0);
            while !stop.load(Ordering::SeqCst) {
                let reply = match reader.lock(1).await {
                    Ok(reply) => reply,
                    Err(error) if error.kind() == ErrorKind::LeaseHeld => return false,
                    Err(error) => panic!("{error}"),
                };
                assert!(reply.head.txid >= seen, "a head that is older than the one before");
                seen = reply.head.txid;
                reader.unlock(1).await;
                reader.store.renew_session(reader.session).await.expect("it lives");
            }
            true
        });
    }
    for _ in 0..300 {
        holder.commit(b"record").await.expect("the holder can");
    }
    readers[1].lock(2).await.expect("nobody is in the way");
    refused(holder.lock().await, ErrorKind::LeaseHeld);
    for _ in 0..100 {
        holder.commit(b"record").await.expect("the holder can");
    }
    stop.store(true, Ordering::SeqCst);
    place.command("latency version=0 read=0");
    let mut to_the_end = locking.join_all().await;
    to_the_end.sort_unstable();
    assert_eq!(to_the_end, [false, true], "the mark keeps out the one that has no other lock");
    assert!(
        place.counter("conflicts") <= 2,
        "{} conflicts: one for each reader beside the mark",
        place.counter("conflicts")
    );
    assert_eq!(place.counter("too_old"), 0);
}

/// Drops a call whose commit is on its way, and arrives late.
async fn given_up(place: &Place, call: impl Future<Output = ()> + Send + 'static) {
    let before = place.counter("read_versions");
    place.command("next commit.1039.late version.ok version.slow.60000");
    let lost = tokio::spawn(call);
    // It has asked for its version, and now asks for the one to look what came of it.
    while place.counter("read_versions") < before + 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lost.abort();
    drop(lost.await);
    place.command("next");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that arrives late")]
async fn what_was_given_up_is_not_locked_or_unlocked_later() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let our_session = session(&ours, LONG).await;
    place.command(&format!("latency late={}", LATE.as_micros()));
    for round in 0..6 {
        let holder = Holder::new(&ours, our_session, &format!("a-{round}")).await;
        let reader = Reader::new(&theirs, &holder).await;
        let other = Reader::new(&theirs, &holder).await;
        let queued = place.counter("queued");
        // A shared lock, then its unlocking.
        let lost = reader.clone();
        given_up(&place, async move { drop(lost.lock(1).await) }).await;
        reader.unlock(1).await;
        tokio::time::sleep(LATE + LATE / 4).await;
        assert!(place.counter("queued") >= queued + 2);
        assert_eq!(holder.keys_of_locks(&place).await.0, 0, "round {round}: a shared lock that nobody knows of");
        // The exclusive one, then its unlocking.
        let lost = holder.clone();
        given_up(&place, async move { drop(lost.lock().await) }).await;
        holder.unlock().await.expect("it has the lease");
        tokio::time::sleep(LATE + LATE / 4).await;
        other.lock(1).await.expect("it was unlocked");
        other.unlock(1).await;
        // An unlocking of the exclusive one, then another lock: where it was there, and where somebody is in its way.
        for in_the_way in [false, true] {
            if in_the_way {
                holder.unlock().await.expect("it has the lease");
                reader.lock(2).await.expect("nobody is in the way");
            }
            assert_eq!(holder.lock().await.is_err(), in_the_way);
            let lost = holder.clone();
            given_up(&place, async move { drop(lost.unlock().await) }).await;
            assert_eq!(holder.lock().await.is_err(), in_the_way);
            tokio::time::sleep(LATE + LATE / 4).await;
            refused(other.lock(3).await, ErrorKind::LeaseHeld);
        }
    }
    assert!(place.counter("conflicts") > 0, "none was late enough to show anything");
}

/// Begins a call, and comes back when its commit is on its way, where it takes its time.
async fn on_its_way<T: Send + 'static>(
    place: &Place,
    call: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    let before = place.counter("commits");
    place.command("latency commit=1600000");
    let call = tokio::spawn(call);
    while place.counter("commits") == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It looks up how long it takes just after it was counted.
    tokio::time::sleep(Duration::from_millis(200)).await;
    place.command("latency commit=0");
    call
}

/// What else is done while a shared lock is on its way to the cluster.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Locks,
    LocksAfterAnother,
    Ends,
    Deletes,
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that takes its time")]
async fn of_two_at_once_the_second_sees_the_first() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let our_session = session(&ours, LONG).await;
    for then in [Meanwhile::Locks, Meanwhile::LocksAfterAnother, Meanwhile::Ends, Meanwhile::Deletes] {
        let holder = Holder::new(&ours, our_session, &format!("{then:?}")).await;
        let reader = Reader::new(&theirs, &holder).await;
        if matches!(then, Meanwhile::LocksAfterAnother) {
            reader.lock(1).await.expect("nobody is in the way");
            refused(holder.lock().await, ErrorKind::LeaseHeld);
        }
        let locking = reader.clone();
        let locking = on_its_way(&place, async move { locking.lock(2).await }).await;
        let kind = match then {
            Meanwhile::Locks | Meanwhile::LocksAfterAnother => {
                reader.unlock(1).await;
                holder.lock().await.expect("nobody reads yet");
                ErrorKind::LeaseHeld
            }
            Meanwhile::Ends => {
                theirs.end_session(reader.session).await.expect("it lives");
                ErrorKind::Fenced
            }
            Meanwhile::Deletes => {
                ours.delete(holder.database, holder.epoch).await.expect("the holder can");
                ErrorKind::NotFound
            }
        };
        refused(locking.await.expect("no panic"), kind);
        assert_eq!(holder.keys_of_locks(&place).await.0, 0, "{then:?}");
    }
    let holder = Holder::new(&ours, our_session, "a").await;
    let reader = Reader::new(&theirs, &holder).await;
    let locking = holder.clone();
    let locking = on_its_way(&place, async move { locking.lock().await }).await;
    reader.lock(1).await.expect("nobody has locked yet");
    refused(locking.await.expect("no panic"), ErrorKind::LeaseHeld);
    reader.unlock(1).await;
    // A lock is no session's that has ended.
    let locking = holder.clone();
    let locking = on_its_way(&place, async move { locking.lock().await }).await;
    theirs.end_session(our_session).await.expect("it lives");
    refused(locking.await.expect("no panic"), ErrorKind::Fenced);
}

/// The holder's session has expired, and its last commit arrives while a reader is let in for that reason.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that takes its time")]
async fn the_last_commit_under_a_lock_that_ends_is_in_the_head() {
    const LIFETIME: Duration = Duration::from_secs(10);
    let place = Place::new();
    let (clock, still) = (Arc::new(ManualClock::default()), Arc::new(ManualClock::default()));
    let (ours, theirs) = (store_by(&place, &clock).await, store_by(&place, &still).await);
    let mut holder = Holder::new(&theirs, session(&theirs, LIFETIME).await, "a").await;
    holder.lock().await.expect("nobody reads");
    let reader = Reader::new(&ours, &holder).await;
    refused(reader.lock(1).await, ErrorKind::LeaseHeld);
    clock.advance(LIFETIME);
    let locking = reader.clone();
    let locking = on_its_way(&place, async move { locking.lock(1).await }).await;
    holder.commit(b"the last").await.expect("it has not ended yet");
    assert_eq!(locking.await.expect("no panic").expect("it has expired").head.txid, Txid(1));
    refused(holder.lock().await, ErrorKind::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_sessions_that_are_over_are_removed() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let holder = Holder::new(&ours, session(&ours, LONG).await, "a").await;
    let own = Reader { session: holder.session, ..Reader::new(&ours, &holder).await };
    own.lock(1).await.expect("nobody is in the way");
    // More than one transaction looks at.
    let mut locking = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let reader = Reader::new(&theirs, &holder).await;
        locking.spawn(async move {
            reader.lock(1).await.expect("nobody is in the way");
            reader.lock(2).await.expect("nobody is in the way");
            reader.store.end_session(reader.session).await.expect("it ends");
        });
    }
    locking.join_all().await;
    assert_eq!(holder.keys_of_locks(&place).await, (601, 0));
    let before = requests(&place)[2];
    holder.lock().await.expect("none of them lives");
    assert!(requests(&place)[2] > before + 1, "in several transactions");
    assert_eq!(holder.keys_of_locks(&place).await, (1, 1), "its own session has one");
    ours.delete(holder.database, holder.epoch).await.expect("the holder can");
    assert_eq!(holder.keys_of_locks(&place).await, (0, 0));
    refused(own.lock(2).await, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_readers_few_are_looked_at() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let holder = Holder::new(&ours, session(&ours, LONG).await, "a").await;
    let mut locking = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let reader = Reader::new(&theirs, &holder).await;
        locking.spawn(async move { reader.lock(1).await.map(drop).expect("nobody is in the way") });
    }
    locking.join_all().await;
    let (spent, locked) = counted(&place, holder.lock()).await;
    refused(locked, ErrorKind::LeaseHeld);
    assert!(spent[1] < 150 && spent[2] == 1, "{spent:?}");
}

/// Others can tell only by watching, on either side; and who was found to have expired is over, also for its own process.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_other_processes_are_watched() {
    const LIFETIME: Duration = Duration::from_secs(10);
    let place = Place::new();
    // The other process stands still: so it does not see that its sessions expire.
    let (clock, still) = (Arc::new(ManualClock::default()), Arc::new(ManualClock::default()));
    let (ours, theirs) = (store_by(&place, &clock).await, store_by(&place, &still).await);
    let holder = Holder::new(&ours, session(&ours, LONG).await, "a").await;
    let reader = Reader { session: session(&theirs, LIFETIME).await, ..Reader::new(&theirs, &holder).await };
    reader.lock(1).await.expect("nobody is in the way");
    clock.advance(LIFETIME * 3);
    refused(holder.lock().await, ErrorKind::LeaseHeld);
    clock.advance(LIFETIME * 9 / 10);
    theirs.renew_session(reader.session).await.expect("it lives");
    refused(holder.lock().await, ErrorKind::LeaseHeld);
    clock.advance(LIFETIME * 9 / 10);
    refused(holder.lock().await, ErrorKind::LeaseHeld);
    clock.advance(LIFETIME / 10);
    holder.lock().await.expect("it was not renewed for its lifetime");
    refused(theirs.renew_session(reader.session).await, ErrorKind::Fenced);
    refused(reader.lock(1).await, ErrorKind::Fenced);
    // The holder's.
    let owner = session(&theirs, LIFETIME).await;
    let mut old = Holder::new(&theirs, owner, "b").await;
    old.lock().await.expect("nobody reads");
    old.commit(b"under the lock").await.expect("the holder can");
    let reader = Reader::new(&ours, &old).await;
    refused(reader.lock(1).await, ErrorKind::LeaseHeld);
    clock.advance(LIFETIME);
    assert_eq!(reader.lock(1).await.expect("it was not renewed for its lifetime").head.txid, Txid(1));
    refused(theirs.renew_session(owner).await, ErrorKind::Fenced);
    refused(old.lock().await, ErrorKind::Fenced);
    assert!(still.monotonic() < LIFETIME);
}

/// Readers that come and go would be quicker each time than a lock that relies on there being none. So the mark comes first then, and
/// keeps new ones out.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that takes its time")]
async fn a_writer_that_a_reader_was_quicker_than_makes_the_mark_first() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let holder = Holder::new(&ours, session(&ours, LONG).await, "a").await;
    let reader = Reader::new(&theirs, &holder).await;
    let before = place.counter("commits");
    let locking = holder.clone();
    let locking = on_its_way(&place, async move { locking.lock().await }).await;
    reader.lock(1).await.expect("nobody has locked yet");
    reader.unlock(1).await;
    locking.await.expect("no panic").expect("nobody reads any more");
    assert_eq!(place.counter("conflicts"), 1);
    assert_eq!(place.counter("commits") - before, 5, "two of the reader; in vain, the mark, and the lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mark_is_told_and_made_anew() {
    let place = Place::new();
    let store = store(&place).await;
    let holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    let reader = Reader::new(&store, &holder).await;
    let id = u8::try_from(holder.database.get()).expect("a small id");
    by_hand(&place, |trx, key| trx.set(&key(&[5, 1, id, 0x14]), b"damaged")).await;
    refused(reader.lock(1).await, ErrorKind::Corrupt);
    holder.lock().await.expect("nobody reads");
    refused(reader.lock(1).await, ErrorKind::LeaseHeld);
    holder.unlock().await.expect("it has the lease");
    reader.lock(1).await.expect("nobody is in the way");
}
