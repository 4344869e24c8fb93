//! Tests of who waits for a turn to ask the store.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use crate::clock::{Clock, ManualClock, SystemClock};
use crate::config::{FleetSettings, LeaseMode};
use crate::engine::database::Database;
use crate::engine::{Fleet, Role};
use crate::error::{ErrorKind, Result};
use crate::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, PageStore};
use crate::types::DatabaseName;

const HOUR: Duration = Duration::from_secs(3600);
/// So long nothing that ends takes.
const EVER: Duration = Duration::from_secs(60);

type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

fn fleet(
    store: &Arc<dyn PageStore>,
    clock: Arc<dyn Clock>,
    change: impl FnOnce(&mut FleetSettings),
) -> (Fleet, Arc<FaultPlan>) {
    let plan = Arc::new(FaultPlan::default());
    let store = Arc::new(FaultLayer::new(Arc::clone(store), Arc::clone(&plan)));
    let mut settings = FleetSettings { session_lifetime: 100 * HOUR, ..FleetSettings::default() };
    change(&mut settings);
    (Fleet::builder(store).settings(settings).clock(clock).build().unwrap(), plan)
}

fn memory() -> Arc<dyn PageStore> {
    Arc::new(MemoryStore::default())
}

fn open(fleet: &Fleet, role: Role) -> Arc<Database> {
    fleet.connect(&DatabaseName::new("a").unwrap(), role, true)
}

fn visit(database: &Database) -> Result<()> {
    database.begin_read().map(|snapshot| database.unpin(snapshot))
}

fn spoil(plan: &FaultPlan, effect: Effect) {
    plan.arm(Fault { operation: None, after: 0, times: u64::MAX, effect });
}

/// They come to where they have to wait.
async fn begin_to_wait<T>(waiting: &mut [Waiting<'_, T>]) {
    poll_fn(|context| {
        assert!(waiting.iter_mut().all(|one| one.as_mut().poll(context).is_pending()));
        Poll::Ready(())
    })
    .await;
}

/// Each tried the store for `store_timeout`, one behind the other: the fortieth heard after forty times as long that it was away.
#[test]
fn those_who_wait_through_a_try_that_failed_make_no_other() {
    for (role, lease) in [
        (Role::Writer, LeaseMode::Exclusive),
        (Role::Writer, LeaseMode::Transaction),
        (Role::Follower, LeaseMode::Exclusive),
    ] {
        let (fleet, plan) = fleet(&memory(), Arc::new(SystemClock::default()), |settings| {
            settings.database.store_timeout = Duration::from_nanos(1);
            settings.database.lease = lease;
        });
        visit(&open(&fleet, Role::Writer)).unwrap();
        fleet.shutdown().unwrap();
        let database = open(&fleet, role);
        spoil(&plan, Effect::Refuse);
        fleet.wait(async {
            let turn = database.acquiring.lock().await;
            let mut waiting: Vec<Waiting<'_, _>> = Vec::new();
            for _ in 0..40 {
                waiting.push(Box::pin(database.begin_by_the_store()));
            }
            begin_to_wait(&mut waiting).await;
            drop(turn);
            for begun in waiting {
                assert_eq!(begun.await.unwrap_err().kind(), ErrorKind::Unavailable, "{role:?} {lease:?}");
            }
        });
        assert_eq!(plan.hits(), 1, "{role:?} {lease:?}");
        plan.disarm();
        visit(&database).unwrap();
        fleet.disconnect(&database);
    }
}

/// Nor do those whose rows came from before what is known: each looked for as long, one behind the other.
#[test]
fn those_whose_rows_are_behind_look_at_the_head_together() {
    let (fleet, plan) = fleet(&memory(), Arc::new(SystemClock::default()), |settings| {
        settings.database.store_timeout = Duration::from_nanos(1);
        settings.database.lease = LeaseMode::Transaction;
    });
    let database = open(&fleet, Role::Writer);
    visit(&database).unwrap();
    spoil(&plan, Effect::Refuse);
    fleet.wait(async {
        let turn = database.acquiring.lock().await;
        let mut waiting: Vec<Waiting<'_, _>> = Vec::new();
        for _ in 0..40 {
            waiting.push(Box::pin(database.look_for_checkpoint()));
        }
        begin_to_wait(&mut waiting).await;
        drop(turn);
        for looked in waiting {
            assert_eq!(looked.await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    });
    assert_eq!(plan.hits(), 1);
    plan.disarm();
    fleet.disconnect(&database);
}

/// As for those who read.
#[test]
fn those_who_need_the_lease_to_write_make_one_try_together() {
    let (fleet, plan) = fleet(&memory(), Arc::new(SystemClock::default()), |settings| {
        settings.database.store_timeout = Duration::from_nanos(1);
        settings.database.lease = LeaseMode::Transaction;
    });
    let database = open(&fleet, Role::Writer);
    visit(&database).unwrap();
    spoil(&plan, Effect::Refuse);
    fleet.wait(async {
        let turn = database.acquiring.lock().await;
        let mut reading: Vec<Waiting<'_, _>> = vec![Box::pin(database.begin_by_the_store())];
        let mut writing: Vec<Waiting<'_, _>> = Vec::new();
        for _ in 0..40 {
            writing.push(Box::pin(database.ensure_lease()));
        }
        begin_to_wait(&mut reading).await;
        begin_to_wait(&mut writing).await;
        drop(turn);
        // To look at the head is another try than to take the lease: a store may have the one and not the other.
        for begun in reading {
            assert_eq!(begun.await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        assert_eq!(plan.hits(), 1);
        for begun in writing {
            assert_eq!(begun.await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    });
    assert_eq!(plan.hits(), 2);
    plan.disarm();
    fleet.disconnect(&database);
}

/// A try that began before somebody came has not tried for as long as that one may ask for.
#[test]
fn who_comes_during_a_try_makes_its_own() {
    let clock = Arc::new(ManualClock::default());
    let (fleet, plan) = fleet(&memory(), Arc::clone(&clock) as _, |settings| {
        settings.database.store_timeout = HOUR;
    });
    let database = open(&fleet, Role::Writer);
    spoil(&plan, Effect::Refuse);
    fleet.wait(async {
        let mut waiting: Vec<Waiting<'_, _>> = Vec::new();
        for _ in 0..3 {
            waiting.push(Box::pin(database.begin_by_the_store()));
        }
        // The first of them is refused, and tries again in a moment.
        begin_to_wait(&mut waiting).await;
        clock.advance(HOUR);
        let mut waiting = waiting.into_iter();
        let first = timeout(EVER, waiting.next().unwrap()).await.expect("its time is over");
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Unavailable);
        plan.disarm();
        // The second is not told what the first one was, and one that is given up leaves the next its turn.
        let mut second = vec![waiting.next().unwrap()];
        spoil(&plan, Effect::Delay(1_000_000_000));
        begin_to_wait(&mut second).await;
        plan.disarm();
        drop(second);
        let snapshot = timeout(EVER, waiting.next().unwrap()).await.expect("nobody is before it").unwrap();
        database.unpin(snapshot);
    });
    fleet.disconnect(&database);
}

/// Each waited for `busy` after those before it: the twentieth for twenty times as long.
#[test]
fn who_has_waited_for_another_who_waits_for_the_lease_has_waited_for_it() {
    let (store, clock) = (memory(), Arc::new(ManualClock::default()));
    let (other, _) = fleet(&store, Arc::new(SystemClock::default()), |_| {});
    let (here, _) = fleet(&store, Arc::clone(&clock) as _, |settings| settings.database.busy = HOUR);
    let (held, database) = (open(&other, Role::Writer), open(&here, Role::Writer));
    visit(&held).unwrap();
    here.wait(async {
        let turn = database.acquiring.lock().await;
        let mut waiting: Vec<Waiting<'_, _>> = Vec::new();
        waiting.push(Box::pin(async { database.begin_by_the_store().await.map(drop) }));
        waiting.push(Box::pin(database.ensure_lease()));
        begin_to_wait(&mut waiting).await;
        clock.advance(HOUR);
        drop(turn);
        for begun in waiting {
            let begun = timeout(EVER, begun).await.expect("its time is over");
            assert_eq!(begun.unwrap_err().kind(), ErrorKind::LeaseHeld);
        }
    });
    other.disconnect(&held);
    // Whose time is over asks once all the same.
    here.wait(async {
        let turn = database.acquiring.lock().await;
        let mut waiting: Vec<Waiting<'_, _>> = vec![Box::pin(database.begin_by_the_store())];
        begin_to_wait(&mut waiting).await;
        clock.advance(HOUR);
        drop(turn);
        for begun in waiting {
            database.unpin(begun.await.unwrap());
        }
    });
    here.disconnect(&database);
}
