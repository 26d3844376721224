//! The rows of a host's goal state, as a data plane takes them.
//!
//! Each row stands for itself: a neighbour may arrive before its network (it is refused with
//! `UnknownNetwork`; the agent orders what it has). Revisions are the agent's business.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
};

pub use alcor_dataplane_abi::gateway::MAX_GATEWAYS;
use alcor_model::{
    FloatingIp, Id, MacAddr, Network, Port, Router, Subnet, Vni,
    resource::{AddressPair, FixedIp, HostRoute},
};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::DataplaneError;
use crate::security::{LabelRow, PolicyRow, SecurityGroup};

/// Prefixes of one router row: interfaces and routes together.
pub const MAX_PREFIXES_PER_ROUTER: usize = 1024;

/// A network that has ports on this host, or shares a router with one that has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRow {
    /// Identity.
    pub id: Id<Network>,
    /// Its number in the tunnel.
    pub vni: Vni,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Down: its ports carry nothing.
    pub admin_state_up: bool,
    /// Blocks that the tunnel addresses of hosts lie in: what comes from elsewhere is dropped. `None`: everybody
    /// is believed.
    #[serde(default)]
    pub underlay: Option<Vec<IpNet>>,
    /// Addresses that no row knows are asked for, and packets to them held so long. False: nobody has them.
    #[serde(default)]
    pub on_demand: bool,
    /// Tunnel addresses of the gateways that forward between its hosts, sorted, at most
    /// [`MAX_GATEWAYS`]. On demand: what goes to an address that no row knows goes by one of them.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
}

impl NetworkRow {
    /// Whether a data plane takes so much.
    ///
    /// # Errors
    /// [`DataplaneError::Full`] beyond [`MAX_GATEWAYS`].
    pub fn fits(&self) -> Result<(), DataplaneError> {
        gateways_fit(&self.gateways)
    }
}

const fn gateways_fit(gateways: &[IpAddr]) -> Result<(), DataplaneError> {
    if gateways.len() <= MAX_GATEWAYS {
        return Ok(());
    }
    Err(DataplaneError::Full {
        what: "gateway in a row",
        limit: MAX_GATEWAYS,
    })
}

/// A subnet of such a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRow {
    /// Identity.
    pub id: Id<Subnet>,
    /// Its network.
    pub network_id: Id<Network>,
    /// The block.
    pub cidr: IpNet,
    /// The gateway that this host plays, or none: then nothing is routed from or into the subnet.
    pub gateway_ip: Option<IpAddr>,
    /// The gateway's MAC.
    pub gateway_mac: MacAddr,
    /// Serve DHCP (IPv4) or router advertisements (IPv6).
    pub enable_dhcp: bool,
    /// Announce the prefix for address autoconfiguration (IPv6 RA, `A` flag).
    pub slaac: bool,
    /// DNS servers for the ports.
    pub dns_nameservers: Vec<IpAddr>,
    /// Static routes for the ports.
    pub host_routes: Vec<HostRoute>,
}

/// A router that has a place in the network. The row lies in each of its networks, with all of its places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterRow {
    /// Identity; with the network, the key.
    pub id: Id<Router>,
    /// The network whose ports it routes for, by this row.
    pub network_id: Id<Network>,
    /// Down: nothing goes through it.
    pub admin_state_up: bool,
    /// Its places, this network's too.
    pub interfaces: Vec<InterfaceRow>,
    /// Its further routes.
    pub routes: Vec<RouteRow>,
    /// Its way to the outside.
    #[serde(default)]
    pub external: Option<ExternalRow>,
}

/// A router's way to the outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalRow {
    /// The external network.
    pub network_id: Id<Network>,
    /// The router's IPv4 address there: what it hides is sent from it.
    pub address: Option<Ipv4Addr>,
    /// Addresses of tenants are hidden behind the router's.
    pub enable_snat: bool,
    /// Tunnel addresses of the gateways that lead there, sorted, at most
    /// [`MAX_GATEWAYS`]: the same in each of the router's networks.
    pub gateways: Vec<IpAddr>,
}

/// An address of an external network that leads to an address of this one. For gateways, and for the host that translates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIpRow {
    /// Identity; with the network, the key.
    pub id: Id<FloatingIp>,
    /// The network of the fixed IP.
    pub network_id: Id<Network>,
    /// The router that translates.
    pub router_id: Id<Router>,
    /// The address outside.
    pub floating_ip: Ipv4Addr,
    /// The address inside.
    pub fixed_ip: Ipv4Addr,
    /// The network of the floating IP.
    pub external_network_id: Id<Network>,
    /// Tunnel address of the host that answers for it and translates; none: the gateway that owns the router does.
    #[serde(default)]
    pub host: Option<IpAddr>,
    /// Block of the external subnet that the floating IP is of.
    #[serde(default)]
    pub cidr: Option<Ipv4Net>,
    /// Where what leaves that block goes.
    #[serde(default)]
    pub nexthop: Option<Ipv4Addr>,
}

impl RouterRow {
    /// Where it leads: the blocks of its interfaces, and of its routes.
    pub fn ways(&self) -> impl Iterator<Item = (IpNet, Way)> + '_ {
        let way = |nexthop, network_id| Way {
            nexthop,
            router_id: self.id,
            network_id,
        };
        let interfaces = self.interfaces.iter();
        let interfaces = interfaces.map(move |to| (to.cidr, way(None, to.network_id)));
        let routes = self.routes.iter();
        interfaces.chain(routes.map(move |to| (to.destination, way(Some(to.nexthop), to.network_id))))
    }

    /// Whether a data plane takes so much.
    ///
    /// # Errors
    /// [`DataplaneError::Full`] beyond [`MAX_PREFIXES_PER_ROUTER`] or [`MAX_GATEWAYS`].
    pub fn fits(&self) -> Result<(), DataplaneError> {
        if let Some(external) = &self.external {
            gateways_fit(&external.gateways)?;
        }
        if self.interfaces.len() + self.routes.len() <= MAX_PREFIXES_PER_ROUTER {
            return Ok(());
        }
        Err(DataplaneError::Full {
            what: "prefix in a router",
            limit: MAX_PREFIXES_PER_ROUTER,
        })
    }
}

/// Where a router leads. What is less goes before what is more, where both lead to one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The next hop; `None` for an interface: the destination itself.
    pub nexthop: Option<IpAddr>,
    /// The router.
    pub router_id: Id<Router>,
    /// The network of the next hop.
    pub network_id: Id<Network>,
}

/// Where routers lead with this address: the longest match, and of equals the least.
pub fn way<'a>(routers: impl Iterator<Item = &'a RouterRow>, ip: IpAddr) -> Option<Way> {
    let ways = routers.filter(|router| router.admin_state_up);
    ways.flat_map(RouterRow::ways)
        .filter(|(block, _)| block.contains(&ip))
        .min_by_key(|(block, way)| (Reverse(block.prefix_len()), *way))
        .map(|(_, way)| way)
}

/// The IPv4 blocks of a network that routers lead out of, each with the router that does: one that is up, has a way out with an
/// address, and has an interface there; of several the lowest id. `routers`: the rows of the network, by id.
pub fn ways_out<'a>(routers: impl Iterator<Item = &'a RouterRow>) -> BTreeMap<Ipv4Net, &'a RouterRow> {
    let mut ways = BTreeMap::new();
    let leads_out = |row: &&RouterRow| {
        let external = row.external.as_ref();
        row.admin_state_up && external.is_some_and(|external| external.address.is_some())
    };
    for row in routers.filter(leads_out) {
        for interface in &row.interfaces {
            if interface.network_id == row.network_id
                && let IpNet::V4(block) = interface.cidr
            {
                ways.entry(block.trunc()).or_insert(row);
            }
        }
    }
    ways
}

/// The router by which this source goes out: that of the longest of [`ways_out`] that has it.
pub fn way_out<'a>(routers: impl Iterator<Item = &'a RouterRow>, source: Ipv4Addr) -> Option<&'a RouterRow> {
    let ways = ways_out(routers).into_iter();
    ways.filter(|(block, _)| block.contains(&source))
        .max_by_key(|(block, _)| block.prefix_len())
        .map(|(_, router)| router)
}

/// A router's place in a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InterfaceRow {
    /// The subnet's network.
    pub network_id: Id<Network>,
    /// The subnet's block.
    pub cidr: IpNet,
    /// The router's address there.
    pub address: IpAddr,
}

/// A route of a router to what lies behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteRow {
    /// What it leads to.
    pub destination: IpNet,
    /// The port's address.
    pub nexthop: IpAddr,
    /// The network that the next hop lies in.
    pub network_id: Id<Network>,
}

/// A port of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// Identity.
    pub id: Id<Port>,
    /// Its network.
    pub network_id: Id<Network>,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its addresses.
    pub fixed_ips: Vec<FixedIp>,
    /// Further sources it may send from.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Down: it carries nothing.
    pub admin_state_up: bool,
    /// Check its sources.
    pub port_security_enabled: bool,
    /// Name that DHCP hands out; empty for none.
    pub dns_name: String,
    /// The set of its security groups: a label of the network, 0 for no groups, which allows nothing. `None`, or no
    /// port security: nothing is filtered, and it is nobody's member.
    #[serde(default)]
    pub label: Option<u16>,
}

impl PortRow {
    /// The label whose rules filter the port's packets, if they are filtered.
    pub const fn filter(&self) -> Option<u16> {
        if self.port_security_enabled {
            self.label
        } else {
            None
        }
    }
}

/// An address of a port on another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourRow {
    /// The network.
    pub network_id: Id<Network>,
    /// The address; with the network, the key.
    pub ip: IpAddr,
    /// Its MAC.
    pub mac: MacAddr,
    /// Tunnel address of the host it is on.
    pub host: IpAddr,
    /// Label of its security groups; 0 is none.
    pub label: u16,
    /// The port was on this host until lately: what still comes out of the tunnel for its MAC is passed on to `host`.
    pub forward: bool,
}

/// A row of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// See [`NetworkRow`].
    Network(NetworkRow),
    /// See [`SubnetRow`].
    Subnet(SubnetRow),
    /// See [`RouterRow`].
    Router(RouterRow),
    /// See [`FloatingIpRow`].
    FloatingIp(FloatingIpRow),
    /// See [`PolicyRow`].
    Policy(PolicyRow),
    /// See [`LabelRow`].
    Label(LabelRow),
    /// See [`PortRow`].
    Port(PortRow),
    /// See [`NeighbourRow`].
    Neighbour(NeighbourRow),
}

impl Row {
    /// The row's key.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Network(row) => RowKey::Network(row.id),
            Self::Subnet(row) => RowKey::Subnet(row.network_id, row.id),
            Self::Router(row) => RowKey::Router(row.network_id, row.id),
            Self::FloatingIp(row) => RowKey::FloatingIp(row.network_id, row.id),
            Self::Policy(row) => RowKey::Policy(row.network_id, row.group_id),
            Self::Label(row) => RowKey::Label(row.network_id, row.label),
            Self::Port(row) => RowKey::Port(row.network_id, row.id),
            Self::Neighbour(row) => RowKey::Neighbour(row.network_id, row.ip),
        }
    }
}

/// The key of a row. The order is the order in which rows can be applied: networks, then what lies in them; rules after
/// the labels of neighbours that they ask for, ports after their rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// A network.
    Network(Id<Network>),
    /// A subnet of a network.
    Subnet(Id<Network>, Id<Subnet>),
    /// A router in a network.
    Router(Id<Network>, Id<Router>),
    /// A floating IP that leads into a network.
    FloatingIp(Id<Network>, Id<FloatingIp>),
    /// An address in a network.
    Neighbour(Id<Network>, IpAddr),
    /// The rules of a group in a network.
    Policy(Id<Network>, Id<SecurityGroup>),
    /// A label of a network.
    Label(Id<Network>, NonZeroU16),
    /// A port of a network.
    Port(Id<Network>, Id<Port>),
}

impl RowKey {
    /// The network that the row lies in.
    pub const fn network_id(&self) -> Id<Network> {
        match self {
            Self::Network(network)
            | Self::Subnet(network, _)
            | Self::Router(network, _)
            | Self::FloatingIp(network, _)
            | Self::Policy(network, _)
            | Self::Label(network, _)
            | Self::Port(network, _)
            | Self::Neighbour(network, _) => *network,
        }
    }

    /// Whether the row names gateways. Who of them is alive is no change of the region, so such a row may change without a
    /// newer revision: of two at the same revision the one that a session said last is right.
    pub const fn names_gateways(&self) -> bool {
        matches!(self, Self::Network(_) | Self::Router(..))
    }

    /// Whether the row is of use only to a data plane that filters.
    pub const fn is_security(&self) -> bool {
        matches!(self, Self::Policy(..) | Self::Label(..))
    }

    /// `network`, `subnet`, `router`, `floating_ip`, `policy`, `label`, `port` or `neighbour`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Subnet(..) => "subnet",
            Self::Router(..) => "router",
            Self::FloatingIp(..) => "floating_ip",
            Self::Policy(..) => "policy",
            Self::Label(..) => "label",
            Self::Port(..) => "port",
            Self::Neighbour(..) => "neighbour",
        }
    }
}

/// What to do with one row. Repeating a change, or removing what is not there, changes nothing and is `Ok`.
/// Removing a network removes what lies in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// The row is this from now on.
    Put(Row),
    /// The row is not there any more.
    Remove(RowKey),
}

impl RowChange {
    /// The key of the row that changes.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Put(row) => row.key(),
            Self::Remove(key) => *key,
        }
    }
}
