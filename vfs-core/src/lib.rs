//! Litefleet
mod bridge;
pub mod clock;
pub mod codec;
mod config;
pub mod engine;
mod error;
mod ffi;
pub mod store;
mod types;
pub mod vfs;
pub use config::*;
pub use engine::{CollectReport, Fleet, FleetBuilder, Info, Progress, Role, VerifyReport};
pub use error::{Context, Error, ErrorKind, Result};
pub use types::*;
