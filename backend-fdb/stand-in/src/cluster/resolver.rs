//! Which keys were written when, to tell whether a transaction read something that has changed since.
//!
//! Source: FoundationDB documentation, "Developer Guide" (how conflicts are detected) and "Technical Overview"
//! (resolvers): a transaction commits only if no key of its read conflict ranges was written after its read version.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::protocol::{Range, Version};

/// How many insertions between two rounds of forgetting.
const SWEEP: usize = 10_000;

/// From each key on, the version of the last write, up to the next key.
#[derive(Debug)]
pub(crate) struct Resolver {
    last_write: BTreeMap<Bytes, Version>,
    inserted: usize,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { last_write: BTreeMap::from([(Bytes::new(), Version::MIN)]), inserted: 0 }
    }
}

impl Resolver {
    /// True when something in the range was written after `version`.
    pub(crate) fn written_since(&self, range: &Range, version: Version) -> bool {
        if range.begin >= range.end {
            return false;
        }
        let before =
            self.last_write.range::<[u8], _>((Bound::Unbounded, Bound::Included(&range.begin[..]))).next_back();
        if before.is_some_and(|(_, last)| *last > version) {
            return true;
        }
        self.last_write
            .range::<[u8], _>((Bound::Excluded(&range.begin[..]), Bound::Excluded(&range.end[..])))
            .any(|(_, last)| *last > version)
    }

    /// Records that the range was written at `version`, which is above all versions before.
    pub(crate) fn write(&mut self, range: &Range, version: Version) {
        if range.begin >= range.end {
            return;
        }
        let tail = self
            .last_write
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(&range.end[..])))
            .next_back()
            .map_or(Version::MIN, |(_, last)| *last);
        let inside: Vec<Bytes> = self
            .last_write
            .range::<[u8], _>((Bound::Included(&range.begin[..]), Bound::Excluded(&range.end[..])))
            .map(|(key, _)| key.clone())
            .collect();
        for key in inside {
            self.last_write.remove(&key);
        }
        self.last_write.insert(range.begin.clone(), version);
        self.last_write.insert(range.end.clone(), tail);
        self.inserted += 1;
    }

    /// Joins neighbours that were last written before `oldest`: no read version below it is accepted any more.
    pub(crate) fn forget(&mut self, oldest: Version) {
        if self.inserted < SWEEP {
            return;
        }
        self.inserted = 0;
        let mut last = None;
        self.last_write.retain(|_, version| {
            if *version < oldest {
                *version = Version::MIN;
            }
            let keep = last != Some(*version);
            last = Some(*version);
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(begin: &'static str, end: &'static str) -> Range {
        Range { begin: Bytes::from_static(begin.as_bytes()), end: Bytes::from_static(end.as_bytes()) }
    }

    #[test]
    fn a_write_conflicts_with_overlapping_reads_at_older_versions_only() {
        let mut resolver = Resolver::default();
        resolver.write(&range("c", "f"), 10);
        for (begin, end, conflict) in [("a", "c", false), ("a", "c\0", true), ("d", "e", true), ("f", "z", false)] {
            assert_eq!(resolver.written_since(&range(begin, end), 9), conflict, "{begin} to {end}");
            assert!(!resolver.written_since(&range(begin, end), 10), "{begin} to {end}, read at the write's version");
        }
    }

    #[test]
    fn a_later_write_inside_an_earlier_one_leaves_its_ends_as_they_were() {
        let mut resolver = Resolver::default();
        resolver.write(&range("a", "z"), 10);
        resolver.write(&range("f", "g"), 20);
        assert!(!resolver.written_since(&range("a", "f"), 10));
        assert!(resolver.written_since(&range("a", "g"), 10));
        assert!(!resolver.written_since(&range("g", "z"), 10));
        assert!(resolver.written_since(&range("g", "z"), 9));
    }

    #[test]
    fn forgetting_keeps_what_a_valid_read_version_needs() {
        let mut resolver = Resolver::default();
        for i in 0..SWEEP {
            let begin = Bytes::from(format!("{i:06}"));
            resolver.write(&Range { end: super::super::protocol::after(&begin), begin }, Version::try_from(i).unwrap());
        }
        let oldest = Version::try_from(SWEEP - 10).unwrap();
        resolver.forget(oldest);
        assert!(resolver.last_write.len() < 30, "{} entries are left", resolver.last_write.len());
        assert!(resolver.written_since(&range("", "zzz"), oldest));
        let newest = Version::try_from(SWEEP - 1).unwrap();
        assert!(!resolver.written_since(&range("", "zzz"), newest));
    }
}
