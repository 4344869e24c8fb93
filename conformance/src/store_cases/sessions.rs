//! Sessions: how they begin, live on, and end.

use std::sync::Arc;
use std::time::Duration;

use litefleet::ErrorKind;
use litefleet::store::PageStore;

use crate::fixture::{LONG, Writer, lease_request, refused, session, session_id, start};
use crate::harness::{Harness, pass, short_lifetime};

/// A session of the short lifetime that has just expired.
async fn expired(harness: &dyn Harness, store: &Arc<dyn PageStore>, database: &str) -> (litefleet::SessionId, Writer) {
    let lifetime = short_lifetime(harness);
    let session = session(store, lifetime).await;
    let writer = Writer::with_session(store, session, database).await;
    pass(harness, lifetime + lifetime / 4).await;
    (session, writer)
}

/// Takes a lease that is free, or will be seen to be free by a store that has no clock of its own and must watch the
/// holder's session for one lifetime.
async fn take_in_time(harness: &dyn Harness, store: &Arc<dyn PageStore>, name: &str) -> Writer {
    let lifetime = short_lifetime(harness);
    let session = session(store, LONG).await;
    for _ in 0..40 {
        match store.open(lease_request(name, session, false)).await {
            Ok(opened) => return Writer::from_opened(store, session, name, &opened),
            Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseHeld, "{error}"),
        }
        pass(harness, lifetime / 20).await;
    }
    panic!("the lease of {name} is still held two lifetimes after its session expired");
}

/// An expired session does not come back by renewing, and its leases may be taken without force.
pub async fn expired_session_is_not_renewed(harness: &dyn Harness) {
    let store = harness.store().await;
    let (old, writer) = expired(harness, &store, "a").await;
    refused(store.renew_session(old).await, ErrorKind::Fenced, "renewing an expired session");
    let taker = take_in_time(harness, &store, "a").await;
    assert!(taker.epoch > writer.epoch);
    refused(store.renew_session(old).await, ErrorKind::Fenced, "renewing an expired session after its lease was taken");
}

/// Neither an expired nor an ended session can be started again.
pub async fn session_cannot_come_back(harness: &dyn Harness) {
    let store = harness.store().await;
    let (old, _) = expired(harness, &store, "a").await;
    refused(start(&store, old, LONG).await, ErrorKind::Invalid, "starting an expired session again");
    let ended = session(&store, LONG).await;
    store.end_session(ended).await.expect("it lives");
    refused(start(&store, ended, LONG).await, ErrorKind::Invalid, "starting an ended session again");
}

/// Renewing extends a session by its whole lifetime from the moment of the renewal; starting it again does the same.
pub async fn renewed_session_lives_on(harness: &dyn Harness) {
    let store = harness.store().await;
    let lifetime = short_lifetime(harness);
    let old = session(&store, lifetime).await;
    let holder = Writer::with_session(&store, old, "a").await;
    let other = session(&store, LONG).await;
    for round in 0..4 {
        pass(harness, lifetime * 6 / 10).await;
        if round % 2 == 0 {
            store.renew_session(old).await.expect("it still lives");
        } else {
            start(&store, old, lifetime).await.expect("it still lives");
        }
        refused(
            store.open(lease_request("a", other, false)).await,
            ErrorKind::LeaseHeld,
            "taking the lease of a renewed session",
        );
    }
    let told = holder.head().await.holder.expect("the lease is held");
    assert_eq!(told.session, old);
    if let Some(left) = told.expires_in {
        assert!(left > Duration::ZERO && left <= lifetime, "{left:?} of {lifetime:?} left");
    }
}

/// The end of a session frees all its leases at once, and those of no other session.
pub async fn ended_session_frees_its_leases(harness: &dyn Harness) {
    let store = harness.store().await;
    let old = session(&store, LONG).await;
    let mut held = Vec::new();
    for name in ["a", "b", "c"] {
        held.push(Writer::with_session(&store, old, name).await);
    }
    let stranger = Writer::new(&store, "strange").await;
    store.end_session(old).await.expect("it lives");
    store.end_session(old).await.expect("ending twice is fine");
    let taker = session(&store, LONG).await;
    for writer in held {
        let taken = Writer::with_session(&store, taker, &writer.name).await;
        assert!(taken.epoch > writer.epoch);
        let mut writer = writer;
        let request = writer.request(b"late");
        refused(writer.try_commit(request).await, ErrorKind::Fenced, "a commit of the ended session after a takeover");
    }
    refused(
        store.open(lease_request("strange", taker, false)).await,
        ErrorKind::LeaseHeld,
        "the lease of another session",
    );
    assert_eq!(stranger.head().await.epoch, stranger.epoch);
}

/// A takeover by force ends the session of the holder, so that it learns of it: all its leases are free, it cannot be
/// renewed, and gets no lease. Force that deposes nobody ends nobody's session.
pub async fn force_ends_the_holders_session(harness: &dyn Harness) {
    let store = harness.store().await;
    let old = session(&store, LONG).await;
    let held = Writer::with_session(&store, old, "a").await;
    let other = Writer::with_session(&store, old, "b").await;
    let given_back = Writer::with_session(&store, old, "c").await;
    given_back.release(&[]).await.expect("the holder can");
    let taker = session(&store, LONG).await;
    given_back.force(taker).await;
    held.force(old).await;
    store.renew_session(old).await.expect("nobody was deposed");
    let taken = held.force(taker).await;
    refused(store.renew_session(old).await, ErrorKind::Fenced, "renewing a session that was ended by force");
    refused(start(&store, old, LONG).await, ErrorKind::Invalid, "starting a session that was ended by force");
    refused(store.open(lease_request("c", old, true)).await, ErrorKind::Fenced, "a lease for it");
    store.renew_session(taker).await.expect("the taker's session lives on");
    let next = session(&store, LONG).await;
    let mut other_taken = Writer::with_session(&store, next, "b").await;
    assert!(other_taken.epoch > other.epoch);
    other_taken.commit(b"goes on").await;
    refused(store.open(lease_request("a", next, false)).await, ErrorKind::LeaseHeld, "the lease that was taken");
    assert_eq!(taken.head().await.epoch, taken.epoch);
}

/// Sessions that the store does not know: ending one is no error, renewing one is `Fenced`.
pub async fn unknown_session_is_fenced(harness: &dyn Harness) {
    let store = harness.store().await;
    let unknown = session_id();
    store.end_session(unknown).await.expect("ending an unknown session is no error");
    let unknown = session_id();
    refused(store.renew_session(unknown).await, ErrorKind::Fenced, "renewing an unknown session");
    Writer::new(&store, "a").await;
    refused(store.open(lease_request("a", unknown, true)).await, ErrorKind::Fenced, "a lease for an unknown session");
}

/// A session that has expired or ended gets no lease, not even of a free database, and creates none.
pub async fn expired_session_gets_no_lease(harness: &dyn Harness) {
    let store = harness.store().await;
    let free = Writer::new(&store, "free").await;
    free.release(&[]).await.expect("the holder can release");
    let before = free.head().await;
    let (expired, _) = expired(harness, &store, "a").await;
    let ended = session(&store, LONG).await;
    store.end_session(ended).await.expect("it lives");
    for session in [expired, ended] {
        for force in [false, true] {
            refused(
                store.open(lease_request("free", session, force)).await,
                ErrorKind::Fenced,
                "a lease for a session that is over",
            );
            let mut create = lease_request("new", session, force);
            create.create = true;
            refused(store.open(create).await, ErrorKind::Fenced, "a new database for a session that is over");
        }
    }
    assert_eq!(free.head().await, before, "nothing was changed");
    let all = store.list("", None, 10).await.expect("a list");
    assert_eq!(all.len(), 2, "nothing was created");
}

/// The holder's session has expired: the head still names the holder, with no time left, until the lease is granted
/// again; the old holder can write until then, and is fenced from then on.
pub async fn expired_holder_is_named_until_the_next_grant(harness: &dyn Harness) {
    let store = harness.store().await;
    let (old, mut writer) = expired(harness, &store, "a").await;
    let holder = writer.head().await.holder.expect("it is still named");
    assert_eq!(holder.session, old);
    assert_eq!(holder.expires_in.unwrap_or_default(), Duration::ZERO);
    writer.commit(b"the epoch is still mine").await;
    let taker = take_in_time(harness, &store, "a").await;
    assert_eq!(taker.txid, writer.txid);
    let request = writer.request(b"no more");
    refused(writer.try_commit(request).await, ErrorKind::Fenced, "a commit after the takeover");
}
