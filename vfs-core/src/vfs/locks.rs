//! SQLite's lock levels.

/// How much a connection has locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockLevel {
    /// Nothing.
    #[default]
    None,
    /// Reads a snapshot.
    Shared,
    /// Is the writer.
    Reserved,
    /// Is the writer, and waits for readers where they would be in its way. Here they never are.
    Pending,
    /// Is the writer, and writes.
    Exclusive,
}

impl LockLevel {
    /// From SQLite's number; anything else is the strongest.
    pub const fn from_number(number: i32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Shared,
            2 => Self::Reserved,
            3 => Self::Pending,
            _ => Self::Exclusive,
        }
    }

    /// SQLite's number.
    pub const fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Shared => 1,
            Self::Reserved => 2,
            Self::Pending => 3,
            Self::Exclusive => 4,
        }
    }
}
