//! One line of the table.

use std::fmt;

/// What was measured, and what was to be reached.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) goal: Goal,
    pub(crate) note: String,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Ours by theirs.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// Ours alone.
    AtMost(f64),
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    pub(crate) fn met(&self) -> bool {
        match self.goal {
            Goal::RatioAtMost(most) => self.ratio() <= most,
            Goal::RatioAtLeast(least) => self.ratio() >= least,
            Goal::AtMost(most) => self.ours <= most,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, goal) = match self.goal {
            Goal::RatioAtMost(most) => (format!("{:.2}x", self.ratio()), format!("at most {most}x")),
            Goal::RatioAtLeast(least) => (format!("{:.2}x", self.ratio()), format!("at least {least}x")),
            Goal::AtMost(most) => (format!("{:.2}", self.ours), format!("at most {most}")),
        };
        let met = if self.met() { "yes" } else { "NO" };
        write!(f, "{:<58} {value:>9}  {goal:<14} {met:<3}", self.what)?;
        if !self.theirs.is_nan() {
            write!(f, "  {:.3} / {:.3} {}", self.ours, self.theirs, self.unit)?;
        }
        if !self.note.is_empty() {
            write!(f, "  ({})", self.note)?;
        }
        Ok(())
    }
}

pub(crate) fn json(rows: &[Row]) -> serde_json::Value {
    let row = |row: &Row| {
        serde_json::json!({
            "what": row.what, "unit": row.unit, "ours": row.ours, "theirs": row.theirs, "met": row.met(), "note": row.note,
        })
    };
    rows.iter().map(row).collect()
}

/// The middle one; of an even count the lower.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len().saturating_sub(1) / 2;
    numbers.get(middle).copied().unwrap_or(f64::NAN)
}
