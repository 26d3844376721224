//! Sets of addresses of one family, as ranges: what pools of prefixes are reckoned with. Pure arithmetic.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::subnet::number;

/// A set of addresses: sorted ranges with gaps between them, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressSet {
    ranges: Vec<(u128, u128)>,
}

/// The ends of a block as numbers.
fn ends(cidr: IpNet) -> (u128, u128) {
    (number(cidr.network()), number(cidr.broadcast()))
}

impl FromIterator<IpNet> for AddressSet {
    fn from_iter<T: IntoIterator<Item = IpNet>>(blocks: T) -> Self {
        let mut ranges: Vec<_> = blocks.into_iter().map(ends).collect();
        ranges.sort_unstable();
        let mut set = Self::default();
        for (first, last) in ranges {
            match set.ranges.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => set.ranges.push((first, last)),
            }
        }
        set
    }
}

impl AddressSet {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether all of a block is in the set.
    pub(crate) fn contains(&self, block: IpNet) -> bool {
        let (first, last) = ends(block);
        self.ranges
            .iter()
            .any(|range| range.0 <= first && last <= range.1)
    }

    /// Whether all of another set is in this one.
    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        other.without(self).is_empty()
    }

    /// Whether two sets have an address in common.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let (mut mine, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            if a.0 <= b.1 && b.0 <= a.1 {
                return true;
            }
            if a.1 < b.1 {
                mine.next();
            } else {
                theirs.next();
            }
        }
        false
    }

    /// What is in this set and not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let mut holes = other.ranges.iter().peekable();
        for &(first, last) in &self.ranges {
            let mut from = Some(first);
            while let (Some(start), Some(&&(hole_first, hole_last))) = (from, holes.peek()) {
                if hole_first > last {
                    break;
                }
                if hole_last >= start {
                    if hole_first > start {
                        ranges.push((start, hole_first - 1));
                    }
                    from = hole_last.checked_add(1).filter(|next| *next <= last);
                }
                if hole_last > last {
                    break;
                }
                holes.next();
            }
            if let Some(start) = from {
                ranges.push((start, last));
            }
        }
        Self { ranges }
    }

    /// The largest blocks that make up the set, in order. `family` is any block of its family.
    pub(crate) fn blocks(&self, family: IpNet) -> Vec<IpNet> {
        let bits = family.max_prefix_len();
        let mut blocks = Vec::new();
        for &(first, last) in &self.ranges {
            let mut start = first;
            loop {
                // As large as the alignment of the start and the rest of the range allow.
                let aligned = start.trailing_zeros().min(u32::from(bits));
                let rest = (last - start).saturating_add(1).ilog2();
                let whole = start == 0 && last == u128::MAX;
                let size = if whole { 128 } else { aligned.min(rest) };
                let length = bits - u8::try_from(size).unwrap_or(bits);
                let address: IpAddr = crate::subnet::address(family, start);
                if let Ok(block) = IpNet::new(address, length) {
                    blocks.push(block);
                }
                match 1u128.checked_shl(size).and_then(|size| start.checked_add(size)) {
                    Some(next) if next <= last => start = next,
                    _ => break,
                }
            }
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn blocks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn set(texts: &[&str]) -> AddressSet {
        blocks(texts).into_iter().collect()
    }

    #[test]
    fn neighbours_and_overlaps_become_one() {
        let any = "10.0.0.0/8".parse().unwrap();
        let pool = set(&["10.10.11.0/24", "10.10.10.0/24", "10.10.10.0/26"]);
        assert_eq!(pool.blocks(any), blocks(&["10.10.10.0/23"]));
        let pool = set(&["10.10.11.0/24", "10.10.12.0/24"]);
        assert_eq!(pool.blocks(any), blocks(&["10.10.11.0/24", "10.10.12.0/24"]));
        assert_eq!(set(&["0.0.0.0/0"]).blocks(any), blocks(&["0.0.0.0/0"]));
        let any6 = "fd00::/8".parse().unwrap();
        assert_eq!(set(&["::/0"]).blocks(any6), blocks(&["::/0"]));
        assert_eq!(set(&["ffff::/16"]).blocks(any6), blocks(&["ffff::/16"]));
    }

    #[test]
    fn what_is_taken_leaves_the_largest_blocks() {
        let any = "10.0.0.0/8".parse().unwrap();
        let rest = set(&["10.0.0.0/24"]).without(&set(&["10.0.0.0/26"]));
        assert_eq!(rest.blocks(any), blocks(&["10.0.0.64/26", "10.0.0.128/25"]));
        assert!(set(&["10.0.0.0/24"]).without(&set(&["10.0.0.0/16"])).is_empty());
        let all = set(&["::/0"]);
        assert!(all.without(&all).is_empty());
    }

    /// A block inside of 10.0.0.0/24.
    fn small_block() -> impl Strategy<Value = IpNet> {
        (any::<u8>(), 24u8..=32).prop_map(|(last, length)| {
            IpNet::new(IpAddr::from([10, 0, 0, last]), length)
                .unwrap()
                .trunc()
        })
    }

    fn naive(blocks: &[IpNet]) -> BTreeSet<IpAddr> {
        blocks
            .iter()
            .flat_map(|block| {
                let (first, last) = ends(*block);
                (first..=last).map(|number| crate::subnet::address(*block, number))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn agrees_with_sets_of_single_addresses(
            a in prop::collection::vec(small_block(), 0..8),
            b in prop::collection::vec(small_block(), 0..8),
        ) {
            let family = "10.0.0.0/24".parse().unwrap();
            let (left, right): (AddressSet, AddressSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            let (many, others) = (naive(&a), naive(&b));
            prop_assert_eq!(left.meets(&right), many.intersection(&others).next().is_some());
            prop_assert_eq!(left.contains_all(&right), many.is_superset(&others));
            let rest = left.without(&right);
            prop_assert_eq!(naive(&rest.blocks(family)), many.difference(&others).copied().collect());
            for block in &b {
                prop_assert_eq!(left.contains(*block), many.is_superset(&naive(&[*block])));
            }
            let again: AddressSet = left.blocks(family).into_iter().collect();
            prop_assert_eq!(again, left);
        }
    }
}
