//! Routers, floating IPs and what is forwarded through them.
//!
//! A router's places in networks are ports, and the router's row names them: a port is a router's interface because the
//! router says so, not because of what a client writes into the port's `device_id`.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{HostRoute, Network, Port, Standard};
use crate::{Id, Revision};

/// `device_owner` of a router's port in a tenant's network.
pub const ROUTER_INTERFACE: &str = "network:router_interface";
/// `device_owner` of a router's port in an external network.
pub const ROUTER_GATEWAY: &str = "network:router_gateway";
/// `device_owner` of the port that holds a floating IP's address.
pub const FLOATING_IP: &str = "network:floatingip";

/// A router's way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The external network.
    pub network_id: Id<Network>,
    /// The router's port there; its addresses are `external_fixed_ips`.
    pub port_id: Id<Port>,
    /// Whether addresses of tenants are hidden behind the router's.
    pub enable_snat: bool,
}

/// A router's place in a network of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterInterface {
    /// The router's port.
    pub port_id: Id<Port>,
    /// The network that the port lies in.
    pub network_id: Id<Network>,
}

/// A router between networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Identity.
    pub id: Id<Router>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// Whether it routes.
    pub admin_state_up: bool,
    /// Neutron's `distributed`: what the client chose; Alcor routes on every host in either case.
    pub distributed: bool,
    /// Neutron's `ha`: what the client chose; no router of Alcor hangs on one host in either case.
    pub ha: bool,
    /// Its way out.
    pub gateway: Option<Gateway>,
    /// Its places in networks, at most [`Router::MAX_INTERFACES`], in the order in which they were added.
    pub interfaces: Vec<RouterInterface>,
    /// Further static routes, at most [`Router::MAX_ROUTES`], sorted, without duplicates.
    pub routes: Vec<HostRoute>,
    /// Where it should be; kept and shown.
    pub availability_zone_hints: Vec<String>,
}

impl Router {
    /// Limit of interfaces of one router.
    pub const MAX_INTERFACES: usize = 256;
    /// Limit of static routes of one router (Neutron's default).
    pub const MAX_ROUTES: usize = 30;

    /// Whether a port is one of the router's.
    pub fn has_port(&self, port: Id<Port>) -> bool {
        self.has_interface(port) || self.gateway.is_some_and(|gateway| gateway.port_id == port)
    }

    /// Whether a port is one of the router's interfaces.
    pub fn has_interface(&self, port: Id<Port>) -> bool {
        self.interfaces.iter().any(|interface| interface.port_id == port)
    }

    /// All its ports: the gateway's first.
    pub fn port_ids(&self) -> impl Iterator<Item = Id<Port>> + '_ {
        let gateway = self.gateway.iter().map(|gateway| gateway.port_id);
        gateway.chain(self.interfaces.iter().map(|interface| interface.port_id))
    }
}

/// An address of an external network that can be moved between ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Identity.
    pub id: Id<FloatingIp>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes; it has no name.
    #[serde(flatten)]
    pub standard: Standard,
    /// The external network.
    pub floating_network_id: Id<Network>,
    /// The address.
    pub floating_ip_address: IpAddr,
    /// The port that holds the address in the external network.
    pub floating_port_id: Id<Port>,
    /// The port it leads to.
    pub association: Option<Association>,
    /// The router that translates: that of the association, or of the port forwardings.
    pub router_id: Option<Id<Router>>,
    /// Who translates it has said that it is in force as it is.
    #[serde(default)]
    pub in_force: bool,
    /// Name for the DNS, or empty.
    pub dns_name: String,
    /// Domain for the DNS, or empty.
    pub dns_domain: String,
}

/// What an NCM knows of a floating IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatingIpWord {
    /// Which.
    pub id: Id<FloatingIp>,
    /// The row that it is about.
    pub revision: Revision,
    /// As [`FloatingIp::in_force`].
    pub in_force: bool,
}

/// Where a floating IP leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// The port.
    pub port_id: Id<Port>,
    /// Its address that is meant.
    pub fixed_ip_address: IpAddr,
}

/// Ports of TCP, UDP and the like, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl PortRange {
    /// How many there are beyond the first.
    pub const fn span(self) -> u16 {
        self.last - self.first
    }

    /// Whether two ranges have a number in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The only number, if there is one only.
    pub fn single(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }
}

/// Ports of a floating IP that lead to ports of an address inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwarding {
    /// Identity.
    pub id: Id<PortForwarding>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes; it has no name and no tags.
    #[serde(flatten)]
    pub standard: Standard,
    /// The floating IP.
    pub floatingip_id: Id<FloatingIp>,
    /// `tcp`, `udp`, ...
    pub protocol: String,
    /// Ports of the floating IP.
    pub external: PortRange,
    /// Ports inside: as many as outside, or one.
    pub internal: PortRange,
    /// The port inside.
    pub internal_port_id: Id<Port>,
    /// Its address.
    pub internal_ip_address: Ipv4Addr,
}

impl PortForwarding {
    /// Limit of port forwardings of one floating IP.
    pub const MAX_PER_FLOATING_IP: usize = 500;
}
