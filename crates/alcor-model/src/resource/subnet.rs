//! Subnets, their pools and routes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Network, Standard, SubnetPool};
use crate::{Id, Revision};

/// A range of addresses, both ends included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationPool {
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
}

/// A static route that DHCP hands to the ports of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Destination prefix.
    pub destination: IpNet,
    /// Next hop.
    pub nexthop: IpAddr,
}

/// How IPv6 addresses are given and announced (Neutron's `ipv6_address_mode`, `ipv6_ra_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6Mode {
    /// Addresses formed by EUI-64 from a router advertisement.
    Slaac,
    /// As `slaac`, other settings by DHCPv6.
    #[serde(rename = "dhcpv6-stateless")]
    Dhcpv6Stateless,
    /// Addresses and settings by DHCPv6.
    #[serde(rename = "dhcpv6-stateful")]
    Dhcpv6Stateful,
}

/// A block of addresses inside a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Identity.
    pub id: Id<Subnet>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// The network it lies in.
    pub network_id: Id<Network>,
    /// The block; host bits are zero. Its family is the subnet's `ip_version`.
    pub cidr: IpNet,
    /// Default gateway, or none.
    pub gateway_ip: Option<IpAddr>,
    /// Where addresses are allocated from; sorted, disjoint, inside `cidr`, without the gateway.
    pub allocation_pools: Vec<AllocationPool>,
    /// DNS servers for the ports.
    pub dns_nameservers: Vec<IpAddr>,
    /// Static routes for the ports.
    pub host_routes: Vec<HostRoute>,
    /// Whether DHCP (IPv4) or router advertisements (IPv6) are served.
    pub enable_dhcp: bool,
    /// IPv6 only: how addresses are given.
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// IPv6 only: what the router advertises.
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// The pool that the block was taken from.
    #[serde(default)]
    pub subnetpool_id: Option<Id<SubnetPool>>,
    /// Only ports with one of these `device_owner`s get addresses without asking for this subnet; all when empty.
    #[serde(default)]
    pub service_types: Vec<String>,
    /// Whether names of its ports may be made known outside.
    #[serde(default)]
    pub dns_publish_fixed_ip: bool,
}

impl Subnet {
    /// True when a port of this kind gets addresses of the subnet without asking for it. DHCP's ports always do.
    pub fn serves(&self, device_owner: &str) -> bool {
        self.service_types.is_empty()
            || self.service_types.iter().any(|kind| kind == device_owner)
            || (self.enable_dhcp && device_owner == "network:dhcp")
    }

    /// True when a port's address in this subnet is formed from its MAC (EUI-64).
    pub fn is_auto_address(&self) -> bool {
        matches!(
            self.ipv6_address_mode,
            Some(Ipv6Mode::Slaac | Ipv6Mode::Dhcpv6Stateless)
        )
    }
}
