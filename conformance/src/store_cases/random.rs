//! Random histories against a model: a map of what every page holds at every txid.

use std::sync::Arc;

use litefleet::store::PageStore;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::Model;
use crate::harness::Harness;

/// Random commits, staged transactions, checkpoints, collections and takeovers; after each, every snapshot that can be
/// read, the log and the head are what the model says.
pub async fn random_histories_match_the_model(harness: &dyn Harness) {
    let store = harness.store().await;
    for seed in 1..=4 {
        history(&store, seed, 90).await;
    }
}

async fn history(store: &Arc<dyn PageStore>, seed: u64, steps: u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Model::new(store, &format!("seed-{seed}")).await;
    for step in 0..steps {
        let what = match rng.random_range(0..100) {
            0..=34 => model.commit(&mut rng).await,
            35..=44 => model.staged_commit(&mut rng).await,
            45..=50 => model.stage_and_discard(&mut rng).await,
            51..=54 => model.stage_and_lose_the_lease(&mut rng).await,
            55..=69 => model.checkpoint(&mut rng, true).await,
            70..=76 => model.checkpoint(&mut rng, false).await,
            77..=90 => model.collect(&mut rng).await,
            91..=94 => model.take_over().await,
            95..=96 => model.release_and_reopen().await,
            _ => model.write_as_the_deposed().await,
        };
        let at = format!("seed {seed}, step {step}: after {what}");
        model.check(&at).await;
    }
}
