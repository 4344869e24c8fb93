//! What is to be reached, and what was.

use crate::table::row;

/// A row of the last table.
pub(crate) struct Goal {
    what: &'static str,
    limit: f64,
    at_least: bool,
    reached: Option<f64>,
}

/// The goals, as they are measured.
#[derive(Default)]
pub(crate) struct Goals(Vec<Goal>);

impl Goals {
    /// A ratio that should be at most this.
    pub(crate) fn at_most(&mut self, what: &'static str, limit: f64, reached: Option<f64>) {
        self.0.push(Goal { what, limit, at_least: false, reached });
    }

    /// A ratio that should be at least this.
    pub(crate) fn at_least(&mut self, what: &'static str, limit: f64, reached: Option<f64>) {
        self.0.push(Goal { what, limit, at_least: true, reached });
    }

    pub(crate) fn print(&self) {
        row(&["to reach", "goal", "reached", ""]);
        for goal in &self.0 {
            let sign = if goal.at_least { ">=" } else { "<=" };
            let (reached, verdict) = match goal.reached {
                Some(reached) if goal.at_least == (reached > goal.limit) => (format!("{reached:.2}"), "met"),
                Some(reached) => (format!("{reached:.2}"), "missed"),
                None => ("-".into(), "needs the cluster's processes on this machine"),
            };
            row(&[goal.what, &format!("{sign} {}", goal.limit), &reached, verdict]);
        }
    }
}
