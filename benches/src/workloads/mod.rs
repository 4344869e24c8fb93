//! What is measured: one file per workload, each with what a child does and the rows that come of it.

mod idle;
mod inserts;
mod load;
mod reads;
mod round_trips;
mod speedtest;
mod updates;

use anyhow::Result;

use crate::child::Task;
use crate::report::Row;
use crate::runner::Runner;
use crate::sample::Sample;

/// One thing to measure.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// What is done, for the report.
    pub(crate) about: &'static str,
    /// Runs the children and says what came of it.
    pub(crate) rows: fn(&Runner) -> Result<Vec<Row>>,
    /// What a child does.
    pub(crate) child: fn(&Task) -> Result<Sample>,
}

/// All of them, in the order of the report.
pub(crate) const ALL: &[&Workload] = &[
    &speedtest::WORKLOAD,
    &inserts::ONE,
    &inserts::MANY,
    &reads::WORKLOAD,
    &updates::WORKLOAD,
    &load::WORKLOAD,
    &idle::WORKLOAD,
    &round_trips::WORKLOAD,
];

/// The workload of this name.
pub(crate) fn find(name: &str) -> Option<&'static Workload> {
    ALL.iter().copied().find(|workload| workload.name == name)
}
