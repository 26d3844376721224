//! Which numbers of a range are taken: addresses of an IPv4 subnet as offsets, VXLAN network identifiers.
//!
//! Derived from rows, never stored. The next number given is the one after the last given, so that an address
//! that was just released rests as long as possible before somebody else has it.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

/// Taken numbers, and where to look next.
#[derive(Clone, Debug, Default)]
pub struct NumberSpace {
    used: RoaringBitmap,
    next: u32,
}

impl PartialEq for NumberSpace {
    /// Where to look next is a hint and does not count.
    fn eq(&self, other: &Self) -> bool {
        self.used == other.used
    }
}

impl NumberSpace {
    /// Marks a number as taken. False when it was already.
    pub fn take(&mut self, number: u32) -> bool {
        let fresh = self.used.insert(number);
        if fresh {
            self.next = number.wrapping_add(1);
        }
        fresh
    }

    /// Marks a number as free.
    pub fn release(&mut self, number: u32) {
        self.used.remove(number);
    }

    /// Whether a number is taken.
    pub fn is_taken(&self, number: u32) -> bool {
        self.used.contains(number)
    }

    /// How many numbers are taken.
    pub fn taken(&self) -> u64 {
        self.used.len()
    }

    /// A free number of the ranges, which are sorted and disjoint; `None` when all are taken.
    pub fn find_free(&self, ranges: &[RangeInclusive<u32>]) -> Option<u32> {
        let after_hint = ranges.iter().filter_map(|range| clip(range, self.next));
        let from_start = ranges.iter().cloned();
        after_hint
            .chain(from_start)
            .find_map(|range| self.first_free(range))
    }

    /// The first free number of a range, by bisection on how many are taken: O(log range).
    fn first_free(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let (first, last) = range.into_inner();
        if !self.used.contains(first) {
            return Some(first);
        }
        let full = |end: u32| self.used.range_cardinality(first..=end) == u64::from(end - first) + 1;
        if full(last) {
            return None;
        }
        // Invariant: first..=low is full, first..=high is not.
        let (mut low, mut high) = (first, last);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if full(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(high)
    }
}

/// The part of a range at or after `from`.
fn clip(range: &RangeInclusive<u32>, from: u32) -> Option<RangeInclusive<u32>> {
    (from <= *range.end()).then(|| (*range.start()).max(from)..=*range.end())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set: what is given is free and in range, and none is refused while one is free.
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0u32..40), 1..200)) {
            let ranges = [3..=9u32, 20..=31];
            let mut space = NumberSpace::default();
            let mut naive = BTreeSet::new();
            for (give, number) in steps {
                if give {
                    let found = space.find_free(&ranges);
                    let free = ranges.iter().cloned().flatten().any(|n| !naive.contains(&n));
                    prop_assert_eq!(found.is_some(), free);
                    if let Some(found) = found {
                        prop_assert!(ranges.iter().any(|range| range.contains(&found)));
                        prop_assert!(naive.insert(found));
                        prop_assert!(space.take(found));
                    }
                } else {
                    space.release(number);
                    naive.remove(&number);
                }
                prop_assert_eq!(space.taken(), naive.len() as u64);
            }
        }
    }

    #[test]
    fn a_released_number_rests() {
        let mut space = NumberSpace::default();
        let ranges = [1..=3u32];
        for expected in [1, 2] {
            assert_eq!(space.find_free(&ranges), Some(expected));
            space.take(expected);
        }
        space.release(1);
        assert_eq!(space.find_free(&ranges), Some(3));
        space.take(3);
        assert_eq!(space.find_free(&ranges), Some(1));
    }
}
