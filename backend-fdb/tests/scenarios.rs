//! What can go wrong between processes, step by step: each store here is one process's.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::holder::{Holder, LONG, image, name, open_request, session, take};
use common::{Place, by_hand, standing_still, until};
use foundationdb::directory::{Directory, DirectoryLayer};
use litefleet::clock::ManualClock;
use litefleet::store::{CommitMode, HeadRequest, LeaseRequest, PageStore, SessionRequest};
use litefleet::{Epoch, ErrorKind, Result, SessionId, Txid};
use litefleet_fdb::{FdbConfig, FdbStore, NetworkConfig};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

async fn store(place: &Place) -> Arc<FdbStore> {
    Arc::new(FdbStore::open(place.config()).await.expect("the store opens"))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    match result {
        Err(error) if error.kind() == kind => {}
        other => panic!("expected {kind:?}, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_without_the_database_that_was_taken() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let (our_session, their_session) = (session(&ours, LONG).await, session(&theirs, LONG).await);
    let mut holders = Vec::new();
    for index in 0..8 {
        holders.push(Holder::new(&ours, our_session, &format!("db-{index}")).await);
    }
    for holder in &mut holders {
        holder.commit(b"first").await.expect("the holder can");
    }
    // Ours does not know, and commits all of them without a read.
    let mut taken = Holder::taking(&theirs, their_session, "db-3", true).await.expect("force takes over");
    let requests = holders.iter().map(|holder| holder.request(b"second")).collect();
    let outcomes = ours.commit(requests, CommitMode::Independent).await.expect("a valid call");
    for (index, outcome) in outcomes.into_iter().enumerate() {
        if index == 3 {
            refused(outcome, ErrorKind::Fenced);
        } else {
            outcome.expect("the others do not suffer from it");
        }
    }
    taken.commit(b"theirs").await.expect("the taker can");
    assert_eq!(taken.log().await, [b"first".as_slice(), b"theirs"]);
    for holder in holders.iter().filter(|holder| holder.database != taken.database) {
        assert_eq!(holder.log().await, [b"first".as_slice(), b"second"]);
    }
    // The session is over, but the epochs of the other databases are not, until somebody takes them.
    refused(ours.renew_session(our_session).await, ErrorKind::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_between_two_commits_of_another_database_is_not_missed() {
    // The version that a commit goes by is that of the newest commit of the process: a takeover before that and after the
    // database's own last commit is caught by the session's fence alone.
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let (our_session, their_session) = (session(&ours, LONG).await, session(&theirs, LONG).await);
    let mut resting = Holder::new(&ours, our_session, "resting").await;
    let mut busy = Holder::new(&ours, our_session, "busy").await;
    resting.commit(b"first").await.expect("the holder can");
    let mut taken = Holder::taking(&theirs, their_session, "resting", true).await.expect("force takes over");
    taken.commit(b"theirs").await.expect("the taker can");
    for _ in 0..3 {
        busy.commit(b"record").await.expect("this one is still ours");
    }
    refused(resting.commit(b"late").await, ErrorKind::Fenced);
    assert_eq!(taken.log().await, [b"first".as_slice(), b"theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_session_lose_nothing() {
    // Nobody should do that; whoever does gets no commit overwritten, since an instance that did not start the session
    // announces what it changes.
    let place = Place::new();
    let (first, second) = (store(&place).await, store(&place).await);
    let shared = session(&first, LONG).await;
    let mut one = Holder::new(&first, shared, "a").await;
    let mut busy = Holder::new(&first, shared, "busy").await;
    one.commit(b"1").await.expect("the holder can");
    let mut other = Holder { store: Arc::clone(&second), ..one.clone() };
    other.commit(b"2").await.expect("it has the epoch");
    for _ in 0..3 {
        busy.commit(b"record").await.expect("the holder can");
    }
    refused(one.commit(b"over the other's").await, ErrorKind::Conflict);
    (one.txid, one.last) = (other.txid, other.last);
    one.commit(b"3").await.expect("the holder can");
    // The second starts the session again, which makes it the owner.
    let request = SessionRequest { session: shared, label: "again".into(), lifetime: LONG };
    second.start_session(request).await.expect("it lives");
    let mut regranted = Holder::taking(&second, shared, "a", false).await.expect("it is its own");
    regranted.commit(b"4").await.expect("the holder can");
    busy.commit(b"record").await.expect("its epoch is still the current one");
    refused(one.commit(b"late").await, ErrorKind::Fenced);
    assert_eq!(regranted.log().await, [b"1".as_slice(), b"2", b"3", b"4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_race_and_each_acknowledged_commit_is_there_once() {
    let place = Place::new();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..2 {
        let store = store(&place).await;
        tasks.spawn(async move {
            let mut acknowledged: Vec<(Txid, String)> = Vec::new();
            for round in 0..12 {
                let session = session(&store, LONG).await;
                let mut holder = Holder::taking(&store, session, "a", true).await.expect("force takes over");
                for commit in 0..20 {
                    let record = format!("{writer}-{round}-{commit}");
                    match holder.commit(record.as_bytes()).await {
                        Ok(()) => acknowledged.push((holder.txid, record)),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                            break;
                        }
                    }
                }
            }
            acknowledged
        });
    }
    let mut acknowledged: Vec<(Txid, String)> = tasks.join_all().await.into_iter().flatten().collect();
    acknowledged.sort();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let holder = Holder::taking(&store, session, "a", true).await.expect("force takes over");
    let log: Vec<String> =
        holder.log().await.into_iter().map(|record| String::from_utf8(record.to_vec()).expect("text")).collect();
    let expected: Vec<String> = acknowledged.into_iter().map(|(_, record)| record).collect();
    assert_eq!(log, expected, "all of them, once, in order");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit that arrives late")]
async fn a_delayed_commit_that_arrives_after_the_takeover_does_nothing() {
    const LATE: Duration = Duration::from_secs(4);
    let place = Place::new();
    let theirs = store(&place).await;
    // A commit is told nothing and arrives later; its process cannot look, and gives up; then the lease is taken.
    let deposed = Arc::new(FdbStore::open(place.config().timeout(LATE / 10)).await.expect("the store opens"));
    let mut undone = 0;
    for late in ["1039.late", "1021.late", "1031.late"] {
        let mut holders = Vec::new();
        for round in 0..4 {
            let session = session(&deposed, LONG).await;
            let mut holder = Holder::new(&deposed, session, &format!("{late}-{round}")).await;
            holder.commit(b"first").await.expect("the holder can");
            holders.push((holder, format!("{late}-{round}")));
        }
        place.command(&format!("latency version=9000000 read=9000000 late={}", LATE.as_micros()));
        place.command(&format!("faults seed=1 commit.{late}=10000"));
        let mut acknowledged = Vec::new();
        for (holder, _) in &mut holders {
            match holder.commit(b"late").await {
                Ok(()) => acknowledged.push(true),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::CommitUnknown, "{error}");
                    acknowledged.push(false);
                }
            }
        }
        place.command("faults");
        place.command("latency version=0 read=0");
        let their_session = session(&theirs, LONG).await;
        let mut taken = Vec::new();
        for (holder, text) in &holders {
            let taker = Holder::taking(&theirs, their_session, text, true).await.expect("force takes over");
            let (head, log) = (taker.head().await, taker.log().await);
            let ask =
                HeadRequest { database: taker.database, known: Txid(0), epoch: Some(holder.epoch), tail_bytes: 0 };
            let end = theirs.head(ask).await.expect("it exists").ended.expect("the end of the epoch is known");
            assert_eq!((end.txid, end.commit_id), (head.txid, head.commit_id), "what the deposed process will be told");
            taken.push((taker, head, log));
        }
        // What had not arrived by then never does, and what had arrived is there once.
        tokio::time::sleep(LATE + LATE / 4).await;
        for ((taker, head, log), acknowledged) in taken.into_iter().zip(acknowledged) {
            assert_eq!((taker.head().await, taker.log().await), (head, log.clone()), "{late}");
            assert!(
                log == [b"first".as_slice(), b"late"] || (log == [b"first".as_slice()] && !acknowledged),
                "{log:?}"
            );
            undone += usize::from(log.len() == 1);
        }
    }
    assert!(undone > 0, "no commit was late enough to show anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_process_is_followed_when_it_was_watched_for_a_lifetime() {
    let place = Place::new();
    let lifetime = Duration::from_secs(10);
    let dead = store(&place).await;
    let gone = session(&dead, lifetime).await;
    let holder = Holder::new(&dead, gone, "a").await;
    Holder::new(&dead, gone, "b").await;
    drop(dead);
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(FdbStore::open(place.config().clock(clock.clone())).await.expect("the store opens"));
    let session = session(&store, LONG).await;
    // However long it has been dead, it was not watched.
    clock.advance(lifetime * 100);
    let session_request = SessionRequest { session, label: "again".into(), lifetime: LONG };
    store.start_session(session_request.clone()).await.expect("it lives");
    refused(take(&store, "a", session, false).await, ErrorKind::LeaseHeld);
    clock.advance(lifetime.saturating_sub(Duration::from_millis(1)));
    let error = take(&store, "a", session, false).await.expect_err("not yet");
    assert!(error.message().contains("10.0 s have passed") && error.message().contains("label-of-"), "{error}");
    clock.advance(Duration::from_millis(2));
    let taken = Holder::taking(&store, session, "a", false).await.expect("it has expired");
    assert!(taken.epoch > holder.epoch);
    // The session has ended with that: nobody need be watched for its other databases.
    take(&store, "b", session, false).await.expect("its session has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_was_not_seen_counts() {
    let place = Place::new();
    let lifetime = Duration::from_secs(10);
    let other = store(&place).await;
    let alive = session(&other, lifetime).await;
    Holder::new(&other, alive, "a").await;
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(FdbStore::open(place.config().clock(clock.clone())).await.expect("the store opens"));
    let session = session(&store, LONG).await;
    for _ in 0..3 {
        refused(take(&store, "a", session, false).await, ErrorKind::LeaseHeld);
        clock.advance(lifetime * 3 / 2);
        other.renew_session(alive).await.expect("by its own clock no time has passed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_do_not_see_each_other() {
    let place = Place::new();
    let with = |part: &str| place.config().prefix([place.prefix.as_slice(), part.as_bytes()].concat());
    let (one, two) =
        (FdbStore::open(with("one/")).await.expect("opens"), FdbStore::open(with("two/")).await.expect("opens"));
    let (one, two) = (Arc::new(one), Arc::new(two));
    let mut holder = Holder::new(&one, session(&one, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    refused(take(&two, "a", holder.session, false).await, ErrorKind::Fenced);
    let other = Holder::new(&two, session(&two, LONG).await, "a").await;
    assert_eq!(other.txid, Txid(0));
    assert_eq!(two.list("", None, 10).await.expect("a list").len(), 1);
    assert_eq!(holder.log().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_gives_the_store_its_prefix() {
    let place = Place::new();
    let path = [String::from_utf8(place.prefix.clone()).expect("text"), "fleet".into()];
    let config = || place.config().directory(path.clone());
    let store = Arc::new(FdbStore::open(config()).await.expect("the store opens"));
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    let again = FdbStore::open(config()).await.expect("the store opens");
    assert_eq!(again.list("", None, 10).await.expect("a list").len(), 1);
    let elsewhere = FdbStore::open(place.config()).await.expect("the store opens");
    assert!(elsewhere.list("", None, 10).await.expect("a list").is_empty());
    // On a real cluster the directory is not under the test's prefix. Removed, all that is in it is gone.
    let database = foundationdb::Database::from_path(place.cluster_file.to_str().expect("UTF-8")).expect("a database");
    let path = path.as_slice();
    let removed = database.run(|trx, _| async move {
        let removed = DirectoryLayer::default().remove(&trx, path).await;
        removed.map_err(foundationdb::FdbBindingError::DirectoryError)?;
        let parent = DirectoryLayer::default().remove(&trx, &path[..1]).await;
        parent.map_err(foundationdb::FdbBindingError::DirectoryError)
    });
    assert!(removed.await.expect("it can be removed"), "with what it was in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_counter_of_ids_overwrites_nothing() {
    let place = Place::new();
    let first = store(&place).await;
    let mut holder = Holder::new(&first, session(&first, LONG).await, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    by_hand(&place, |trx, key| trx.clear(&key(&[1, 1]))).await;
    let again = store(&place).await;
    refused(again.open(open_request("b", None)).await, ErrorKind::Corrupt);
    assert_eq!(holder.head().await.txid, Txid(1));
    // Nor are the ids of those given out that are deleted and not purged yet.
    first.delete(holder.database, holder.epoch).await.expect("the holder can");
    refused(again.open(open_request("b", None)).await, ErrorKind::Corrupt);
}

/// One database that is damaged held up what was to be removed of all that come after it, and its name was not said.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_goes_on_past_a_database_that_is_wrongly_marked_as_deleted() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holders = Vec::new();
    for text in ["a", "b", "c"] {
        let mut holder = Holder::new(&store, session, text).await;
        holder.commit(b"record").await.expect("the holder can");
        holder.checkpoint(vec![image(1, holder.txid)], true).await.expect("the holder can");
        holders.push(holder);
    }
    let [a, b, c] = holders.as_slice() else { unreachable!("three were made") };
    let id = u8::try_from(b.database.get()).expect("a small id");
    // The entry of b, one that names no database, and a session's record.
    by_hand(&place, |trx, key| {
        trx.set(&key(&[4, 1, id]), b"");
        trx.set(&key(&[4, 99]), b"");
        trx.set(&key(&[&[3][..], &[7; 16], &[0]].concat()), b"no session");
    })
    .await;
    for gone in [a, c] {
        store.delete(gone.database, gone.epoch).await.expect("the holder can");
    }
    let mut removed = 0;
    let error = loop {
        match store.purge(1).await {
            Ok(purged) => {
                assert!(!purged.done, "something is left that it cannot remove");
                removed += purged.removed;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(removed, 4, "a record and a row of a and of c");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for named in ["named b,", &format!("session {}", SessionId([7; 16]))] {
        assert!(error.message().contains(named), "{named}: {error}");
    }
    assert_eq!(b.read(1, 1).await.expect("there"), [image(1, b.txid)]);
    by_hand(&place, |trx, key| {
        trx.clear(&key(&[4, 1, id]));
        trx.clear(&key(&[4, 99]));
        trx.clear(&key(&[&[3][..], &[7; 16], &[0]].concat()));
    })
    .await;
    let purged = store.purge(1).await.expect("a purge");
    assert!(purged.done && purged.removed == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_is_refused() {
    let place = Place::new();
    let file = place.cluster_file.to_str().expect("UTF-8");
    let database = foundationdb::Database::from_path(file);
    // Nothing can be done before the network thread runs: opening a store starts it.
    FdbStore::open(place.config().prefix([place.prefix.as_slice(), b"store/"].concat())).await.expect("opens");
    let database = database.expect("a database");
    let format = [b"\x01\x01\x02".as_slice(), &[0; 4]].concat();
    for (key, value) in [(b"alien/\x02x".as_slice(), b"?".as_slice()), (b"damaged/\x01\x00", &format)] {
        let key = [place.prefix.as_slice(), key].concat();
        let key = key.as_slice();
        let write = database.run(|trx, _| async move {
            trx.set(key, value);
            Ok(())
        });
        write.await.expect("it is written");
    }
    by_hand(&place, |trx, key| {
        let key = key(b"newer/\x01\x00");
        let check = xxh3_64_with_seed(&format[..3], xxh3_64(&key)).to_be_bytes();
        trx.set(&key, &[&format[..3], &check[..4]].concat());
    })
    .await;
    let parts = [
        ("alien/", ErrorKind::Invalid, "no store's"),
        ("damaged/", ErrorKind::Corrupt, ""),
        ("newer/", ErrorKind::Invalid, "the store has format 2"),
    ];
    for (part, kind, why) in parts {
        let config = place.config().prefix([place.prefix.as_slice(), part.as_bytes()].concat());
        let error = FdbStore::open(config).await.expect_err("no store");
        assert!(error.kind() == kind && error.message().contains(why), "{part}: {error}");
    }
    let network = NetworkConfig { trace_log_group: Some("another".into()), ..NetworkConfig::default() };
    refused(FdbStore::open(FdbConfig { network, ..place.config() }).await, ErrorKind::Invalid);
}

/// What was damaged of one database hid all the others.
#[tokio::test(flavor = "multi_thread")]
async fn databases_are_listed_beside_damaged_ones() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut commits = Vec::new();
    for text in ["a", "b", "c"] {
        let mut holder = Holder::new(&store, session, text).await;
        holder.commit(text.as_bytes()).await.expect("the holder can");
        commits.push(holder.head().await.commit_id);
    }
    let database = foundationdb::Database::from_path(place.cluster_file.to_str().expect("UTF-8")).expect("a database");
    // The head of a, and what the name b means.
    let (id, prefix) = (commits[0].0, place.prefix.as_slice());
    let damage = database.run(|trx, _| async move {
        let end = [prefix, &[0xff]].concat();
        let range = foundationdb::RangeOption::from((prefix, end.as_slice()));
        let found = trx.get_range(&range, 1, false).await?;
        let mut damaged = 0;
        for pair in &found {
            let (key, mut value) = (pair.key(), pair.value().to_vec());
            if value.windows(16).any(|part| part == id) || key == [prefix, &[2], b"b"].concat() {
                value[1] ^= 1;
                trx.set(key, &value);
                damaged += 1;
            }
        }
        Ok(damaged)
    });
    assert!(damage.await.expect("it is written") >= 2);
    let listed = store.list("", None, 10).await.expect("a list");
    let ids: Vec<_> = listed.iter().map(|entry| entry.database).collect();
    let states: Vec<_> =
        listed.into_iter().map(|entry| (entry.name, entry.state.map(drop).map_err(|error| error.kind()))).collect();
    let expected = [(name("a"), Err(ErrorKind::Corrupt)), (name("b"), Err(ErrorKind::Corrupt)), (name("c"), Ok(()))];
    assert_eq!(states, expected);

    // There is no other mend: a can be deleted, whose epoch cannot be known.
    let (Some(a), None, Some(c)) = (ids[0], ids[1], ids[2]) else { panic!("{ids:?}") };
    refused(store.delete(c, Epoch(0)).await, ErrorKind::Fenced);
    store.delete(a, Epoch(0)).await.expect("a damaged database can be deleted");
    let left: Vec<_> = store.list("", None, 10).await.expect("a list").into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, [name("b"), name("c")]);
    refused(store.delete(a, Epoch(0)).await, ErrorKind::NotFound);
}

/// Its checkpoint's place cannot be read, so nobody can open it. But its holder can write, and what it is told is durable.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_is_deleted_only_when_nobody_holds_it() {
    let place = Place::new();
    let store = store(&place).await;
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"first").await.expect("the holder can");
    let id = holder.head().await.commit_id.0;
    let database = foundationdb::Database::from_path(place.cluster_file.to_str().expect("UTF-8")).expect("a database");
    let prefix = place.prefix.as_slice();
    let damage = database.run(|trx, _| async move {
        let end = [prefix, &[0xff]].concat();
        let range = foundationdb::RangeOption::from((prefix, end.as_slice()));
        let found = trx.get_range(&range, 1, false).await?;
        // The head has the commit's id, as has the record, whose key is longer.
        let heads = found.iter().filter(|pair| pair.value().windows(16).any(|part| part == id));
        let mut key = heads.map(|pair| pair.key().to_vec()).min_by_key(Vec::len).expect("a head");
        *key.last_mut().expect("its kind") = 3;
        let mut value = trx.get(&key, false).await?.expect("how far checkpoints have got").to_vec();
        value[1] ^= 1;
        trx.set(&key, &value);
        Ok(())
    });
    damage.await.expect("it is written");
    let (a, epoch) = (holder.database, holder.epoch);
    refused(take(&store, "a", session, true).await, ErrorKind::Corrupt);
    holder.commit(b"second").await.expect("the holder can");
    refused(store.delete(a, Epoch(epoch.get() + 1)).await, ErrorKind::Fenced);
    store.end_session(session).await.expect("it ends");
    store.delete(a, Epoch(0)).await.expect("nobody can take its lease any more");
    refused(store.delete(a, Epoch(0)).await, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster that can be told to recover")]
async fn a_recovery_loses_nothing() {
    let place = Place::new();
    let store = store(&place).await;
    let mut holder = Holder::new(&store, session(&store, LONG).await, "a").await;
    for round in 0..10_u8 {
        holder.commit(&[round]).await.expect("the holder can");
        place.command("restart");
        holder.read(1, 10).await.expect("the database can be read");
        place.command("next commit.restart");
    }
    let log = holder.log().await;
    assert_eq!(log, (0..10).map(|round| vec![round]).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster that does not answer")]
async fn a_cluster_that_does_not_answer_is_unavailable_in_time() {
    let place = Place::new();
    let config = place.config().timeout(Duration::from_millis(300));
    let store = Arc::new(FdbStore::open(config).await.expect("the store opens"));
    let session = session(&store, LONG).await;
    let mut holder = Holder::new(&store, session, "a").await;
    holder.commit(b"first").await.expect("the holder can");
    place.command("latency version=5000000 read=5000000");
    refused(take(&store, "b", session, false).await, ErrorKind::Unavailable);
    refused(store.renew_session(session).await, ErrorKind::Unavailable);
    place.command("advance 6000000");
    // Refused for its age, and then there is no read version to be had: certainly nothing happened.
    refused(holder.commit(b"second").await, ErrorKind::Unavailable);
    place.command("latency version=0 read=0");
    holder.commit(b"third").await.expect("the holder can");
    assert_eq!(holder.log().await, [b"first".as_slice(), b"third"]);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a cluster that can be told to be slow")]
async fn a_call_that_is_tried_again_has_all_of_its_time() {
    // FoundationDB counts a transaction's time-out from when it was made, also when it is used again: to set what was
    // left of the time took it away twice.
    let place = Place::new();
    let store =
        Arc::new(FdbStore::open(place.config().timeout(Duration::from_secs(2))).await.expect("the store opens"));
    let session = session(&store, LONG).await;
    place.command("latency commit=1200000");
    place.command("next commit.not_committed");
    let renewing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.renew_session(session).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    place.command("latency commit=0");
    renewing.await.expect("no panic").expect("eight tenths of a second are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_from_an_older_version_sees_what_happened_since() {
    // A process that has committed a moment ago grants without asking for the newest version: what was changed since by
    // others fails that grant, and a second look finds it.
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let (our_session, their_session) = (session(&ours, LONG).await, session(&theirs, LONG).await);
    for (round, known) in [false, true].into_iter().enumerate() {
        let text = format!("db-{round}");
        let mut busy = Holder::new(&ours, our_session, &format!("busy-{round}")).await;
        if known {
            ours.open(open_request(&text, None)).await.expect("created");
        }
        busy.commit(b"now").await.expect("the holder can");
        let mut taken = Holder::new(&theirs, their_session, &text).await;
        for record in [b"one", b"two"] {
            taken.commit(record).await.expect("the holder can");
        }
        refused(take(&ours, &text, our_session, false).await, ErrorKind::LeaseHeld);
        busy.commit(b"now").await.expect("the holder can");
        let row = image(1, taken.txid);
        taken.checkpoint(vec![row.clone()], true).await.expect("the holder can");
        theirs.release(taken.database, taken.epoch, vec![litefleet::PageNo(1)]).await.expect("the holder can");
        let opened = take(&ours, &text, our_session, false).await.expect("it was given back");
        assert_eq!((opened.head.txid, opened.head.checkpoint), (Txid(2), Txid(2)));
        assert_eq!(opened.warm.into_iter().map(|read| read.row).collect::<Vec<_>>(), [row]);
        let deleted = Holder::new(&theirs, their_session, &format!("gone-{round}")).await;
        ours.open(open_request(&format!("gone-{round}"), None)).await.expect("it exists");
        busy.commit(b"now").await.expect("the holder can");
        theirs.delete(deleted.database, deleted.epoch).await.expect("the holder can");
        let again = take(&ours, &format!("gone-{round}"), our_session, false).await.expect("the name is free");
        assert!(again.created && again.database != deleted.database);
    }
    ours.end_session(our_session).await.expect("it ends");
    refused(take(&ours, "db-0", our_session, false).await, ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn followers_are_told_of_commits_in_other_processes() {
    // Time stands still: who waits for some of it to pass, in order to look again, waits for ever.
    let _still = standing_still();
    let place = Place::new();
    let (writing, following) = (store(&place).await, store(&place).await);
    let mut holder = Holder::new(&writing, session(&writing, LONG).await, "a").await;
    let database = following.open(open_request("a", None)).await.expect("it exists").database;
    for round in 1..=5 {
        let watches = place.stand_in.as_ref().map(|stand_in| stand_in.counter("watches"));
        let waiting = tokio::spawn({
            let (following, known) = (Arc::clone(&following), holder.txid);
            async move { following.watch(database, known).await }
        });
        if let Some(before) = watches {
            until(|| place.counter("watches") > before).await;
        }
        holder.commit(b"record").await.expect("the holder can");
        until(|| waiting.is_finished()).await;
        assert_eq!(waiting.await.expect("no panic").expect("it exists"), Txid(round));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_taken_by_name_and_not_by_accident() {
    // Two processes rename and open at once: the guess of an id by name never counts when the name means another now.
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let session_of_ours = session(&ours, LONG).await;
    let first = Holder::new(&ours, session_of_ours, "a").await;
    let session_of_theirs = session(&theirs, LONG).await;
    theirs.open(open_request("a", None)).await.expect("it exists");
    ours.rename(first.database, first.epoch, name("b")).await.expect("the holder can");
    let mut request = open_request("a", None);
    request.lease = Some(LeaseRequest { session: session_of_theirs, force: false });
    let opened = theirs.open(request).await.expect("the name is free");
    assert!(opened.created);
    assert_ne!(opened.database, first.database);
    assert_eq!(first.head().await.epoch, first.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_were_reserved_before_the_store_was_restored_are_not_used() {
    // A process outlives the restoring of a backup that is older than its ids: another process reserves the same ones.
    for deleted in [false, true] {
        let place = Place::new();
        let old = store(&place).await;
        let first = Holder::new(&old, session(&old, LONG).await, "first").await;
        old.delete(first.database, first.epoch).await.expect("the holder can");
        assert!(old.purge(100).await.expect("a purge").done);
        by_hand(&place, |trx, key| trx.clear(&key(&[1, 1]))).await;
        let new = store(&place).await;
        new.open(open_request("x", None)).await.expect("made");
        let mut theirs = Holder::new(&new, session(&new, LONG).await, "theirs").await;
        if deleted {
            // Nothing is left of it but the mark.
            new.delete(theirs.database, theirs.epoch).await.expect("the holder can");
        } else {
            theirs.commit(b"record").await.expect("the holder can");
        }
        let made = old.open(open_request("made", None)).await.expect("the name is free");
        assert!(made.created && made.database > theirs.database, "{} again, deleted: {deleted}", made.database);
        let other = old.open(open_request("other", None)).await.expect("the name is free");
        assert_eq!(other.database.get(), made.database.get() + 1, "the others of its old ids are given up as well");
        if !deleted {
            theirs.commit(b"more").await.expect("the holder can");
            assert_eq!(theirs.log().await, [b"record".as_slice(), b"more"]);
        }
        assert!(new.purge(100).await.expect("a purge").done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn force_takes_a_lease_of_a_session_whose_record_is_damaged() {
    let place = Place::new();
    let (ours, theirs) = (store(&place).await, store(&place).await);
    let damaged = session(&ours, LONG).await;
    let mut holder = Holder::new(&ours, damaged, "a").await;
    holder.commit(b"record").await.expect("the holder can");
    Holder::new(&ours, damaged, "b").await;
    by_hand(&place, |trx, key| trx.set(&key(&[&[3], damaged.bytes().as_slice(), &[0]].concat()), b"damaged")).await;
    let their_session = session(&theirs, LONG).await;
    let error = take(&theirs, "a", their_session, false).await.expect_err("nobody knows whether it is alive");
    assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("by force"), "{error}");
    let mut taken = Holder::taking(&theirs, their_session, "a", true).await.expect("force takes over");
    refused(holder.commit(b"late").await, ErrorKind::Fenced);
    taken.commit(b"theirs").await.expect("the taker can");
    assert_eq!(taken.log().await, [b"record".as_slice(), b"theirs"]);
    refused(ours.renew_session(damaged).await, ErrorKind::Fenced);
    take(&theirs, "b", their_session, false).await.expect("the session has ended with that");
    assert!(theirs.purge(100).await.expect("its record can be read again").done);
}

/// It was told that its session's record is damaged, each time: only by force could anybody get its leases, and it itself
/// went on with that session.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_sessions_record_is_damaged_gets_another_session() {
    for (part, expired) in [(0, false), (0, true), (1, false), (1, true)] {
        let place = Place::new();
        let clock = Arc::new(ManualClock::default());
        let config = place.config().clock(clock.clone());
        let ours = Arc::new(FdbStore::open(config).await.expect("the store opens"));
        let damaged = session(&ours, LONG).await;
        let mut holder = Holder::new(&ours, damaged, "a").await;
        holder.commit(b"record").await.expect("the holder can");
        by_hand(&place, |trx, key| {
            trx.set(&key(&[&[3], damaged.bytes().as_slice(), &[part]].concat()), b"damaged");
        })
        .await;
        if expired {
            clock.advance(LONG);
        }
        refused(ours.renew_session(damaged).await, ErrorKind::Fenced);
        refused(take(&ours, "b", damaged, false).await, ErrorKind::Fenced);
        let again = session(&ours, LONG).await;
        let mut anew = Holder::new(&ours, again, "a").await;
        refused(holder.commit(b"late").await, ErrorKind::Fenced);
        anew.commit(b"more").await.expect("the holder can");
        assert_eq!(anew.log().await, [b"record".as_slice(), b"more"]);
        ours.end_session(damaged).await.expect("it has ended");
        assert!(ours.purge(100).await.expect("all can be read again").done);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(real_cluster, ignore = "needs a commit whose reply is lost")]
async fn a_rename_or_deletion_whose_reply_was_lost_is_not_said_to_have_failed() {
    for deleting in [false, true] {
        let place = Place::new();
        let (ours, theirs) = (store(&place).await, store(&place).await);
        let holder = Holder::new(&ours, session(&ours, LONG).await, "a").await;
        let their_session = session(&theirs, LONG).await;
        let before = place.counter("read_versions");
        place.command("next commit.1039.done version.ok version.slow.3000");
        let changing = tokio::spawn(async move {
            if deleting {
                ours.delete(holder.database, holder.epoch).await
            } else {
                ours.rename(holder.database, holder.epoch, name("b")).await
            }
        });
        // It is about to look what came of it.
        while place.counter("read_versions") < before + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if deleting {
            assert!(theirs.purge(100).await.expect("a purge").done, "also the mark of its deletion");
        } else {
            Holder::taking(&theirs, their_session, "b", true).await.expect("it has the new name");
        }
        let told = changing.await.expect("no panic");
        told.unwrap_or_else(|error| panic!("deleting: {deleting}: {error}"));
    }
}
