//! Writes, and conflict ranges added by hand. None of them asks the cluster anything, and most cannot report an error:
//! what is wrong is reported by the next call that can.

use std::sync::Arc;

use bytes::Bytes;

use super::attempt::Content;
use super::size;
use super::transaction::{State, Transaction};
use crate::cluster::protocol::{Atomic, Range, Request, after};
use crate::cluster::{VALUE_LIMIT, single, stamped};
use crate::code::{self, Code};

const STAMPED_KEY: i32 = 14;
const STAMPED_VALUE: i32 = 15;

/// Source: options file, `MutationType`.
fn atomic(operation: i32) -> Option<Atomic> {
    Some(match operation {
        2 => Atomic::Add,
        6 => Atomic::And,
        7 => Atomic::Or,
        8 => Atomic::Xor,
        9 => Atomic::AppendIfFits,
        12 => Atomic::Max,
        13 => Atomic::Min,
        16 => Atomic::ByteMin,
        17 => Atomic::ByteMax,
        20 => Atomic::CompareAndClear,
        _ => return None,
    })
}

impl Transaction {
    pub(crate) fn set(&self, key: Bytes, value: Bytes) {
        self.change(|state, conflict| {
            state.check_write(&key, &value)?;
            state.attempt.grow(size::MUTATION + key.len() + value.len() + conflict_size(&key, conflict));
            state.attempt.own_change(&key, &after(&key), &Content::Value(value.clone()));
            state.writes_mut().set(key, value, conflict);
            Ok(())
        });
    }

    pub(crate) fn clear(&self, key: &Bytes) {
        self.change(|state, conflict| {
            if *key >= state.settings.write_bound() {
                return Err(code::KEY_OUTSIDE_LEGAL_RANGE);
            }
            // No key is as long as this: nothing to clear.
            if key.len() <= size::key_limit(key) {
                state.clear(&single(key), conflict);
            }
            Ok(())
        });
    }

    pub(crate) fn clear_range(&self, range: &Range) {
        self.change(|state, conflict| {
            if range.begin > range.end {
                return Err(code::INVERTED_RANGE);
            }
            if range.end > state.settings.write_bound() {
                return Err(code::KEY_OUTSIDE_LEGAL_RANGE);
            }
            state.clear(&cut_to_limit(range), conflict);
            Ok(())
        });
    }

    pub(crate) fn atomic_operation(&self, key: Bytes, operand: Bytes, operation: i32) {
        self.change(|state, conflict| {
            if !matches!(operation, STAMPED_KEY | STAMPED_VALUE) && atomic(operation).is_none() {
                return Err(code::INVALID_MUTATION_TYPE);
            }
            state.check_write(&key, &operand)?;
            let conflict = conflict && operation != STAMPED_KEY;
            state.attempt.grow(size::MUTATION + key.len() + operand.len() + conflict_size(&key, conflict));
            match operation {
                STAMPED_KEY => {
                    let mut possible = stamp_range(&key)?;
                    possible.end = possible.end.min(state.settings.read_bound());
                    state.writes_mut().stamped_key(key, operand, &possible);
                }
                STAMPED_VALUE => {
                    stamp_range(&operand)?;
                    state.attempt.own_change(&key, &after(&key), &Content::Unknown);
                    state.writes_mut().stamped_value(key, operand, conflict);
                }
                other => {
                    let Some(operation) = atomic(other) else { return Err(code::INVALID_MUTATION_TYPE) };
                    state.attempt.own_change(&key, &after(&key), &Content::Unknown);
                    state.writes_mut().atomic(operation, key, operand, conflict);
                }
            }
            Ok(())
        });
    }

    /// Adds a conflict range by hand. A read conflict range leaves out what the transaction has written or cleared
    /// before: set a key first, and a read conflict range on it does nothing.
    pub(crate) fn add_conflict_range(&self, range: &Range, write: bool) -> Code {
        if range.begin > range.end {
            return code::INVERTED_RANGE;
        }
        let mut state = self.lock();
        if let Err(code) = state.add_conflict_range(range, write) {
            state.defer(code);
        }
        code::SUCCESS
    }

    /// Runs a write; its error is kept for the next call that can report one.
    fn change(&self, change: impl FnOnce(&mut State, bool) -> Result<(), Code>) {
        let mut state = self.lock();
        let conflict = !std::mem::take(&mut state.settings.next_write_without_conflict);
        let result = state.check_commit().and_then(|()| change(&mut state, conflict));
        if let Err(code) = result {
            state.defer(code);
            if matches!(code, code::KEY_TOO_LARGE | code::VALUE_TOO_LARGE) {
                self.database.link.tell(Request::Refused);
            }
        }
    }
}

impl State {
    fn writes_mut(&mut self) -> &mut super::writes::Writes {
        Arc::make_mut(&mut self.writes)
    }

    fn check_write(&self, key: &Bytes, value: &Bytes) -> Result<(), Code> {
        if *key >= self.settings.write_bound() {
            return Err(code::KEY_OUTSIDE_LEGAL_RANGE);
        }
        if key.len() > size::key_limit(key) {
            return Err(code::KEY_TOO_LARGE);
        }
        if value.len() > VALUE_LIMIT {
            return Err(code::VALUE_TOO_LARGE);
        }
        Ok(())
    }

    fn clear(&mut self, range: &Range, conflict: bool) {
        if range.begin >= range.end {
            return;
        }
        let bytes = range.begin.len() + range.end.len();
        self.attempt.grow(size::MUTATION + bytes + if conflict { size::RANGE + bytes } else { 0 });
        self.attempt.own_change(&range.begin, &range.end, &Content::Nothing);
        self.writes_mut().clear(range, conflict);
    }

    fn add_conflict_range(&mut self, range: &Range, write: bool) -> Result<(), Code> {
        self.check_commit()?;
        let bound = if write { self.settings.write_bound() } else { self.settings.read_bound() };
        if range.begin > bound || range.end > bound {
            return Err(code::KEY_OUTSIDE_LEGAL_RANGE);
        }
        let range = cut_to_limit(range);
        if range.begin >= range.end {
            return Ok(());
        }
        self.attempt.grow(size::RANGE + range.begin.len() + range.end.len());
        if write {
            self.writes_mut().add_conflict(&range);
        } else if self.settings.read_your_writes {
            self.writes.add_read_conflict(&mut self.attempt.conflicts(), &range.begin, &range.end);
        } else {
            self.attempt.conflicts().insert(&range.begin, &range.end);
        }
        Ok(())
    }
}

fn conflict_size(key: &[u8], conflict: bool) -> usize {
    if conflict { size::of_key_range(key) } else { 0 }
}

/// The same range with ends that are not much longer than a key can be: no key lies between.
fn cut_to_limit(range: &Range) -> Range {
    let cut = |key: &Bytes| key.slice(..key.len().min(size::key_limit(key) + 1));
    Range { begin: cut(&range.begin), end: cut(&range.end) }
}

/// The keys that a stamped key (or value) may become: the ten bytes at the position that its last four bytes give can be
/// anything. The real client narrows this when it knows its read version; here all of it is unreadable.
fn stamp_range(template: &Bytes) -> Result<Range, Code> {
    let invalid = code::CLIENT_INVALID_OPERATION;
    let (body, position) = template.split_last_chunk::<4>().ok_or(invalid)?;
    let position = usize::try_from(i32::from_le_bytes(*position)).map_err(|_| invalid)?;
    if position.checked_add(10).is_none_or(|end| end > body.len()) {
        return Err(invalid);
    }
    Ok(Range { begin: stamped(template, &[0; 10]), end: after(&stamped(template, &[0xff; 10])) })
}
