//! Labels: which set of groups has which number in a network, and how many ports have it.

use std::{num::NonZeroU16, sync::Arc};

use alcor_model::{Id, Label, Network, Port, SecurityGroup};
use alcor_store::UniqueIndex;
use imbl::OrdMap;

use super::{Indexed, RegionState};
use crate::alloc::NumberSpace;

/// A set, sorted.
type Groups = Vec<Id<SecurityGroup>>;

/// What is derived from the rows of labels, and of ports as far as they have one.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct LabelIndexes {
    by_set: UniqueIndex<(Id<Network>, Groups), Id<Label>>,
    by_number: UniqueIndex<(Id<Network>, u16), Id<Label>>,
    /// Taken numbers of each network that has any.
    numbers: OrdMap<Id<Network>, Arc<NumberSpace>>,
    /// How many ports have each number, where there are any.
    ports: OrdMap<(Id<Network>, u16), u32>,
}

impl LabelIndexes {
    /// Called with the port's row by the index of ports.
    pub(super) fn port_added(&mut self, port: &Port) {
        if let Some(number) = port.label {
            *self.ports.entry((port.network_id, number)).or_default() += 1;
        }
    }

    /// Called with the port's row by the index of ports.
    pub(super) fn port_removed(&mut self, port: &Port) {
        let Some(number) = port.label else {
            return;
        };
        let key = (port.network_id, number);
        match self.ports.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.ports.remove(&key);
            }
        }
    }
}

impl RegionState {
    /// The label of a set of groups, retired or not.
    pub fn label_of_set(&self, network: Id<Network>, groups: &[Id<SecurityGroup>]) -> Option<&Arc<Label>> {
        let id = self.label_indexes.by_set.get(&(network, groups.to_vec()))?;
        self.labels.get(id)
    }

    /// What a number means, retired or not.
    pub fn label_of_number(&self, network: Id<Network>, number: NonZeroU16) -> Option<&Arc<Label>> {
        let id = self.label_indexes.by_number.get(&(network, number.get()))?;
        self.labels.get(id)
    }

    /// The labels of a network by number, retired ones among them.
    pub fn labels_of(&self, network: Id<Network>) -> impl Iterator<Item = &Arc<Label>> {
        self.label_indexes
            .by_number
            .range((network, 0)..=(network, u16::MAX))
            .filter_map(|(_, id)| self.labels.get(id))
    }

    /// How many ports of a network have a number.
    pub fn ports_with_label(&self, network: Id<Network>, number: u16) -> u32 {
        self.label_indexes
            .ports
            .get(&(network, number))
            .copied()
            .unwrap_or_default()
    }

    /// A number of the network that means nothing; the one that rested longest.
    pub(crate) fn free_label_number(&self, network: Id<Network>) -> Option<NonZeroU16> {
        let all = 1..=u32::from(u16::MAX);
        let free = match self.label_indexes.numbers.get(&network) {
            Some(taken) => taken.find_free(&[all])?,
            None => 1,
        };
        u16::try_from(free).ok().and_then(NonZeroU16::new)
    }
}

impl Indexed for Label {
    fn index(&self, state: &mut RegionState) {
        let number = self.number.get();
        let indexes = &mut state.label_indexes;
        let set = (self.network_id, self.security_groups.clone());
        indexes.by_set.insert(set, self.id);
        indexes.by_number.insert((self.network_id, number), self.id);
        let numbers = indexes.numbers.entry(self.network_id).or_default();
        Arc::make_mut(numbers).take(number.into());
    }

    fn unindex(&self, state: &mut RegionState) {
        let number = self.number.get();
        let indexes = &mut state.label_indexes;
        let set = (self.network_id, self.security_groups.clone());
        indexes.by_set.remove(&set, &self.id);
        indexes.by_number.remove(&(self.network_id, number), &self.id);
        if let Some(numbers) = indexes.numbers.get_mut(&self.network_id) {
            let numbers = Arc::make_mut(numbers);
            numbers.release(number.into());
        }
    }

    fn removed(&self, state: &mut RegionState) {
        let numbers = &mut state.label_indexes.numbers;
        if numbers
            .get(&self.network_id)
            .is_some_and(|numbers| numbers.taken() == 0)
        {
            numbers.remove(&self.network_id);
        }
    }
}
