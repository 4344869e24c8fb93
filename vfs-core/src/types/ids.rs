//! Numbers and identifiers. Each is a newtype, so that one can never stand in for another.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The value as a plain number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The next value. Saturates, which no real store ever reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Identifies one database in a store. Never used again after the database is deleted.
    DatabaseId
}
number! {
    /// Transaction number: 0 is the empty database, each commit adds exactly 1.
    Txid
}
number! {
    /// The fencing token of a lease: each grant has a larger one.
    Epoch
}
number! {
    /// Wall-clock milliseconds since the Unix epoch. Used for retention, never for safety.
    UnixMillis
}

impl Txid {
    /// Larger than every real txid.
    pub const MAX: Self = Self(u64::MAX);
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The 16 bytes.
            pub const fn bytes(self) -> [u8; 16] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

identifier! {
    /// Unique per commit attempt: tells whether a commit whose reply was lost took effect.
    CommitId
}
/// The first half of a [`CommitId`]: enough to tell one commit from another that has its txid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitLink(pub [u8; 8]);

impl CommitId {
    /// What the record of the next commit names this one by.
    pub fn link(self) -> CommitLink {
        self.0.first_chunk().copied().map_or_else(CommitLink::default, CommitLink)
    }
}

identifier! {
    /// Identifies one process session. Unique per session ever started.
    SessionId
}
