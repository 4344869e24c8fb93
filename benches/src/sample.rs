//! What one child measured: numbers with names.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Numbers with names.
pub(crate) type Sample = BTreeMap<String, f64>;

/// A sample from literal names.
pub(crate) fn sample<const N: usize>(numbers: [(&str, f64); N]) -> Sample {
    numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect()
}

/// A number that must be there.
pub(crate) fn number(sample: &Sample, name: &str) -> Result<f64> {
    sample.get(name).copied().with_context(|| format!("the measurement has no {name}"))
}

/// The middle one; of an even count the lower.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len().saturating_sub(1) / 2;
    numbers.get(middle).copied().unwrap_or(f64::NAN)
}

/// The number at a share of the whole.
pub(crate) fn percentile(sorted: &[u32], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the count")]
    let at = (share * last as f64) as usize;
    sorted.get(at).copied().map_or(f64::NAN, f64::from)
}

/// What two samples of both sides say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) litefleet: Vec<Sample>,
    pub(crate) stock: Vec<Sample>,
}

impl Rounds {
    /// The medians of a number, of Litefleet and of stock SQLite.
    pub(crate) fn medians(&self, name: &str) -> Result<(f64, f64)> {
        Ok((median(column(&self.litefleet, name)?), median(column(&self.stock, name)?)))
    }

    /// The median of a number of Litefleet's.
    pub(crate) fn litefleet(&self, name: &str) -> Result<f64> {
        Ok(median(column(&self.litefleet, name)?))
    }

    /// The median of a number of stock SQLite's.
    pub(crate) fn stock(&self, name: &str) -> Result<f64> {
        Ok(median(column(&self.stock, name)?))
    }

    /// Litefleet's number by stock SQLite's, round by round.
    pub(crate) fn ratios(&self, name: &str) -> Result<Vec<f64>> {
        let (ours, stock) = (column(&self.litefleet, name)?, column(&self.stock, name)?);
        Ok(ours.into_iter().zip(stock).map(|(ours, stock)| ours / stock).collect())
    }
}

fn column(samples: &[Sample], name: &str) -> Result<Vec<f64>> {
    samples.iter().map(|sample| number(sample, name)).collect()
}
