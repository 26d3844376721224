//! One of the tables that rows and their learners are spread over.
//!
//! A question is one look-up in it: an address, its row and the only host that has learned it, which most addresses of a large
//! network have at most one of, lie side by side. Of an address that several hosts have learned the set lies in a second table.
//! The keyed hash that tells the table finds the place in it, too.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
};

use hashbrown::HashTable;
use parking_lot::MutexGuard;

use super::{HostIndex, Key, Stored};

/// An address.
#[derive(Debug)]
struct Slot {
    key: Key,
    /// Of [`HostIndex::NONE`] when nobody has the address.
    row: Stored,
    /// Who has learned it: [`HostIndex::NONE`], one host, or [`HostIndex::SEVERAL`].
    learner: HostIndex,
}

impl Slot {
    fn row(&self) -> Option<&Stored> {
        Some(&self.row).filter(|row| row.host != HostIndex::NONE)
    }

    fn is_empty(&self) -> bool {
        self.row().is_none() && self.learner == HostIndex::NONE
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shard {
    slots: HashTable<Slot>,
    /// Hosts that have learned an address, two at least.
    several: HashTable<(Key, BTreeSet<HostIndex>)>,
}

impl Shard {
    /// Addresses that somebody has.
    pub(super) fn rows(&self) -> usize {
        self.slots.iter().filter(|slot| slot.row().is_some()).count()
    }

    /// Nobody has any address; who has learned one stays.
    pub(super) fn clear_rows(&mut self) {
        self.slots.retain(|slot| {
            slot.row = Stored::NONE;
            !slot.is_empty()
        });
    }
}

/// The place of an address in its table. Others wait for the table as long as this lives.
pub(super) struct Place<'a> {
    pub(super) shard: MutexGuard<'a, Shard>,
    pub(super) hasher: &'a RandomState,
    pub(super) hash: u64,
    pub(super) key: Key,
}

impl Place<'_> {
    fn slot(&self) -> Option<&Slot> {
        self.shard.slots.find(self.hash, |slot| slot.key == self.key)
    }

    fn slot_mut(&mut self) -> Option<&mut Slot> {
        let key = self.key;
        self.shard.slots.find_mut(self.hash, |slot| slot.key == key)
    }

    fn slot_or_new(&mut self) -> &mut Slot {
        let (key, hasher) = (self.key, self.hasher);
        let slots = &mut self.shard.slots;
        let slot = slots.entry(
            self.hash,
            |slot| slot.key == key,
            |slot| hasher.hash_one(slot.key),
        );
        let empty = || Slot {
            key,
            row: Stored::NONE,
            learner: HostIndex::NONE,
        };
        slot.or_insert_with(empty).into_mut()
    }

    fn drop_if_empty(&mut self) {
        let key = self.key;
        let found = self.shard.slots.find_entry(self.hash, |slot| slot.key == key);
        if let Ok(found) = found
            && found.get().is_empty()
        {
            found.remove();
        }
    }

    /// The address's row.
    pub(super) fn row(&self) -> Option<&Stored> {
        self.slot()?.row()
    }

    /// The address has this row now.
    pub(super) fn put(&mut self, row: Stored) {
        self.slot_or_new().row = row;
    }

    /// Nobody has the address, and nobody has learned it any more; gives who had.
    pub(super) fn take(&mut self) -> Vec<HostIndex> {
        let learners = self.learners();
        if let Some(slot) = self.slot_mut() {
            (slot.row, slot.learner) = (Stored::NONE, HostIndex::NONE);
        }
        self.drop_several();
        self.drop_if_empty();
        learners
    }

    fn set_of(&mut self) -> &mut BTreeSet<HostIndex> {
        let (key, hasher) = (self.key, self.hasher);
        let several = &mut self.shard.several;
        let set = several.entry(self.hash, |(of, _)| *of == key, |(of, _)| hasher.hash_one(of));
        &mut set.or_insert_with(|| (key, BTreeSet::new())).into_mut().1
    }

    fn drop_several(&mut self) -> BTreeSet<HostIndex> {
        let key = self.key;
        let found = self.shard.several.find_entry(self.hash, |(of, _)| *of == key);
        found.map(|found| found.remove().0.1).unwrap_or_default()
    }

    /// A host has learned the address.
    pub(super) fn learn(&mut self, host: HostIndex) {
        let slot = self.slot_or_new();
        let first = slot.learner;
        match first {
            HostIndex::NONE => slot.learner = host,
            HostIndex::SEVERAL => {
                self.set_of().insert(host);
            }
            first if first == host => {}
            first => {
                slot.learner = HostIndex::SEVERAL;
                self.set_of().extend([first, host]);
            }
        }
    }

    /// Who has it may learn the address, if that is another host; gives its row.
    pub(super) fn ask(&mut self, host: HostIndex) -> Option<Stored> {
        let slot = self.slot_mut()?;
        let row = *slot.row().filter(|row| row.host != host)?;
        match slot.learner {
            HostIndex::NONE => slot.learner = host,
            known if known == host => {}
            _ => self.learn(host),
        }
        Some(row)
    }

    /// A host has forgotten the address.
    pub(super) fn unlearn(&mut self, host: HostIndex) {
        let Some(slot) = self.slot_mut() else {
            return;
        };
        if slot.learner == host {
            slot.learner = HostIndex::NONE;
            self.drop_if_empty();
        } else if slot.learner == HostIndex::SEVERAL {
            let set = self.set_of();
            set.remove(&host);
            if let (Some(last), 1) = (set.first().copied(), set.len()) {
                self.drop_several();
                self.slot_or_new().learner = last;
            }
        }
    }

    /// Who has learned the address, in order.
    pub(super) fn learners(&self) -> Vec<HostIndex> {
        match self.slot().map(|slot| slot.learner) {
            None | Some(HostIndex::NONE) => Vec::new(),
            Some(HostIndex::SEVERAL) => {
                let key = self.key;
                let found = self.shard.several.find(self.hash, |(of, _)| *of == key);
                found
                    .map(|(_, set)| set.iter().copied().collect())
                    .unwrap_or_default()
            }
            Some(host) => vec![host],
        }
    }

    /// Whether a host has learned the address.
    pub(super) fn has_learned(&self, host: HostIndex) -> bool {
        match self.slot().map(|slot| slot.learner) {
            None | Some(HostIndex::NONE) => false,
            Some(HostIndex::SEVERAL) => {
                let key = self.key;
                let found = self.shard.several.find(self.hash, |(of, _)| *of == key);
                found.is_some_and(|(_, set)| set.contains(&host))
            }
            Some(known) => known == host,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use alcor_model::MacAddr;
    use proptest::prelude::*;

    use super::{
        super::{Directory, Limits, NetworkIndex, SHARDS},
        *,
    };

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u32),
        Take(u8),
        Learn(u8, u32),
        Ask(u8, u32),
        Unlearn(u8, u32),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..20u8, 0..5u32).prop_flat_map(|(address, host)| {
            prop_oneof![
                4 => Just(Step::Put(address, host)),
                2 => Just(Step::Take(address)),
                4 => Just(Step::Learn(address, host)),
                8 => Just(Step::Ask(address, host)),
                6 => Just(Step::Unlearn(address, host)),
                1 => Just(Step::Clear),
            ]
        });
        prop::collection::vec(step, 0..300)
    }

    fn key(address: u32) -> Key {
        Key::new(NetworkIndex(1), IpAddr::from(address.to_be_bytes()))
    }

    fn row(host: u32) -> Stored {
        Stored {
            host: HostIndex(host),
            revision: [1, 2],
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            label: 3,
        }
    }

    proptest! {
        /// Whatever happens, rows and learners are those of two plain maps, and nothing is left of what is gone.
        #[test]
        fn rows_and_learners_are_those_of_plain_maps(steps in steps()) {
            let (directory, _writer) = Directory::new(Limits::default());
            let mut rows: BTreeMap<u8, u32> = BTreeMap::new();
            let mut learners: BTreeMap<u8, BTreeSet<HostIndex>> = BTreeMap::new();
            for step in steps {
                let place = |address: u8| directory.place(key(address.into()));
                match step {
                    Step::Put(address, host) => {
                        place(address).put(row(host));
                        rows.insert(address, host);
                    }
                    Step::Take(address) => {
                        let known = learners.remove(&address).unwrap_or_default();
                        rows.remove(&address);
                        prop_assert_eq!(place(address).take(), Vec::from_iter(known));
                    }
                    Step::Learn(address, host) => {
                        place(address).learn(HostIndex(host));
                        learners.entry(address).or_default().insert(HostIndex(host));
                    }
                    Step::Ask(address, host) => {
                        let known = rows.get(&address).filter(|known| **known != host);
                        let given = place(address).ask(HostIndex(host));
                        prop_assert_eq!(given.map(|row| row.host.0), known.copied());
                        if known.is_some() {
                            learners.entry(address).or_default().insert(HostIndex(host));
                        }
                    }
                    Step::Unlearn(address, host) => {
                        place(address).unlearn(HostIndex(host));
                        learners.entry(address).or_default().remove(&HostIndex(host));
                    }
                    Step::Clear => {
                        directory.shards.iter().for_each(|shard| shard.lock().clear_rows());
                        rows.clear();
                    }
                }
                learners.retain(|_, hosts| !hosts.is_empty());
                prop_assert_eq!(directory.rows(), rows.len());
            }
            for address in 0..20u8 {
                let place = directory.place(key(address.into()));
                let known = learners.get(&address).cloned().unwrap_or_default();
                prop_assert_eq!(place.row().map(|row| row.host.0), rows.get(&address).copied());
                prop_assert!((0..5).all(|host| place.has_learned(HostIndex(host)) == known.contains(&HostIndex(host))));
                prop_assert_eq!(place.learners(), Vec::from_iter(known));
            }
            let slots: usize = directory.shards.iter().map(|shard| shard.lock().slots.len()).sum();
            let several: usize = directory.shards.iter().map(|shard| shard.lock().several.len()).sum();
            let kept: BTreeSet<_> = rows.keys().chain(learners.keys()).collect();
            prop_assert_eq!(slots, kept.len());
            prop_assert_eq!(several, learners.values().filter(|hosts| hosts.len() > 1).count());
        }
    }

    /// Addresses of one network in a row are all over the tables.
    #[test]
    fn a_network_is_spread_over_all_tables() {
        let (directory, _writer) = Directory::new(Limits::default());
        let addresses = 64 * u32::try_from(SHARDS).unwrap();
        for address in 0..addresses {
            directory.place(key(address)).put(row(1));
        }
        let shards = directory.shards.iter();
        assert!(
            shards
                .map(|shard| shard.lock().rows())
                .all(|rows| (10..200).contains(&rows))
        );
    }

    /// What a row takes is bounded by the design.
    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Slot>(), 44);
    }
}
