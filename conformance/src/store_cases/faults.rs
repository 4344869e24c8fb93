//! What becomes of calls whose request or reply is lost, and of those that arrive late.

use std::sync::Arc;

use litefleet::store::{
    CheckpointRequest, CommitMode, Effect, Fault, FaultPlan, HeadRequest, Operation, PageStore, SharedLock,
    SharedRequest,
};
use litefleet::{CommitId, Epoch, ErrorKind, PageNo, Result, Txid, UnixMillis};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{
    AMPLE, LONG, Writer, commit_one, complete, faulty, image, lease_request, name, picture, read_log, refused, scan,
    session, session_id, start, tail,
};
use crate::harness::Harness;

/// The next call of this operation meets the effect.
fn next(plan: &FaultPlan, operation: Operation, effect: Effect) {
    plan.disarm();
    plan.arm(Fault { operation: Some(operation), after: 0, times: 1, effect });
}

/// A commit whose reply is lost is found by its id; one whose request is lost is known not to have happened once the
/// epoch was raised.
pub async fn lost_replies_are_resolved_by_id(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    let mut writer = Writer::new(&store, "a").await;
    let mut rng = StdRng::seed_from_u64(7);
    let mut acknowledged: Vec<CommitId> = Vec::new();
    for _ in 0..40 {
        let lost = match rng.random_range(0..3) {
            0 => None,
            1 => Some(Effect::LoseReply),
            _ => Some(Effect::LoseRequest),
        };
        if let Some(effect) = lost {
            next(&plan, Operation::Commit, effect);
        }
        let request = writer.request(format!("record-{}", writer.txid.next()).as_bytes());
        let Some(effect) = lost else {
            acknowledged.push(request.commit_id);
            writer.try_commit(request).await.expect("no fault is armed");
            continue;
        };
        refused(commit_one(&store, request.clone()).await, ErrorKind::CommitUnknown, "a lost reply");
        let head = writer.head().await;
        let done = head.commit_id == request.commit_id;
        assert_eq!(done, effect == Effect::LoseReply);
        if done {
            assert_eq!(head.txid, writer.txid.next());
            commit_one(&store, request.clone()).await.expect("the same again changes nothing");
            acknowledged.push(request.commit_id);
            writer.note(request.commit_id);
        } else {
            assert_eq!(head.txid, writer.txid);
            writer = Writer::with_session(&store, writer.session, "a").await;
            refused(commit_one(&store, request).await, ErrorKind::Fenced, "the same under the old epoch");
        }
    }
    let count = acknowledged.len() as u64;
    let log = read_log(&store, writer.database, 0, count).await;
    assert_eq!(log.expect("it is there").len() as u64, count);
    let head = writer.head().await;
    assert_eq!(head.txid, Txid(count));
    assert_eq!(Some(&head.commit_id), acknowledged.last());
}

/// A deposed writer whose reply was lost learns from the end of its epoch whether its commit happened.
pub async fn deposed_writer_learns_its_outcome(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    for (round, effect) in [Effect::LoseReply, Effect::LoseRequest].into_iter().enumerate() {
        let text = format!("db-{round}");
        let mut writer = Writer::new(&store, &text).await;
        writer.commit_up_to(3).await;
        next(&plan, Operation::Commit, effect);
        let request = writer.request(b"lost");
        refused(commit_one(&store, request.clone()).await, ErrorKind::CommitUnknown, "a lost reply");
        let mut taker = writer.take_over().await;
        taker.commit_up_to(8).await;
        let mut taker = taker.take_over().await;
        taker.commit_up_to(9).await;
        let ask =
            HeadRequest { database: writer.database, known: writer.txid, epoch: Some(writer.epoch), tail_bytes: AMPLE };
        let end = store.head(ask).await.expect("it exists").ended;
        let end = end.expect("the end of the epoch is known");
        let done = effect == Effect::LoseReply;
        assert_eq!(end.commit_id == request.commit_id, done);
        assert_eq!(end.txid, Txid(3 + u64::from(done)));
    }
}

/// A commit that reaches the store after the epoch was raised does nothing, whoever raised it; one that arrives
/// before does what it says.
pub async fn late_commit_is_fenced(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    for (round, mode) in [CommitMode::Independent, CommitMode::Atomic].into_iter().enumerate() {
        for raised_by in ["nobody", "itself", "a taker", "a taker that commits", "a release"] {
            let text = format!("{round}-{raised_by}");
            let mut writer = Writer::new(&store, &text).await;
            writer.commit_up_to(2).await;
            next(&plan, Operation::Commit, Effect::Late);
            let request = writer.request(b"late");
            refused(
                store.commit(vec![request.clone()], mode).await,
                ErrorKind::CommitUnknown,
                "a commit that is on its way",
            );
            assert_eq!(writer.head().await.txid, Txid(2));
            match raised_by {
                "itself" => drop(Writer::with_session(&store, writer.session, &text).await),
                "a taker" => drop(writer.take_over().await),
                "a taker that commits" => writer.take_over().await.commit_up_to(3).await,
                "a release" => writer.release(&[]).await.expect("the holder can"),
                _ => {}
            }
            let before = picture(&store, writer.database).await;
            assert_eq!(plan.deliver().await, 1);
            let head = writer.head().await;
            if raised_by == "nobody" {
                assert_eq!((head.txid, head.commit_id), (Txid(3), request.commit_id));
                let tail = tail(&store, writer.database, 2).await;
                let record = complete(&tail).first().map(|row| row.record.clone());
                assert_eq!(record, Some(request.record));
            } else {
                assert_eq!(picture(&store, writer.database).await, before, "{raised_by}");
            }
        }
    }
}

/// A stage request that reaches the store after a discard, after the commit, or after a takeover does nothing, also
/// when it is the first of its transaction.
pub async fn late_stage_after_discard_is_harmless(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    for first in [true, false] {
        for meanwhile in ["discard", "discard and stage", "commit", "takeover"] {
            let mut writer = Writer::new(&store, &format!("{meanwhile}-{first}")).await;
            writer.commit_up_to(1).await;
            let mut generation = writer.head().await.generation;
            if !first {
                generation = writer.stage(&[image(1, 2, b"early")]).await;
            }
            next(&plan, Operation::Stage, Effect::Late);
            let rows = vec![image(2, 2, b"late")];
            refused(
                store.stage(writer.stage_request(generation, rows)).await,
                ErrorKind::Unavailable,
                "a stage request that is on its way",
            );
            if meanwhile == "takeover" {
                writer = writer.take_over().await;
            }
            let discarded = writer.discard().await;
            match meanwhile {
                "commit" => writer.commit(b"small").await,
                "discard and stage" => {
                    writer.stage(&[image(3, 2, b"next")]).await;
                }
                _ => {}
            }
            let before = picture(&store, writer.database).await;
            assert_eq!(plan.deliver().await, 1);
            assert_eq!(picture(&store, writer.database).await, before, "{meanwhile}");
            if meanwhile == "discard and stage" {
                let mut flip = writer.request(b"flip");
                flip.staged = Some(writer.staged(discarded.generation));
                writer.try_commit(flip).await.expect("it is its own");
            } else {
                writer.commit(b"goes on").await;
            }
            let late = scan(&store, writer.database).await;
            assert!(late.iter().all(|row| row.page.get() == 3), "{late:?}");
        }
    }
}

/// A discard that reaches the store after the next attempt has staged rows leaves them alone.
pub async fn late_discard_undoes_no_later_staging(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    for limit in [1, 100] {
        let mut writer = Writer::new(&store, &format!("limit-{limit}")).await;
        let first = writer.stage(&[image(1, 1, b"first")]).await;
        next(&plan, Operation::DiscardStaged, Effect::Late);
        refused(
            store.discard_staged(writer.discard_request(first, limit)).await,
            ErrorKind::Unavailable,
            "a discard that is on its way",
        );
        writer.discard().await;
        let rows = [image(1, 1, b"second"), image(2, 1, b"second")];
        let generation = writer.stage(&rows).await;
        assert_eq!(plan.deliver().await, 1);
        let mut flip = writer.request(b"flip");
        flip.staged = Some(writer.staged(generation));
        writer.try_commit(flip).await.expect("it is its own staging");
        assert_eq!(scan(&store, writer.database).await, rows);
        writer.commit(b"goes on").await;
    }
}

/// Late checkpoints, discards, releases, renames and deletes of a deposed holder do nothing.
pub async fn late_writes_are_fenced(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(3).await;
    writer.checkpoint(2, &[image(1, 2, b"row")]).await;
    for (operation, attempt) in super::fencing::attempts(&writer) {
        next(&plan, operation, Effect::Late);
        assert!(attempt.await.is_err(), "{} is late", operation.as_str());
    }
    writer.take_over().await;
    let before = picture(&store, writer.database).await;
    assert_eq!(plan.deliver().await, 10);
    assert_eq!(picture(&store, writer.database).await, before);
    lock_shared(&store, &writer).await.expect("what came late has locked nothing");
}

/// A session of its own locks the writer's database for reading.
async fn lock_shared(store: &Arc<dyn PageStore>, writer: &Writer) -> Result<()> {
    let lock = SharedLock { session: session(store, LONG).await, number: 1 };
    let head = HeadRequest { database: writer.database, known: Txid(0), epoch: None, tail_bytes: 0 };
    store.lock_shared(SharedRequest { lock, head }).await.map(drop)
}

/// Every call but a commit may be repeated after its reply was lost: the state is as if it had been made once.
pub async fn repeated_calls_do_no_harm(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    let owner = session_id();
    macro_rules! twice {
        ($operation:ident, $call:expr) => {{
            next(&plan, Operation::$operation, Effect::LoseReply);
            refused($call.await.map(|_| ()), ErrorKind::Unavailable, "a lost reply");
            plan.disarm();
            $call.await
        }};
    }
    twice!(StartSession, start(&store, owner, LONG)).expect("it starts");
    twice!(RenewSession, store.renew_session(owner)).expect("it lives");
    let mut create = lease_request("a", owner, false);
    create.create = true;
    let opened = twice!(Open, store.open(create.clone())).expect("its own lease");
    let mut writer = Writer::from_opened(&store, owner, "a", &opened);
    assert_eq!(store.list("", None, 9).await.expect("a list").len(), 1);
    writer.commit_up_to(4).await;
    let request = |txid| CheckpointRequest {
        database: writer.database,
        epoch: writer.epoch,
        txid: Txid(txid),
        since: Txid(0),
        attempt: 0,
        piece: 0,
        rows: vec![image(1, txid, b"row")],
        last: true,
        time: UnixMillis(9),
        warm: vec![PageNo(1)],
    };
    for txid in [2, 3] {
        twice!(Checkpoint, store.checkpoint(request(txid))).expect("it holds");
        assert_eq!(writer.head().await.checkpoint, Txid(txid));
    }
    let generation = writer.head().await.generation;
    let staged = || writer.stage_request(generation, vec![image(2, 5, b"staged")]);
    twice!(Stage, store.stage(staged())).expect("it holds");
    assert_eq!(scan(&store, writer.database).await.len(), 3);
    let discarded = twice!(DiscardStaged, store.discard_staged(writer.discard_request(generation, 9)));
    assert!(discarded.expect("it holds").done);
    let mut collect = writer.collect_request(3, vec![litefleet::PageRange::single(litefleet::PageNo(1))]);
    collect.log_through = Txid(2);
    let reply = twice!(Collect, store.collect(collect.clone())).expect("it holds");
    assert_eq!((reply.horizon, reply.log_start), (Txid(3), Txid(2)));
    let moved = || store.rename(writer.database, writer.epoch, name("b"));
    twice!(Rename, moved()).expect("it is its own name already");
    let before = picture(&store, writer.database).await;
    assert_eq!((before.rows.len(), before.log.len()), (1, 2));
    assert_eq!(before.name, name("b"));
    twice!(List, store.list("", None, 9)).expect("a list");
    twice!(Scan, store.scan(writer.database, None, 9)).expect("a scan");
    let lock = SharedLock { session: session(&store, LONG).await, number: 1 };
    let head = HeadRequest { database: writer.database, known: Txid(0), epoch: None, tail_bytes: 0 };
    twice!(LockShared, store.lock_shared(SharedRequest { lock, head })).expect("nobody is in the way");
    refused(store.lock_exclusive(writer.database, writer.epoch).await, ErrorKind::LeaseHeld, "a lock beside a reader");
    twice!(UnlockShared, store.unlock_shared(writer.database, lock)).expect("it is no error");
    twice!(LockExclusive, store.lock_exclusive(writer.database, writer.epoch)).expect("nobody reads");
    twice!(UnlockExclusive, store.unlock_exclusive(writer.database, writer.epoch)).expect("it holds");
    twice!(Release, writer.release(&[1])).expect("it is released already");
    assert_eq!(writer.head().await.holder, None);
    let writer = Writer::new(&store, "b").await;
    // What is deleted already may be said to be gone.
    if let Err(error) = twice!(Delete, store.delete(writer.database, writer.epoch)) {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert!(store.list("", None, 9).await.expect("a list").is_empty());
    twice!(Purge, store.purge(100)).expect("a purge");
    twice!(EndSession, store.end_session(owner)).expect("it is no error");
    let again = session(&store, LONG).await;
    create.lease = lease_request("a", again, false).lease;
    let opened = store.open(create).await.expect("the name is free");
    assert!(opened.created && opened.head.epoch > Epoch(0));
}

/// Calls that never reach the store, or find it full, change nothing, and the next one does what it says.
pub async fn refused_calls_change_nothing(harness: &dyn Harness) {
    let (store, plan) = faulty(&harness.store().await);
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(3).await;
    writer.checkpoint(2, &[image(1, 2, b"row")]).await;
    let before = picture(&store, writer.database).await;
    for (effect, kind) in [(Effect::Refuse, ErrorKind::Unavailable), (Effect::Full, ErrorKind::Full)] {
        for (operation, attempt) in super::fencing::attempts(&writer) {
            next(&plan, operation, effect);
            refused(attempt.await, kind, operation.as_str());
            assert_eq!(picture(&store, writer.database).await, before);
        }
    }
    assert_eq!(plan.hits(), 20);
    lock_shared(&store, &writer).await.expect("what was refused has locked nothing");
    writer.commit(b"goes on").await;
}
