//! Which addresses have certainly not been put: a Bloom filter over the table of neighbours, so that a new row costs no question to
//! the kernel. "Maybe" is asked. Sixteen bits for each row that there is room for (2 MiB for a million), which the system gives only
//! where they are written.
//!
//! Nothing is taken out of it: rows that have gone make it say "maybe" more often until it is emptied with the table, or built
//! anew by the next start.

use std::hash::BuildHasher as _;

use alcor_dataplane_abi::layout::IpKey;
use foldhash::quality::RandomState;

/// Bits for each row that there is room for.
const BITS_PER_ROW: u64 = 16;
/// Bits of each address.
const PROBES: u64 = 4;

/// Addresses that may be in the table.
pub(super) struct Filter {
    words: Vec<u64>,
    hashes: RandomState,
    /// Of the number of bits, which is a power of two.
    mask: u64,
}

impl Filter {
    /// One for so many rows.
    pub(super) fn new(limit: u32) -> Self {
        let bits = (u64::from(limit) * BITS_PER_ROW).next_power_of_two().max(64);
        Self {
            words: vec![0; usize::try_from(bits / 64).unwrap_or(1)],
            hashes: RandomState::default(),
            mask: bits - 1,
        }
    }

    /// Word and bit of each probe.
    fn places(&self, key: &IpKey) -> impl Iterator<Item = (usize, u64)> + use<> {
        let hash = self.hashes.hash_one(key);
        // Two halves of one hash are as good as many hashes.
        let (first, step, mask) = (hash, (hash >> 32) | 1, self.mask);
        (0..PROBES).map(move |probe| {
            let bit = first.wrapping_add(probe.wrapping_mul(step)) & mask;
            (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
        })
    }

    /// The address is put.
    pub(super) fn insert(&mut self, key: &IpKey) {
        for (word, bit) in self.places(key) {
            self.words[word] |= bit;
        }
    }

    /// Whether it may have been put.
    pub(super) fn may_have(&self, key: &IpKey) -> bool {
        self.places(key).all(|(word, bit)| self.words[word] & bit != 0)
    }

    /// Nothing is there any more. New memory is zero without being written.
    pub(super) fn clear(&mut self) {
        self.words = vec![0; self.words.len()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::ip_key;

    fn key(number: u32) -> IpKey {
        ip_key(7, std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn what_was_put_is_never_denied_and_few_others_are_asked_for() {
        const ROWS: u32 = 100_000;
        let mut filter = Filter::new(ROWS);
        (0..ROWS).for_each(|number| filter.insert(&key(number)));
        assert!((0..ROWS).all(|number| filter.may_have(&key(number))));
        let asked = (ROWS..2 * ROWS).filter(|number| filter.may_have(&key(*number)));
        let asked = asked.count();
        assert!(asked < 1_000, "{asked} of {ROWS}");
        filter.clear();
        assert!(!(0..ROWS).any(|number| filter.may_have(&key(number))));
    }

    #[test]
    fn a_table_without_room_has_one_too() {
        let mut filter = Filter::new(0);
        filter.insert(&key(1));
        assert!(filter.may_have(&key(1)));
    }
}
