//! What a transaction has written so far, and how that changes what it reads.
//!
//! Source: FoundationDB documentation, "Developer Guide" (read-your-writes, atomic operations, versionstamps) and "C
//! API" (`READ_YOUR_WRITES_DISABLE`, `accessed_unreadable` in "Error Codes").

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::ranges::RangeSet;
use crate::cluster::apply_atomic;
use crate::cluster::protocol::{Atomic, Mutation, Range, after};

/// One operation on a key. The first of a stack decides whether the key's value in the database matters.
#[derive(Debug, Clone)]
enum Operation {
    Put(Option<Bytes>),
    Atomic(Atomic, Bytes),
    Stamped(Bytes),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    keys: BTreeMap<Bytes, Vec<Operation>>,
    cleared: RangeSet,
    /// Keys whose value, or existence, only the commit decides.
    unreadable: RangeSet,
    conflicts: RangeSet,
    /// Operations with a stamp in their key: the key with the stamp's place filled with zeros, and what to send.
    stamped_keys: Vec<(Bytes, Bytes, Bytes)>,
    touched: bool,
}

/// What is known of a key without asking the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// This is its value, whatever the database says.
    Value(Option<Bytes>),
    /// The database's value counts, with operations of this transaction on top.
    Dependent,
    /// This transaction did not touch it.
    Unmodified,
    Unreadable,
}

impl Writes {
    /// True until the first write.
    pub(crate) fn is_empty(&self) -> bool {
        !self.touched
    }

    /// True when reads do not see anything of this transaction.
    pub(crate) fn change_no_read(&self) -> bool {
        self.keys.is_empty() && self.cleared.is_empty() && self.unreadable.is_empty()
    }

    pub(crate) fn set(&mut self, key: Bytes, value: Bytes, conflict: bool) {
        self.begin(&key, conflict);
        self.push(key, Operation::Put(Some(value)));
    }

    pub(crate) fn atomic(&mut self, operation: Atomic, key: Bytes, operand: Bytes, conflict: bool) {
        self.begin(&key, conflict);
        self.push(key, Operation::Atomic(operation, operand));
    }

    pub(crate) fn stamped_value(&mut self, key: Bytes, value: Bytes, conflict: bool) {
        self.begin(&key, conflict);
        if !self.unreadable.contains(&key) {
            self.keys.remove(&key);
        }
        self.unreadable.insert_key(&key);
        self.push(key, Operation::Stamped(value));
    }

    /// `possible` are the keys that the stamped key may become; the conflict range is added by the cluster.
    pub(crate) fn stamped_key(&mut self, template: Bytes, value: Bytes, possible: &Range) {
        self.touched = true;
        self.unreadable.insert(&possible.begin, &possible.end);
        self.stamped_keys.push((possible.begin.clone(), template, value));
    }

    pub(crate) fn clear(&mut self, range: &Range, conflict: bool) {
        self.touched = true;
        let Range { begin, end } = range;
        let gone: Vec<Bytes> = self.between(begin, end).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.keys.remove(&key);
        }
        self.stamped_keys.retain(|(key, _, _)| key < begin || key >= end);
        self.unreadable.remove(begin, end);
        self.cleared.insert(begin, end);
        if conflict {
            self.conflicts.insert(begin, end);
        }
    }

    pub(crate) fn add_conflict(&mut self, range: &Range) {
        self.touched = true;
        self.conflicts.insert(&range.begin, &range.end);
    }

    fn begin(&mut self, key: &Bytes, conflict: bool) {
        self.touched = true;
        if conflict {
            self.conflicts.insert_key(key);
        }
    }

    /// Puts an operation on a key's stack, folded into what is there where the result is known.
    fn push(&mut self, key: Bytes, operation: Operation) {
        let readable = !self.unreadable.contains(&key);
        let cleared = self.cleared.contains(&key);
        let stack = self.keys.entry(key).or_default();
        if readable && matches!(operation, Operation::Put(_)) {
            stack.clear();
        }
        if stack.is_empty() && cleared && matches!(operation, Operation::Atomic(..)) {
            stack.push(Operation::Put(None));
        }
        match (&operation, stack.as_mut_slice()) {
            (Operation::Atomic(atomic, operand), [Operation::Put(value)]) if readable => {
                *value = apply_atomic(*atomic, value.as_ref(), operand);
            }
            _ => stack.push(operation),
        }
    }

    fn between(&self, begin: &[u8], end: &[u8]) -> impl DoubleEndedIterator<Item = (&Bytes, &Vec<Operation>)> {
        let end = end.max(begin);
        self.keys.range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end)))
    }

    /// What is known of this key. With `bypass`, stamps read as they were written.
    pub(crate) fn known(&self, key: &[u8], bypass: bool) -> Known {
        if !bypass && self.unreadable.contains(key) {
            return Known::Unreadable;
        }
        match self.keys.get(key) {
            Some(stack) if matches!(stack.first(), Some(Operation::Atomic(..))) => Known::Dependent,
            Some(stack) => Known::Value(fold(stack, None)),
            None if self.cleared.contains(key) => Known::Value(None),
            None => Known::Unmodified,
        }
    }

    /// The key's value as this transaction sees it, when the database has `stored`.
    pub(crate) fn over(&self, key: &[u8], stored: Option<Bytes>) -> Option<Bytes> {
        match self.keys.get(key) {
            Some(stack) => fold(stack, stored),
            None if self.cleared.contains(key) => None,
            None => stored,
        }
    }

    /// The keys with operations in a range, in order.
    pub(crate) fn keys_between(&self, begin: &[u8], end: &[u8]) -> Vec<Bytes> {
        self.between(begin, end).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn unreadable_between(&self, begin: &[u8], end: &[u8]) -> bool {
        self.unreadable.overlaps(begin, end)
    }

    /// Adds a read conflict range, without the parts whose content this transaction itself decided: nobody else can
    /// change what it reads there. That holds for ranges added by hand as well.
    pub(crate) fn add_read_conflict(&self, conflicts: &mut RangeSet, begin: &Bytes, end: &Bytes) {
        let mut decided = RangeSet::default();
        for (from, to) in self.cleared.overlapping(begin, end) {
            decided.insert(from, to);
        }
        for (key, stack) in self.between(begin, end) {
            if matches!(stack.first(), Some(Operation::Put(_) | Operation::Stamped(_))) {
                decided.insert_key(key);
            } else {
                decided.remove(key, &after(key));
            }
        }
        conflicts.insert_except(begin, end, decided.overlapping(begin, end));
    }

    /// What the commit sends: clears first, because a key that was cleared and then set has both.
    pub(crate) fn mutations(&self) -> Vec<Mutation> {
        let mut mutations: Vec<Mutation> = self.cleared.ranges().into_iter().map(Mutation::Clear).collect();
        for (key, stack) in &self.keys {
            mutations.extend(stack.iter().map(|operation| match operation {
                Operation::Put(Some(value)) => Mutation::Set(key.clone(), value.clone()),
                Operation::Put(None) => Mutation::Clear(Range { begin: key.clone(), end: after(key) }),
                Operation::Atomic(atomic, operand) => Mutation::Atomic(*atomic, key.clone(), operand.clone()),
                Operation::Stamped(value) => Mutation::StampedValue(key.clone(), value.clone()),
            }));
        }
        mutations
            .extend(self.stamped_keys.iter().map(|(_, key, value)| Mutation::StampedKey(key.clone(), value.clone())));
        mutations
    }

    pub(crate) fn conflicts(&self) -> &RangeSet {
        &self.conflicts
    }
}

fn fold(stack: &[Operation], stored: Option<Bytes>) -> Option<Bytes> {
    stack.iter().fold(stored, |value, operation| match operation {
        Operation::Put(value) => value.clone(),
        Operation::Atomic(atomic, operand) => apply_atomic(*atomic, value.as_ref(), operand),
        // As it was written, with the four bytes of the place: only the commit takes them off.
        Operation::Stamped(value) => Some(value.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn range(begin: &'static str, end: &'static str) -> Range {
        Range { begin: key(begin), end: key(end) }
    }

    #[test]
    fn an_atomic_operation_depends_on_the_database_unless_the_key_was_written_before() {
        let mut writes = Writes::default();
        writes.atomic(Atomic::Add, key("a"), key("\x01"), true);
        assert_eq!(writes.known(b"a", false), Known::Dependent);
        assert_eq!(writes.over(b"a", Some(key("\x02"))), Some(key("\x03")));
        writes.set(key("b"), key("\x05"), true);
        writes.atomic(Atomic::Add, key("b"), key("\x01"), true);
        assert_eq!(writes.known(b"b", false), Known::Value(Some(key("\x06"))));
        writes.clear(&range("c", "d"), true);
        writes.atomic(Atomic::Add, key("c"), key("\x01"), true);
        assert_eq!(writes.known(b"c", false), Known::Value(Some(key("\x01"))));
    }

    #[test]
    fn what_the_transaction_decided_itself_is_no_read_conflict() {
        let mut writes = Writes::default();
        writes.set(key("b"), key("x"), true);
        writes.clear(&range("d", "f"), true);
        writes.atomic(Atomic::Add, key("e"), key("\x01"), true);
        writes.atomic(Atomic::Add, key("h"), key("\x01"), true);
        let mut conflicts = RangeSet::default();
        writes.add_read_conflict(&mut conflicts, &key("a"), &key("z"));
        let text: Vec<_> = conflicts.ranges().iter().map(|range| (range.begin.clone(), range.end.clone())).collect();
        assert_eq!(text, [(key("a"), key("b")), (key("b\0"), key("d")), (key("f"), key("z"))]);
    }

    #[test]
    fn a_stamp_makes_its_key_unreadable_until_it_is_cleared() {
        let mut writes = Writes::default();
        writes.stamped_value(key("a"), key("0123456789\0\0\0\0"), true);
        assert_eq!(writes.known(b"a", false), Known::Unreadable);
        assert_eq!(writes.known(b"a", true), Known::Value(Some(key("0123456789\0\0\0\0"))));
        writes.set(key("a"), key("x"), true);
        assert_eq!(writes.known(b"a", false), Known::Unreadable, "a set does not make it readable");
        writes.clear(&range("a", "b"), true);
        assert_eq!(writes.known(b"a", false), Known::Value(None));
    }

    #[test]
    fn clears_are_sent_before_the_sets_on_top_of_them() {
        let mut writes = Writes::default();
        writes.set(key("b"), key("old"), true);
        writes.clear(&range("a", "z"), true);
        writes.set(key("b"), key("new"), true);
        let sent = writes.mutations();
        assert!(matches!(&sent[..], [Mutation::Clear(_), Mutation::Set(_, value)] if *value == key("new")), "{sent:?}");
    }
}
