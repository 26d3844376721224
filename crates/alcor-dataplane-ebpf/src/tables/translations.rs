//! Which networks routers connect, and what the labels of these are in each other's terms. A label row touches the pairs that
//! its network is in, not those of its neighbours with each other.

use std::collections::BTreeSet;

use alcor_dataplane::{RouterRow, rules::Groups};
use alcor_dataplane_abi::layout::TranslationKey;
use alcor_model::{Id, Network, Router};

use super::{NetworkTable, Tables};
use crate::entry::{Entries, Key, Value};

impl Tables {
    /// The networks with a router that leads to this one, up or down.
    pub(super) fn leading_to(&self, id: Id<Network>) -> impl Iterator<Item = Id<Network>> + '_ {
        self.leading.get(&id).into_iter().flatten().copied()
    }

    /// Takes a router's row, or forgets it.
    pub(super) fn set_router(&mut self, network: Id<Network>, id: Id<Router>, row: Option<RouterRow>) {
        let Some(table) = self.networks.get_mut(&network) else {
            return;
        };
        let before = table.led_to();
        match row {
            Some(row) => table.routers.insert(id, row),
            None => table.routers.remove(&id),
        };
        let after = table.led_to();
        for to in after.difference(&before) {
            self.leading.entry(*to).or_default().insert(network);
        }
        for to in before.difference(&after) {
            if let Some(leading) = self.leading.get_mut(to) {
                leading.remove(&network);
                if leading.is_empty() {
                    self.leading.remove(to);
                }
            }
        }
    }

    /// What labels of a network, and of these that its routers lead to, are in each other's terms.
    pub(super) fn translations(
        &self,
        network: &NetworkTable,
        peers: &BTreeSet<Id<Network>>,
        only: Option<&BTreeSet<Groups>>,
        entries: &mut Entries,
    ) {
        let peers = peers.iter().filter(|id| **id != network.row.id);
        for peer in peers.filter_map(|id| self.networks.get(id)) {
            for (from, to, back) in [(network, peer, 0), (peer, network, 1)] {
                let sets: Vec<&Groups> = match only {
                    Some(sets) => sets.iter().collect(),
                    None => from.rules.all_groups().collect(),
                };
                for groups in sets {
                    let Some(there) = to.rules.labels_of(groups).next() else {
                        continue;
                    };
                    for label in from.rules.labels_of(groups) {
                        let key = TranslationKey {
                            own: network.handle,
                            peer: peer.handle,
                            label: label.get(),
                            back,
                        };
                        let value = Value::Number(u32::from(there.get()));
                        entries.insert(Key::Translation(key), value);
                    }
                }
            }
        }
    }
}

impl NetworkTable {
    /// The networks that its routers, up or down, lead to.
    pub(super) fn led_to(&self) -> BTreeSet<Id<Network>> {
        let ways = self.routers.values().flat_map(RouterRow::ways);
        ways.map(|(_, way)| way.network_id).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

    use std::num::NonZeroU16;

    use alcor_dataplane::{InterfaceRow, LabelRow, NetworkRow, Row, RowKey};
    use alcor_model::Vni;
    use uuid::Uuid;

    use super::*;
    use crate::tables::Devices;

    const NETWORKS: u8 = 8;

    fn id<T>(number: u8) -> Id<T> {
        Id::from_uuid(Uuid::from_u128(u128::from(number)))
    }

    fn put(tables: &mut Tables, row: Row) {
        let handle = tables.handle_for(&row.key());
        tables.put(row, handle).unwrap();
    }

    fn router(network: u8) -> RouterRow {
        let interface = |number| InterfaceRow {
            network_id: id(number),
            cidr: format!("10.{number}.0.0/16").parse().unwrap(),
            address: [10, number, 0, 1].into(),
        };
        RouterRow {
            id: id(100),
            network_id: id(network),
            admin_state_up: true,
            interfaces: (1..=NETWORKS).map(interface).collect(),
            routes: Vec::new(),
            external: None,
        }
    }

    fn label(network: u8) -> LabelRow {
        LabelRow {
            network_id: id(network),
            label: NonZeroU16::new(u16::from(network)).unwrap(),
            groups: vec![id(200)],
        }
    }

    /// Networks that one router connects, each with a label for the same groups.
    fn connected() -> Tables {
        let mut tables = Tables::default();
        for number in 1..=NETWORKS {
            let row = NetworkRow {
                id: id(number),
                vni: Vni::try_from(u32::from(number)).unwrap(),
                mtu: 1500,
                admin_state_up: true,
                underlay: None,
                on_demand: false,
                gateways: Vec::new(),
            };
            put(&mut tables, Row::Network(row));
            put(&mut tables, Row::Router(router(number)));
            put(&mut tables, Row::Label(label(number)));
        }
        tables
    }

    fn touched(tables: &Tables) -> Vec<TranslationKey> {
        let row = Row::Label(label(3));
        let scope = tables.scope(&row.key(), Some(&row));
        let keys = tables.entries(&scope, &Devices::new()).into_keys();
        keys.filter_map(|key| match key {
            Key::Translation(key) => Some(key),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn a_label_row_touches_the_pairs_of_its_network() {
        let mut tables = connected();
        let own = tables.network_handle(id(3)).unwrap();
        let keys = touched(&tables);
        assert!(
            keys.iter().all(|key| key.own == own || key.peer == own),
            "{keys:?}"
        );
        // With each of the others, from both sides, both ways.
        assert_eq!(keys.len(), 4 * usize::from(NETWORKS - 1));
        // A router that goes takes its pairs along.
        tables.remove(&RowKey::Router(id(1), id(100)));
        assert_eq!(touched(&tables).len(), 4 * usize::from(NETWORKS - 1) - 2);
        for number in 2..=NETWORKS {
            tables.remove(&RowKey::Router(id(number), id(100)));
        }
        assert!(touched(&tables).is_empty());
        assert!(tables.leading.is_empty());
    }
}
