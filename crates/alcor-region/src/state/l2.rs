//! Networks, subnets and ports: their indexes, and who sees them.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{
    Id, MacAddr, Network, NetworkSegmentRange, Port, PortRuntime, Segment, Subnet, Vni,
    resource::{PortStatus, ROUTER_GATEWAY, ROUTER_INTERFACE, SharedType},
};
use alcor_store::{MultiIndex, UniqueIndex};
use imbl::OrdMap;

use super::{Indexed, RegionState};
use crate::{alloc::NumberSpace, command::Caller};

/// What is derived from the rows of networks, subnets and ports.
#[derive(Clone, Default)]
pub(crate) struct L2Indexes {
    subnets_by_network: MultiIndex<Id<Network>, Id<Subnet>>,
    ports_by_network: MultiIndex<Id<Network>, Id<Port>>,
    ports_by_host: MultiIndex<String, Id<Port>>,
    ports_by_device: MultiIndex<String, Id<Port>>,
    port_by_mac: UniqueIndex<(Id<Network>, MacAddr), Id<Port>>,
    port_by_ip: UniqueIndex<(Id<Subnet>, IpAddr), Id<Port>>,
    network_by_vni: UniqueIndex<Vni, Id<Network>>,
    segment_by_network: UniqueIndex<Id<Network>, Id<Segment>>,
    networks_by_project: MultiIndex<String, Id<Network>>,
    subnets_by_project: MultiIndex<String, Id<Subnet>>,
    vnis: Arc<NumberSpace>,
    /// Taken offsets of each IPv4 subnet.
    offsets: OrdMap<Id<Subnet>, Arc<NumberSpace>>,
}

/// All but the taken offsets, of which a subnet without ports may have an empty set or none.
impl PartialEq for L2Indexes {
    fn eq(&self, other: &Self) -> bool {
        self.subnets_by_network == other.subnets_by_network
            && self.ports_by_network == other.ports_by_network
            && self.ports_by_host == other.ports_by_host
            && self.ports_by_device == other.ports_by_device
            && self.port_by_mac == other.port_by_mac
            && self.port_by_ip == other.port_by_ip
            && self.network_by_vni == other.network_by_vni
            && self.segment_by_network == other.segment_by_network
            && self.networks_by_project == other.networks_by_project
            && self.subnets_by_project == other.subnets_by_project
            && self.vnis == other.vnis
    }
}

impl RegionState {
    /// The subnets of a network.
    pub fn subnets_of(&self, network: Id<Network>) -> impl Iterator<Item = &Arc<Subnet>> {
        self.l2
            .subnets_by_network
            .get(&network)
            .filter_map(|id| self.subnets.get(id))
    }

    /// The ports of a network.
    pub fn ports_of(&self, network: Id<Network>) -> impl Iterator<Item = &Arc<Port>> {
        self.l2
            .ports_by_network
            .get(&network)
            .filter_map(|id| self.ports.get(id))
    }

    /// The ports whose binding names a host.
    pub fn ports_on(&self, host: &str) -> impl Iterator<Item = &Arc<Port>> + use<'_> {
        self.l2
            .ports_by_host
            .get(&host.to_owned())
            .filter_map(|id| self.ports.get(id))
    }

    /// The ports of a device (a server, a router).
    pub fn ports_of_device(&self, device_id: &str) -> impl Iterator<Item = &Arc<Port>> + use<'_> {
        self.l2
            .ports_by_device
            .get(&device_id.to_owned())
            .filter_map(|id| self.ports.get(id))
    }

    /// The networks that a project owns.
    pub fn networks_owned_by(&self, project: &str) -> impl Iterator<Item = Id<Network>> + use<'_> {
        self.l2.networks_by_project.get(&project.to_owned()).copied()
    }

    /// The subnets that a project owns.
    pub fn subnets_owned_by(&self, project: &str) -> impl Iterator<Item = Id<Subnet>> + use<'_> {
        self.l2.subnets_by_project.get(&project.to_owned()).copied()
    }

    /// Whether a network has ports.
    pub fn has_ports(&self, network: Id<Network>) -> bool {
        self.l2.ports_by_network.contains_entry(&network)
    }

    /// Who has a MAC in a network.
    pub fn port_with_mac(&self, network: Id<Network>, mac: MacAddr) -> Option<Id<Port>> {
        self.l2.port_by_mac.get(&(network, mac)).copied()
    }

    /// Who has an address of a subnet.
    pub fn port_with_ip(&self, subnet: Id<Subnet>, ip: IpAddr) -> Option<Id<Port>> {
        self.l2.port_by_ip.get(&(subnet, ip)).copied()
    }

    /// The ports that have an address of a subnet, by address.
    pub fn addresses_of(&self, subnet: Id<Subnet>) -> impl DoubleEndedIterator<Item = (IpAddr, Id<Port>)> {
        // All of one family lie in order; a subnet has one family, so the widest range of both holds them.
        let first = IpAddr::from([0u8; 4]);
        let last = IpAddr::from([0xffu8; 16]);
        self.l2
            .port_by_ip
            .range((subnet, first)..=(subnet, last))
            .map(|((_, ip), port)| (*ip, *port))
    }

    /// The highest taken address of a subnet within a range.
    pub fn highest_address(&self, subnet: Id<Subnet>, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        self.l2
            .port_by_ip
            .range((subnet, first)..=(subnet, last))
            .next_back()
            .map(|((_, ip), _)| *ip)
    }

    /// Who has a VXLAN network identifier.
    pub fn network_with_vni(&self, vni: Vni) -> Option<Id<Network>> {
        self.l2.network_by_vni.get(&vni).copied()
    }

    /// The segment of a network.
    pub fn segment_of(&self, network: Id<Network>) -> Option<Id<Segment>> {
        self.l2.segment_by_network.get(&network).copied()
    }

    /// The VXLAN network identifiers from one to another that networks have.
    pub fn vnis_in(&self, first: Vni, last: Vni) -> impl Iterator<Item = (Vni, Id<Network>)> + use<'_> {
        let taken = self.l2.network_by_vni.range(first..=last);
        taken.map(|(vni, network)| (*vni, *network))
    }

    /// Taken VXLAN network identifiers.
    pub fn vnis(&self) -> &NumberSpace {
        &self.l2.vnis
    }

    /// Taken offsets of an IPv4 subnet.
    pub fn offsets(&self, subnet: Id<Subnet>) -> Option<&NumberSpace> {
        self.l2.offsets.get(&subnet).map(Arc::as_ref)
    }

    /// The network, if the caller may see it.
    pub fn visible_network(&self, caller: &Caller, id: Id<Network>) -> Option<&Arc<Network>> {
        self.networks
            .get(&id)
            .filter(|network| self.sees_network(caller, network))
    }

    /// Whether the caller may see a network.
    pub fn sees_network(&self, caller: &Caller, network: &Network) -> bool {
        caller.is_admin
            || network.standard.project_id == caller.project_id
            || self.shared_with(SharedType::Network, network.id.uuid(), &caller.project_id)
            || self.external_for(network.id, &caller.project_id)
    }

    /// Whether a network is external: routers may have their way out through it. Whose, RBAC policies say.
    pub const fn is_external(&self, network: &Network) -> bool {
        network.external
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
            || self.shared_with(SharedType::Network, subnet.network_id.uuid(), &caller.project_id)
            || self.external_for(subnet.network_id, &caller.project_id)
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
            return self.router_port_status(port);
        }
        match self.runtimes.get(&port.id) {
            Some(runtime) if runtime.host_id == port.binding.host_id => {
                (runtime.status, runtime.reason.clone())
            }
            _ => (PortStatus::Build, None),
        }
    }

    /// Of a port that is on no host: what was said of it as a router's. A router that is down has none that work.
    fn router_port_status(&self, port: &Port) -> (PortStatus, Option<String>) {
        let down = (PortStatus::Down, None);
        let is_routers = [ROUTER_INTERFACE, ROUTER_GATEWAY].contains(&port.device_owner.as_str());
        if !is_routers || !port.admin_state_up {
            return down;
        }
        let router = port.device_id.parse().ok().and_then(|id| self.routers.get(&id));
        let said = self.runtimes.get(&port.id);
        match (router, said) {
            (Some(router), Some(said)) if router.admin_state_up && said.host_id.is_empty() => {
                (said.status, said.reason.clone())
            }
            _ => down,
        }
    }

    /// Where an IPv4 address lies in its subnet.
    fn offset(&self, subnet: Id<Subnet>, ip: IpAddr) -> Option<u32> {
        match (self.subnets.get(&subnet)?.cidr.network(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u32::from(ip).checked_sub(u32::from(base)),
            _ => None,
        }
    }
}

impl Indexed for Network {
    fn index(&self, state: &mut RegionState) {
        state.l2.network_by_vni.insert(self.segmentation_id, self.id);
        state
            .l2
            .networks_by_project
            .insert(self.standard.project_id.clone(), self.id);
        Arc::make_mut(&mut state.l2.vnis).take(self.segmentation_id.get());
    }

    fn unindex(&self, state: &mut RegionState) {
        state.l2.network_by_vni.remove(&self.segmentation_id, &self.id);
        state
            .l2
            .networks_by_project
            .remove(self.standard.project_id.clone(), self.id);
        Arc::make_mut(&mut state.l2.vnis).release(self.segmentation_id.get());
    }
}

impl Indexed for Segment {
    fn index(&self, state: &mut RegionState) {
        state.l2.segment_by_network.insert(self.network_id, self.id);
    }

    fn unindex(&self, state: &mut RegionState) {
        state.l2.segment_by_network.remove(&self.network_id, &self.id);
    }
}

impl Indexed for Subnet {
    fn index(&self, state: &mut RegionState) {
        state.index_pool_of(self);
        state.l2.subnets_by_network.insert(self.network_id, self.id);
        state
            .l2
            .subnets_by_project
            .insert(self.standard.project_id.clone(), self.id);
    }

    fn unindex(&self, state: &mut RegionState) {
        state.unindex_pool_of(self);
        state.l2.subnets_by_network.remove(self.network_id, self.id);
        state
            .l2
            .subnets_by_project
            .remove(self.standard.project_id.clone(), self.id);
    }

    fn removed(&self, state: &mut RegionState) {
        state.l2.offsets.remove(&self.id);
    }
}

impl Indexed for Port {
    fn index(&self, state: &mut RegionState) {
        state.security.port_added(self);
        state.label_indexes.port_added(self);
        let l2 = &mut state.l2;
        l2.ports_by_network.insert(self.network_id, self.id);
        l2.port_by_mac
            .insert((self.network_id, self.mac_address), self.id);
        if !self.binding.host_id.is_empty() {
            l2.ports_by_host.insert(self.binding.host_id.clone(), self.id);
        }
        if !self.device_id.is_empty() {
            l2.ports_by_device.insert(self.device_id.clone(), self.id);
        }
        for fixed in &self.fixed_ips {
            let offset = state.offset(fixed.subnet_id, fixed.ip_address);
            let l2 = &mut state.l2;
            l2.port_by_ip.insert((fixed.subnet_id, fixed.ip_address), self.id);
            if let Some(offset) = offset {
                Arc::make_mut(l2.offsets.entry(fixed.subnet_id).or_default()).take(offset);
            }
        }
    }

    fn unindex(&self, state: &mut RegionState) {
        state.security.port_removed(self);
        state.label_indexes.port_removed(self);
        let l2 = &mut state.l2;
        l2.ports_by_network.remove(self.network_id, self.id);
        l2.port_by_mac
            .remove(&(self.network_id, self.mac_address), &self.id);
        if !self.binding.host_id.is_empty() {
            l2.ports_by_host.remove(self.binding.host_id.clone(), self.id);
        }
        if !self.device_id.is_empty() {
            l2.ports_by_device.remove(self.device_id.clone(), self.id);
        }
        for fixed in &self.fixed_ips {
            let offset = state.offset(fixed.subnet_id, fixed.ip_address);
            let l2 = &mut state.l2;
            l2.port_by_ip
                .remove(&(fixed.subnet_id, fixed.ip_address), &self.id);
            if let Some(offset) = offset
                && let Some(space) = l2.offsets.get_mut(&fixed.subnet_id)
            {
                Arc::make_mut(space).release(offset);
            }
        }
    }
}

impl Indexed for PortRuntime {}

impl Indexed for NetworkSegmentRange {}
