//! Shared locks and the exclusive one: SQLite's, for those who agree on them across processes.

use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{HeadReply, HeadRequest, PageStore, SharedLock, SharedRequest, Tail};
use litefleet::{DatabaseId, ErrorKind, Result, SessionId, Txid};

use crate::fixture::{
    AMPLE, LONG, Tasks, Writer, complete, each_at_once, lease_request, log_txids, name, open_request, refused, session,
    session_id,
};
use crate::harness::{Harness, pass, short_lifetime};

/// A session that locks a database for reading.
struct Reader {
    store: Arc<dyn PageStore>,
    database: DatabaseId,
    session: SessionId,
}

impl Reader {
    async fn new(writer: &Writer) -> Self {
        Self::of(writer, session(&writer.store, LONG).await)
    }

    fn of(writer: &Writer, session: SessionId) -> Self {
        Self { store: Arc::clone(&writer.store), database: writer.database, session }
    }

    fn numbered(&self, number: u64) -> SharedLock {
        SharedLock { session: self.session, number }
    }

    async fn ask(&self, number: u64, known: u64) -> Result<HeadReply> {
        let head = HeadRequest { database: self.database, known: Txid(known), epoch: None, tail_bytes: AMPLE };
        self.store.lock_shared(SharedRequest { lock: self.numbered(number), head }).await
    }

    async fn try_lock(&self, number: u64) -> Result<()> {
        self.ask(number, 0).await.map(drop)
    }

    async fn lock(&self, number: u64) {
        self.try_lock(number).await.expect("nobody is in the way");
    }

    async fn unlock(&self, number: u64) {
        self.store.unlock_shared(self.database, self.numbered(number)).await.expect("the database is there");
    }
}

impl Writer {
    async fn lock(&self) -> Result<()> {
        self.store.lock_exclusive(self.database, self.epoch).await
    }

    async fn unlock(&self) {
        self.store.unlock_exclusive(self.database, self.epoch).await.expect("it has the lease");
    }
}

/// A reader of another session keeps the holder from locking exclusively until it unlocks, whatever its own session has
/// locked. What the holder of the lease may do besides, it may all the time.
pub async fn shared_lock_keeps_the_writer_out(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let [first, second] = [Reader::new(&writer).await, Reader::new(&writer).await];
    Reader::of(&writer, writer.session).lock(1).await;
    writer.lock().await.expect("its own session is not in its way");
    writer.unlock().await;
    first.lock(1).await;
    second.lock(1).await;
    for reader in [&first, &second] {
        let refusal = writer.lock().await.expect_err("others read");
        assert_eq!(refusal.kind(), ErrorKind::LeaseHeld, "{refusal}");
        assert!(refusal.to_string().contains("label-of-"), "it says who is in the way: {refusal}");
        reader.unlock(1).await;
    }
    writer.lock().await.expect("they have unlocked");
    writer.lock().await.expect("it has it already");
    writer.commit(b"under the lock").await;
    let elsewhere = Writer::new(&store, "b").await;
    Reader::of(&elsewhere, first.session).lock(1).await;
    writer.lock().await.expect("a reader of another database is in nobody's way");
    refused(elsewhere.lock().await, ErrorKind::LeaseHeld, "a lock beside a reader of the same database");
}

/// Who has asked for the exclusive lock keeps new readers out, also while it waits for those before.
pub async fn exclusive_lock_keeps_new_readers_out(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let [first, late] = [Reader::new(&writer).await, Reader::new(&writer).await];
    first.lock(1).await;
    refused(writer.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside a reader");
    let refusal = late.try_lock(1).await.expect_err("somebody waits to write");
    assert_eq!(refusal.kind(), ErrorKind::LeaseHeld, "{refusal}");
    let label = format!("label-of-{}", writer.session);
    assert!(refusal.to_string().contains(&label), "it says who is in the way: {refusal}");
    Reader::of(&writer, writer.session).lock(1).await;
    let elsewhere = Writer::new(&store, "b").await;
    Reader::of(&elsewhere, late.session).lock(1).await;
    refused(
        late.try_lock(1).await,
        ErrorKind::LeaseHeld,
        "a shared lock of a session that has one of another database",
    );
    first.unlock(1).await;
    refused(late.try_lock(1).await, ErrorKind::LeaseHeld, "a shared lock beside one who waits no more");
    writer.lock().await.expect("the reader has unlocked");
    refused(late.try_lock(1).await, ErrorKind::LeaseHeld, "a shared lock beside the exclusive one");
    late.unlock(1).await;
    writer.lock().await.expect("what was refused was not locked");
    writer.unlock().await;
    late.lock(1).await;
}

/// A session that reads already lets more of its connections read, also while somebody waits for it.
pub async fn shared_lock_lets_in_others_of_its_session(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let reader = Reader::new(&writer).await;
    reader.lock(1).await;
    refused(writer.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside a reader");
    reader.lock(2).await;
    reader.unlock(1).await;
    refused(writer.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside another reader of that session");
    reader.unlock(2).await;
    refused(reader.try_lock(3).await, ErrorKind::LeaseHeld, "a shared lock of a session that has none any more");
    writer.lock().await.expect("they have unlocked");
}

/// A lock that is asked for twice is one; one that was given back, or was never there, can be given back; and each number is a
/// lock of its own.
pub async fn shared_locks_are_counted_by_number(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let reader = Reader::new(&writer).await;
    reader.lock(7).await;
    reader.lock(7).await;
    reader.unlock(7).await;
    reader.unlock(7).await;
    writer.lock().await.expect("it was one lock");
    writer.unlock().await;
    reader.lock(8).await;
    // One that was sent for a lock before, and arrives late.
    reader.unlock(7).await;
    Reader::of(&writer, session_id()).unlock(8).await;
    refused(writer.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside lock number 8");
    reader.unlock(8).await;
    writer.lock().await.expect("all were given back");
}

/// The exclusive lock ends with the lease, however that ends, and when the holder says so.
pub async fn exclusive_lock_ends_with_the_lease(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let reader = Reader::new(&writer).await;
    for round in 0..6 {
        writer.lock().await.expect("nobody reads");
        refused(reader.try_lock(round).await, ErrorKind::LeaseHeld, "a shared lock beside the exclusive one");
        let session = session(&store, LONG).await;
        let mut old = writer.clone();
        match round {
            0 => writer.unlock().await,
            1 => writer.release(&[]).await.expect("it holds the lease"),
            2 => {
                let mut request = writer.request(b"the last");
                request.release = true;
                writer.try_commit(request).await.expect("it holds the lease");
            }
            3 => {
                store.end_session(writer.session).await.expect("it lives");
                refused(writer.lock().await, ErrorKind::Fenced, "the exclusive lock of a session that is over");
            }
            4 => writer = writer.force(session).await,
            // The same session takes its own lease anew.
            _ => writer = Writer::with_session(&store, writer.session, "a").await,
        }
        reader.lock(round).await;
        if (1..=3).contains(&round) {
            writer = Writer::with_session(&store, session, "a").await;
        }
        if round > 0 {
            refused(old.lock().await, ErrorKind::Fenced, "the exclusive lock of an epoch that is over");
            let unlocked = store.unlock_exclusive(old.database, old.epoch).await;
            refused(unlocked, ErrorKind::Fenced, "letting others in under an epoch that is over");
            old.txid = writer.txid;
        }
        refused(writer.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside a reader");
        reader.unlock(round).await;
    }
}

/// The head that comes with a lock, and the log after what is known, are those of the moment: whoever has written since commits
/// with the lock only after it.
pub async fn shared_lock_comes_with_the_head(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(3).await;
    let reader = Reader::new(&writer).await;
    for number in [1, 1, 2] {
        let reply = reader.ask(number, 1).await.expect("nobody is in the way");
        assert_eq!((&reply.name, reply.head.txid, reply.head.commit_id), (&name("a"), Txid(3), writer.last));
        assert_eq!(reply.head.holder.map(|holder| holder.session), Some(writer.session));
        assert_eq!(log_txids(complete(&reply.tail)), [2, 3]);
    }
    writer.checkpoint(3, &[]).await;
    writer.collect(3, 1, 3).await;
    let reply = reader.ask(3, 1).await.expect("nobody is in the way");
    assert_eq!((reply.tail, reply.head.checkpoint, reply.head.horizon), (Tail::Reload, Txid(3), Txid(3)));
}

/// Reads, commits and leases ask for no lock, and mind none.
pub async fn locks_bind_those_who_ask_for_them(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let reader = Reader::new(&writer).await;
    reader.lock(1).await;
    writer.commit(b"beside a reader").await;
    writer.release(&[]).await.expect("it holds the lease");
    let mut next = Writer::with_session(&store, session(&store, LONG).await, "a").await;
    refused(next.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside a reader from before the lease");
    next.commit(b"without the lock").await;
    let opened = store.open(open_request("a")).await.expect("opening takes no lock");
    assert_eq!(opened.head.txid, Txid(2));
    assert_eq!(next.head().await.txid, Txid(2));
    store.delete(next.database, next.epoch).await.expect("it holds the lease");
    refused(reader.try_lock(2).await, ErrorKind::NotFound, "a lock of a database that was deleted");
    let unlocked = store.unlock_shared(reader.database, reader.numbered(1)).await;
    refused(unlocked, ErrorKind::NotFound, "giving back a lock of a database that was deleted");
    refused(next.lock().await, ErrorKind::NotFound, "the exclusive lock of a database that was deleted");
}

/// A session that is over, or that nobody has started, gets no lock.
pub async fn expired_session_gets_no_shared_lock(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let lifetime = short_lifetime(harness);
    let expired = session(&store, lifetime).await;
    let ended = session(&store, LONG).await;
    store.end_session(ended).await.expect("it lives");
    pass(harness, lifetime + lifetime / 4).await;
    // Where nobody has a clock the end of a session is seen by whoever renews it.
    refused(store.renew_session(expired).await, ErrorKind::Fenced, "renewing an expired session");
    for (session, what) in [(expired, "expired"), (ended, "ended"), (session_id(), "unknown")] {
        let reader = Reader::of(&writer, session);
        refused(reader.try_lock(1).await, ErrorKind::Fenced, &format!("a lock for a session that is {what}"));
    }
    writer.lock().await.expect("none of them has a lock");
}

/// The locks of a session end when it does, and when it has expired: then at once where the store has a clock, else when the
/// holder of the lease has watched it for its lifetime.
pub async fn locks_end_with_their_session(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let ended = Reader::new(&writer).await;
    ended.lock(1).await;
    refused(writer.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside a reader");
    store.end_session(ended.session).await.expect("it lives");
    writer.lock().await.expect("the reader's session has ended");
    writer.unlock().await;
    let lifetime = short_lifetime(harness);
    let expired = Reader::of(&writer, session(&store, lifetime).await);
    expired.lock(1).await;
    pass(harness, lifetime + lifetime / 4).await;
    lock_in_time(harness, &writer, lifetime).await;
    writer.unlock().await;
    // The exclusive lock of a session that has expired.
    let old = Writer::with_session(&store, session(&store, lifetime).await, "b").await;
    old.lock().await.expect("nobody reads");
    pass(harness, lifetime + lifetime / 4).await;
    refused(old.lock().await, ErrorKind::Fenced, "the exclusive lock of a session that has expired");
    let reader = Reader::new(&old).await;
    for round in 0.. {
        match reader.try_lock(1).await {
            Ok(()) => break,
            Err(error) => assert!(error.kind() == ErrorKind::LeaseHeld && round < 40, "{error}"),
        }
        pass(harness, lifetime / 20).await;
    }
    let taken = store.open(lease_request("b", writer.session, false)).await.expect("its holder's session has expired");
    let taken = Writer::from_opened(&store, writer.session, "b", &taken);
    refused(taken.lock().await, ErrorKind::LeaseHeld, "the exclusive lock beside a reader");
}

async fn lock_in_time(harness: &dyn Harness, writer: &Writer, lifetime: Duration) {
    for _ in 0..40 {
        match writer.lock().await {
            Ok(()) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseHeld, "{error}"),
        }
        pass(harness, lifetime / 20).await;
    }
    panic!("a reader is still in the way two lifetimes after its session expired");
}

/// Of a reader and a writer that ask at the same time one at most is let in, and the other is told that somebody is in the way.
pub async fn shared_and_exclusive_race(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let readers = [Reader::new(&writer).await, Reader::new(&writer).await];
    for round in 0..30 {
        let asked = each_at_once(0..3, |who: usize| {
            let (store, database, epoch) = (Arc::clone(&store), writer.database, writer.epoch);
            let reader = readers.get(who).map(|reader| reader.session);
            async move {
                let Some(session) = reader else { return store.lock_exclusive(database, epoch).await };
                let head = HeadRequest { database, known: Txid(0), epoch: None, tail_bytes: 0 };
                let lock = SharedLock { session, number: round };
                store.lock_shared(SharedRequest { lock, head }).await.map(drop)
            }
        })
        .await;
        let granted: Vec<bool> = asked
            .into_iter()
            .map(|asked| match asked {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LeaseHeld, "round {round}: {error}");
                    false
                }
            })
            .collect();
        let wrote = granted[2];
        assert!(!wrote || granted == [false, false, true], "round {round}: both were let in: {granted:?}");
        for reader in &readers {
            reader.unlock(round).await;
        }
        writer.lock().await.expect("nobody reads any more");
        writer.unlock().await;
    }
}

/// Whoever has a shared lock has the newest state with it: what one has committed who was alone before it, and who commits after it
/// only when it has unlocked.
pub async fn head_of_a_shared_lock_stands_still(harness: &dyn Harness) {
    const ROUNDS: u64 = 40;
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let reader = Reader::new(&writer).await;
    let mut tasks = Tasks::new();
    let mut writer = writer;
    tasks.spawn(async move {
        let mut committed = 0;
        while committed < ROUNDS {
            match writer.lock().await {
                Ok(()) => {
                    writer.commit(b"alone").await;
                    committed += 1;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseHeld, "{error}"),
            }
            writer.unlock().await;
            tokio::task::yield_now().await;
        }
    });
    tasks.spawn(async move {
        let mut number = 0;
        let mut seen = 0;
        while seen < ROUNDS {
            number += 1;
            let reply = match reader.ask(number, 0).await {
                Ok(reply) => reply,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LeaseHeld, "{error}");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let head = HeadRequest { database: reader.database, known: Txid(0), epoch: None, tail_bytes: 0 };
            let later = reader.store.head(head).await.expect("the database is there").head.txid;
            assert_eq!(reply.head.txid, later, "it moved beside a reader");
            seen = later.get();
            reader.unlock(number).await;
            tokio::task::yield_now().await;
        }
    });
    tasks.join().await;
}
