//! SQLite's lock levels, and how they exclude each other where `locking=sqlite` asks for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{Error, Result};

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
    /// Is the writer, and waits for readers where they are in its way: with `locking=sqlite`.
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

/// Who has locked a database: its connections in this process.
///
/// It is kept whatever the setting is, so that the setting can change while connections are open; whether a lock is refused
/// because of it is the caller's business.
#[derive(Debug, Default)]
pub(crate) struct LockTable(Mutex<Holders>);

#[derive(Debug, Default)]
struct Holders {
    /// Those that are there.
    connections: BTreeSet<u64>,
    /// Connections with SHARED or more.
    readers: BTreeSet<u64>,
    /// The connection with RESERVED or more.
    writer: Option<Writer>,
    /// The last connection that was counted.
    last: u64,
    /// Journals that a writer has finalised: transactions that are over for good, while it may keep its lock.
    finalised: u64,
}

#[derive(Debug)]
struct Writer {
    connection: u64,
    level: LockLevel,
    /// Dropped when the transaction is over.
    transaction: Arc<()>,
}

impl Holders {
    fn set_writer(&mut self, connection: u64, level: LockLevel) {
        match &mut self.writer {
            Some(writer) if writer.connection == connection => writer.level = level,
            _ => self.writer = Some(Writer { connection, level, transaction: Arc::default() }),
        }
    }
}

impl LockTable {
    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a connection.
    pub(super) fn connection(&self) -> u64 {
        let mut holders = self.holders();
        holders.last += 1;
        let connection = holders.last;
        holders.connections.insert(connection);
        connection
    }

    /// The connection that is in a transaction over several databases: the writer, or the only one, whose database need not take
    /// part.
    pub(super) fn participant(&self) -> Option<u64> {
        let holders = self.holders();
        let only = holders.connections.first().filter(|_| holders.connections.len() == 1);
        holders.writer.as_ref().map(|writer| writer.connection).or(only.copied())
    }

    /// The writer, if there is one, begins to commit a transaction over several databases. What is returned lives until that
    /// transaction is over: until the writer unlocks, or, where it keeps its lock between transactions, commits the next one
    /// of that kind.
    pub(super) fn commit_with_others(&self) -> Option<Weak<()>> {
        let mut holders = self.holders();
        let writer = holders.writer.as_mut()?;
        writer.transaction = Arc::default();
        Some(Arc::downgrade(&writer.transaction))
    }

    /// The writer has finalised its journal. SQLite, of which this must be true, does so with RESERVED or more.
    pub(super) fn journal_finalised(&self) {
        self.holders().finalised += 1;
    }

    /// How often a journal was finalised. While a connection is the writer: the number of its transaction.
    pub(super) fn finalised(&self) -> u64 {
        self.holders().finalised
    }

    /// Whether a connection has RESERVED or more.
    pub(super) fn has_writer(&self) -> bool {
        self.holders().writer.is_some()
    }

    /// Raises a connection's lock, and returns what it has then: with `strict` by SQLite's rules for a rollback journal,
    /// `LeaseHeld` where another connection is in the way. One that waits for readers to end has PENDING, which keeps new
    /// ones out. Without `strict` only a journal that was left is rolled back by SQLite's rules.
    pub(super) fn raise(
        &self,
        connection: u64,
        from: LockLevel,
        to: LockLevel,
        strict: bool,
    ) -> (LockLevel, Result<()>) {
        let mut holders = self.holders();
        let other = holders.writer.as_ref().filter(|writer| writer.connection != connection).map(|writer| writer.level);
        let setting = if strict { " (locking=sqlite)" } else { "" };
        let busy = |words: &str| Err(Error::lease_held(format!("another connection {words}{setting}")));
        let mut level = from;
        if level == LockLevel::None {
            if strict && other.is_some_and(|other| other >= LockLevel::Pending) {
                return (level, busy("is writing"));
            }
            holders.readers.insert(connection);
            level = LockLevel::Shared;
        }
        if to <= LockLevel::Shared {
            return (level, Ok(()));
        }
        if other.is_some() {
            // Without `strict` the engine decides, which has one writer as well: it may wait for its end.
            return if strict { (level, busy("is the writer")) } else { (to, Ok(())) };
        }
        let alone = holders.readers.len() == 1;
        // Who would roll a journal back, from SHARED at once, keeps nobody out while it is not alone: it would not be SQLite's
        // rule, and one that cannot unlock would let others read what it has not rolled back. It is refused without `strict` as
        // well: those who read have seen the journal too, and SQLite would take what is played back under them for damage.
        if to == LockLevel::Exclusive && !alone && from < LockLevel::Reserved {
            return (level, busy("is reading"));
        }
        level = if to == LockLevel::Exclusive && strict && !alone { LockLevel::Pending } else { to };
        holders.set_writer(connection, level);
        (level, if level == to { Ok(()) } else { busy("is reading") })
    }

    /// The engine has made a connection the writer.
    pub(super) fn is_writer(&self, connection: u64, level: LockLevel) {
        self.holders().set_writer(connection, level);
    }

    /// Lowers a connection's lock.
    pub(super) fn lower(&self, connection: u64, from: LockLevel, to: LockLevel) {
        let mut holders = self.holders();
        if to < LockLevel::Reserved && holders.writer.as_ref().is_some_and(|writer| writer.connection == connection) {
            holders.writer = None;
        }
        if from >= LockLevel::Shared && to == LockLevel::None {
            holders.readers.remove(&connection);
        }
    }

    /// A connection is closed: it has locked nothing, also when a panic had left it in the middle of something.
    pub(super) fn leave(&self, connection: u64) {
        self.lower(connection, LockLevel::Exclusive, LockLevel::None);
        self.holders().connections.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::LockLevel::{Exclusive, None, Pending, Reserved, Shared};
    use super::*;

    struct Connection<'a>(&'a LockTable, u64, LockLevel, bool);

    impl<'a> Connection<'a> {
        fn new(table: &'a LockTable) -> Self {
            Self(table, table.connection(), None, true)
        }

        fn raise(&mut self, to: LockLevel) -> bool {
            let (level, result) = self.0.raise(self.1, self.2, to, self.3);
            self.2 = level;
            result.is_ok()
        }

        fn lower(&mut self, to: LockLevel) {
            self.0.lower(self.1, self.2, to);
            self.2 = to;
        }
    }

    #[test]
    fn a_writer_waits_for_readers_and_keeps_new_ones_out() {
        let table = LockTable::default();
        let [mut writer, mut reader, mut late] = [(); 3].map(|()| Connection::new(&table));
        assert!(reader.raise(Shared) && writer.raise(Shared) && writer.raise(Reserved));
        assert!(late.raise(Shared));
        late.lower(None);
        assert!(!writer.raise(Exclusive));
        assert_eq!(writer.2, Pending);
        assert!(!late.raise(Shared), "PENDING lets no new reader in");
        reader.lower(None);
        assert!(writer.raise(Exclusive));
        assert!(!late.raise(Shared));
        writer.lower(Shared);
        assert!(late.raise(Shared));
    }

    #[test]
    fn one_connection_is_reserved() {
        let table = LockTable::default();
        let [mut first, mut second] = [(); 2].map(|()| Connection::new(&table));
        assert!(first.raise(Shared) && first.raise(Reserved) && second.raise(Shared));
        assert!(table.has_writer() && !second.raise(Reserved));
        first.lower(None);
        assert!(!table.has_writer() && second.raise(Reserved) && second.raise(Exclusive));
    }

    /// SQLite's pendingrace.test found it: with `locking=snapshot` one connection played a journal back beneath another, which
    /// found its database malformed.
    #[test]
    fn who_cannot_roll_back_a_journal_is_not_the_writer() {
        for strict in [true, false] {
            let table = LockTable::default();
            let [mut first, mut second] = [(); 2].map(|()| Connection(&table, table.connection(), None, strict));
            assert!(first.raise(Shared) && second.raise(Shared) && !second.raise(Exclusive), "strict: {strict}");
            assert_eq!((second.2, table.has_writer()), (Shared, false));
            assert!(!first.raise(Exclusive));
            second.lower(None);
            assert!(first.raise(Exclusive));
        }
    }

    #[test]
    fn a_hot_journal_is_rolled_back_alone() {
        let table = LockTable::default();
        let [mut first, mut second] = [(); 2].map(|()| Connection::new(&table));
        assert!(first.raise(Shared) && first.raise(Exclusive), "from SHARED at once");
        assert!(!second.raise(Shared));
        first.lower(None);
        assert!(second.raise(Shared));
    }
}
