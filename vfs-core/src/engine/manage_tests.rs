//! Tests of what is done with databases as a whole.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::ManualClock;
use crate::config::{DatabaseSettings, FleetSettings};
use crate::engine::database::Database;
use crate::engine::meanwhile::Meanwhile;
use crate::engine::{Fleet, Role};
use crate::error::{ErrorKind, Result};
use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, Operation, PageStore};
use crate::types::DatabaseName;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn name() -> DatabaseName {
    DatabaseName::new("a").unwrap()
}

/// Writes something, and commits it.
fn write(database: &Database, byte: u8) -> Result<()> {
    let snapshot = database.begin_read()?;
    let mut buffer = database.begin_write(snapshot, false)?;
    buffer.set_foreign();
    database.write(&mut buffer, 0, &[byte; 100])?;
    let committed = database.commit(&mut buffer, snapshot)?;
    database.end_write(&mut buffer);
    database.unpin(committed);
    Ok(())
}

/// Removing stopped whatever was open under the name by then: also the database that somebody had created after the old one was
/// deleted, while the reply to that was still on its way.
#[test]
fn database_that_is_created_under_a_removed_name_goes_on() {
    let (store, meanwhile) = Meanwhile::around(Arc::new(MemoryStore::default()));
    let fleet = Fleet::builder(store).build().unwrap();
    let open = |create| fleet.connect(&name(), Role::Writer, create);
    let old = open(true);
    write(&old, 1).unwrap();
    fleet.disconnect(&old);
    let created = Arc::new(Mutex::new(None));
    let deed = {
        let (fleet, created) = (fleet.clone(), Arc::clone(&created));
        move || {
            let database = fleet.connect(&name(), Role::Writer, true);
            write(&database, 2).unwrap();
            *created.lock().unwrap() = Some(database);
        }
    };
    meanwhile.arm(Operation::Delete, deed);
    fleet.remove(&name(), false).unwrap();
    let database = created.lock().unwrap().take().unwrap();
    write(&database, 3).unwrap();
    fleet.disconnect(&database);
}

/// A sweep that gives leases back took the one away under which a database was to be removed, or renamed, and that failed as if
/// somebody else had taken it.
#[test]
fn a_sweep_that_gives_leases_back_does_not_fail_who_removes_or_renames() {
    let (store, meanwhile) = Meanwhile::around(Arc::new(MemoryStore::default()));
    let fleet = Fleet::builder(store).build().unwrap();
    let old = fleet.connect(&name(), Role::Writer, true);
    write(&old, 1).unwrap();
    fleet.disconnect(&old);
    let sweep = |name: &DatabaseName| {
        let (fleet, name) = (fleet.clone(), name.clone());
        move || {
            fleet.inner.unreturned.perhaps_granted(&name, fleet.inner.session.current().unwrap());
            fleet.wait(fleet.inner.return_leases());
        }
    };
    let to = DatabaseName::new("b").unwrap();
    meanwhile.arm(Operation::Open, sweep(&name()));
    fleet.rename(&name(), &to, false).unwrap();
    assert!(meanwhile.is_done());
    meanwhile.arm(Operation::Open, sweep(&to));
    fleet.remove(&to, false).unwrap();
    assert!(meanwhile.is_done() && !fleet.exists(&to).unwrap());
}

/// It was done, and told as a failure because the lease that it was done under could not be given back.
#[test]
fn a_rename_whose_lease_is_given_back_later_is_done() {
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>, Arc::clone(&plan));
    let mut settings = FleetSettings::default();
    settings.database.store_timeout = Duration::from_millis(1);
    let fleet = Fleet::builder(Arc::new(store)).settings(settings).build().unwrap();
    let old = fleet.connect(&name(), Role::Writer, true);
    write(&old, 1).unwrap();
    fleet.disconnect(&old);
    plan.arm(Fault { operation: Some(Operation::Release), after: 0, times: u64::MAX, effect: Effect::Refuse });
    let to = DatabaseName::new("b").unwrap();
    fleet.rename(&name(), &to, false).unwrap();
    assert!(plan.hits() > 0 && fleet.exists(&to).unwrap());
}

/// The lease is the session's, so it was granted once more to the process whose connection had just taken it, had committed, and had
/// been told so: and the database was removed under it.
#[test]
fn a_database_that_is_opened_here_while_the_lease_is_waited_for_is_not_removed() {
    let (store, meanwhile) = Meanwhile::around(Arc::new(MemoryStore::default()));
    let fleet = Fleet::builder(store).build().unwrap();
    let old = fleet.connect(&name(), Role::Writer, true);
    write(&old, 1).unwrap();
    fleet.disconnect(&old);
    let opened = Arc::new(Mutex::new(None));
    let deed = {
        let (fleet, opened) = (fleet.clone(), Arc::clone(&opened));
        move || {
            let database = fleet.connect(&name(), Role::Writer, false);
            write(&database, 2).unwrap();
            *opened.lock().unwrap() = Some(database);
        }
    };
    // The first time it is opened just before the lease is granted, then it is open.
    meanwhile.arm_before(Operation::Open, deed);
    for _ in 0..2 {
        assert_eq!(fleet.remove(&name(), false).unwrap_err().kind(), ErrorKind::LeaseHeld);
        assert_eq!(
            fleet.rename(&name(), &DatabaseName::new("b").unwrap(), false).unwrap_err().kind(),
            ErrorKind::LeaseHeld
        );
    }
    let database = opened.lock().unwrap().take().unwrap();
    write(&database, 3).unwrap();
    fleet.disconnect(&database);
}

/// They were told as failed, and those who had the database open went on.
#[test]
fn removing_and_renaming_whose_replies_are_lost_are_done() {
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>, Arc::clone(&plan));
    let fleet = Fleet::builder(Arc::new(store)).build().unwrap();
    let to = DatabaseName::new("b").unwrap();
    let writer = fleet.connect(&name(), Role::Writer, true);
    write(&writer, 1).unwrap();
    let lose =
        |operation| plan.arm(Fault { operation: Some(operation), after: 0, times: 1, effect: Effect::LoseReply });
    lose(Operation::Rename);
    fleet.rename(&name(), &to, true).unwrap();
    assert_eq!(writer.stopped().unwrap().kind(), ErrorKind::NotFound);
    let follower = fleet.connect(&to, Role::Follower, false);
    let snapshot = follower.begin_read().unwrap();
    follower.unpin(snapshot);
    lose(Operation::Delete);
    fleet.remove(&to, false).unwrap();
    assert_eq!(plan.hits(), 2);
    assert_eq!(follower.stopped().unwrap().kind(), ErrorKind::NotFound);
    for open in [&writer, &follower] {
        fleet.disconnect(open);
    }
}

/// Whoever still has the removed database open, a follower too, is told when it reads on.
#[test]
fn those_who_have_a_removed_database_open_are_stopped() {
    let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
    let writer = fleet.connect(&name(), Role::Writer, true);
    write(&writer, 1).unwrap();
    let follower = fleet.connect(&name(), Role::Follower, false);
    let snapshot = follower.begin_read().unwrap();
    follower.unpin(snapshot);
    fleet.remove(&name(), true).unwrap();
    for open in [&writer, &follower] {
        assert_eq!(open.stopped().unwrap().kind(), ErrorKind::NotFound);
        fleet.disconnect(open);
    }
}

/// Whether it is empty is asked of the lease that it is deleted under: another process commits before that is granted.
#[test]
fn only_what_is_empty_under_its_lease_is_removed_as_empty() {
    let shared: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let (store, meanwhile) = Meanwhile::around(Arc::clone(&shared));
    let fleet = Fleet::builder(store).build().unwrap();
    let create = || {
        let database = fleet.connect(&name(), Role::Writer, true);
        let snapshot = database.begin_read().unwrap();
        database.unpin(snapshot);
        fleet.disconnect(&database);
    };
    create();
    assert_eq!(fleet.info(&name()).unwrap().head.txid.get(), 0);
    fleet.remove_empty(&name()).unwrap();
    assert!(!fleet.exists(&name()).unwrap());
    assert_eq!(fleet.remove_empty(&name()).unwrap_err().kind(), ErrorKind::NotFound);

    create();
    let other = Fleet::builder(shared).build().unwrap();
    let commit = {
        let other = other.clone();
        move || {
            let database = other.connect(&name(), Role::Writer, false);
            write(&database, 1).unwrap();
            other.disconnect(&database);
        }
    };
    meanwhile.arm_before(Operation::Open, commit.clone());
    assert_eq!(fleet.remove_empty(&name()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(other.info(&name()).unwrap().head.txid.get(), 1);
    // The lease was given back.
    commit();
}

/// It was not tried again before the next checkpoint, which an idle database never makes.
#[test]
fn a_collection_that_failed_is_made_later() {
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>, Arc::clone(&plan));
    let clock = Arc::new(ManualClock::default());
    let mut settings = FleetSettings { session_lifetime: 100 * DAY, ..FleetSettings::default() };
    settings.database.store_timeout = Duration::from_nanos(1);
    settings.database.checkpoint_idle = 100 * DAY;
    let fleet = Fleet::builder(Arc::new(store)).settings(settings).clock(Arc::clone(&clock) as _).build().unwrap();
    let database = fleet.connect(&name(), Role::Writer, true);
    let _alone = loop {
        if let Some(looking) = database.begin_looking() {
            break looking;
        }
    };
    write(&database, 1).unwrap();
    write(&database, 2).unwrap();
    fleet.wait(database.checkpoint()).unwrap();
    clock.advance(DAY);
    plan.arm(Fault { operation: Some(Operation::Collect), after: 0, times: u64::MAX, effect: Effect::Refuse });
    fleet.wait(database.look_after()).unwrap_err();
    plan.disarm();
    clock.advance(DAY);
    fleet.wait(database.look_after()).unwrap();
    let status = database.status();
    assert_eq!(status.horizon, status.checkpoint);
}

/// A database that is looked after by the test alone, with a commit that no checkpoint has: there is no room for one.
fn without_room(
    change: impl FnOnce(&mut DatabaseSettings),
    test: impl FnOnce(&Fleet, &Database, &ManualClock, &FaultPlan),
) {
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>, Arc::clone(&plan));
    let clock = Arc::new(ManualClock::default());
    let mut settings = FleetSettings { session_lifetime: 1000 * DAY, ..FleetSettings::default() };
    change(&mut settings.database);
    let fleet = Fleet::builder(Arc::new(store)).settings(settings).clock(Arc::clone(&clock) as _).build().unwrap();
    let database = fleet.connect(&name(), Role::Writer, true);
    {
        let _alone = loop {
            if let Some(looking) = database.begin_looking() {
                break looking;
            }
        };
        write(&database, 1).unwrap();
        plan.arm(Fault { operation: Some(Operation::Checkpoint), after: 0, times: u64::MAX, effect: Effect::Full });
        test(&fleet, &database, &clock, &plan);
        plan.disarm();
    }
    fleet.disconnect(&database);
}

/// It kept its lease for as long as the process lived, and nobody else could write.
#[test]
fn an_idle_database_whose_checkpoint_fails_gives_its_lease_back() {
    let idle = |settings: &mut DatabaseSettings| settings.lease_idle = Duration::from_secs(1);
    without_room(idle, |fleet, database, clock, plan| {
        clock.advance(Duration::from_secs(1));
        let error = fleet.wait(database.look_after()).unwrap_err();
        assert_eq!((error.kind(), plan.hits()), (ErrorKind::Full, 1));
        assert!(!database.holds_lease());
        // That it failed once is no matter for whoever writes next.
        write(database, 2).unwrap();
        clock.advance(Duration::from_secs(1));
        fleet.wait(database.look_after()).unwrap_err();
        assert_eq!(plan.hits(), 2);
        assert!(!database.holds_lease());
    });
}

/// It was written once a second, nearly whole, and for ever.
#[test]
fn a_checkpoint_of_an_idle_database_that_failed_is_tried_again_later_and_later() {
    without_room(
        |_| {},
        |fleet, database, clock, plan| {
            let look = |after| {
                clock.advance(after);
                let before = plan.hits();
                let looked = fleet.wait(database.look_after());
                let tried = plan.hits() > before;
                assert_eq!(looked.is_err(), tried);
                tried
            };
            assert!(look(DAY));
            assert!(!look(Duration::from_secs(1)));
            write(database, 2).unwrap();
            assert!(!look(Duration::from_secs(1)), "it is not idle");
            assert!(look(DAY), "there was a commit");
            // While nothing is committed there are ever fewer tries.
            let tries = |seconds| (0..seconds).filter(|_| look(Duration::from_secs(1))).count();
            let (early, late) = (tries(600), tries(600));
            assert!((1..10).contains(&early) && late < early, "{early} {late}");
            assert!(look(DAY), "there may be room by now");
            plan.disarm();
            clock.advance(DAY);
            fleet.wait(database.look_after()).unwrap();
            let status = database.status();
            assert_eq!(status.checkpoint, status.txid);
        },
    );
}

/// It was looked for once for the checkpoint of each database, and once more for its lease: with some hundred of them an
/// hour, in which the session, that alone holds all leases, was not ended.
#[test]
fn a_shutdown_while_the_store_is_away_tries_it_once() {
    const DATABASES: usize = 50;
    let name = |index| DatabaseName::new(&format!("tenant-{index}")).unwrap();
    let memory: Arc<dyn PageStore> = Arc::new(MemoryStore::default());
    let plan = Arc::new(FaultPlan::default());
    let store = FaultLayer::new(Arc::clone(&memory), Arc::clone(&plan));
    let mut settings = FleetSettings { session_lifetime: DAY, ..FleetSettings::default() };
    settings.database.store_timeout = Duration::from_nanos(1);
    let here = Fleet::builder(Arc::new(store)).settings(settings).build().unwrap();
    let there = Fleet::builder(memory).build().unwrap();
    let open: Vec<_> = (0..DATABASES).map(|index| here.connect(&name(index), Role::Writer, true)).collect();
    for database in &open {
        write(database, 1).unwrap();
    }
    for operation in [Operation::Checkpoint, Operation::Release] {
        plan.arm(Fault { operation: Some(operation), after: 0, times: u64::MAX, effect: Effect::Refuse });
    }
    assert_eq!(here.shutdown().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(plan.hits(), 1);
    plan.disarm();
    assert!(open.iter().all(|database| !database.holds_lease()));
    // Others take them, and who has them open here goes on after that.
    for (index, database) in open.iter().enumerate() {
        let other = there.connect(&name(index), Role::Writer, false);
        write(&other, 2).unwrap();
        there.disconnect(&other);
        write(database, 3).unwrap();
        here.disconnect(database);
    }
}

/// A lease that a sweep gave back during its checkpoint was taken for a store that is away: no database after it got one.
#[test]
fn a_lease_given_back_during_a_shutdown_is_no_store_that_is_away() {
    let (store, meanwhile) = Meanwhile::around(Arc::new(MemoryStore::default()));
    let mut settings = FleetSettings { session_lifetime: DAY, ..FleetSettings::default() };
    settings.database.checkpoint_idle = DAY;
    let fleet = Fleet::builder(store).settings(settings).build().unwrap();
    let connect = |name| fleet.connect(&DatabaseName::new(name).unwrap(), Role::Writer, true);
    let connected = ["a", "b", "c", "d"].map(connect);
    for database in &connected {
        write(database, 1).unwrap();
    }
    // In the order that they are shut down in.
    let open = fleet.inner.registry.all();
    let behind = |database: &&Arc<Database>| database.status().checkpoint < database.status().txid;
    assert_eq!(open.iter().filter(behind).count(), connected.len());
    let first = {
        let (fleet, first) = (fleet.clone(), Arc::clone(&open[0]));
        move || fleet.wait(first.release_lease()).unwrap()
    };
    meanwhile.arm_before(Operation::Checkpoint, first);
    assert_eq!(fleet.shutdown().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(meanwhile.is_done());
    let left: Vec<_> = open.iter().filter(behind).map(|database| database.name()).collect();
    assert_eq!(left, [open[0].name()]);
}
