//! The rows in force and the lookups that the path makes in them.
//!
//! Lookups by MAC or by prefix walk the network's rows: this is the reference, made to be read; nothing
//! here is in a hurry.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use alcor_dataplane_abi::layout::ANSWERED_PER_PORT;
use alcor_model::{FloatingIp, Id, MacAddr, Network, Port, Router, Subnet, net::GATEWAY_MAC};

use crate::{
    DataplaneError, ExternalRow, FloatingIpRow, LabelRow, NeighbourRow, NetworkRow, PolicyRow, PortRow,
    RouterRow, Row, RowChange, RowKey, SubnetRow, Uplinks,
    row::{way, way_out},
    rules::{InForce, Rules},
};

/// How many rows of each kind a data plane takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Networks on the host.
    pub networks: usize,
    /// Subnets, all networks together.
    pub subnets: usize,
    /// Routers, once for each network that they have a place in.
    pub routers: usize,
    /// Floating IPs, all networks together.
    pub floating_ips: usize,
    /// Local ports, all networks together.
    pub ports: usize,
    /// Neighbours, all networks together.
    pub neighbours: usize,
    /// Policies, all networks together.
    pub policies: usize,
    /// Labels, all networks together.
    pub labels: usize,
    /// Tracked connections of one port.
    pub connections_per_port: usize,
    /// Packets of one port whose later fragments are waited for.
    pub fragments_per_port: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            networks: 4096,
            subnets: 16_384,
            routers: 16_384,
            floating_ips: 65_536,
            ports: 4096,
            neighbours: 2_097_152,
            policies: 16_384,
            labels: 262_144,
            connections_per_port: ANSWERED_PER_PORT as usize,
            fragments_per_port: 1024,
        }
    }
}

/// One network and all that lies in it.
#[derive(Clone, Debug)]
pub(super) struct NetworkTables {
    pub(super) row: NetworkRow,
    subnets: BTreeMap<Id<Subnet>, SubnetRow>,
    routers: BTreeMap<Id<Router>, RouterRow>,
    floating_ips: BTreeMap<Id<FloatingIp>, FloatingIpRow>,
    ports: BTreeMap<Id<Port>, PortRow>,
    neighbours: BTreeMap<IpAddr, NeighbourRow>,
    rules: Rules,
}

/// `translate(from, to, label)`.
pub(super) fn translate(from: &NetworkTables, to: &NetworkTables, label: u16) -> u16 {
    if from.row.id == to.row.id {
        label
    } else {
        from.rules.translate(&to.rules, label)
    }
}

/// Where an address is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer<'a> {
    Local(&'a PortRow),
    Remote(&'a NeighbourRow),
}

impl Peer<'_> {
    pub(super) fn mac(&self) -> MacAddr {
        match self {
            Self::Local(port) => port.mac,
            Self::Remote(neighbour) => neighbour.mac,
        }
    }

    /// The label of the port at the other end; 0 when it has none.
    pub(super) fn label(&self) -> u16 {
        match self {
            Self::Local(port) => port.filter().unwrap_or_default(),
            Self::Remote(neighbour) => neighbour.label,
        }
    }
}

impl NetworkTables {
    fn new(row: NetworkRow) -> Self {
        Self {
            row,
            subnets: BTreeMap::new(),
            routers: BTreeMap::new(),
            floating_ips: BTreeMap::new(),
            ports: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            rules: Rules::default(),
        }
    }

    /// The rules that filter the port's packets, if they are filtered.
    pub(super) fn rules(&self, port: &PortRow) -> Option<&InForce> {
        self.rules.of(port.filter()?)
    }

    /// Whether packets out of the tunnel from this address are believed.
    pub(super) fn believes(&self, host: IpAddr) -> bool {
        let blocks = self.row.underlay.as_ref();
        blocks.is_none_or(|blocks| blocks.iter().any(|block| block.contains(&host)))
    }

    /// Whether a host is there, as far as the row says where hosts are.
    pub(super) fn is_underlay(&self, ip: IpAddr) -> bool {
        let mut blocks = self.row.underlay.iter().flatten();
        blocks.any(|block| block.contains(&ip))
    }

    /// The labels that ports have.
    fn used_labels(&self) -> BTreeSet<u16> {
        self.ports.values().filter_map(PortRow::filter).collect()
    }

    /// `local(network, mac)`.
    pub(super) fn local(&self, mac: MacAddr) -> Option<&PortRow> {
        self.ports.values().find(|port| port.mac == mac)
    }

    /// `fdb(network, mac)`.
    pub(super) fn fdb(&self, mac: MacAddr) -> Option<Peer<'_>> {
        let remote = || self.remote(mac).next();
        self.local(mac)
            .map(Peer::Local)
            .or_else(|| remote().map(Peer::Remote))
    }

    /// `neigh(network, ip)`.
    pub(super) fn neigh(&self, ip: IpAddr) -> Option<Peer<'_>> {
        let has_ip = |port: &&PortRow| port.fixed_ips.iter().any(|fixed| fixed.ip_address == ip);
        let local = self.ports.values().find(has_ip).map(Peer::Local);
        local.or_else(|| self.neighbours.get(&ip).map(Peer::Remote))
    }

    /// Every neighbour row with this MAC.
    pub(super) fn remote(&self, mac: MacAddr) -> impl Iterator<Item = &NeighbourRow> {
        self.neighbours
            .values()
            .filter(move |neighbour| neighbour.mac == mac)
    }

    /// The station whose EUI-64 link-local address this is.
    pub(super) fn link_local(&self, ip: IpAddr) -> Option<Peer<'_>> {
        self.fdb(eui64_mac(ip)?)
    }

    /// The way out of a source: the router's id, and where it leads.
    pub(super) fn way_out(&self, source: Ipv4Addr) -> Option<(Id<Router>, &ExternalRow)> {
        let router = way_out(self.routers.values(), source)?;
        Some((router.id, router.external.as_ref()?))
    }

    /// The floating IP rows, by id.
    pub(super) fn floating_ips(&self) -> impl Iterator<Item = &FloatingIpRow> {
        self.floating_ips.values()
    }

    /// True when the router is up and has an interface in this network.
    pub(super) fn has_interface_of(&self, router: Id<Router>) -> bool {
        let router = self.routers.get(&router).filter(|row| row.admin_state_up);
        let mut interfaces = router.into_iter().flat_map(|row| &row.interfaces);
        interfaces.any(|interface| interface.network_id == self.row.id)
    }

    /// True for an address of one of the network's subnets.
    pub(super) fn has_subnet_of(&self, ip: IpAddr) -> bool {
        self.subnets.values().any(|subnet| subnet.cidr.contains(&ip))
    }

    /// True for the gateway of a subnet, for the address of a router, and for the link-local address of the gateway.
    pub(super) fn is_gateway(&self, ip: IpAddr) -> bool {
        let mut subnets = self.subnets.values();
        let live = self.routers.values().filter(|router| router.admin_state_up);
        let mut interfaces = live.flat_map(|router| &router.interfaces);
        subnets.any(|subnet| subnet.gateway_ip == Some(ip))
            || interfaces.any(|interface| interface.address == ip)
            || self.is_link_local_gateway(ip)
    }

    /// `route(network, ip)`: the network that the address is reached in, and the next hop there.
    pub(super) fn route(&self, ip: IpAddr) -> Option<(Id<Network>, IpAddr)> {
        if self.is_routed(ip) {
            return Some((self.row.id, ip));
        }
        let way = way(self.routers.values(), ip)?;
        Some((way.network_id, way.nexthop.unwrap_or(ip)))
    }

    fn is_link_local_gateway(&self, ip: IpAddr) -> bool {
        let routed_ipv6 = |subnet: &SubnetRow| subnet.gateway_ip.is_some_and(|gateway| gateway.is_ipv6());
        ip == IpAddr::V6(GATEWAY_MAC.link_local()) && self.subnets.values().any(routed_ipv6)
    }

    /// True when the address lies in a subnet that has a gateway.
    fn is_routed(&self, ip: IpAddr) -> bool {
        self.subnets
            .values()
            .any(|subnet| subnet.gateway_ip.is_some() && subnet.cidr.contains(&ip))
    }

    /// True when the port has an address of the family in a subnet with DHCP (IPv6: advertisements).
    pub(super) fn serves(&self, port: &PortRow, ipv4: bool) -> bool {
        let dhcp = |subnet| self.subnets.get(subnet).is_some_and(|row| row.enable_dhcp);
        port.fixed_ips
            .iter()
            .any(|fixed| fixed.ip_address.is_ipv4() == ipv4 && dhcp(&fixed.subnet_id))
    }
}

/// The MAC that forms this link-local address by EUI-64 (RFC 4291, appendix A), if it is one.
fn eui64_mac(ip: IpAddr) -> Option<MacAddr> {
    let IpAddr::V6(ip) = ip else { return None };
    let [.., a, b, c, _, _, d, e, f] = ip.octets();
    let mac = MacAddr([a ^ 2, b, c, d, e, f]);
    (mac.link_local() == ip).then_some(mac)
}

/// True for `fe80::/10`.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// True when the port may send from this address with this MAC: a fixed IP, or a pair that has both.
pub(super) fn is_allowed(port: &PortRow, mac: MacAddr, ip: IpAddr) -> bool {
    let pair =
        |pair: &alcor_model::resource::AddressPair| pair.mac_address == mac && pair.ip_address.contains(&ip);
    has_fixed_ip(port, ip) || port.allowed_address_pairs.iter().any(pair)
}

/// True when the port may send from this MAC.
pub(super) fn is_allowed_mac(port: &PortRow, mac: MacAddr) -> bool {
    port.mac == mac
        || port
            .allowed_address_pairs
            .iter()
            .any(|pair| pair.mac_address == mac)
}

/// True for the port's own addresses.
pub(super) fn has_fixed_ip(port: &PortRow, ip: IpAddr) -> bool {
    port.fixed_ips.iter().any(|fixed| fixed.ip_address == ip)
}

/// The link-local address that the port forms from its MAC.
pub(super) fn own_link_local(port: &PortRow) -> IpAddr {
    let address: Ipv6Addr = port.mac.link_local();
    address.into()
}

/// All networks of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    uplinks: Uplinks,
    limits: Limits,
    networks: BTreeMap<Id<Network>, NetworkTables>,
    /// Which network a VNI means.
    vnis: BTreeMap<u32, Id<Network>>,
    /// Which network a port lies in.
    homes: BTreeMap<Id<Port>, Id<Network>>,
    subnet_count: usize,
    neighbour_count: usize,
    policy_count: usize,
    label_count: usize,
    router_count: usize,
    floating_ip_count: usize,
    /// The last epoch that was given out.
    epochs: u32,
}

impl Tables {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The external networks that the host reaches by itself.
    pub(super) const fn uplinks(&self) -> &Uplinks {
        &self.uplinks
    }

    pub(super) fn set_uplinks(&mut self, uplinks: Uplinks) {
        self.uplinks = uplinks;
    }

    /// All networks, by id.
    pub(super) fn networks(&self) -> impl Iterator<Item = &NetworkTables> {
        self.networks.values()
    }

    pub(super) const fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn by_vni(&self, vni: u32) -> Option<&NetworkTables> {
        self.networks.get(self.vnis.get(&vni)?)
    }

    pub(super) fn network(&self, id: Id<Network>) -> Option<&NetworkTables> {
        self.networks.get(&id)
    }

    /// A port's row and its network.
    pub(super) fn port(&self, port: Id<Port>) -> Option<(&PortRow, &NetworkTables)> {
        let network = self.networks.get(self.homes.get(&port)?)?;
        Some((network.ports.get(&port)?, network))
    }

    pub(super) fn has_neighbour(&self, network: Id<Network>, ip: IpAddr) -> bool {
        let network = self.networks.get(&network);
        network.is_some_and(|network| network.neighbours.contains_key(&ip))
    }

    /// All rows, sorted by key.
    pub(super) fn rows(&self) -> Vec<Row> {
        let networks = self.networks.values();
        let mut rows: Vec<Row> = networks
            .clone()
            .map(|network| Row::Network(network.row.clone()))
            .collect();
        for network in networks {
            rows.extend(network.subnets.values().cloned().map(Row::Subnet));
            rows.extend(network.routers.values().cloned().map(Row::Router));
            rows.extend(network.floating_ips.values().copied().map(Row::FloatingIp));
            rows.extend(network.rules.policies().values().cloned().map(Row::Policy));
            rows.extend(network.rules.labels().values().cloned().map(Row::Label));
            rows.extend(network.ports.values().cloned().map(Row::Port));
            rows.extend(network.neighbours.values().copied().map(Row::Neighbour));
        }
        rows.sort_by_key(Row::key);
        rows
    }

    pub(super) fn apply(&mut self, change: &RowChange) -> Result<(), DataplaneError> {
        match change {
            RowChange::Put(Row::Network(row)) => self.put_network(row),
            RowChange::Put(Row::Subnet(row)) => self.put_subnet(row),
            RowChange::Put(Row::Router(row)) => self.put_router(row),
            RowChange::Put(Row::FloatingIp(row)) => self.put_floating_ip(row),
            RowChange::Put(Row::Policy(row)) => self.put_policy(row),
            RowChange::Put(Row::Label(row)) => self.put_label(row),
            RowChange::Put(Row::Port(row)) => self.put_port(row),
            RowChange::Put(Row::Neighbour(row)) => self.put_neighbour(row),
            RowChange::Remove(key) => {
                self.remove(key);
                Ok(())
            }
        }
    }

    fn put_network(&mut self, row: &NetworkRow) -> Result<(), DataplaneError> {
        row.fits()?;
        if let Some(&owner) = self.vnis.get(&row.vni.get())
            && owner != row.id
        {
            return Err(DataplaneError::VniInUse { vni: row.vni, owner });
        }
        if let Some(network) = self.networks.get_mut(&row.id) {
            self.vnis.remove(&network.row.vni.get());
            network.row = row.clone();
        } else {
            room("network", self.networks.len(), self.limits.networks)?;
            self.networks.insert(row.id, NetworkTables::new(row.clone()));
        }
        self.vnis.insert(row.vni.get(), row.id);
        Ok(())
    }

    fn put_subnet(&mut self, row: &SubnetRow) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, row.network_id)?;
        if !network.subnets.contains_key(&row.id) {
            room("subnet", self.subnet_count, self.limits.subnets)?;
            self.subnet_count += 1;
        }
        network.subnets.insert(row.id, row.clone());
        Ok(())
    }

    fn put_router(&mut self, row: &RouterRow) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, row.network_id)?;
        row.fits()?;
        if !network.routers.contains_key(&row.id) {
            room("router", self.router_count, self.limits.routers)?;
            self.router_count += 1;
        }
        network.routers.insert(row.id, row.clone());
        Ok(())
    }

    fn put_floating_ip(&mut self, row: &FloatingIpRow) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, row.network_id)?;
        if !network.floating_ips.contains_key(&row.id) {
            room("floating IP", self.floating_ip_count, self.limits.floating_ips)?;
            self.floating_ip_count += 1;
        }
        network.floating_ips.insert(row.id, *row);
        Ok(())
    }

    fn put_port(&mut self, row: &PortRow) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, row.network_id)?;
        if let Some(owner) = network.local(row.mac).filter(|owner| owner.id != row.id) {
            return Err(DataplaneError::MacInUse {
                mac: row.mac,
                owner: owner.id,
            });
        }
        let home = self.homes.get(&row.id).copied();
        if home.is_none() {
            room("port", self.homes.len(), self.limits.ports)?;
        }
        // Before the port has the label: if the rules do not fit, it is not the port's.
        if let Some(label) = row.filter() {
            network.rules.ensure(label, &mut self.epochs)?;
        }
        // A port id lies in one network at a time: a row in another network moves it.
        if let Some(home) = home.filter(|home| *home != row.network_id) {
            self.remove(&RowKey::Port(home, row.id));
        }
        let network = network_mut(&mut self.networks, row.network_id)?;
        network.ports.insert(row.id, row.clone());
        network.rules.retain(&network.used_labels());
        self.homes.insert(row.id, row.network_id);
        Ok(())
    }

    /// After rules changed.
    fn compile(&mut self, network: Id<Network>) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, network)?;
        network.rules.compile(&network.used_labels(), &mut self.epochs)
    }

    fn put_policy(&mut self, row: &PolicyRow) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, row.network_id)?;
        let is_new = !network.rules.policies().contains_key(&row.group_id);
        if is_new {
            room("policy", self.policy_count, self.limits.policies)?;
        }
        let used = network.used_labels();
        network.rules.put_policy(row.clone(), &used, &mut self.epochs)?;
        self.policy_count += usize::from(is_new);
        Ok(())
    }

    fn put_label(&mut self, row: &LabelRow) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, row.network_id)?;
        let is_new = !network.rules.labels().contains_key(&row.label);
        if is_new {
            room("label", self.label_count, self.limits.labels)?;
        }
        let used = network.used_labels();
        network.rules.put_label(row.clone(), &used, &mut self.epochs)?;
        self.label_count += usize::from(is_new);
        Ok(())
    }

    fn put_neighbour(&mut self, row: &NeighbourRow) -> Result<(), DataplaneError> {
        let network = network_mut(&mut self.networks, row.network_id)?;
        if !network.neighbours.contains_key(&row.ip) {
            room("neighbour", self.neighbour_count, self.limits.neighbours)?;
            self.neighbour_count += 1;
        }
        network.neighbours.insert(row.ip, *row);
        Ok(())
    }

    fn remove(&mut self, key: &RowKey) {
        if let RowKey::Network(id) = key {
            self.remove_network(*id);
            return;
        }
        let Some(network) = self.networks.get_mut(&key.network_id()) else {
            return;
        };
        match key {
            RowKey::Network(_) => {}
            RowKey::FloatingIp(_, id) => {
                self.floating_ip_count -= usize::from(network.floating_ips.remove(id).is_some());
            }
            RowKey::Subnet(_, id) => {
                self.subnet_count -= usize::from(network.subnets.remove(id).is_some());
            }
            RowKey::Router(_, id) => {
                self.router_count -= usize::from(network.routers.remove(id).is_some());
            }
            RowKey::Policy(_, id) => {
                self.policy_count -= usize::from(network.rules.remove_policy(*id));
            }
            RowKey::Label(_, label) => {
                self.label_count -= usize::from(network.rules.remove_label(*label));
            }
            RowKey::Port(_, id) => {
                if network.ports.remove(id).is_some() {
                    self.homes.remove(id);
                    network.rules.retain(&network.used_labels());
                }
            }
            RowKey::Neighbour(_, ip) => {
                self.neighbour_count -= usize::from(network.neighbours.remove(ip).is_some());
            }
        }
        if matches!(key, RowKey::Policy(..) | RowKey::Label(..)) {
            // Fewer rules always fit.
            let compiled = self.compile(key.network_id());
            debug_assert!(compiled.is_ok(), "{compiled:?}");
        }
    }

    fn remove_network(&mut self, id: Id<Network>) {
        let Some(network) = self.networks.remove(&id) else {
            return;
        };
        self.vnis.remove(&network.row.vni.get());
        self.subnet_count -= network.subnets.len();
        self.router_count -= network.routers.len();
        self.floating_ip_count -= network.floating_ips.len();
        self.neighbour_count -= network.neighbours.len();
        self.policy_count -= network.rules.policies().len();
        self.label_count -= network.rules.labels().len();
        for port in network.ports.keys() {
            self.homes.remove(port);
        }
    }
}

fn network_mut(
    networks: &mut BTreeMap<Id<Network>, NetworkTables>,
    id: Id<Network>,
) -> Result<&mut NetworkTables, DataplaneError> {
    networks.get_mut(&id).ok_or(DataplaneError::UnknownNetwork(id))
}

fn room(what: &'static str, count: usize, limit: usize) -> Result<(), DataplaneError> {
    if count < limit {
        Ok(())
    } else {
        Err(DataplaneError::Full { what, limit })
    }
}
