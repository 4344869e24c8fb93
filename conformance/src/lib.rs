//! What every page store must do, as tests that any back end and any layer can run.
//!
//! The contract is the documentation of [`PageStore`](litefleet::store::PageStore): each of its clauses names the case
//! that proves it. A case is an `async fn(&dyn Harness)` in [`store_cases`]; [`store_tests!`] makes one named test of
//! each:
//!
//! ```ignore
//! litefleet_conformance::store_tests!(memory, MemoryHarness::new(), without reopen);
//! ```
//!
//! The engine and the VFS over a store have cases of their own, in [`engine_cases`]; [`engine_tests!`] makes tests of
//! them.
//!
//! A back end supplies a [`Harness`]. What a harness cannot give is said in the macro call (`without reopen`, `without
//! clock`): the cases that need it then show up as ignored, with the reason, and never as passed.
#![allow(
    clippy::missing_panics_doc,
    reason = "this crate is test support: a case panics when the store breaks its contract, and says nothing else"
)]

mod fixture;
mod harness;
mod layered;
#[macro_use]
mod macros;

pub mod engine_cases;
pub mod faults;
pub mod store_cases;

#[doc(hidden)]
pub use harness::__check_harness;
pub use harness::{Harness, run};
pub use layered::{Layered, Wrapping};
