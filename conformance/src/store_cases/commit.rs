//! Commits: their conditions, alone and together.

use std::sync::Arc;

use bytes::Bytes;
use litefleet::store::{CommitMode, CommitRequest, PageStore};
use litefleet::{CommitId, DatabaseId, Epoch, ErrorKind, Txid};

use crate::fixture::{Tasks, Writer, commit_id, commit_one, image, picture, read_log, refused, tail};
use crate::harness::Harness;

/// A commit with another txid than the head's is `Conflict`, whether too old or too new, and changes nothing.
pub async fn commit_needs_the_expected_txid(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    for txid in 0..4 {
        let before = picture(&store, writer.database).await;
        for wrong in (0..8).filter(|wrong| *wrong != txid) {
            let mut request = writer.request(b"wrong");
            request.expected = Txid(wrong);
            refused(commit_one(&store, request).await, ErrorKind::Conflict, "another txid");
        }
        assert_eq!(picture(&store, writer.database).await, before);
        writer.commit(b"right").await;
    }
}

/// Ids that are not this one, but alike.
fn others(id: CommitId) -> Vec<CommitId> {
    let changed = |place: usize| {
        let mut bytes = id.bytes();
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1;
        }
        CommitId(bytes)
    };
    vec![changed(0), changed(7), changed(8), changed(15), commit_id()]
}

/// A commit that was made on another commit than the head's is `Conflict`, though its txid is the head's, and changes
/// nothing: alone, beside another one, and where it gives the lease back or was staged.
pub async fn commit_needs_the_commit_before_it(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut beside = Writer::new(&store, "b").await;
    for txid in 0..3 {
        assert_eq!((writer.head().await.txid, writer.head().await.commit_id), (Txid(txid), writer.last));
        let before = picture(&store, writer.database).await;
        for wrong in others(writer.last) {
            let request = CommitRequest { follows: wrong, release: txid == 1, ..writer.request(b"wrong") };
            refused(commit_one(&store, request.clone()).await, ErrorKind::Conflict, "another commit before it");
            let right = beside.request(b"right");
            let set = vec![request, right.clone()];
            let replies = store.commit(set.clone(), CommitMode::Atomic).await.expect("the call is valid");
            for reply in replies {
                refused(reply, ErrorKind::Conflict, "all or none");
            }
            assert_eq!(beside.head().await.txid, beside.txid);
            let replies = store.commit(set, CommitMode::Independent).await.expect("the call is valid");
            let [wrong, done] = <[_; 2]>::try_from(replies).expect("two commits, two replies");
            refused(wrong, ErrorKind::Conflict, "another commit before it, in a call of two");
            done.expect("it is in order, whatever became of the other");
            beside.note(right.commit_id);
        }
        assert_eq!(picture(&store, writer.database).await, before);
        writer.commit(b"right").await;
    }
    let generation = writer.stage(&[image(1, 4, b"staged")]).await;
    let flip = CommitRequest { staged: Some(writer.staged(generation)), ..writer.request(b"flip") };
    let before = picture(&store, writer.database).await;
    let wrong = CommitRequest { follows: commit_id(), ..flip.clone() };
    refused(commit_one(&store, wrong).await, ErrorKind::Conflict, "a staged one");
    assert_eq!(picture(&store, writer.database).await, before);
    writer.try_commit(flip).await.expect("what was staged is still there");
}

/// What was acknowledged is seen by every call from then on: head, log, list, and opens.
pub async fn acknowledged_commit_is_seen_by_all(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    for txid in 1..=5_u64 {
        let mut request = writer.request(format!("record-{txid}").as_bytes());
        request.size = txid << 40;
        writer.try_commit(request).await.expect("it succeeds");
        let head = writer.head().await;
        assert_eq!(head.txid, Txid(txid));
        assert_eq!(head.commit_id, writer.last);
        assert_eq!(head.size, txid << 40);
        assert!(head.holder.is_some());
        let log = read_log(&store, writer.database, 0, txid).await;
        let log = log.expect("nothing was collected");
        assert_eq!(log.len() as u64, txid);
        let listed = store.list("a", None, 1).await.expect("a list");
        assert_eq!(listed.first().expect("it is listed").state.as_ref().expect("it is whole").head.txid, Txid(txid));
        let opened = store.open(crate::fixture::open_request("a")).await;
        assert_eq!(opened.expect("it exists").head.commit_id, writer.last);
    }
}

/// A commit can give the lease back with it; one that fails does not.
pub async fn commit_can_release(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit(b"one").await;
    let mut wrong = writer.request(b"wrong");
    wrong.release = true;
    wrong.expected = Txid(0);
    refused(commit_one(&store, wrong).await, ErrorKind::Conflict, "another txid");
    assert!(writer.head().await.holder.is_some(), "it was not released");
    let mut request = writer.request(b"two");
    request.release = true;
    writer.try_commit(request.clone()).await.expect("it holds");
    let head = writer.head().await;
    assert_eq!((head.holder, head.txid), (None, Txid(2)));
    let late = writer.request(b"late");
    refused(commit_one(&store, late).await, ErrorKind::Fenced, "a commit after the release");
    commit_one(&store, request).await.expect("the same commit again: it is the head's last");
    let next = Writer::new(&store, "a").await;
    assert_eq!(next.txid, Txid(2));
}

/// The same commit again, while it is the head's last and the epoch is the same, succeeds and changes nothing.
pub async fn commit_is_idempotent_by_id(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut other = Writer::new(&store, "b").await;
    for mode in [CommitMode::Independent, CommitMode::Atomic] {
        let requests = vec![writer.request(b"again"), other.request(b"again")];
        for _ in 0..3 {
            let replies = store.commit(requests.clone(), mode).await;
            let replies = replies.expect("the call is valid");
            assert!(replies.iter().all(Result::is_ok), "{replies:?}");
        }
        for (writer, request) in [&mut writer, &mut other].into_iter().zip(&requests) {
            writer.note(request.commit_id);
            let head = writer.head().await;
            assert_eq!((head.txid, head.commit_id), (writer.txid, writer.last));
        }
        let mut other_id = requests.first().expect("there are two").clone();
        other_id.commit_id = commit_id();
        refused(commit_one(&store, other_id).await, ErrorKind::Conflict, "another id at the same txid");
        writer.commit(b"next").await;
        refused(
            commit_one(&store, requests.first().expect("there are two").clone()).await,
            ErrorKind::Conflict,
            "a repetition after the next commit",
        );
        assert_eq!(writer.head().await.txid, writer.txid);
        other.commit(b"next").await;
    }
    let request = writer.request(b"last");
    writer.try_commit(request.clone()).await.expect("it holds");
    writer.take_over().await;
    refused(commit_one(&store, request).await, ErrorKind::Fenced, "a repetition under an epoch that is over");
}

/// A repetition of a staged commit succeeds too, though its staging entry is gone.
pub async fn staged_commit_is_idempotent_by_id(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let generation = writer.stage(&[image(1, 1, b"staged")]).await;
    let mut request = writer.request(b"flip");
    request.staged = Some(writer.staged(generation));
    writer.try_commit(request.clone()).await.expect("it holds");
    let before = picture(&store, writer.database).await;
    assert!(!before.head.staged);
    commit_one(&store, request).await.expect("it is the last");
    assert_eq!(picture(&store, writer.database).await, before);
}

/// A commit for each of nine databases, of which every second must fail, each for another reason.
fn mixed(writers: &[Writer]) -> (Vec<CommitRequest>, Vec<ErrorKind>) {
    let limit = writers.first().expect("there are").store.limits();
    let mut requests: Vec<_> = writers.iter().map(|w| w.request(b"record")).collect();
    let mut kinds = Vec::new();
    for (index, request) in requests.iter_mut().enumerate() {
        match index {
            1 => {
                request.expected = Txid(7);
                kinds.push(ErrorKind::Conflict);
            }
            3 => {
                request.epoch = Epoch(request.epoch.get() + 1);
                kinds.push(ErrorKind::Fenced);
            }
            5 => {
                request.database = DatabaseId(u64::MAX / 4);
                kinds.push(ErrorKind::NotFound);
            }
            7 => {
                request.record = Bytes::from(vec![7; limit.record_bytes + 1]);
                kinds.push(ErrorKind::Invalid);
            }
            _ => {}
        }
    }
    (requests, kinds)
}

async fn nine(store: &Arc<dyn PageStore>) -> Vec<Writer> {
    let mut writers = Vec::new();
    for index in 0..9 {
        let mut writer = Writer::new(store, &format!("db-{index}")).await;
        writer.commit(b"first").await;
        writers.push(writer);
    }
    writers
}

/// Independent commits of one call: those that fail do so alone, and the replies come in the order of the requests.
pub async fn independent_commits_fail_alone(harness: &dyn Harness) {
    let store = harness.store().await;
    let writers = nine(&store).await;
    let (requests, kinds) = mixed(&writers);
    let replies = store.commit(requests.clone(), CommitMode::Independent).await.expect("the call as a whole is valid");
    assert_eq!(replies.len(), requests.len());
    let mut kinds = kinds.into_iter();
    for (index, reply) in replies.into_iter().enumerate() {
        if index % 2 == 1 {
            let kind = kinds.next().expect("one for each that fails");
            refused(reply, kind, "a commit of a mixed call");
        } else {
            reply.expect("it is in order, whatever became of the others");
        }
    }
    for (index, (writer, request)) in writers.iter().zip(&requests).enumerate() {
        let head = writer.head().await;
        let expected = if index % 2 == 0 { (Txid(2), request.commit_id) } else { (Txid(1), writer.last) };
        assert_eq!((head.txid, head.commit_id), expected, "db-{index}");
    }
    let none = store.commit(Vec::new(), CommitMode::Independent).await;
    assert!(none.expect("nothing to do is no error").is_empty());
}

/// Atomic commits of one call: when one fails, none takes effect, and each of the others says `Conflict`.
pub async fn atomic_commit_is_all_or_none(harness: &dyn Harness) {
    let store = harness.store().await;
    let writers = nine(&store).await;
    let (requests, kinds) = mixed(&writers);
    for (bad, kind) in [1, 3, 5, 7].into_iter().zip(kinds) {
        for order in [[0, bad], [bad, 0]] {
            let set: Vec<_> = order.into_iter().filter_map(|i| requests.get(i).cloned()).collect();
            if set.iter().map(|r| r.record.len()).sum::<usize>() > store.limits().atomic_bytes {
                continue; // The call as a whole is refused: see `limits_are_enforced`.
            }
            let replies = store.commit(set, CommitMode::Atomic).await;
            let replies = replies.expect("the call as a whole is valid");
            assert_eq!(replies.len(), 2);
            for (index, reply) in order.into_iter().zip(replies) {
                let kind = if index == bad { kind } else { ErrorKind::Conflict };
                refused(reply, kind, "a commit of an atomic call that fails");
            }
        }
    }
    for writer in &writers {
        let head = writer.head().await;
        assert_eq!((head.txid, head.commit_id), (Txid(1), writer.last));
        assert_eq!(head.size, 4096);
        let tail = tail(&store, writer.database, 0).await;
        assert_eq!(crate::fixture::complete(&tail).len(), 1);
    }
    let set: Vec<_> = [2, 0].iter().filter_map(|i| requests.get(*i).cloned()).collect();
    let replies = store.commit(set, CommitMode::Atomic).await;
    let replies = replies.expect("the call is valid");
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    for index in [0, 2] {
        let writer = writers.get(index).expect("there are nine");
        let id = requests.get(index).map(|r| r.commit_id);
        assert_eq!(Some(writer.head().await.commit_id), id);
    }
}

/// A database that is named twice in one call: each of its commits is `Invalid`, and none takes effect.
pub async fn naming_a_database_twice_is_invalid(harness: &dyn Harness) {
    let store = harness.store().await;
    let twice = Writer::new(&store, "twice").await;
    let once = Writer::new(&store, "once").await;
    let mut later = twice.request(b"second");
    later.expected = Txid(1);
    let mut set = vec![twice.request(b"first"), once.request(b"alone"), later];
    let replies = store.commit(set.clone(), CommitMode::Independent).await;
    let replies = replies.expect("the call as a whole is valid");
    let kinds: Vec<Option<ErrorKind>> =
        replies.iter().map(|reply| reply.as_ref().err().map(litefleet::Error::kind)).collect();
    let invalid = Some(ErrorKind::Invalid);
    assert_eq!(kinds, [invalid, None, invalid]);
    assert_eq!(twice.head().await.txid, Txid(0));
    assert_eq!(once.head().await.txid, Txid(1));
    set.remove(1);
    match store.commit(set, CommitMode::Atomic).await {
        Ok(replies) => {
            for reply in replies {
                refused(reply, ErrorKind::Invalid, "a database named twice");
            }
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
    }
    assert_eq!(twice.head().await.commit_id, CommitId::default());
}

/// Of many commits on one txid at the same moment exactly one succeeds, each time.
pub async fn one_of_many_commits_wins(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    for round in 0..10 {
        let mut tasks = Tasks::new();
        for _ in 0..8 {
            let (store, request) = (store.clone(), writer.request(b"record"));
            tasks.spawn(async move {
                let id = request.commit_id;
                (id, commit_one(&store, request).await)
            });
        }
        let mut winners = Vec::new();
        for (id, reply) in tasks.join().await {
            match reply {
                Ok(()) => winners.push(id),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        let [winner] = winners.as_slice() else { panic!("round {round}: {} commits won", winners.len()) };
        writer.note(*winner);
        let head = writer.head().await;
        assert_eq!((head.txid, head.commit_id), (writer.txid, writer.last));
    }
}
