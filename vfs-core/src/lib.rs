//! Litefleet
pub mod clock;
pub mod codec;
mod error;
pub mod store;
mod types;
pub use error::{Context, Error, ErrorKind, Result};
pub use types::*;
