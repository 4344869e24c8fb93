//! Names of databases.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 512;

/// The name of a database: 1 to 512 bytes of UTF-8 without a NUL.
///
/// Any other character may stand in it, `/` included: `customers/acme/main` is one name, and `customers/` a prefix
/// to list by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseName(Arc<str>);

impl DatabaseName {
    /// Checks a name. `Invalid` when it is empty, too long, or has a NUL in it.
    pub fn new(name: &str) -> Result<Self> {
        if name.is_empty() {
            return Err(Error::invalid("a database name cannot be empty"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Error::invalid(format!(
                "a database name has at most {MAX_NAME_BYTES} bytes, this one has {}",
                name.len()
            )));
        }
        if name == ":memory:" {
            return Err(Error::invalid("the name :memory: is SQLite's own, and never reaches a store"));
        }
        if name.contains('\0') {
            return Err(Error::invalid("a database name cannot contain a NUL character"));
        }
        Ok(Self(name.into()))
    }

    /// As [`new`](Self::new), from bytes that may not be UTF-8.
    pub fn from_bytes(name: &[u8]) -> Result<Self> {
        match std::str::from_utf8(name) {
            Ok(name) => Self::new(name),
            Err(e) => Err(Error::invalid(format!(
                "a database name must be UTF-8; the byte at offset {} is not",
                e.valid_up_to()
            ))),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(DatabaseName::new("").is_err());
        assert!(DatabaseName::new("a\0b").is_err());
        assert!(DatabaseName::new(&"x".repeat(513)).is_err());
        assert!(DatabaseName::from_bytes(b"\xff").is_err());
        assert_eq!(DatabaseName::new(&"é".repeat(256)).unwrap().as_str().len(), 512);
    }
}
