//! Many at once: holders that fight, readers beside writers, calls that are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use litefleet::store::{CommitMode, HeadRequest, Lineage, OpenRequest, PageStore, SharedLock, SharedRequest};
use litefleet::{CommitId, Epoch, ErrorKind, Txid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fencing::attempts;
use crate::fixture::{
    LONG, Tasks, Writer, commit_one, image, lease_request, open_request, picture, read, read_log, refused, scan,
    session, singles, zero,
};
use crate::harness::Harness;

/// Two holders take the lease from each other in many interleavings, and commit as if each were alone: the one with the
/// current epoch and txid succeeds, the other is told, and the log is exactly what was acknowledged.
pub async fn two_holders_fight(harness: &dyn Harness) {
    let store = harness.store().await;
    for seed in 0..20_u64 {
        let mut sessions = [session(&store, LONG).await, session(&store, LONG).await];
        // Whose session was ended by the other's force.
        let mut ended = [false; 2];
        let mut rng = StdRng::seed_from_u64(seed);
        let text = format!("db-{seed}");
        let first = Writer::with_session(&store, sessions[0], &text).await;
        let mut truth = (first.epoch, Some(0), Txid(0), CommitId::default());
        let mut holders = [first.clone(), first.force(sessions[1]).await];
        truth.0 = holders[1].epoch;
        truth.1 = Some(1);
        ended[0] = true;
        let mut log: Vec<(CommitId, String)> = Vec::new();
        for step in 0..60 {
            let who = usize::from(rng.random::<bool>());
            let holder = holders.get_mut(who).expect("there are two");
            let mine = holder.epoch == truth.0 && truth.1 == Some(who);
            let step_kind = rng.random_range(0..10);
            if matches!(step_kind, 6..=8) && ended[who] {
                refused(
                    store.open(lease_request(&text, sessions[who], true)).await,
                    ErrorKind::Fenced,
                    "a lease for a session that was ended by force",
                );
                sessions[who] = session(&store, LONG).await;
                ended[who] = false;
            }
            match step_kind {
                0..=5 => {
                    let record = format!("{who}-{step}");
                    let mut request = holder.request(record.as_bytes());
                    request.release = rng.random_range(0..8) == 0;
                    let (id, release) = (request.commit_id, request.release);
                    let result = holder.try_commit(request).await;
                    if mine {
                        result.expect("the holder's commit");
                        (truth.2, truth.3) = (holder.txid, id);
                        log.push((id, record));
                        if release {
                            truth.1 = None;
                        }
                    } else {
                        refused(result, ErrorKind::Fenced, "the deposed holder's commit");
                    }
                }
                6 | 7 => {
                    *holder = holder.force(sessions[who]).await;
                    assert!(holder.epoch > truth.0);
                    ended[1 - who] |= truth.1 == Some(1 - who);
                    (truth.0, truth.1) = (holder.epoch, Some(who));
                }
                8 => match store.open(lease_request(&text, sessions[who], false)).await {
                    Ok(opened) => {
                        assert!(truth.1.is_none_or(|holder| holder == who));
                        assert!(opened.head.epoch > truth.0);
                        *holder = Writer::from_opened(&store, sessions[who], &text, &opened);
                        (truth.0, truth.1) = (holder.epoch, Some(who));
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::LeaseHeld, "{error}");
                        assert_eq!(truth.1, Some(1 - who));
                    }
                },
                _ => match holder.release(&[]).await {
                    Ok(()) => {
                        assert_eq!(holder.epoch, truth.0, "a release by somebody else");
                        // It was its own, or it is free already.
                        assert!(mine || truth.1.is_none());
                        truth.1 = None;
                    }
                    Err(error) => {
                        assert_ne!(holder.epoch, truth.0, "{error}");
                        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                    }
                },
            }
            let head = first.head().await;
            assert_eq!((head.epoch, head.txid, head.commit_id), (truth.0, truth.2, truth.3));
            let holder = head.holder.map(|holder| holder.session);
            assert_eq!(holder, truth.1.and_then(|who| sessions.get(who).copied()));
        }
        let found = read_log(&store, first.database, 0, truth.2.get()).await;
        let found: Vec<_> = found.expect("it is there").into_iter().map(|r| r.record).collect();
        let records: Vec<_> = log.into_iter().map(|(_, record)| record).collect();
        assert_eq!(found, records, "seed {seed}");
    }
}

/// Many holders fight at the same moment. Each acknowledged commit is in the log where it was acknowledged, nothing
/// else is, and the epochs of the log never fall.
pub async fn many_holders_fight(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut request = open_request("a");
    request.create = true;
    let database = store.open(request).await.expect("it is created").database;
    let mut tasks = Tasks::new();
    for seed in 0..6_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut owner = session(&store, LONG).await;
            let mut acknowledged = Vec::new();
            for _ in 0..15 {
                let force = rng.random_range(0..3) == 0;
                let opened = match store.open(lease_request("a", owner, force)).await {
                    Ok(opened) => opened,
                    Err(error) if error.kind() == ErrorKind::Fenced => {
                        // Somebody's force has ended it.
                        owner = session(&store, LONG).await;
                        continue;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::LeaseHeld, "{error}");
                        tokio::task::yield_now().await;
                        continue;
                    }
                };
                let mut writer = Writer::from_opened(&store, owner, "a", &opened);
                for _ in 0..rng.random_range(1..6) {
                    let record = format!("{}:{}", writer.epoch, writer.txid.next());
                    let request = writer.request(record.as_bytes());
                    match writer.try_commit(request).await {
                        Ok(()) => acknowledged.push((writer.txid, record)),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                            break;
                        }
                    }
                    if rng.random::<bool>() {
                        tokio::task::yield_now().await;
                    }
                }
                if rng.random::<bool>() {
                    let _fenced_or_not = writer.release(&[1]).await;
                }
            }
            acknowledged
        });
    }
    let acknowledged: BTreeMap<Txid, String> = tasks.join().await.into_iter().flatten().collect();
    let head = picture(&store, database).await;
    assert_eq!(head.log.len(), acknowledged.len());
    let mut last = Epoch(0);
    for row in head.log {
        assert_eq!(acknowledged.get(&row.txid).map(String::as_bytes), Some(row.record.as_ref()));
        let text = String::from_utf8(row.record.to_vec()).expect("it was text");
        let epoch = text.split(':').next().and_then(|epoch| epoch.parse().ok());
        let epoch = Epoch(epoch.expect("it begins with the epoch"));
        assert!(epoch >= last);
        last = epoch;
    }
}

/// Atomic commits of the same databases in different orders go through side by side, and no reader ever sees one
/// database ahead of what a later read of the other says.
pub async fn atomic_commits_do_not_deadlock(harness: &dyn Harness) {
    let store = harness.store().await;
    let owner = session(&store, LONG).await;
    let a = Writer::with_session(&store, owner, "a").await;
    let b = Writer::with_session(&store, owner, "b").await;
    let mut tasks = Tasks::new();
    for task in 0..4 {
        let (store, mut pair) = (store.clone(), [a.clone(), b.clone()]);
        if task % 2 == 0 {
            pair.reverse();
        }
        tasks.spawn(async move {
            let mut done = 0;
            while done < 10 {
                let heads = [pair[0].head().await, pair[1].head().await];
                let txid = heads[0].txid;
                assert!(heads[1].txid >= txid, "half of an atomic commit was seen");
                for (writer, head) in pair.iter_mut().zip(&heads) {
                    (writer.txid, writer.last) = (txid, head.commit_id);
                }
                let set = pair.iter().map(|writer| writer.request(b"pair")).collect();
                let replies = store.commit(set, CommitMode::Atomic).await;
                let replies = replies.expect("the call is valid");
                if replies.iter().all(Result::is_ok) {
                    done += 1;
                } else {
                    for reply in replies {
                        refused(reply, ErrorKind::Conflict, "a commit that was too late");
                    }
                }
            }
        });
    }
    tasks.join().await;
    for writer in [&a, &b] {
        assert_eq!(writer.head().await.txid, Txid(40));
    }
}

/// A read beside a collection brings the right row or `SnapshotTooOld`, and never a hole; the log likewise.
pub async fn reads_race_with_collection(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let database = writer.database;
    writer.commit_up_to(4).await;
    for txid in 1..=4 {
        writer.checkpoint(txid, &[image(1, txid, b"row")]).await;
    }
    let mut tasks = Tasks::new();
    let (done, stop) = tokio::sync::watch::channel(Txid(4));
    for seed in 0..4_u64 {
        let (store, stop) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            loop {
                let head = stop.borrow().get();
                if head == u64::MAX {
                    break;
                }
                let snapshot = rng.random_range(1..=head);
                match read(&store, database, &[1], snapshot).await {
                    Ok(rows) => {
                        let txids: Vec<u64> = rows.iter().map(|r| r.row.txid.get()).collect();
                        assert_eq!(txids, [snapshot], "each txid has a row");
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::SnapshotTooOld, "{error}"),
                }
                // `read_log` of the fixture checks that there is no gap.
                if let Err(error) = read_log(&store, database, snapshot - 1, head).await {
                    assert_eq!(error.kind(), ErrorKind::SnapshotTooOld, "{error}");
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for txid in 5..=80_u64 {
        writer.commit_up_to(txid).await;
        writer.checkpoint(txid, &[image(1, txid, b"row")]).await;
        done.send_replace(Txid(txid));
        writer.collect(txid - 3, 1, txid - 3).await;
        tokio::task::yield_now().await;
    }
    done.send_replace(Txid::MAX);
    tasks.join().await;
    assert_eq!(scan(&store, database).await.len(), 4);
}

/// A page is zeros at every other txid, and its zero rows go at once: the horizon that comes with a hole is the one under which
/// the row was gone, and not one from before or after.
pub async fn holes_race_with_collection(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let database = writer.database;
    let mut tasks = Tasks::new();
    let (done, stop) = tokio::sync::watch::channel(Txid(0));
    for seed in 0..4_u64 {
        let (store, stop) = (store.clone(), stop.clone());
        tasks.spawn(async move {
            let lineage = [Lineage { database, max_txid: Txid::MAX }];
            let mut rng = StdRng::seed_from_u64(seed);
            loop {
                let head = stop.borrow().get();
                if head == u64::MAX {
                    break;
                }
                let snapshot = rng.random_range(head.saturating_sub(4)..=head);
                match store.read_pages(&lineage, &singles(&[1]), Txid(snapshot)).await {
                    Ok(reply) => match reply.rows.first() {
                        Some(found) => {
                            assert_eq!(found.row.txid, Txid(snapshot), "each txid has a row");
                            assert!(reply.horizon <= Txid(snapshot));
                        }
                        None => assert_eq!(reply.horizon, Txid(snapshot), "the row went with the horizon"),
                    },
                    Err(error) => assert_eq!(error.kind(), ErrorKind::SnapshotTooOld, "{error}"),
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for txid in 1..=80_u64 {
        writer.commit_up_to(txid).await;
        let row = if txid % 2 == 0 { zero(1, txid) } else { image(1, txid, b"row") };
        writer.checkpoint(txid, &[row]).await;
        done.send_replace(Txid(txid));
        writer.collect(txid.saturating_sub(2), 1, 0).await;
        tokio::task::yield_now().await;
    }
    done.send_replace(Txid::MAX);
    tasks.join().await;
}

/// Calls of every kind that are dropped at any moment leave nothing locked, and no half of their effect.
pub async fn dropped_calls_leave_nothing_locked(harness: &dyn Harness) {
    let store = harness.store().await;
    for round in 0..24_u64 {
        let text = format!("db-{round}");
        let mut writer = Writer::new(&store, &text).await;
        writer.commit_up_to(2).await;
        writer.checkpoint(1, &[image(1, 1, b"row")]).await;
        let other = Writer::new(&store, &format!("{text}-other")).await;
        let after = Duration::from_micros(match round % 6 {
            0 => 0,
            index => 30 << index,
        });
        for (_, attempt) in attempts(&writer) {
            give_up(attempt, after).await;
        }
        let session = session(&store, LONG).await;
        let pair = vec![writer.request(b"pair"), other.request(b"pair")];
        give_up(store.commit(pair, CommitMode::Atomic), after).await;
        give_up(store.open(lease_request(&text, session, true)), after).await;
        give_up(store.open(creation(&format!("{text}-new"))), after).await;
        give_up(store.list("", None, 5), after).await;
        give_up(store.purge(5), after).await;
        give_up(read(&store, writer.database, &[1], 1), after).await;
        give_up(store.scan(writer.database, None, 5), after).await;
        let lock = SharedLock { session, number: 1 };
        let head = HeadRequest { database: writer.database, known: Txid(0), epoch: None, tail_bytes: 0 };
        give_up(store.lock_shared(SharedRequest { lock, head }), after).await;
        give_up(store.unlock_shared(writer.database, lock), after).await;
        give_up(store.renew_session(writer.session), after).await;
        give_up(store.end_session(writer.session), after).await;

        // Everything goes on: the other database, new ones, and this one unless it is deleted now.
        let mut other = other.take_over().await;
        other.commit(b"goes on").await;
        let mut fresh = Writer::new(&store, &format!("{text}-fresh")).await;
        fresh.commit(b"goes on").await;
        Writer::new(&store, &format!("{text}-new")).await;
        if let Ok(opened) = usable(&store, &writer).await {
            let mut next = opened;
            next.discard().await;
            next.commit(b"goes on").await;
            picture(&store, next.database).await;
            next.checkpoint(next.txid.get(), &[image(1, next.txid.get(), b"row")]).await;
            next.collect(u64::MAX, 1, u64::MAX).await;
        }
    }
}

fn creation(text: &str) -> OpenRequest {
    let mut request = open_request(text);
    request.create = true;
    request
}

/// Starts a call, waits this long at the most, and drops it. No time: it is begun, and dropped at its first wait.
async fn give_up(call: impl Future, after: Duration) {
    let dropped = async {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
    };
    tokio::select! {
        biased;
        _ = call => {}
        () = dropped => {}
    }
}

/// The database of a writer under whichever of its names it has now, taken by force.
async fn usable(store: &Arc<dyn PageStore>, writer: &Writer) -> litefleet::Result<Writer> {
    let session = session(store, LONG).await;
    for text in [writer.name.as_str(), "stolen"] {
        match store.open(lease_request(text, session, true)).await {
            Ok(opened) if opened.database == writer.database => {
                return Ok(Writer::from_opened(store, session, text, &opened));
            }
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }
    refused(
        commit_one(store, writer.request(b"gone")).await,
        ErrorKind::NotFound,
        "neither under the old name nor the new one",
    );
    Err(litefleet::Error::not_found("it was deleted"))
}
