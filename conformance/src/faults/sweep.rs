//! The sweep: one script, run once for every call to the store and every way to spoil it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, Layer, MemoryStore, Operation, PageStore};
use litefleet::{FleetSettings, LeaseMode, Locking};

use super::examine::{examine, glance};
use super::process::{Process, block_on, pause};
use super::watch::Watch;
use super::workload::{Ledger, Workload};

/// How a call is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// It and the calls after it, of whatever operation, meet the effect.
    Effect(Effect),
    /// They are [`Effect::Late`], and reach the store after the next step of the script instead of at its end.
    LateSoon,
    /// Just before it another process takes the lease by force, and gives it back.
    Steal,
    /// Just before it another process takes the lease by force, commits, and gives it back.
    StealAndWrite,
}

/// One run of the script.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The call: the one of this operation …
    pub operation: Operation,
    /// … that comes after so many others of it.
    pub after: u64,
    /// How it is spoiled.
    pub spoil: Spoil,
    /// How many calls are.
    pub times: u64,
    /// How those who write lock: as by default, or all of them as SQLite does, with the lease for a transaction at a time.
    pub locking: Locking,
}

/// Numbers of the first transactions of the other process, of the thief, and of those who come when all is over.
const VISITOR: u64 = 1_000;
const THIEF: u64 = 2_000;
const LATER: [u64; 2] = [3_000, 4_000];
/// How often those try, and how long they wait between. What nobody gives back until then stays: the session that has it is renewed.
const LATER_TRIES: usize = 1_000;
const LATER_PAUSE: Duration = Duration::from_millis(20);

/// Settings of those who write.
fn settings(locking: Locking) -> FleetSettings {
    let mut settings = Process::small();
    settings.database.locking = locking;
    if locking == Locking::Sqlite {
        settings.database.lease = LeaseMode::Transaction;
    }
    settings
}

type Deed = Box<dyn FnOnce() + Send>;

struct Stage {
    inner: Arc<dyn PageStore>,
    plan: Arc<FaultPlan>,
    watch: Arc<Watch>,
    outer: Arc<dyn PageStore>,
}

impl Stage {
    fn set(inner: Arc<dyn PageStore>) -> Self {
        let plan = Arc::new(FaultPlan::default());
        let watch = Arc::new(Watch::default());
        let faulty = Arc::new(FaultLayer::new(Arc::clone(&inner), Arc::clone(&plan)));
        let outer = Arc::new(Layer::new(faulty, Arc::clone(&watch)));
        Self { inner, plan, watch, outer }
    }

    fn deliver(&self) {
        let plan = Arc::clone(&self.plan);
        block_on(async move { plan.deliver().await });
    }
}

/// What happens at the chosen call.
fn deed(case: Case, stage: &Stage, thefts: &Arc<Mutex<Ledger>>) -> Deed {
    let effect = match case.spoil {
        Spoil::Effect(effect) => effect,
        Spoil::LateSoon => Effect::Late,
        Spoil::Steal | Spoil::StealAndWrite => {
            let (inner, thefts) = (Arc::clone(&stage.inner), Arc::clone(thefts));
            return Box::new(move || steal(inner, case, &thefts));
        }
    };
    let plan = Arc::clone(&stage.plan);
    Box::new(move || plan.arm(Fault { operation: None, after: 0, times: case.times, effect }))
}

/// Another process takes the lease of `d` by force, and gives it back. To write is left to one that locks as the others do.
fn steal(inner: Arc<dyn PageStore>, case: Case, thefts: &Mutex<Ledger>) {
    let mut by_force = Process::small();
    by_force.database.takeover = true;
    let thief = Process::light(Arc::clone(&inner), by_force);
    let writer = Process::light(inner, settings(case.locking));
    // A thread of its own: SQLite is in the middle of a call on this one.
    let ledger = std::thread::scope(|scope| {
        let theft = scope.spawn(|| {
            let mut workload = Workload::new(&thief, THIEF);
            workload.run("SELECT count(*) FROM main.sqlite_schema");
            workload.close();
            let mut workload = Workload::new(&writer, THIEF);
            if case.spoil == Spoil::StealAndWrite {
                workload.small();
            }
            workload.close();
            workload.ledger
        });
        theft.join().expect("a thief does not panic")
    });
    *thefts.lock().unwrap_or_else(PoisonError::into_inner) = ledger;
}

/// The script. `step` runs after each step.
fn play(workload: &mut Workload<'_>, visitor: &mut Workload<'_>, step: &mut dyn FnMut()) -> bool {
    if !workload.create() {
        return false;
    }
    step();
    let script: &[fn(&mut Workload<'_>)] = &[
        |w| w.small(),
        |w| w.small(),
        |w| w.large(),
        |w| w.small(),
        |w| w.large_rolled_back(),
        |w| w.small(),
        |w| w.both(1),
        |w| w.remove(),
        |w| w.run("VACUUM"),
        |w| w.small(),
        |w| w.release(),
    ];
    for one in script {
        one(workload);
        step();
    }
    visitor.visit();
    step();
    let script: &[fn(&mut Workload<'_>)] = &[
        |w| w.small(),
        |w| w.both(80),
        |w| w.run("PRAGMA litefleet_checkpoint"),
        |w| w.close(),
        |w| w.run("SELECT sum(length(payload)) FROM filler"),
        |w| w.small(),
        |w| w.large(),
        |w| w.small(),
        |w| w.close(),
    ];
    for one in script {
        one(workload);
        step();
    }
    true
}

/// Runs the script without faults, over the memory store. Returns the calls of each operation.
pub fn measure(locking: Locking) -> BTreeMap<Operation, u64> {
    let (counts, errors) =
        run(Arc::new(MemoryStore::default()), locking, None).unwrap_or_else(|wrong| panic!("without a fault: {wrong}"));
    assert!(errors.is_empty(), "without a fault: {errors:?}");
    counts
}

/// Runs the script with one spoiled call, over the memory store. Returns the errors that SQLite returned; what must not be
/// is an error.
pub fn run_case(case: Case) -> Result<Vec<String>, String> {
    run_case_over(Arc::new(MemoryStore::default()), case)
}

/// As [`run_case`], over any store without databases.
pub fn run_case_over(store: Arc<dyn PageStore>, case: Case) -> Result<Vec<String>, String> {
    run(store, case.locking, Some(case)).map(|(_, errors)| errors).map_err(|wrong| format!("{case:?}: {wrong}"))
}

/// What the store was asked for, and what SQLite returned.
type Played = (BTreeMap<Operation, u64>, Vec<String>);

fn run(store: Arc<dyn PageStore>, locking: Locking, case: Option<Case>) -> Result<Played, String> {
    let stage = Stage::set(store);
    let thefts = Arc::new(Mutex::new(Ledger::default()));
    let process = Process::new(Arc::clone(&stage.outer), settings(locking));
    let other = Process::light(Arc::clone(&stage.inner), settings(locking));
    let eyes = Process::light(Arc::clone(&stage.inner), Process::small());
    let follower = eyes.follow("d");
    stage.watch.observe(move || glance(&follower));
    if let Some(case) = case {
        stage.watch.trigger(case.operation, case.after, deed(case, &stage, &thefts));
    }
    let mut workload = Workload::new(&process, 1);
    let mut visitor = Workload::new(&other, VISITOR);
    let soon = case.is_some_and(|case| case.spoil == Spoil::LateSoon);
    let mut spoiled = 0;
    let played = play(&mut workload, &mut visitor, &mut || {
        if soon && !stage.watch.is_waiting() {
            spoiled += 1;
            if spoiled >= 2 {
                stage.deliver();
            }
        }
    });
    if !played {
        return Err(format!("the tables could not be made: {:?}", workload.errors));
    }
    let counts = stage.watch.counts();
    stage.plan.disarm();
    stage.watch.rest();
    if let Some(complaint) = stage.watch.complaints().first() {
        return Err(format!("{complaint}; errors: {:?}", workload.errors));
    }
    let mut ledger = workload.ledger.clone();
    ledger.merge(&visitor.ledger);
    ledger.merge(&thefts.lock().unwrap_or_else(PoisonError::into_inner));
    let errors = workload.errors;
    finish(&stage, locking, ledger).map_err(|wrong| format!("{wrong}; errors: {errors:?}"))?;
    Ok((counts, errors))
}

/// What is true when the faults are over, before and after the late calls.
fn finish(stage: &Stage, locking: Locking, mut ledger: Ledger) -> Result<(), String> {
    let [first, last] = LATER;
    // What is unknown is so until the lease is taken anew: that settles it.
    if locking == Locking::Sqlite {
        write_later(stage, first, &mut ledger)?;
    } else {
        let mut settings = settings(locking);
        settings.database.takeover = true;
        let settler = Process::light(Arc::clone(&stage.inner), settings);
        Workload::new(&settler, 0).run("PRAGMA main.user_version");
        Workload::new(&settler, 0).run("PRAGMA e.user_version");
    }
    let judge = |when: &str, ledger: &Ledger| {
        // A process that knows nothing yet.
        let judge = Process::light(Arc::clone(&stage.inner), Process::small());
        examine(&judge, ledger).map_err(|wrong| format!("{when}: {wrong}"))
    };
    let seen = judge("at the end", &ledger)?;
    stage.deliver();
    let later = judge("after late calls", &ledger)?;
    if seen != later {
        return Err(format!("late calls changed something: {seen:?} became {later:?}"));
    }
    if locking == Locking::Sqlite {
        write_later(stage, last, &mut ledger)?;
        judge("after the last write", &ledger)?;
    }
    Ok(())
}

/// A process that waits for its turn, and takes nothing by force, can write into both databases: no lock stays behind for good.
fn write_later(stage: &Stage, first: u64, ledger: &mut Ledger) -> Result<(), String> {
    let process = Process::light(Arc::clone(&stage.inner), settings(Locking::Sqlite));
    let mut workload = Workload::new(&process, first);
    for _ in 0..LATER_TRIES {
        workload.both(1);
        if workload.ledger.has(workload.next() - 1) {
            ledger.merge(&workload.ledger);
            return Ok(());
        }
        pause(LATER_PAUSE);
    }
    Err(format!("nobody else can write any more: {:?}", workload.errors.last()))
}

/// Every case of some ways to spoil a call, for the calls that [`measure`] counted. A theft is one, however many calls are to
/// be spoiled.
pub fn cases(counts: &BTreeMap<Operation, u64>, locking: Locking, spoils: &[Spoil], times: &[u64]) -> Vec<Case> {
    let mut all = Vec::new();
    for (operation, count) in counts {
        for after in 0..*count {
            for spoil in spoils {
                let theft = matches!(spoil, Spoil::Steal | Spoil::StealAndWrite);
                for times in times.iter().take(if theft { 1 } else { times.len() }) {
                    all.push(Case { operation: *operation, after, spoil: *spoil, times: *times, locking });
                }
            }
        }
    }
    all
}
