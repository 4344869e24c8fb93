//! The client: what the real library does inside the process that uses it.

mod attempt;
mod change;
pub(crate) mod database;
mod finish;
pub(crate) mod future;
pub(crate) mod network;
mod options;
mod ranges;
pub(crate) mod read;
mod settings;
mod size;
pub(crate) mod transaction;
mod writes;
