//! What each atomic operation computes.
//!
//! Source: FoundationDB documentation, "Python API" and "C API", atomic operations (`MutationType`), for API version 510
//! and later: `and` and `min` store the operand where there was no value.

use std::cmp::Ordering;

use bytes::Bytes;

use super::protocol::Atomic;

/// The largest value there may be. Source: "Known Limitations", large keys and values.
pub(crate) const VALUE_LIMIT: usize = 100_000;

/// The value after the operation; `None` is no value.
pub(crate) fn apply(operation: Atomic, old: Option<&Bytes>, operand: &Bytes) -> Option<Bytes> {
    match operation {
        Atomic::CompareAndClear => old.filter(|old| *old != operand).cloned(),
        Atomic::ByteMin => Some(old.map_or(operand, |old| old.min(operand)).clone()),
        Atomic::ByteMax => Some(old.map_or(operand, |old| old.max(operand)).clone()),
        Atomic::AppendIfFits => Some(append(old, operand)),
        Atomic::And => Some(combine(old, operand, |a, b| a & b)),
        Atomic::Or => Some(combine(old, operand, |a, b| a | b)),
        Atomic::Xor => Some(combine(old, operand, |a, b| a ^ b)),
        Atomic::Add => Some(add(old, operand)),
        Atomic::Max => Some(pick(old, operand, Ordering::Greater)),
        Atomic::Min => Some(pick(old, operand, Ordering::Less)),
    }
}

/// The old value with zeros up to the operand's length, or cut to it: every little-endian operation starts with this.
fn resized(old: &[u8], length: usize) -> Vec<u8> {
    let mut value = old.to_vec();
    value.resize(length, 0);
    value
}

fn combine(old: Option<&Bytes>, operand: &Bytes, f: impl Fn(u8, u8) -> u8) -> Bytes {
    let Some(old) = old else { return operand.clone() };
    resized(old, operand.len()).iter().zip(operand.iter()).map(|(a, b)| f(*a, *b)).collect::<Vec<u8>>().into()
}

fn add(old: Option<&Bytes>, operand: &Bytes) -> Bytes {
    let Some(old) = old else { return operand.clone() };
    let mut value = resized(old, operand.len());
    let mut carry = false;
    for (byte, other) in value.iter_mut().zip(operand.iter()) {
        let (sum, first) = byte.overflowing_add(*other);
        let (sum, second) = sum.overflowing_add(u8::from(carry));
        *byte = sum;
        carry = first || second;
    }
    value.into()
}

/// The operand, or the old value at the operand's length when that compares as wanted, both as little-endian numbers.
fn pick(old: Option<&Bytes>, operand: &Bytes, wanted: Ordering) -> Bytes {
    let Some(old) = old else { return operand.clone() };
    let old = resized(old, operand.len());
    if old.iter().rev().cmp(operand.iter().rev()) == wanted { old.into() } else { operand.clone() }
}

fn append(old: Option<&Bytes>, operand: &Bytes) -> Bytes {
    let Some(old) = old else { return operand.clone() };
    if old.len() + operand.len() > VALUE_LIMIT {
        return old.clone();
    }
    [&old[..], &operand[..]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(operation: Atomic, old: Option<&'static [u8]>, operand: &'static [u8]) -> Option<Vec<u8>> {
        let old = old.map(Bytes::from_static);
        apply(operation, old.as_ref(), &Bytes::from_static(operand)).map(|value| value.to_vec())
    }

    #[test]
    fn addition_takes_the_length_of_the_operand_and_wraps() {
        assert_eq!(run(Atomic::Add, None, &[1, 0]), Some(vec![1, 0]));
        assert_eq!(run(Atomic::Add, Some(&[255]), &[1, 0]), Some(vec![0, 1]));
        assert_eq!(run(Atomic::Add, Some(&[255, 255]), &[1, 0]), Some(vec![0, 0]));
        assert_eq!(run(Atomic::Add, Some(&[1, 2, 3]), &[1]), Some(vec![2]));
    }

    #[test]
    fn bits_are_combined_over_the_length_of_the_operand() {
        assert_eq!(run(Atomic::And, None, &[7]), Some(vec![7]));
        assert_eq!(run(Atomic::And, Some(&[6]), &[3, 255]), Some(vec![2, 0]));
        assert_eq!(run(Atomic::Or, Some(&[4]), &[1, 8]), Some(vec![5, 8]));
        assert_eq!(run(Atomic::Xor, Some(&[5, 9]), &[1]), Some(vec![4]));
    }

    #[test]
    fn minimum_and_maximum_compare_little_endian_numbers() {
        assert_eq!(run(Atomic::Max, Some(&[1, 1]), &[255, 0]), Some(vec![1, 1]));
        assert_eq!(run(Atomic::Max, Some(&[1, 1]), &[255]), Some(vec![255]));
        assert_eq!(run(Atomic::Max, None, &[0, 0]), Some(vec![0, 0]));
        assert_eq!(run(Atomic::Min, Some(&[2]), &[1, 1]), Some(vec![2, 0]));
        assert_eq!(run(Atomic::Min, None, &[9]), Some(vec![9]));
    }

    #[test]
    fn bytewise_comparison_is_lexicographic() {
        assert_eq!(run(Atomic::ByteMin, Some(b"b"), b"ab"), Some(b"ab".to_vec()));
        assert_eq!(run(Atomic::ByteMax, Some(b"b"), b"ab"), Some(b"b".to_vec()));
        assert_eq!(run(Atomic::ByteMin, None, b"z"), Some(b"z".to_vec()));
    }

    #[test]
    fn compare_and_clear_clears_an_equal_value_only() {
        assert_eq!(run(Atomic::CompareAndClear, Some(b"x"), b"x"), None);
        assert_eq!(run(Atomic::CompareAndClear, Some(b"x"), b"y"), Some(b"x".to_vec()));
        assert_eq!(run(Atomic::CompareAndClear, None, b"y"), None);
    }

    #[test]
    fn appending_stops_at_the_largest_value() {
        assert_eq!(run(Atomic::AppendIfFits, Some(b"a"), b"b"), Some(b"ab".to_vec()));
        let full = Bytes::from(vec![0; VALUE_LIMIT]);
        assert_eq!(apply(Atomic::AppendIfFits, Some(&full), &Bytes::from_static(b"x")), Some(full));
    }
}
