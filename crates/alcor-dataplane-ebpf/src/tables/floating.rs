//! Floating IPs: the rows, and the kernel entries of those that are of this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use alcor_dataplane::{FloatingIpRow, Uplinks};
use alcor_dataplane_abi::layout::{FLOATING_NEAR, FloatingIn, FloatingKey, FloatingOut};
use alcor_model::{FloatingIp, Id, Network, Router};

use super::{NetworkTable, Tables};
use crate::{
    device::Device,
    entry::{Entries, Key, Value},
    layout::ip_key,
};

/// A floating IP row.
type Place = (Id<Network>, Id<FloatingIp>);

/// The rows, and the devices that lead to external networks.
#[derive(Default)]
pub(super) struct Floating {
    uplinks: Uplinks,
    /// By name.
    devices: BTreeMap<String, Device>,
    rows: BTreeMap<Place, FloatingIpRow>,
    /// The rows of a fixed IP, and of a floating IP.
    by_fixed: BTreeMap<(Id<Network>, Ipv4Addr), BTreeSet<Place>>,
    by_address: BTreeMap<Ipv4Addr, BTreeSet<Place>>,
}

/// What a change of rows may touch: fixed IPs, and addresses outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    fixed: BTreeSet<(Id<Network>, Ipv4Addr)>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Touched {
    fn add(&mut self, row: &FloatingIpRow) {
        self.fixed.insert((row.network_id, row.fixed_ip));
        self.addresses.insert(row.floating_ip);
    }
}

fn take<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Place>>, key: &K, place: &Place) {
    if let Some(places) = index.get_mut(key) {
        places.remove(place);
        if places.is_empty() {
            index.remove(key);
        }
    }
}

impl Floating {
    /// How many rows there are.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn get(&self, place: Place) -> Option<&FloatingIpRow> {
        self.rows.get(&place)
    }

    /// The rows of a network.
    pub(super) fn of_network(&self, network: Id<Network>) -> impl Iterator<Item = &FloatingIpRow> {
        let all = (network, Id::from_uuid(uuid::Uuid::nil()))..=(network, Id::from_uuid(uuid::Uuid::max()));
        self.rows.range(all).map(|(_, row)| row)
    }

    pub(super) fn put(&mut self, row: FloatingIpRow) {
        let place = (row.network_id, row.id);
        self.remove(place);
        let fixed = self.by_fixed.entry((row.network_id, row.fixed_ip)).or_default();
        fixed.insert(place);
        self.by_address.entry(row.floating_ip).or_default().insert(place);
        self.rows.insert(place, row);
    }

    pub(super) fn remove(&mut self, place: Place) {
        if let Some(old) = self.rows.remove(&place) {
            take(&mut self.by_fixed, &(old.network_id, old.fixed_ip), &place);
            take(&mut self.by_address, &old.floating_ip, &place);
        }
    }

    /// What a row's coming or going touches.
    pub(super) fn touched(&self, place: Place, new: Option<&FloatingIpRow>) -> Touched {
        let mut touched = Touched::default();
        for row in self.get(place).into_iter().chain(new) {
            touched.add(row);
        }
        touched
    }

    /// What news of a network's routers touches: of one of them, or of all.
    pub(super) fn touched_by_router(&self, network: Id<Network>, router: Option<Id<Router>>) -> Touched {
        let mut touched = Touched::default();
        let rows = self.of_network(network);
        for row in rows.filter(|row| router.is_none_or(|router| row.router_id == router)) {
            touched.add(row);
        }
        touched
    }
}

impl Tables {
    /// What the host reaches by itself, and the devices by name; before any row is there.
    pub(crate) fn set_uplinks(&mut self, uplinks: Uplinks, devices: BTreeMap<String, Device>) {
        self.floating.uplinks = uplinks;
        self.floating.devices = devices;
    }

    /// The devices that lead to external networks.
    pub(crate) fn external_devices(&self) -> impl Iterator<Item = &Device> {
        self.floating.devices.values()
    }

    /// The rows of places that are of this host, in order, each with its device and its network.
    fn of_this_host<'a>(
        &'a self,
        places: Option<&'a BTreeSet<Place>>,
    ) -> impl Iterator<Item = (&'a FloatingIpRow, &'a Device, &'a NetworkTable)> {
        let rows = places.into_iter().flatten();
        let rows = rows.filter_map(|place| self.floating.get(*place));
        rows.filter_map(|row| {
            let device = self.floating.uplinks.device(row)?;
            let network = self.networks.get(&row.network_id)?;
            let is_live = network.has_interface_of(row.router_id);
            is_live.then_some((row, self.floating.devices.get(device)?, network))
        })
    }

    pub(super) fn floating_entries(&self, touched: &Touched, entries: &mut Entries) {
        for fixed in &touched.fixed {
            let mut rows = self.of_this_host(self.floating.by_fixed.get(fixed));
            if let Some((row, device, network)) = rows.next() {
                let key = ip_key(network.handle, IpAddr::V4(row.fixed_ip));
                entries.insert(Key::FloatingOut(key), Value::FloatingOut(out(row, device)));
            }
        }
        for address in &touched.addresses {
            for (row, device, network) in self.of_this_host(self.floating.by_address.get(address)) {
                let key = FloatingKey {
                    ifindex: device.ifindex,
                    address: address.octets(),
                };
                let value = FloatingIn {
                    network: network.handle,
                    fixed_ip: row.fixed_ip.octets(),
                    mac: device.mac,
                    pad: [0; 2],
                };
                // The first of several.
                entries
                    .entry(Key::FloatingIn(key))
                    .or_insert(Value::FloatingIn(value));
            }
        }
    }
}

fn out(row: &FloatingIpRow, device: &Device) -> FloatingOut {
    let nowhere = [0; 4];
    FloatingOut {
        ifindex: device.ifindex,
        address: row.floating_ip.octets(),
        block: row.cidr.map_or(nowhere, |block| block.network().octets()),
        mask: row.cidr.map_or(nowhere, |block| block.netmask().octets()),
        nexthop: row.nexthop.map_or(nowhere, |nexthop| nexthop.octets()),
        flags: if row.cidr.is_some() { FLOATING_NEAR } else { 0 },
    }
}

impl NetworkTable {
    /// True when the router is up and has an interface in this network.
    fn has_interface_of(&self, router: Id<Router>) -> bool {
        let router = self.routers.get(&router).filter(|row| row.admin_state_up);
        let mut interfaces = router.into_iter().flat_map(|row| &row.interfaces);
        interfaces.any(|interface| interface.network_id == self.row.id)
    }
}
