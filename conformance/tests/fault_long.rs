//! Long runs of random steps against checkpoints and collections in the background, without any fault and with random ones.
//! `LITEFLEET_LONG_RUNS` says how many.

use std::sync::Arc;

use litefleet::store::{Effect, Fault, FaultLayer, FaultPlan, MemoryStore, PageStore};
use litefleet_conformance::faults::{Process, Workload, block_on, examine};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn run(store: Arc<dyn PageStore>, seed: u64, steps: usize) {
    let process = Process::new(store, Process::small());
    let mut workload = Workload::new(&process, 1);
    assert!(workload.create(), "{:?}", workload.errors);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut script = Vec::new();
    for step in 0..steps {
        let kind = rng.random_range(0..12);
        script.push(kind);
        take_step(&mut workload, kind);
        let wrong = if step % 5 == 4 { examine(&process, &workload.ledger).err() } else { None };
        assert!(
            workload.errors.is_empty() && wrong.is_none(),
            "seed {seed}: {:?}, {wrong:?} after {script:?}",
            workload.errors
        );
    }
}

fn take_step(workload: &mut Workload<'_>, kind: u32) {
    match kind {
        0 => workload.both(1),
        1 => workload.both(80),
        2 | 3 => workload.large(),
        4 => workload.large_rolled_back(),
        5 => workload.remove(),
        6 => workload.run("VACUUM"),
        7 => workload.run("PRAGMA litefleet_checkpoint"),
        8 => workload.close(),
        9 => workload.run("SELECT sum(length(payload)) FROM filler"),
        _ => workload.small(),
    }
}

/// The same steps, and at random moments a random call is spoiled. What was acknowledged stays, what failed never comes,
/// and after each round the store is whole.
fn run_spoiled(inner: &Arc<dyn PageStore>, seed: u64, rounds: usize) {
    let plan = Arc::new(FaultPlan::default());
    let store = Arc::new(FaultLayer::new(Arc::clone(inner), Arc::clone(&plan)));
    let process = Process::new(store, Process::small());
    let mut workload = Workload::new(&process, 1);
    assert!(workload.create(), "{:?}", workload.errors);
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let mut script = Vec::new();
        for _ in 0..6 {
            let effects =
                [Effect::Refuse, Effect::LoseRequest, Effect::LoseReply, Effect::Late, Effect::Full, Effect::Delay(2)];
            let effect = effects[rng.random_range(0..effects.len())];
            let (after, times) = (rng.random_range(0..20), rng.random_range(1..4));
            plan.arm(Fault { operation: None, after, times, effect });
            let kind = rng.random_range(0..12);
            script.push((effect, after, times, kind));
            take_step(&mut workload, kind);
            if rng.random_bool(0.3) {
                let plan = Arc::clone(&plan);
                block_on(async move { plan.deliver().await });
            }
        }
        plan.disarm();
        // What is unknown is so until the database is opened again.
        workload.close();
        workload.run("PRAGMA main.user_version");
        workload.run("PRAGMA e.user_version");
        workload.close();
        let late = Arc::clone(&plan);
        block_on(async move { late.deliver().await });
        let judge = Process::light(Arc::clone(inner), Process::small());
        match examine(&judge, &workload.ledger) {
            Ok(seen) => workload.ledger.settle(seen),
            Err(wrong) => panic!("seed {seed}, round {round}: {wrong} after {script:?}: {:?}", workload.errors),
        }
        workload.errors.clear();
    }
}

#[test]
fn a_long_run_with_random_faults_keeps_every_promise() {
    let seed = seed();
    for index in 0..runs() {
        run_spoiled(&(Arc::new(MemoryStore::default()) as Arc<dyn PageStore>), seed.wrapping_add(index), 15);
    }
}

#[test]
fn a_long_run_with_random_faults_on_disk_keeps_every_promise() {
    let seed = seed();
    for index in 0..runs().div_ceil(2) {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(directory.path().join("store")).memtable_bytes(256 << 10);
        let store: Arc<dyn PageStore> = Arc::new(EmbeddedStore::open(config).unwrap());
        run_spoiled(&store, seed.wrapping_add(index), 10);
    }
}

fn seed() -> u64 {
    let seed = std::env::var("LITEFLEET_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(|| rand::rng().random::<u64>())
}

fn runs() -> u64 {
    std::env::var("LITEFLEET_LONG_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3)
}

#[test]
fn a_long_run_in_memory_stays_whole() {
    let seed = seed();
    for index in 0..runs() {
        run(Arc::new(MemoryStore::default()), seed.wrapping_add(index), 60);
    }
}

#[test]
fn a_long_run_on_disk_stays_whole() {
    let seed = seed();
    for index in 0..runs() {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(directory.path().join("store")).memtable_bytes(256 << 10);
        run(Arc::new(EmbeddedStore::open(config).unwrap()), seed.wrapping_add(index), 60);
    }
}
