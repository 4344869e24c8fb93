//! A long run of random steps without any fault, against checkpoints and collections in the background.
//! `LITEFLEET_LONG_RUNS` says how many.

use std::sync::Arc;

use litefleet::store::{MemoryStore, PageStore};
use litefleet_conformance::faults::{Process, Workload, examine};
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
        let wrong = if step % 5 == 4 { examine(&process, &workload.ledger).err() } else { None };
        assert!(
            workload.errors.is_empty() && wrong.is_none(),
            "seed {seed}: {:?}, {wrong:?} after {script:?}",
            workload.errors
        );
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
