//! Large transactions: staged rows, discards, and the commit that makes them visible.

use litefleet::store::{CommitMode, Discarded, PageRow, Staged};
use litefleet::{Epoch, ErrorKind, Txid};

use crate::fixture::{Writer, commit_one, image, picture, places, read_places, refused, scan, zero};
use crate::harness::Harness;

/// Staged rows are seen one above the head's txid and by no snapshot of a reader, until the commit; after a discard by
/// nobody.
pub async fn staged_rows_are_visible_above_the_head_only(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(2).await;
    writer.checkpoint(2, &[image(1, 2, b"old")]).await;
    assert!(!writer.head().await.staged);
    writer.stage(&[image(1, 3, b"new"), image(2, 3, b"new")]).await;
    assert!(writer.head().await.staged);
    for snapshot in 1..=2 {
        let rows = read_places(&writer.read(&[1, 2], snapshot).await);
        let expected: &[(u32, u64)] = if snapshot == 1 { &[] } else { &[(1, 2)] };
        assert_eq!(rows, expected, "at {snapshot}");
    }
    let own = read_places(&writer.read(&[1, 2], 3).await);
    assert_eq!(own, [(1, 3), (2, 3)]);
    writer.discard().await;
    assert!(!writer.head().await.staged);
    assert_eq!(read_places(&writer.read(&[1, 2], 2).await), [(1, 2)]);
    assert_eq!(read_places(&writer.read(&[1, 2], 3).await), [(1, 2)]);

    let generation = writer.stage(&[image(2, 3, b"again")]).await;
    let mut flip = writer.request(b"flip");
    flip.staged = Some(writer.staged(generation));
    writer.try_commit(flip).await.expect("it is its own staging");
    let head = writer.head().await;
    assert_eq!((head.txid, head.staged), (Txid(3), false));
    assert_eq!(read_places(&writer.read(&[1, 2], 2).await), [(1, 2)]);
    let rows = writer.read(&[1, 2], 3).await;
    assert_eq!(read_places(&rows), [(1, 2), (2, 3)]);
    assert_eq!(rows.last().expect("two rows").row.bytes, "again");
    // The flipped rows are ordinary rows: nothing discards them any more.
    writer.discard().await;
    assert_eq!(places(&scan(&store, writer.database).await), [(1, 2), (2, 3)]);
    writer.commit(b"next").await;
}

/// A page that is staged again has its last row; the others stay.
pub async fn restaging_replaces(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut generation = 0;
    for round in 0..4_u8 {
        generation = writer.stage(&[image(1, 1, &[round]), image(2, 1, b"kept")]).await;
        generation = generation.max(writer.stage(&[image(3 + u32::from(round), 1, b"x")]).await);
    }
    writer.stage(&[zero(2, 1)]).await;
    let pages = [1, 2, 3, 4, 5, 6];
    let rows = writer.read(&pages, 1).await;
    assert_eq!(read_places(&rows), pages.map(|page| (page, 1)));
    assert_eq!(rows.first().expect("six rows").row.bytes, vec![3]);
    let mut flip = writer.request(b"flip");
    flip.staged = Some(writer.staged(generation));
    writer.try_commit(flip).await.expect("it is its own staging");
    assert_eq!(writer.read(&pages, 1).await, rows);
    assert_eq!(scan(&store, writer.database).await.len(), 6);
}

/// A stage request of a generation that was discarded does nothing, whenever it arrives.
pub async fn late_stage_is_refused(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(1).await;
    let generation = writer.stage(&[image(1, 2, b"first")]).await;
    let late = writer.stage_request(generation, vec![image(2, 2, b"late")]);
    let discarded = writer.discard().await;
    assert!(discarded.generation > generation);
    assert_eq!(writer.head().await.generation, discarded.generation);
    let conflict = |result, what: &str| refused(result, ErrorKind::Conflict, what);
    conflict(store.stage(late.clone()).await, "after the discard");
    assert_eq!(scan(&store, writer.database).await, Vec::<PageRow>::new());
    assert!(!writer.head().await.staged, "it made no entry");
    let future = writer.stage_request(discarded.generation + 1, vec![image(2, 2, b"early")]);
    conflict(store.stage(future).await, "a generation to come");
    // Another attempt at the same txid is under way.
    let current = writer.stage(&[image(1, 2, b"second")]).await;
    assert_eq!(current, discarded.generation);
    conflict(store.stage(late.clone()).await, "during the next attempt");
    let before = picture(&store, writer.database).await;
    for wrong in [0, 2, 3] {
        let mut request = writer.stage_request(current, vec![image(3, wrong + 1, b"wrong")]);
        request.expected = Txid(wrong);
        conflict(store.stage(request).await, "another txid");
    }
    assert_eq!(picture(&store, writer.database).await, before);
    let mut flip = writer.request(b"flip");
    flip.staged = Some(writer.staged(current));
    writer.try_commit(flip).await.expect("it is its own staging");
    conflict(store.stage(late).await, "after the commit");
    let again = Writer { txid: Txid(1), ..writer.clone() };
    let again = again.stage_request(current, vec![image(1, 2, b"overwritten")]);
    conflict(store.stage(again).await, "a repetition after the commit");
    let rows = writer.read(&[1, 2], 2).await;
    assert_eq!(read_places(&rows), [(1, 2)]);
    assert_eq!(rows.first().expect("one row").row.bytes, "second");
}

/// Of two requests that stage the same page the one with the larger sequence counts, whichever arrives last; and so
/// does a request that is repeated after a later one.
pub async fn stage_requests_keep_their_order(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let generation = writer.head().await.generation;
    let request = |sequence, page, bytes: &[u8]| {
        let mut request = writer.stage_request(generation, vec![image(page, 1, bytes)]);
        request.sequence = sequence;
        request
    };
    let first = request(1, 1, b"first");
    store.stage(first.clone()).await.expect("the holder can stage");
    store.stage(first.clone()).await.expect("a repetition is no error");
    // A request between them failed, and its rows come again with a later one.
    store.stage(request(3, 1, b"third")).await.expect("a gap is no error");
    let before = picture(&store, writer.database).await;
    for late in [first, request(2, 1, b"second"), request(2, 2, b"second"), request(3, 1, b"another third")] {
        store.stage(late).await.expect("what comes late is no error");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    let mut flip = writer.request(b"flip");
    flip.staged = Some(Staged { generation, last: 3 });
    writer.try_commit(flip).await.expect("it is its own staging");
    let rows = writer.read(&[1, 2], 1).await;
    assert_eq!(read_places(&rows), [(1, 1)]);
    assert_eq!(rows.first().expect("one row").row.bytes, "third");
    // The next generation counts from 1 again.
    let mut again = writer.stage_request(writer.head().await.generation, vec![image(1, 2, b"again")]);
    again.sequence = 1;
    store.stage(again).await.expect("the holder can stage");
    assert_eq!(read_places(&writer.read(&[1], 2).await), [(1, 2)]);
}

/// A request that was acknowledged may be gone after a crash of the server. Each names the last one before it that was, and
/// does nothing where that is not there; what was sent in between and not acknowledged does not count.
pub async fn lost_chunk_blocks_the_next(harness: &dyn Harness) {
    let store = harness.store().await;
    let writer = Writer::new(&store, "a").await;
    let request = |generation, sequence, after| {
        let page = u32::try_from(sequence).expect("small");
        let mut request = writer.stage_request(generation, vec![image(page, 1, b"staged")]);
        (request.sequence, request.after) = (sequence, after);
        request
    };
    let first = writer.head().await.generation;
    refused(store.stage(request(first, 2, 1)).await, ErrorKind::Conflict, "after one, and nothing is there");
    assert!(!writer.head().await.staged, "it made no entry");
    for (sequence, after) in [(1, 0), (3, 1)] {
        store.stage(request(first, sequence, after)).await.expect("what it names is there");
    }
    let before = picture(&store, writer.database).await;
    for (sequence, after) in [(5, 4), (6, 5), (u64::from(u32::MAX), 4)] {
        refused(store.stage(request(first, sequence, after)).await, ErrorKind::Conflict, "what it names is gone");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    store.stage(request(first, 5, 3)).await.expect("what it names is there, and nobody heard of the fourth");
    store.stage(request(first, 6, 3)).await.expect("the fifth did arrive, and nobody heard of it");
    store.stage(request(first, 5, 3)).await.expect("it comes late");
    store.stage(request(first, 4, 3)).await.expect("it comes late");
    assert_eq!(places(&scan(&store, writer.database).await), [(1, 1), (3, 1), (5, 1), (6, 1)]);
    let next = writer.discard().await.generation;
    refused(store.stage(request(next, 7, 6)).await, ErrorKind::Conflict, "what another generation had");
    assert!(!writer.head().await.staged, "it made no entry");
}

/// A commit names the last request that was acknowledged, and does not happen when the last that is there is another: alone,
/// with others, and together with others.
pub async fn lost_chunk_blocks_the_commit(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let mut other = Writer::new(&store, "b").await;
    let generation = writer.head().await.generation;
    for sequence in 1..=3 {
        let mut request = writer.stage_request(generation, vec![image(sequence, 1, b"staged")]);
        (request.sequence, request.after) = (sequence.into(), u64::from(sequence) - 1);
        store.stage(request).await.expect("the holder can stage");
    }
    let before = picture(&store, writer.database).await;
    let mut flip = writer.request(b"flip");
    for last in [0, 1, 2, 4, 5] {
        flip.staged = Some(Staged { generation, last });
        refused(commit_one(&store, flip.clone()).await, ErrorKind::Conflict, "the last is the third");
        let beside = other.request(b"beside");
        let id = beside.commit_id;
        let outcomes = store.commit(vec![flip.clone(), beside], CommitMode::Independent).await;
        let [first, second] = <[_; 2]>::try_from(outcomes.expect("a valid call")).expect("one of each");
        refused(first, ErrorKind::Conflict, "the last is the third");
        second.expect("it rests on nothing");
        other.note(id);
        let together = vec![other.request(b"together"), flip.clone()];
        for outcome in store.commit(together, CommitMode::Atomic).await.expect("a valid call") {
            refused(outcome, ErrorKind::Conflict, "together with what is not all there");
        }
        assert_eq!(picture(&store, writer.database).await, before);
    }
    flip.staged = Some(Staged { generation, last: 3 });
    writer.try_commit(flip.clone()).await.expect("all is there");
    commit_one(&store, flip).await.expect("a repetition");
    assert_eq!(read_places(&writer.read(&[1, 2, 3], 1).await), [(1, 1), (2, 1), (3, 1)]);
    let mut none = writer.request(b"none");
    none.staged = Some(Staged { generation: generation + 1, last: 1 });
    refused(commit_one(&store, none).await, ErrorKind::Conflict, "all that was staged is gone");
}

/// A discard that was sent for one staging does nothing to a later one at the same txid, whether it arrives before the
/// next has begun or after; nor does one of a generation to come.
pub async fn late_discard_is_refused(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let generation = writer.stage(&[image(1, 1, b"first")]).await;
    let late = writer.discard_request(generation, 100);
    let discarded = store.discard_staged(late).await.expect("the holder can discard");
    assert_eq!(discarded, Discarded { generation: generation + 1, done: true });
    // A repetition that arrives before anything else was staged finds it done.
    assert_eq!(store.discard_staged(late).await.expect("a repetition"), discarded);
    assert_eq!(writer.head().await.generation, generation + 1);
    let next = writer.stage(&[image(1, 1, b"second"), image(2, 1, b"second")]).await;
    assert_eq!(next, generation + 1);
    let before = picture(&store, writer.database).await;
    for wrong in [late, writer.discard_request(next + 1, 100), writer.discard_request(u64::MAX, 100)] {
        refused(store.discard_staged(wrong).await, ErrorKind::Conflict, "a discard of another generation");
        assert_eq!(picture(&store, writer.database).await, before);
    }
    let mut flip = writer.request(b"flip");
    flip.staged = Some(writer.staged(next));
    writer.try_commit(flip).await.expect("it is its own staging");
    assert_eq!(read_places(&writer.read(&[1, 2], 1).await), [(1, 1), (2, 1)]);
}

/// A discard raises the generation at once and once, however many calls it takes, deletes no more rows than asked, and
/// needs epoch and txid; without an entry it raises the generation too.
pub async fn discard_raises_the_generation(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(1).await;
    let first = writer.head().await.generation;
    let none = store.discard_staged(writer.discard_request(first, 5)).await;
    let none = none.expect("the holder can");
    assert_eq!(none, Discarded { generation: first + 1, done: true });
    refused(
        store.stage(writer.stage_request(first, vec![image(1, 2, b"late")])).await,
        ErrorKind::Conflict,
        "a late first stage",
    );
    let rows: Vec<PageRow> = (1..=10).map(|page| image(page, 2, b"staged")).collect();
    let generation = writer.stage(&rows).await;
    for expected in [0, 2] {
        let mut wrong = writer.discard_request(generation, 5);
        wrong.expected = Txid(expected);
        refused(store.discard_staged(wrong).await, ErrorKind::Conflict, "another txid");
    }
    let stranger = Writer { epoch: Epoch(writer.epoch.get() + 1), ..writer.clone() };
    refused(store.discard_staged(stranger.discard_request(generation, 5)).await, ErrorKind::Fenced, "another epoch");
    assert_eq!(scan(&store, writer.database).await.len(), 10);
    let mut left = 10;
    loop {
        let reply = store.discard_staged(writer.discard_request(generation, 3)).await;
        let Discarded { generation: now, done } = reply.expect("the holder can");
        assert_eq!(now, generation + 1, "once");
        let rows = scan(&store, writer.database).await.len();
        assert!(rows + 3 >= left, "{left} rows became {rows}, the limit was 3");
        let head = writer.head().await;
        assert_eq!((head.generation, head.staged), (now, !done));
        if done {
            assert_eq!(rows, 0);
            break;
        }
        assert!(rows < left, "each call gets further");
        let mut early = writer.request(b"early");
        for staged in [None, Some(writer.staged(generation)), Some(writer.staged(now))] {
            early.staged = staged;
            refused(commit_one(&store, early.clone()).await, ErrorKind::Conflict, "a commit in the midst of a discard");
        }
        left = rows;
    }
    writer.commit(b"now it can").await;
}

/// While a staging entry exists, only a commit that names its generation succeeds: also for the next holder, until it
/// has discarded what the old one left.
pub async fn foreign_staging_blocks_commit(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut old = Writer::new(&store, "a").await;
    old.commit_up_to(1).await;
    let generation = old.stage(&[image(1, 2, b"left behind")]).await;
    let mut plain = old.request(b"plain");
    let before = picture(&store, old.database).await;
    for wrong in [None, Some(generation + 1), generation.checked_sub(1)] {
        plain.staged = wrong.map(|wrong| old.staged(wrong));
        refused(commit_one(&store, plain.clone()).await, ErrorKind::Conflict, "a commit past a staging entry");
    }
    assert_eq!(picture(&store, old.database).await, before);
    let mut new = old.take_over().await;
    assert!(new.head().await.staged);
    let plain = new.request(b"plain");
    refused(
        commit_one(&store, plain.clone()).await,
        ErrorKind::Conflict,
        "the next holder's commit past the old one's entry",
    );
    new.discard().await;
    new.try_commit(plain).await.expect("nothing is in its way");
    let mut late = old.request(b"flip");
    late.staged = Some(old.staged(generation));
    refused(commit_one(&store, late).await, ErrorKind::Fenced, "the old holder's flip");
    assert!(new.read(&[1], 2).await.is_empty());
}

/// A commit that names a generation that was discarded fails, and so does a late discard after the commit.
pub async fn flip_and_discard_exclude_each_other(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    let generation = writer.stage(&[image(1, 1, b"first")]).await;
    let mut flip = writer.request(b"flip");
    flip.staged = Some(writer.staged(generation));
    writer.discard().await;
    refused(commit_one(&store, flip).await, ErrorKind::Conflict, "a flip of what was discarded");
    let generation = writer.stage(&[image(1, 1, b"second"), image(2, 1, b"second")]).await;
    let discard = writer.discard_request(generation, 100);
    let mut flip = writer.request(b"flip");
    flip.staged = Some(writer.staged(generation));
    writer.try_commit(flip).await.expect("it is its own staging");
    refused(store.discard_staged(discard).await, ErrorKind::Conflict, "a discard that arrives after the commit");
    assert_eq!(read_places(&writer.read(&[1, 2], 1).await), [(1, 1), (2, 1)]);
}

/// Checkpoints, collections and releases go on beside a staging entry and leave it alone.
pub async fn staging_survives_other_writes(harness: &dyn Harness) {
    let store = harness.store().await;
    let mut writer = Writer::new(&store, "a").await;
    writer.commit_up_to(3).await;
    writer.checkpoint(1, &[image(1, 1, b"one")]).await;
    let generation = writer.stage(&[image(1, 4, b"staged"), image(2, 4, b"staged")]).await;
    writer.checkpoint(3, &[image(1, 3, b"three")]).await;
    let collected = writer.collect(3, 2, 3).await;
    assert_eq!((collected.horizon, collected.rows), (Txid(3), 1));
    let rows = scan(&store, writer.database).await;
    assert_eq!(places(&rows), [(1, 3), (1, 4), (2, 4)]);
    let head = writer.head().await;
    assert_eq!((head.staged, head.generation), (true, generation));
    let mut flip = writer.request(b"flip");
    flip.staged = Some(writer.staged(generation));
    writer.try_commit(flip).await.expect("it is its own staging");
    assert_eq!(read_places(&writer.read(&[1, 2], 3).await), [(1, 3)]);
    assert_eq!(read_places(&writer.read(&[1, 2], 4).await), [(1, 4), (2, 4)]);
}
