//! What SQLite over the engine must do, over any store.
//!
//! A case is a `fn(&dyn EngineHarness)` that opens SQLite connections through a VFS of its own; the tests are made by
//! [`engine_tests!`](crate::engine_tests). The oracle is stock SQLite where SQL is concerned, and a model of bytes per
//! txid below.
#![allow(clippy::unwrap_used, reason = "this is test support: a case panics when something is not as it must be")]

mod bench;

#[macro_use]
mod macros;

pub mod copies;
pub mod isolation;
pub mod modes;
pub mod opening;
pub mod pages;
pub mod races;
pub mod random_file;
pub mod random_sql;
pub mod rules;
pub mod scans;
pub mod several;
pub mod trips;
pub mod watching;

pub use bench::{Bench, EngineHarness};

macro_rules! list_names {
    ($($module:ident::$case:ident)*) => {
        /// The names of all cases.
        pub const NAMES: &[&str] = &[$(stringify!($case),)*];
    };
}

crate::__each_engine_case!([list_names!]);
