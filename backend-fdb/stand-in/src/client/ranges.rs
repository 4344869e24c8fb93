//! A set of keys, as ranges that neither overlap nor touch.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::cluster::protocol::{Range, after};

#[derive(Debug, Clone, Default)]
pub(crate) struct RangeSet(BTreeMap<Bytes, Bytes>);

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, begin: &Bytes, end: &Bytes) {
        if begin >= end {
            return;
        }
        let (mut begin, mut end) = (begin.clone(), end.clone());
        // Everything that begins up to our end and ends at our begin or later becomes part of the new range.
        let joined: Vec<Bytes> = self
            .0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(&end[..])))
            .rev()
            .take_while(|(_, other_end)| **other_end >= begin)
            .map(|(other, _)| other.clone())
            .collect();
        for other in joined {
            if let Some(other_end) = self.0.remove(&other) {
                begin = begin.min(other);
                end = end.max(other_end);
            }
        }
        self.0.insert(begin, end);
    }

    pub(crate) fn remove(&mut self, begin: &Bytes, end: &Bytes) {
        let cut: Vec<(Bytes, Bytes)> =
            self.overlapping(begin, end).map(|(other, other_end)| (other.clone(), other_end.clone())).collect();
        for (other, other_end) in cut {
            self.0.remove(&other);
            if other < *begin {
                self.0.insert(other, begin.clone());
            }
            if other_end > *end {
                self.0.insert(end.clone(), other_end);
            }
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| &end[..] > key)
    }

    pub(crate) fn overlaps(&self, begin: &[u8], end: &[u8]) -> bool {
        self.overlapping(begin, end).next().is_some()
    }

    /// The ranges of the set that have a key in common with this one, unclipped, in order.
    pub(crate) fn overlapping<'a>(
        &'a self,
        begin: &'a [u8],
        end: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        let first = self
            .0
            .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(begin)))
            .next_back()
            .filter(|(_, other_end)| &other_end[..] > begin && begin < end);
        let end = end.max(begin);
        first.into_iter().chain(self.0.range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end))))
    }

    /// Adds the parts of `begin` to `end` that are not in `except`; `except` is in order and without overlaps.
    pub(crate) fn insert_except<'a>(
        &mut self,
        begin: &Bytes,
        end: &Bytes,
        except: impl IntoIterator<Item = (&'a Bytes, &'a Bytes)>,
    ) {
        let mut from = begin.clone();
        for (hole, hole_end) in except {
            self.insert(&from, hole.min(end));
            from = from.max(hole_end.clone());
        }
        self.insert(&from, end);
    }

    pub(crate) fn ranges(&self) -> Vec<Range> {
        self.0.iter().map(|(begin, end)| Range { begin: begin.clone(), end: end.clone() }).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes of all begins and ends.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(begin, end)| begin.len() + end.len()).sum()
    }

    pub(crate) fn insert_key(&mut self, key: &Bytes) {
        self.insert(key, &after(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn shown(set: &RangeSet) -> String {
        let parts: Vec<String> = set
            .ranges()
            .iter()
            .map(|range| format!("{}-{}", String::from_utf8_lossy(&range.begin), String::from_utf8_lossy(&range.end)))
            .collect();
        parts.join(" ")
    }

    #[test]
    fn overlapping_and_touching_ranges_become_one() {
        let mut set = RangeSet::default();
        set.insert(&key("d"), &key("f"));
        set.insert(&key("a"), &key("b"));
        set.insert(&key("p"), &key("p"));
        assert_eq!(shown(&set), "a-b d-f");
        set.insert(&key("b"), &key("c"));
        set.insert(&key("e"), &key("h"));
        assert_eq!(shown(&set), "a-c d-h");
        set.insert(&key("0"), &key("z"));
        assert_eq!(shown(&set), "0-z");
    }

    #[test]
    fn removing_cuts_ranges_at_both_ends() {
        let mut set = RangeSet::default();
        set.insert(&key("a"), &key("f"));
        set.insert(&key("h"), &key("k"));
        set.remove(&key("c"), &key("i"));
        assert_eq!(shown(&set), "a-c i-k");
        set.remove(&key("a"), &key("b"));
        assert_eq!(shown(&set), "b-c i-k");
    }

    #[test]
    fn membership_is_from_begin_to_before_end() {
        let mut set = RangeSet::default();
        set.insert(&key("b"), &key("d"));
        assert!(!set.contains(b"a") && set.contains(b"b") && set.contains(b"c") && !set.contains(b"d"));
        assert!(set.overlaps(b"a", b"b\0") && !set.overlaps(b"a", b"b") && !set.overlaps(b"d", b"e"));
        assert!(set.overlaps(b"c", b"c\0") && !set.overlaps(b"c", b"c"));
    }

    #[test]
    fn holes_are_left_out() {
        let mut set = RangeSet::default();
        let holes = [(key("0"), key("b")), (key("d"), key("e")), (key("y"), key("z"))];
        set.insert_except(&key("a"), &key("f"), holes.iter().map(|(begin, end)| (begin, end)));
        assert_eq!(shown(&set), "b-d e-f");
    }
}
