//! What rows amount to in the kernel's small tables: for each entry that a row may touch, what it must be now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use alcor_dataplane::{DataplaneError, Row, RowKey, gateway::Rows};
use alcor_dataplane_abi::{
    gateway_layout::{Ipv4Key, MAX_GATEWAY_NETWORKS, VniValue},
    layout::{NETWORK_UNDERLAY, NETWORK_UP, NetworkValue},
};
use alcor_model::{Id, Network};
use ipnet::IpNet;

/// Bits of an [`Ipv4Key`] before the address.
const SCOPE_BITS: u32 = 32;

/// An entry. Entries are put in this order and removed in the opposite one: the VNI, by which packets find a network, comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// By handle.
    Network(u32),
    /// Prefix length in bits of the whole key.
    Underlay(u32, Ipv4Key),
    /// By VNI.
    Vni(u32),
}

/// What is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Present,
    Network(NetworkValue),
    Vni(VniValue),
}

/// Numbers of networks in the kernel's tables.
#[derive(Default)]
pub(super) struct Handles {
    networks: BTreeMap<Id<Network>, u32>,
    ids: BTreeMap<u32, Id<Network>>,
}

impl Handles {
    /// The handle of a network that has one.
    pub(super) fn network(&self, id: Id<Network>) -> Option<u32> {
        self.networks.get(&id).copied()
    }

    /// The network of a handle.
    pub(super) fn id(&self, handle: u32) -> Option<Id<Network>> {
        self.ids.get(&handle).copied()
    }

    /// The network has this handle.
    pub(super) fn set_network(&mut self, id: Id<Network>, handle: u32) {
        self.networks.insert(id, handle);
        self.ids.insert(handle, id);
    }

    /// The handle of a network, which may be new.
    pub(super) fn give_network(&mut self, id: Id<Network>) -> Result<u32, DataplaneError> {
        if let Some(handle) = self.network(id) {
            return Ok(handle);
        }
        let handle = lowest_free(self.ids.keys(), MAX_GATEWAY_NETWORKS);
        let handle = handle.ok_or(DataplaneError::Full {
            what: "network",
            limit: MAX_GATEWAY_NETWORKS as usize,
        })?;
        self.set_network(id, handle);
        Ok(handle)
    }

    /// The network is gone.
    pub(super) fn free_network(&mut self, id: Id<Network>) {
        if let Some(handle) = self.networks.remove(&id) {
            self.ids.remove(&handle);
        }
    }
}

/// The lowest number from 1 that is not taken, up to a limit.
fn lowest_free<'a>(taken: impl Iterator<Item = &'a u32>, limit: u32) -> Option<u32> {
    let mut free = 1;
    for number in taken {
        if *number > free {
            break;
        }
        free = number + 1;
    }
    (free <= limit).then_some(free)
}

/// The entries that this row touches, as it is and as the others are now.
pub(super) fn touched(row: &Row, handles: &Handles) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let Some(network) = handles.network(row.key().network_id()) else {
        return keys;
    };
    if let Row::Network(row) = row {
        keys.extend([Key::Network(network), Key::Vni(row.vni.get())]);
        for block in row.underlay.iter().flatten() {
            if let IpNet::V4(block) = block {
                let bits = SCOPE_BITS + u32::from(block.prefix_len());
                keys.insert(Key::Underlay(bits, ipv4_key(network, block.network())));
            }
        }
    }
    keys
}

/// What an entry must be; `None`: it must not be there.
pub(super) fn value(key: &Key, rows: &Rows, handles: &Handles) -> Option<Value> {
    let network = |handle| rows.network(handles.id(handle)?);
    match key {
        Key::Network(handle) => {
            let row = network(*handle)?;
            Some(Value::Network(NetworkValue {
                vni: row.vni.get(),
                mtu: u32::from(row.mtu),
                flags: if row.admin_state_up { NETWORK_UP } else { 0 },
                // For hosts.
                gateways: 0,
                owner_family: 0,
                owner: [0; 16],
            }))
        }
        Key::Underlay(bits, key) => {
            let blocks = network(key.network)?.underlay.iter().flatten();
            let is_it = |block: &IpNet| match block {
                IpNet::V4(block) => {
                    SCOPE_BITS + u32::from(block.prefix_len()) == *bits && block.network().octets() == key.ip
                }
                IpNet::V6(_) => false,
            };
            blocks.into_iter().any(is_it).then_some(Value::Present)
        }
        Key::Vni(vni) => {
            let row = rows.network_of_vni(*vni)?;
            let mut flags = 0;
            if row.admin_state_up {
                flags |= NETWORK_UP;
            }
            if row.underlay.is_some() {
                flags |= NETWORK_UNDERLAY;
            }
            let network = handles.network(row.id)?;
            Some(Value::Vni(VniValue { network, flags }))
        }
    }
}

pub(super) fn ipv4_key(network: u32, ip: Ipv4Addr) -> Ipv4Key {
    Ipv4Key {
        network,
        ip: ip.octets(),
    }
}

/// All entries of all rows.
pub(super) fn all(rows: &Rows, handles: &Handles) -> BTreeMap<Key, Value> {
    let keys = rows.all().flat_map(|row| touched(row, handles));
    keys.filter_map(|key| Some((key, value(&key, rows, handles)?)))
        .collect()
}

/// The number that is kept with a row: its network's handle.
pub(super) fn kept_handle(key: &RowKey, handles: &Handles) -> u32 {
    handles.network(key.network_id()).unwrap_or_default()
}
