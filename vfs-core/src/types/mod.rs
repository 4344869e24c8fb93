//! The words of the design as types: identifiers, transaction numbers, page numbers and names.

mod ids;
mod name;
mod page;

pub use ids::{CommitId, CommitLink, DatabaseId, Epoch, SessionId, Txid, UnixMillis};
pub use name::{DatabaseName, MAX_NAME_BYTES};
pub use page::{PAGE_SIZE, PageNo, PageRange, PageSet, pages_for_size};
