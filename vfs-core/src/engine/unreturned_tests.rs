//! Tests of the leases that are to be given back: that there are never too many of them.

use std::sync::Arc;
use std::time::Duration;

use super::MOST;
use crate::config::FleetSettings;
use crate::engine::database::Database;
use crate::engine::meanwhile::Meanwhile;
use crate::engine::{Fleet, Role};
use crate::error::{ErrorKind, Result};
use crate::store::{
    Effect, Fault, FaultLayer, FaultPlan, LeaseRequest, MemoryStore, OpenRequest, Operation, PageStore,
};
use crate::types::{DatabaseName, SessionId};

fn name(index: usize) -> DatabaseName {
    DatabaseName::new(&format!("tenant-{index:06}")).unwrap()
}

/// A fleet that gives up at once, over a store that can be made to fail.
fn fleet(store: &Arc<dyn PageStore>) -> (Fleet, Arc<FaultPlan>) {
    let plan = Arc::new(FaultPlan::default());
    let faulty = Arc::new(FaultLayer::new(Arc::clone(store), Arc::clone(&plan)));
    let mut settings = FleetSettings { session_lifetime: Duration::from_secs(3600), ..FleetSettings::default() };
    settings.database.store_timeout = Duration::from_nanos(1);
    settings.database.busy = Duration::ZERO;
    (Fleet::builder(faulty).settings(settings).build().unwrap(), plan)
}

/// Opens a database for writing, and closes it.
fn visit(fleet: &Fleet, name: &DatabaseName, create: bool) -> Result<()> {
    let database = fleet.connect(name, Role::Writer, create);
    let begun = database.begin_read();
    if let Ok(snapshot) = begun {
        database.unpin(snapshot);
    }
    fleet.disconnect(&database);
    begun.map(drop)
}

fn noted(fleet: &Fleet) -> usize {
    fleet.inner.unreturned.lock().held.len()
}

fn spoil(plan: &FaultPlan, operation: Operation, effect: Effect) {
    plan.arm(Fault { operation: Some(operation), after: 0, times: u64::MAX, effect });
}

/// A store that was away left an entry for every name that was asked for.
#[test]
fn hundred_thousand_opens_without_an_answer_do_not_fill_the_memory() {
    const NAMES: usize = 100_000;
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (here, plan) = fleet(&store);
    let (other, _) = fleet(&store);
    let (first, last, in_use) = (name(0), name(NAMES), DatabaseName::new("in-use").unwrap());
    for created in [&first, &last] {
        visit(&other, created, true).unwrap();
    }
    let used = here.connect(&in_use, Role::Writer, true);
    let snapshot = used.begin_read().unwrap();
    used.unpin(snapshot);

    spoil(&plan, Operation::Open, Effect::LoseReply);
    let session = here.inner.session.current();
    let answer = |name| visit(&here, name, false).unwrap_err().kind();
    assert_eq!(answer(&first), ErrorKind::Unavailable);
    for index in 1..MOST {
        here.inner.unreturned.perhaps_granted(&name(index), session.unwrap());
    }
    assert_eq!(noted(&here), MOST);
    assert_eq!(answer(&last), ErrorKind::Unavailable);
    // The sweep may have ended the session by now, and what was of it is forgotten.
    for index in MOST..NAMES {
        here.inner.unreturned.perhaps_granted(&name(index), session.unwrap());
        assert!(noted(&here) <= MOST);
    }

    // The store is back. One of the two leases was written down, the other was not.
    plan.disarm();
    // The sweep may be at it as well.
    while !here.inner.unreturned.is_empty() {
        here.wait(here.inner.return_leases());
    }
    assert_ne!(here.inner.session.current(), session);
    for granted in [&first, &last] {
        visit(&other, granted, false).unwrap();
    }
    // Who used its lease goes on.
    let snapshot = used.begin_read().unwrap();
    used.unpin(snapshot);
    assert!(used.holds_lease());
    here.disconnect(&used);
}

/// They stayed for as long as the store was away, and were looked for after it had come back.
#[test]
fn leases_of_a_session_that_is_over_are_forgotten() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (fleet, plan) = fleet(&store);
    visit(&fleet, &name(0), true).unwrap();
    let session = fleet.inner.session.current().unwrap();
    spoil(&plan, Operation::Open, Effect::Refuse);
    fleet.inner.unreturned.perhaps_granted(&name(0), SessionId([7; 16]));
    fleet.inner.unreturned.perhaps_granted(&name(1), session);
    fleet.wait(fleet.inner.return_leases());
    assert_eq!(noted(&fleet), 1, "only what may still be held");
    fleet.shutdown().unwrap();
    fleet.wait(fleet.inner.return_leases());
    assert!(fleet.inner.unreturned.is_empty());
}

/// One whose database could not be read kept all those behind it from being given back.
#[test]
fn a_lease_that_cannot_be_given_back_does_not_hold_up_the_next() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (here, plan) = fleet(&store);
    let (other, _) = fleet(&store);
    visit(&other, &name(1), true).unwrap();
    spoil(&plan, Operation::Open, Effect::LoseReply);
    for index in [0, 1] {
        visit(&here, &name(index), index == 0).unwrap_err();
    }
    plan.disarm();
    plan.arm(Fault { operation: Some(Operation::Open), after: 0, times: 1, effect: Effect::Full });
    here.wait(here.inner.return_leases());
    visit(&other, &name(1), false).unwrap();
    // There may be room the next time.
    here.wait(here.inner.return_leases());
    visit(&other, &name(0), false).unwrap();
}

/// It was relied on for as long as the reply did not come, while another process could have its leases already.
#[test]
fn a_session_that_is_given_up_is_relied_on_by_nobody() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (here, plan) = fleet(&store);
    let (other, _) = fleet(&store);
    let used = here.connect(&name(0), Role::Writer, true);
    let begun = used.begin_read().unwrap();
    used.unpin(begun);
    let session = here.inner.session.current().unwrap();
    spoil(&plan, Operation::EndSession, Effect::LoseReply);
    here.wait(here.inner.session.give_up(session)).unwrap_err();
    let there = other.connect(&name(0), Role::Writer, false);
    let snapshot = there.begin_read().unwrap();
    let mut buffer = there.begin_write(snapshot, false).unwrap();
    there.write(&mut buffer, 0, &[1; 4096]).unwrap();
    let committed = there.commit(&mut buffer, snapshot).unwrap();
    there.end_write(&mut buffer);
    there.unpin(committed);
    // The store is asked, and no old state is read.
    assert_eq!(used.begin_read().unwrap_err().kind(), ErrorKind::Fenced);
    here.disconnect(&used);
    other.disconnect(&there);
}

/// A lease whose epoch a late request of our own had raised is given back at once, not by a later sweep.
#[test]
fn a_lease_that_was_granted_once_more_is_given_back_with_the_first() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (here, _) = fleet(&store);
    let (other, _) = fleet(&store);
    let database = here.connect(&name(0), Role::Writer, true);
    let snapshot = database.begin_read().unwrap();
    database.unpin(snapshot);
    let session = here.inner.session.current().unwrap();
    let lease = Some(LeaseRequest { session, force: false });
    let late = OpenRequest { name: name(0), create: false, lease, known: None, tail_bytes: 0 };
    here.wait(store.open(late)).unwrap();
    assert!(here.release(&database).unwrap());
    assert!(here.inner.unreturned.is_empty());
    visit(&other, &name(0), false).unwrap();
    here.disconnect(&database);
}

/// Writes something, and commits it.
fn write(database: &Database, byte: u8) -> Result<()> {
    let snapshot = database.begin_read()?;
    let mut buffer = database.begin_write(snapshot, false)?;
    database.write(&mut buffer, 0, &[byte; 100])?;
    let committed = database.commit(&mut buffer, snapshot);
    database.end_write(&mut buffer);
    database.unpin(*committed.as_ref().unwrap_or(&snapshot));
    committed.map(drop)
}

/// The grant came when the lease had been given back under the epoch before it: this process held it for as long as it lived,
/// and knew nothing of it.
#[test]
fn a_lease_that_is_granted_after_its_commit_was_given_up_is_given_back() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (here, plan) = fleet(&store);
    let (other, _) = fleet(&store);
    let used = here.connect(&name(0), Role::Writer, true);
    write(&used, 1).unwrap();
    plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::LoseRequest });
    spoil(&plan, Operation::Open, Effect::Late);
    assert_eq!(write(&used, 2).unwrap_err().kind(), ErrorKind::CommitUnknown);
    here.disconnect(&used);
    // From here on only the test looks.
    here.wait(here.inner.background.rest(Duration::from_secs(3600)));
    plan.disarm();
    assert!(here.wait(plan.deliver()) > 0);
    while !here.inner.unreturned.is_empty() {
        here.wait(here.inner.return_leases());
    }
    visit(&other, &name(0), false).unwrap();
}

/// It was of no use to the commit, and nobody gave it back.
#[test]
fn the_lease_of_another_database_that_a_commit_in_doubt_was_granted_is_given_back() {
    let store: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (other, _) = fleet(&store);
    let plan = Arc::new(FaultPlan::default());
    let faulty = FaultLayer::new(Arc::clone(&store), Arc::clone(&plan));
    let (around, meanwhile) = Meanwhile::around(Arc::new(faulty));
    let here = Fleet::builder(around).build().unwrap();
    let used = here.connect(&name(0), Role::Writer, true);
    write(&used, 1).unwrap();
    let (database, epoch) = used.held().unwrap();
    plan.arm(Fault { operation: Some(Operation::Commit), after: 0, times: 1, effect: Effect::LoseRequest });
    let deed = {
        let (store, other) = (Arc::clone(&store), other.clone());
        move || {
            other.wait(store.delete(database, epoch)).unwrap();
            let created = other.connect(&name(0), Role::Writer, true);
            write(&created, 3).unwrap();
            other.disconnect(&created);
        }
    };
    meanwhile.arm(Operation::Head, deed);
    assert_eq!(write(&used, 2).unwrap_err().kind(), ErrorKind::Fenced);
    assert!(meanwhile.is_done());
    here.disconnect(&used);
    while !here.inner.unreturned.is_empty() {
        here.wait(here.inner.return_leases());
    }
    visit(&other, &name(0), false).unwrap();
}
