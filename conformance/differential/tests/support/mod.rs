//! What the tests share.

use litefleet::Locking;
use litefleet_differential::Sort;
use litefleet_differential::logic::{Case, Tally, run};
use rand::Rng as _;

/// Runs several seeds. Each must pass, and together they must have used what they are to test.
pub(crate) fn several(locking: Locking, seeds: u64, sort: impl Fn(u64) -> Sort) {
    let given = std::env::var("LITEFLEET_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(|| rand::rng().random_range(1..1_000_000_u64));
    let mut tally = Tally::default();
    for seed in first..first + seeds {
        match run(&Case::new(seed, locking), sort(seed).opener(true)) {
            Ok(one) => tally.add(one),
            Err(problem) => panic!("{problem}\nSet LITEFLEET_SEED={seed} to run it again."),
        }
    }
    assert!(tally.records > 300 * usize::try_from(seeds).expect("few"), "few answers: {tally:?}");
    assert!(tally.checkpoints > 0 && tally.stages > 0 && tally.reads > 0, "the hard paths did not run: {tally:?}");
}
