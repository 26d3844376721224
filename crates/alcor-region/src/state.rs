//! The tables of a region and their indexes. Knows how rows hang together, not which changes are allowed.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{
    Host, Id, MacAddr, Network, Port, PortRuntime, Resource, ResourceKey, Subnet, Vni, resource::PortStatus,
};
use alcor_store::{MultiIndex, State, Table, UniqueIndex};
use imbl::OrdMap;

use crate::{alloc::NumberSpace, command::Caller};

/// Everything that a region holds, as one cheap value.
#[derive(Clone, Default)]
pub struct RegionState {
    hosts: Table<String, Host>,
    networks: Table<Id<Network>, Network>,
    subnets: Table<Id<Subnet>, Subnet>,
    ports: Table<Id<Port>, Port>,
    runtimes: Table<Id<Port>, PortRuntime>,
    subnets_by_network: MultiIndex<Id<Network>, Id<Subnet>>,
    ports_by_network: MultiIndex<Id<Network>, Id<Port>>,
    ports_by_host: MultiIndex<String, Id<Port>>,
    ports_by_device: MultiIndex<String, Id<Port>>,
    port_by_mac: UniqueIndex<(Id<Network>, MacAddr), Id<Port>>,
    port_by_ip: UniqueIndex<(Id<Subnet>, IpAddr), Id<Port>>,
    network_by_vni: UniqueIndex<Vni, Id<Network>>,
    vnis: Arc<NumberSpace>,
    /// Taken offsets of each IPv4 subnet.
    offsets: OrdMap<Id<Subnet>, Arc<NumberSpace>>,
}

impl RegionState {
    /// All hosts, by name.
    pub fn hosts(&self) -> &Table<String, Host> {
        &self.hosts
    }

    /// All networks.
    pub fn networks(&self) -> &Table<Id<Network>, Network> {
        &self.networks
    }

    /// All subnets.
    pub fn subnets(&self) -> &Table<Id<Subnet>, Subnet> {
        &self.subnets
    }

    /// All ports.
    pub fn ports(&self) -> &Table<Id<Port>, Port> {
        &self.ports
    }

    /// What hosts last reported.
    pub fn runtimes(&self) -> &Table<Id<Port>, PortRuntime> {
        &self.runtimes
    }

    /// The subnets of a network.
    pub fn subnets_of(&self, network: Id<Network>) -> impl Iterator<Item = &Arc<Subnet>> {
        self.subnets_by_network
            .get(&network)
            .filter_map(|id| self.subnets.get(id))
    }

    /// The ports of a network.
    pub fn ports_of(&self, network: Id<Network>) -> impl Iterator<Item = &Arc<Port>> {
        self.ports_by_network
            .get(&network)
            .filter_map(|id| self.ports.get(id))
    }

    /// The ports bound to a host.
    pub fn ports_on(&self, host: &str) -> impl Iterator<Item = &Arc<Port>> + use<'_> {
        self.ports_by_host
            .get(&host.to_owned())
            .filter_map(|id| self.ports.get(id))
    }

    /// The ports of a device (a server, a router).
    pub fn ports_of_device(&self, device_id: &str) -> impl Iterator<Item = &Arc<Port>> + use<'_> {
        self.ports_by_device
            .get(&device_id.to_owned())
            .filter_map(|id| self.ports.get(id))
    }

    /// Whether a network has ports.
    pub fn has_ports(&self, network: Id<Network>) -> bool {
        self.ports_by_network.contains_entry(&network)
    }

    /// Who has a MAC in a network.
    pub fn port_with_mac(&self, network: Id<Network>, mac: MacAddr) -> Option<Id<Port>> {
        self.port_by_mac.get(&(network, mac)).copied()
    }

    /// Who has an address of a subnet.
    pub fn port_with_ip(&self, subnet: Id<Subnet>, ip: IpAddr) -> Option<Id<Port>> {
        self.port_by_ip.get(&(subnet, ip)).copied()
    }

    /// The ports that have an address of a subnet, by address.
    pub fn addresses_of(&self, subnet: Id<Subnet>) -> impl DoubleEndedIterator<Item = (IpAddr, Id<Port>)> {
        // All of one family lie in order; a subnet has one family, so the widest range of both holds them.
        let first = IpAddr::from([0u8; 4]);
        let last = IpAddr::from([0xffu8; 16]);
        self.port_by_ip
            .range((subnet, first)..=(subnet, last))
            .map(|((_, ip), port)| (*ip, *port))
    }

    /// The highest taken address of a subnet within a range.
    pub fn highest_address(&self, subnet: Id<Subnet>, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        self.port_by_ip
            .range((subnet, first)..=(subnet, last))
            .next_back()
            .map(|((_, ip), _)| *ip)
    }

    /// Who has a VXLAN network identifier.
    pub fn network_with_vni(&self, vni: Vni) -> Option<Id<Network>> {
        self.network_by_vni.get(&vni).copied()
    }

    /// Taken VXLAN network identifiers.
    pub fn vnis(&self) -> &NumberSpace {
        &self.vnis
    }

    /// Taken offsets of an IPv4 subnet.
    pub fn offsets(&self, subnet: Id<Subnet>) -> Option<&NumberSpace> {
        self.offsets.get(&subnet).map(Arc::as_ref)
    }

    /// The network, if the caller may see it.
    pub fn visible_network(&self, caller: &Caller, id: Id<Network>) -> Option<&Arc<Network>> {
        self.networks
            .get(&id)
            .filter(|network| Self::sees_network(caller, network))
    }

    /// Whether the caller may see a network.
    pub fn sees_network(caller: &Caller, network: &Network) -> bool {
        caller.is_admin || network.shared || network.standard.project_id == caller.project_id
    }

    /// The subnet, if the caller may see it: its own, or one of a network that it sees.
    pub fn visible_subnet(&self, caller: &Caller, id: Id<Subnet>) -> Option<&Arc<Subnet>> {
        self.subnets
            .get(&id)
            .filter(|subnet| self.sees_subnet(caller, subnet))
    }

    /// Whether the caller may see a subnet.
    pub fn sees_subnet(&self, caller: &Caller, subnet: &Subnet) -> bool {
        caller.is_admin
            || subnet.standard.project_id == caller.project_id
            || self
                .networks
                .get(&subnet.network_id)
                .is_some_and(|network| network.shared)
    }

    /// The port, if the caller may see it.
    pub fn visible_port(&self, caller: &Caller, id: Id<Port>) -> Option<&Arc<Port>> {
        self.ports.get(&id).filter(|port| self.sees_port(caller, port))
    }

    /// Whether the caller may see a port: its own, or one of its own network.
    pub fn sees_port(&self, caller: &Caller, port: &Port) -> bool {
        caller.is_admin
            || port.standard.project_id == caller.project_id
            || self
                .networks
                .get(&port.network_id)
                .is_some_and(|network| network.standard.project_id == caller.project_id)
    }

    /// A port's Neutron status and its reason: unbound is DOWN, bound and not yet reported by that host is
    /// BUILD, then what the host said last.
    pub fn port_status(&self, port: &Port) -> (PortStatus, Option<String>) {
        if !port.is_bound() {
            return (PortStatus::Down, None);
        }
        match self.runtimes.get(&port.id) {
            Some(runtime) if runtime.host_id == port.binding.host_id => {
                (runtime.status, runtime.reason.clone())
            }
            _ => (PortStatus::Build, None),
        }
    }

    fn index_port(&mut self, port: &Port) {
        self.ports_by_network.insert(port.network_id, port.id);
        self.port_by_mac
            .insert((port.network_id, port.mac_address), port.id);
        if port.is_bound() {
            self.ports_by_host.insert(port.binding.host_id.clone(), port.id);
        }
        if !port.device_id.is_empty() {
            self.ports_by_device.insert(port.device_id.clone(), port.id);
        }
        for fixed in &port.fixed_ips {
            self.port_by_ip
                .insert((fixed.subnet_id, fixed.ip_address), port.id);
            if let Some(offset) = self.offset(fixed.subnet_id, fixed.ip_address) {
                Arc::make_mut(self.offsets.entry(fixed.subnet_id).or_default()).take(offset);
            }
        }
    }

    fn unindex_port(&mut self, port: &Port) {
        self.ports_by_network.remove(port.network_id, port.id);
        self.port_by_mac
            .remove(&(port.network_id, port.mac_address), &port.id);
        if port.is_bound() {
            self.ports_by_host.remove(port.binding.host_id.clone(), port.id);
        }
        if !port.device_id.is_empty() {
            self.ports_by_device.remove(port.device_id.clone(), port.id);
        }
        for fixed in &port.fixed_ips {
            self.port_by_ip
                .remove(&(fixed.subnet_id, fixed.ip_address), &port.id);
            if let Some(offset) = self.offset(fixed.subnet_id, fixed.ip_address)
                && let Some(space) = self.offsets.get_mut(&fixed.subnet_id)
            {
                Arc::make_mut(space).release(offset);
            }
        }
    }

    /// Where an IPv4 address lies in its subnet.
    fn offset(&self, subnet: Id<Subnet>, ip: IpAddr) -> Option<u32> {
        match (self.subnets.get(&subnet)?.cidr.network(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u32::from(ip).checked_sub(u32::from(base)),
            _ => None,
        }
    }

    fn index_network(&mut self, network: &Network) {
        self.network_by_vni.insert(network.segmentation_id, network.id);
        Arc::make_mut(&mut self.vnis).take(network.segmentation_id.get());
    }

    fn unindex_network(&mut self, network: &Network) {
        self.network_by_vni.remove(&network.segmentation_id, &network.id);
        Arc::make_mut(&mut self.vnis).release(network.segmentation_id.get());
    }
}

impl State for RegionState {
    fn put(&mut self, row: Resource) -> Option<Resource> {
        match row {
            Resource::Host(row) => self.hosts.insert(row.name.clone(), row).map(Resource::Host),
            Resource::Network(row) => {
                let previous = self.networks.get(&row.id).cloned();
                if let Some(previous) = &previous {
                    self.unindex_network(previous);
                }
                self.index_network(&row);
                self.networks.insert(row.id, row);
                previous.map(Resource::Network)
            }
            Resource::Subnet(row) => {
                self.subnets_by_network.insert(row.network_id, row.id);
                self.subnets.insert(row.id, row).map(Resource::Subnet)
            }
            Resource::Port(row) => {
                let previous = self.ports.get(&row.id).cloned();
                if let Some(previous) = &previous {
                    self.unindex_port(previous);
                }
                self.index_port(&row);
                self.ports.insert(row.id, row);
                previous.map(Resource::Port)
            }
            Resource::PortRuntime(row) => self.runtimes.insert(row.port_id, row).map(Resource::PortRuntime),
        }
    }

    fn get(&self, key: &ResourceKey) -> Option<Resource> {
        match key {
            ResourceKey::Host(name) => self.hosts.get(name).cloned().map(Resource::Host),
            ResourceKey::Network(id) => self.networks.get(id).cloned().map(Resource::Network),
            ResourceKey::Subnet(id) => self.subnets.get(id).cloned().map(Resource::Subnet),
            ResourceKey::Port(id) => self.ports.get(id).cloned().map(Resource::Port),
            ResourceKey::PortRuntime(id) => self.runtimes.get(id).cloned().map(Resource::PortRuntime),
        }
    }

    fn remove(&mut self, key: &ResourceKey) -> Option<Resource> {
        match key {
            ResourceKey::Host(name) => self.hosts.remove(name).map(Resource::Host),
            ResourceKey::Network(id) => {
                let row = self.networks.remove(id)?;
                self.unindex_network(&row);
                Some(Resource::Network(row))
            }
            ResourceKey::Subnet(id) => {
                let row = self.subnets.remove(id)?;
                self.subnets_by_network.remove(row.network_id, row.id);
                self.offsets.remove(id);
                Some(Resource::Subnet(row))
            }
            ResourceKey::Port(id) => {
                let row = self.ports.get(id).cloned()?;
                self.unindex_port(&row);
                self.ports.remove(id);
                Some(Resource::Port(row))
            }
            ResourceKey::PortRuntime(id) => self.runtimes.remove(id).map(Resource::PortRuntime),
        }
    }
}

#[cfg(test)]
impl RegionState {
    /// Everything that is derived from rows, but the taken offsets.
    pub(crate) fn indexes(&self) -> impl PartialEq + use<'_> {
        (
            (&self.subnets_by_network, &self.ports_by_network),
            (&self.ports_by_host, &self.ports_by_device),
            (&self.port_by_mac, &self.port_by_ip),
            (&self.network_by_vni, &self.vnis),
        )
    }
}
