//! Every call to the store fails in every way, under SQLite. `LITEFLEET_SWEEP=full` runs all of it, else a sample.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use litefleet::store::{Effect, Operation};
use litefleet_conformance::faults::{Case, Spoil, cases, measure, run_case};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

fn counts() -> &'static BTreeMap<Operation, u64> {
    static COUNTS: OnceLock<BTreeMap<Operation, u64>> = OnceLock::new();
    COUNTS.get_or_init(measure)
}

/// Runs the cases, or as many as the sample has.
fn sweep(spoils: &[Spoil], times: &[u64], sample: usize) {
    let mut all = cases(counts(), spoils, times);
    let full = std::env::var("LITEFLEET_SWEEP").is_ok_and(|value| value == "full");
    let seed = std::env::var("LITEFLEET_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random::<u64>());
    if !full {
        all.shuffle(&mut StdRng::seed_from_u64(seed));
        all.truncate(sample);
    }
    let mut failed = Vec::new();
    let mut surfaced = 0;
    for case in &all {
        match run_case(*case) {
            Ok(errors) => surfaced += usize::from(!errors.is_empty()),
            Err(wrong) => failed.push(wrong),
        }
    }
    eprintln!("{spoils:?}: {} cases, SQLite saw an error in {surfaced}", all.len());
    assert!(failed.is_empty(), "{} of {} (LITEFLEET_SEED={seed}):\n{}", failed.len(), all.len(), failed.join("\n"));
}

#[test]
fn without_a_fault_everything_is_there() {
    for operation in [Operation::Stage, Operation::DiscardStaged, Operation::Checkpoint, Operation::Collect] {
        assert!(counts().contains_key(&operation), "the script never calls {}", operation.as_str());
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

/// A spilled page met "busy", after which SQLite goes on with what it has cached: the rollback was interrupted by the same,
/// and the next commit stored half of the transaction that had been rolled back.
#[test]
fn a_late_discard_in_the_middle_of_a_large_transaction() {
    let case = Case { operation: Operation::DiscardStaged, after: 0, spoil: Spoil::LateSoon, times: 3 };
    for _ in 0..5 {
        run_case(case).unwrap();
    }
}
