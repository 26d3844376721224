//! Networks, subnets and ports of the host, and what they amount to as kernel entries. Pure: no kernel here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use alcor_dataplane::{DataplaneError, NetworkRow, PortRow, Row, RowKey, SubnetRow};
use alcor_dataplane_abi::layout::{
    LocalIp, LocalMac, MAX_NETWORKS, MAX_PORTS, MAX_SUBNETS, NETWORK_UP, NetworkValue, PORT_DHCP4,
    PORT_PAIRS, PORT_PEER, PORT_RA, PORT_SECURITY, PORT_UP, PairKey, PortValue,
};
use alcor_model::{Id, MacAddr, Network, Port, Subnet, net::GATEWAY_MAC};

use crate::{
    device::Device,
    entry::{Entries, IP_SCOPE_BITS, Key, PAIR_SCOPE_BITS, Value},
    layout::{address, ip_key, mac_key},
};

/// Devices of ports.
pub(crate) type Devices = BTreeMap<Id<Port>, Device>;

struct NetworkTable {
    row: NetworkRow,
    handle: u32,
    subnets: BTreeMap<Id<Subnet>, SubnetRow>,
    ports: BTreeMap<Id<Port>, (u32, PortRow)>,
    macs: HashMap<MacAddr, Id<Port>>,
    /// Ports that have a fixed IP; the first one answers for it.
    ips: BTreeMap<IpAddr, BTreeSet<Id<Port>>>,
}

#[derive(Default)]
pub(crate) struct Tables {
    networks: BTreeMap<Id<Network>, NetworkTable>,
    vnis: HashMap<u32, Id<Network>>,
    homes: HashMap<Id<Port>, Id<Network>>,
    port_handles: BTreeMap<u32, Id<Port>>,
    network_handles: BTreeMap<u32, Id<Network>>,
    subnet_homes: HashMap<Id<Subnet>, Id<Network>>,
}

/// Whose entries a change may touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    network: Option<Id<Network>>,
    /// The network's gateways and routes too.
    subnets: bool,
    ports: BTreeSet<Id<Port>>,
}

/// Rows of security are refused until the programs filter. A new port that is to be filtered carries nothing; one
/// that is in force without a label stays as it is, and the refusal says so.
const NO_FILTER: DataplaneError = DataplaneError::Unsupported {
    dataplane: "ebpf",
    what: "security groups",
};

impl Tables {
    /// Says no to a row that cannot be. A row that is accepted can be put.
    pub(crate) fn check(&self, row: &Row) -> Result<(), DataplaneError> {
        match row {
            Row::Policy(_) | Row::Label(_) => Err(NO_FILTER),
            Row::Port(row) if row.filter().is_some() => Err(NO_FILTER),
            Row::Network(row) if row.underlay.is_some() => Err(NO_FILTER),
            Row::Network(row) => match self.vnis.get(&row.vni.get()) {
                Some(&owner) if owner != row.id => Err(DataplaneError::VniInUse { vni: row.vni, owner }),
                _ if self.networks.contains_key(&row.id) => Ok(()),
                _ => room("network", self.networks.len(), MAX_NETWORKS),
            },
            Row::Subnet(row) => {
                self.network(row.network_id)?;
                match self.subnet_homes.contains_key(&row.id) {
                    true => Ok(()),
                    false => room("subnet", self.subnet_homes.len(), MAX_SUBNETS),
                }
            }
            Row::Port(row) => {
                let network = self.network(row.network_id)?;
                match network.macs.get(&row.mac) {
                    Some(&owner) if owner != row.id => Err(DataplaneError::MacInUse { mac: row.mac, owner }),
                    _ if self.homes.contains_key(&row.id) => Ok(()),
                    _ => room("port", self.homes.len(), MAX_PORTS),
                }
            }
            Row::Neighbour(row) => self.network(row.network_id).map(drop),
        }
    }

    fn network(&self, id: Id<Network>) -> Result<&NetworkTable, DataplaneError> {
        self.networks.get(&id).ok_or(DataplaneError::UnknownNetwork(id))
    }

    /// Handle of a network.
    pub(crate) fn network_handle(&self, id: Id<Network>) -> Option<u32> {
        self.networks.get(&id).map(|network| network.handle)
    }

    /// Network of a handle.
    pub(crate) fn network_of_handle(&self, handle: u32) -> Option<Id<Network>> {
        self.network_handles.get(&handle).copied()
    }

    /// Ports by handle.
    pub(crate) const fn port_handles(&self) -> &BTreeMap<u32, Id<Port>> {
        &self.port_handles
    }

    /// The network that the port's row lies in.
    pub(crate) fn home(&self, port: Id<Port>) -> Option<Id<Network>> {
        self.homes.get(&port).copied()
    }

    /// The network that the subnet's row lies in.
    pub(crate) fn subnet_home(&self, subnet: Id<Subnet>) -> Option<Id<Network>> {
        self.subnet_homes.get(&subnet).copied()
    }

    /// The row in force.
    pub(crate) fn row(&self, key: &RowKey) -> Option<Row> {
        let network = self.networks.get(&key.network_id())?;
        match key {
            RowKey::Network(_) => Some(Row::Network(network.row.clone())),
            RowKey::Subnet(_, id) => network.subnets.get(id).cloned().map(Row::Subnet),
            RowKey::Port(_, id) => network.ports.get(id).map(|(_, row)| Row::Port(row.clone())),
            RowKey::Neighbour(..) | RowKey::Policy(..) | RowKey::Label(..) => None,
        }
    }

    /// All rows but neighbours.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for network in self.networks.values() {
            rows.push(Row::Network(network.row.clone()));
            rows.extend(network.subnets.values().cloned().map(Row::Subnet));
            rows.extend(network.ports.values().map(|(_, row)| Row::Port(row.clone())));
        }
        rows
    }

    /// What lies in a network, in an order in which it can be removed; the network last.
    pub(crate) fn contents(&self, id: Id<Network>) -> Vec<RowKey> {
        let Some(network) = self.networks.get(&id) else {
            return Vec::new();
        };
        let ports = network.ports.keys().map(|port| RowKey::Port(id, *port));
        let subnets = network.subnets.keys().map(|subnet| RowKey::Subnet(id, *subnet));
        ports.chain(subnets).chain([RowKey::Network(id)]).collect()
    }

    /// The handle that the row has or would get.
    pub(crate) fn handle_for(&self, key: &RowKey) -> u32 {
        match key {
            RowKey::Network(id) => self
                .network_handle(*id)
                .unwrap_or_else(|| first_free(&self.network_handles)),
            RowKey::Port(_, id) => {
                let known = self.port_handles.iter().find(|(_, port)| *port == id);
                known.map_or_else(|| first_free(&self.port_handles), |(handle, _)| *handle)
            }
            RowKey::Subnet(..) | RowKey::Neighbour(..) | RowKey::Policy(..) | RowKey::Label(..) => 0,
        }
    }

    /// What the change to (or from) `row` may touch; to be asked before it.
    pub(crate) fn scope(&self, key: &RowKey, row: Option<&Row>) -> Scope {
        let network_id = key.network_id();
        let mut scope = Scope {
            network: Some(network_id),
            subnets: matches!(key, RowKey::Subnet(..)),
            ports: BTreeSet::new(),
        };
        let Some(network) = self.networks.get(&network_id) else {
            return scope;
        };
        match key {
            RowKey::Subnet(_, id) => {
                let lies_in = |row: &PortRow| row.fixed_ips.iter().any(|fixed| fixed.subnet_id == *id);
                let ports = network.ports.iter().filter(|(_, (_, row))| lies_in(row));
                scope.ports.extend(ports.map(|(port, _)| *port));
            }
            RowKey::Port(_, id) => {
                scope.ports.insert(*id);
                let old = network.ports.get(id).map(|(_, row)| row);
                let new = row.and_then(|row| if let Row::Port(row) = row { Some(row) } else { None });
                for fixed in old.into_iter().chain(new).flat_map(|row| &row.fixed_ips) {
                    scope
                        .ports
                        .extend(network.ips.get(&fixed.ip_address).into_iter().flatten());
                }
            }
            RowKey::Network(_) | RowKey::Neighbour(..) | RowKey::Policy(..) | RowKey::Label(..) => {}
        }
        scope
    }

    /// The scope of a port's device.
    pub(crate) fn port_scope(&self, port: Id<Port>) -> Scope {
        Scope {
            network: self.home(port),
            subnets: false,
            ports: BTreeSet::from([port]),
        }
    }

    /// Everything.
    pub(crate) fn all_scopes(&self) -> Vec<Scope> {
        let scope = |(id, network): (&Id<Network>, &NetworkTable)| Scope {
            network: Some(*id),
            subnets: true,
            ports: network.ports.keys().copied().collect(),
        };
        self.networks.iter().map(scope).collect()
    }

    /// Puts an accepted row; `handle` as [`Self::handle_for`] told.
    pub(crate) fn put(&mut self, row: Row, handle: u32) {
        match row {
            Row::Network(row) => self.put_network(row, handle),
            Row::Subnet(row) => {
                if let Some(network) = self.networks.get_mut(&row.network_id) {
                    self.subnet_homes.insert(row.id, row.network_id);
                    network.subnets.insert(row.id, row);
                }
            }
            Row::Port(row) => self.put_port(row, handle),
            Row::Neighbour(_) | Row::Policy(_) | Row::Label(_) => {}
        }
    }

    fn put_network(&mut self, row: NetworkRow, handle: u32) {
        self.network_handles.insert(handle, row.id);
        if let Some(network) = self.networks.get_mut(&row.id) {
            self.vnis.remove(&network.row.vni.get());
            self.vnis.insert(row.vni.get(), row.id);
            network.row = row;
            return;
        }
        self.vnis.insert(row.vni.get(), row.id);
        let table = NetworkTable {
            handle,
            subnets: BTreeMap::new(),
            ports: BTreeMap::new(),
            macs: HashMap::new(),
            ips: BTreeMap::new(),
            row,
        };
        self.networks.insert(table.row.id, table);
    }

    fn put_port(&mut self, row: PortRow, handle: u32) {
        self.remove(&RowKey::Port(row.network_id, row.id));
        let Some(network) = self.networks.get_mut(&row.network_id) else {
            return;
        };
        network.macs.insert(row.mac, row.id);
        for fixed in &row.fixed_ips {
            network.ips.entry(fixed.ip_address).or_default().insert(row.id);
        }
        self.homes.insert(row.id, row.network_id);
        self.port_handles.insert(handle, row.id);
        network.ports.insert(row.id, (handle, row));
    }

    /// Removes a row; a network must be empty.
    pub(crate) fn remove(&mut self, key: &RowKey) {
        let Some(network) = self.networks.get_mut(&key.network_id()) else {
            return;
        };
        match key {
            RowKey::Network(id) => {
                self.vnis.remove(&network.row.vni.get());
                self.network_handles.remove(&network.handle);
                self.networks.remove(id);
            }
            RowKey::Subnet(_, id) => {
                if network.subnets.remove(id).is_some() {
                    self.subnet_homes.remove(id);
                }
            }
            RowKey::Port(_, id) => {
                let Some((handle, row)) = network.ports.remove(id) else {
                    return;
                };
                network.macs.remove(&row.mac);
                for fixed in &row.fixed_ips {
                    if let Some(owners) = network.ips.get_mut(&fixed.ip_address) {
                        owners.remove(id);
                        if owners.is_empty() {
                            network.ips.remove(&fixed.ip_address);
                        }
                    }
                }
                self.homes.remove(id);
                self.port_handles.remove(&handle);
            }
            RowKey::Neighbour(..) | RowKey::Policy(..) | RowKey::Label(..) => {}
        }
    }

    /// The kernel entries in a scope, with these devices.
    pub(crate) fn entries(&self, scope: &Scope, devices: &Devices) -> Entries {
        let mut entries = Entries::new();
        let Some(network) = scope.network.and_then(|id| self.networks.get(&id)) else {
            return entries;
        };
        network.own_entries(&mut entries);
        if scope.subnets {
            network.subnet_entries(&mut entries);
        }
        for id in &scope.ports {
            if let Some((handle, row)) = network.ports.get(id) {
                network.port_entries(*handle, row, devices.get(id), &mut entries);
            }
        }
        entries
    }
}

impl NetworkTable {
    fn own_entries(&self, entries: &mut Entries) {
        let value = NetworkValue {
            vni: self.row.vni.get(),
            mtu: u32::from(self.row.mtu),
            flags: if self.row.admin_state_up { NETWORK_UP } else { 0 },
        };
        entries.insert(Key::Network(self.handle), Value::Network(value));
        entries.insert(Key::Vni(value.vni), Value::Vni(self.handle));
    }

    fn subnet_entries(&self, entries: &mut Entries) {
        for row in self.subnets.values() {
            let Some(gateway) = row.gateway_ip else { continue };
            entries.insert(Key::Gateway(ip_key(self.handle, gateway)), Value::Present);
            if gateway.is_ipv6() {
                let link_local = GATEWAY_MAC.link_local().into();
                entries.insert(Key::Gateway(ip_key(self.handle, link_local)), Value::Present);
            }
            let bits = IP_SCOPE_BITS + u32::from(row.cidr.prefix_len());
            let key = Key::Routed(bits, ip_key(self.handle, row.cidr.network()));
            entries.insert(key, Value::Present);
        }
    }

    fn port_entries(&self, handle: u32, row: &PortRow, device: Option<&Device>, entries: &mut Entries) {
        for fixed in &row.fixed_ips {
            entries.insert(Key::FixedIp(ip_key(handle, fixed.ip_address)), Value::Present);
            let first = self.ips.get(&fixed.ip_address).and_then(BTreeSet::first);
            if first == Some(&row.id) {
                let value = LocalIp {
                    mac: row.mac.0,
                    pad: [0; 2],
                };
                let key = Key::LocalIp(ip_key(self.handle, fixed.ip_address));
                entries.insert(key, Value::LocalIp(value));
            }
        }
        for pair in &row.allowed_address_pairs {
            let mac = pair.mac_address.0;
            let (family, ip) = address(pair.ip_address.network());
            let key = PairKey {
                port: handle,
                mac,
                family: family as u16,
                ip,
            };
            let bits = PAIR_SCOPE_BITS + u32::from(pair.ip_address.prefix_len());
            entries.insert(Key::Pair(bits, key), Value::Present);
            entries.insert(Key::PairMac(mac_key(handle, mac)), Value::Present);
        }
        let flags = self.port_flags(row, device);
        let value = LocalMac {
            ifindex: device.map_or(0, |device| device.ifindex),
            port: handle,
            flags: u32::from(flags & (PORT_UP | PORT_PEER)),
        };
        entries.insert(
            Key::LocalMac(mac_key(self.handle, row.mac.0)),
            Value::LocalMac(value),
        );
        if let Some(device) = device {
            let value = PortValue {
                id: row.id.uuid().into_bytes(),
                network: self.handle,
                port: handle,
                mac: row.mac.0,
                flags,
            };
            entries.insert(Key::Port(device.ifindex), Value::Port(value));
        }
    }

    fn port_flags(&self, row: &PortRow, device: Option<&Device>) -> u16 {
        let flag = |set, flag| if set { flag } else { 0 };
        flag(row.admin_state_up, PORT_UP)
            | flag(row.port_security_enabled, PORT_SECURITY)
            | flag(self.serves(row, true), PORT_DHCP4)
            | flag(self.serves(row, false), PORT_RA)
            | flag(!row.allowed_address_pairs.is_empty(), PORT_PAIRS)
            | flag(device.is_some_and(|device| device.peer_elsewhere), PORT_PEER)
    }

    /// True when the port has an address of the family in a subnet that the agent serves.
    fn serves(&self, row: &PortRow, ipv4: bool) -> bool {
        let served = |id: &Id<Subnet>| self.subnets.get(id).is_some_and(|subnet| subnet.enable_dhcp);
        let mut fixed_ips = row.fixed_ips.iter();
        fixed_ips.any(|fixed| fixed.ip_address.is_ipv4() == ipv4 && served(&fixed.subnet_id))
    }
}

/// The smallest handle that is free; 0 means none.
fn first_free<T>(taken: &BTreeMap<u32, T>) -> u32 {
    let gap = (1..)
        .zip(taken.keys())
        .find(|(expected, handle)| expected != *handle);
    gap.map_or_else(|| taken.len() as u32 + 1, |(expected, _)| expected)
}

fn room(what: &'static str, count: usize, limit: u32) -> Result<(), DataplaneError> {
    if count < limit as usize {
        Ok(())
    } else {
        Err(DataplaneError::Full {
            what,
            limit: limit as usize,
        })
    }
}
