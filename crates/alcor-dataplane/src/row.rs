//! The rows of a host's goal state, as a data plane takes them.
//!
//! Each row stands for itself: a neighbour may arrive before its network (it is refused with
//! `UnknownNetwork`; the agent orders what it has). Revisions are the agent's business.

use std::{net::IpAddr, num::NonZeroU16};

use alcor_model::{
    Id, MacAddr, Network, Port, Subnet, Vni,
    resource::{AddressPair, FixedIp, HostRoute},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::security::{LabelRow, PolicyRow, SecurityGroup};

/// A network that has ports on this host.
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
            | Self::Policy(network, _)
            | Self::Label(network, _)
            | Self::Port(network, _)
            | Self::Neighbour(network, _) => *network,
        }
    }

    /// Whether the row is of use only to a data plane that filters.
    pub const fn is_security(&self) -> bool {
        matches!(self, Self::Policy(..) | Self::Label(..))
    }

    /// `network`, `subnet`, `policy`, `label`, `port` or `neighbour`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Subnet(..) => "subnet",
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
