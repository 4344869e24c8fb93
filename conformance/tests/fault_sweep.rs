//! Every call to the store fails in every way, under SQLite. `LITEFLEET_SWEEP=full` runs all of it, else a sample.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use litefleet::Locking;
use litefleet::store::{Effect, MemoryStore, Operation, PageStore};
use litefleet_conformance::faults::{Case, Spoil, cases, measure, run_case, run_case_over};
use litefleet_embedded::{EmbeddedConfig, EmbeddedStore};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

/// Cases that are run at once: most of the time of each is waiting, for the disk or until a call is tried again.
const AT_ONCE: usize = 4;

type Counts = OnceLock<BTreeMap<Operation, u64>>;

fn counts(locking: Locking) -> &'static BTreeMap<Operation, u64> {
    static SNAPSHOT: Counts = OnceLock::new();
    static SQLITE: Counts = OnceLock::new();
    let counts = if locking == Locking::Sqlite { &SQLITE } else { &SNAPSHOT };
    counts.get_or_init(|| measure(locking))
}

/// A store, and the folder that it is in.
type Place = (Arc<dyn PageStore>, Option<TempDir>);

/// Runs the cases over the memory store, or as many as the sample has.
fn sweep(spoils: &[Spoil], times: &[u64], sample: usize) {
    sweep_in(Locking::Snapshot, spoils, times, sample);
}

fn sweep_in(locking: Locking, spoils: &[Spoil], times: &[u64], sample: usize) {
    let all = cases(counts(locking), locking, spoils, times);
    sweep_over(&|| (Arc::new(MemoryStore::default()), None), spoils, all, sample);
}

/// Says how far it is, also where what a test prints is kept until its end.
fn progress(spoils: &[Spoil], done: usize, all: usize) {
    let _nobody_reads = writeln!(std::io::stderr(), "{spoils:?}: {done} of {all} cases");
}

fn sweep_over(place: &(dyn Fn() -> Place + Sync), spoils: &[Spoil], mut all: Vec<Case>, sample: usize) {
    let full = std::env::var("LITEFLEET_SWEEP").is_ok_and(|value| value == "full");
    let seed = std::env::var("LITEFLEET_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random::<u64>());
    if full {
        progress(spoils, 0, all.len());
    } else {
        all.shuffle(&mut StdRng::seed_from_u64(seed));
        all.truncate(sample);
    }
    let (next, done, surfaced) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(case) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (store, folder) = place();
            match run_case_over(store, *case) {
                Ok(errors) => _ = surfaced.fetch_add(usize::from(!errors.is_empty()), Ordering::Relaxed),
                Err(wrong) => failed.lock().expect("no case panics with it").push(wrong),
            }
            drop(folder);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if full && done % (all.len() / 10).max(1) == 0 {
                progress(spoils, done, all.len());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().expect("no case panics with it");
    eprintln!("{spoils:?}: {} cases, SQLite saw an error in {surfaced:?}", all.len());
    assert!(failed.is_empty(), "{} of {} (LITEFLEET_SEED={seed}):\n{}", failed.len(), all.len(), failed.join("\n"));
}

#[test]
fn without_a_fault_everything_is_there() {
    let always = [Operation::Stage, Operation::DiscardStaged, Operation::Checkpoint, Operation::Collect];
    let locks = [Operation::LockShared, Operation::UnlockShared, Operation::LockExclusive];
    for (locking, locks) in [(Locking::Snapshot, &locks[..0]), (Locking::Sqlite, &locks[..])] {
        for operation in always.iter().chain(locks) {
            let called = counts(locking).contains_key(operation);
            assert!(called, "{locking:?}: the script never calls {}", operation.as_str());
        }
    }
}

#[test]
fn refused() {
    sweep(&[Spoil::Effect(Effect::Refuse)], &[1, 3, 10], 60);
}

#[test]
fn lost_requests() {
    sweep(&[Spoil::Effect(Effect::LoseRequest)], &[1, 3, 10], 60);
}

#[test]
fn lost_replies() {
    sweep(&[Spoil::Effect(Effect::LoseReply)], &[1, 3, 10], 60);
}

#[test]
fn late_at_the_end() {
    sweep(&[Spoil::Effect(Effect::Late)], &[1, 3, 10], 60);
}

#[test]
fn late_soon_after() {
    sweep(&[Spoil::LateSoon], &[1, 3, 10], 60);
}

#[test]
fn delayed() {
    sweep(&[Spoil::Effect(Effect::Delay(3))], &[1, 3], 20);
}

#[test]
fn full() {
    sweep(&[Spoil::Effect(Effect::Full)], &[1, 3], 40);
}

#[test]
fn lease_taken_away() {
    sweep(&[Spoil::Steal, Spoil::StealAndWrite], &[1], 80);
}

/// The same where processes lock as SQLite does.
mod locks {
    use super::*;

    fn sweep(spoils: &[Spoil], times: &[u64], sample: usize) {
        sweep_in(Locking::Sqlite, spoils, times, sample);
    }

    #[test]
    fn refused() {
        sweep(&[Spoil::Effect(Effect::Refuse)], &[1, 3, 10], 20);
    }

    #[test]
    fn lost_requests() {
        sweep(&[Spoil::Effect(Effect::LoseRequest)], &[1, 3, 10], 20);
    }

    #[test]
    fn lost_replies() {
        sweep(&[Spoil::Effect(Effect::LoseReply)], &[1, 3, 10], 20);
    }

    #[test]
    fn late_at_the_end() {
        sweep(&[Spoil::Effect(Effect::Late)], &[1, 3, 10], 20);
    }

    #[test]
    fn late_soon_after() {
        sweep(&[Spoil::LateSoon], &[1, 3, 10], 20);
    }

    #[test]
    fn lease_taken_away() {
        sweep(&[Spoil::Steal, Spoil::StealAndWrite], &[1], 30);
    }
}

/// The same over a store on disk, whose calls come back at other moments.
#[test]
fn on_disk() {
    let place = || -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let config = EmbeddedConfig::new(folder.path().join("store")).memtable_bytes(256 << 10);
        (Arc::new(EmbeddedStore::open(config).expect("a new store opens")), Some(folder))
    };
    let effects = [Effect::Refuse, Effect::LoseRequest, Effect::LoseReply, Effect::Late, Effect::Full];
    let mut spoils = effects.map(Spoil::Effect).to_vec();
    spoils.extend([Spoil::LateSoon, Spoil::Steal, Spoil::StealAndWrite]);
    // Each case takes many times as long as in memory, where every number of spoiled calls is tried.
    let mut all = cases(counts(Locking::Snapshot), Locking::Snapshot, &spoils, &[1]);
    for case in all.iter_mut().filter(|case| case.after % 2 == 1) {
        case.times = 3;
    }
    sweep_over(&place, &spoils, all, 24);
}

/// A spilled page met "busy", after which SQLite goes on with what it has cached: the rollback was interrupted by the same,
/// and the next commit stored half of the transaction that had been rolled back.
#[test]
fn a_late_discard_in_the_middle_of_a_large_transaction() {
    let (operation, locking) = (Operation::DiscardStaged, Locking::Snapshot);
    let case = Case { operation, after: 0, spoil: Spoil::LateSoon, times: 3, locking };
    for _ in 0..5 {
        run_case(case).unwrap();
    }
}
