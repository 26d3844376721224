//! Ports and what hosts report about them. A report is a row of its own ([`PortRuntime`]), so that it never looks
//! like a change of what the host must have.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Network, SecurityGroup, Standard, Subnet};
use crate::{Id, MacAddr, Revision};

/// One address of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// The subnet the address lies in.
    pub subnet_id: Id<Subnet>,
    /// The address.
    pub ip_address: IpAddr,
}

/// An additional source that a port may send from (Neutron's `allowed_address_pairs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// Address or prefix.
    pub ip_address: IpNet,
    /// MAC; the port's own when the client gave none.
    pub mac_address: MacAddr,
}

/// Where a port is plugged (Neutron's `binding:*`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the host, empty when unbound.
    pub host_id: String,
    /// Always `normal` for now.
    pub vnic_type: String,
    /// Opaque to Alcor; kept for Nova.
    pub profile: serde_json::Map<String, serde_json::Value>,
    /// The commit that bound it to this host. What a host says of an earlier time is about an earlier binding.
    pub since: Revision,
}

/// An interface in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Identity.
    pub id: Id<Port>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// The network it lies in.
    pub network_id: Id<Network>,
    /// Its MAC address, unique in the network.
    pub mac_address: MacAddr,
    /// Its addresses, at most [`Port::MAX_FIXED_IPS`].
    pub fixed_ips: Vec<FixedIp>,
    /// Further sources it may send from, at most [`Port::MAX_ADDRESS_PAIRS`].
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Whether it carries packets.
    pub admin_state_up: bool,
    /// Who uses it (a server's UUID, a router's).
    pub device_id: String,
    /// What kind of user (`compute:nova`, `network:dhcp`).
    pub device_owner: String,
    /// Whether source addresses are checked.
    pub port_security_enabled: bool,
    /// The security groups it is under; sorted, at most [`Port::MAX_SECURITY_GROUPS`].
    #[serde(default)]
    pub security_groups: Vec<Id<SecurityGroup>>,
    /// The number that stands for them in the network ([`super::Label`]), 0 for no groups; none when packets of the port
    /// are not filtered.
    #[serde(default)]
    pub label: Option<u16>,
    /// Host name that DHCP hands out.
    pub dns_name: String,
    /// Where it is plugged.
    pub binding: Binding,
}

impl Port {
    /// Limit of addresses on one port.
    pub const MAX_FIXED_IPS: usize = 16;
    /// Limit of allowed address pairs on one port (Neutron's default is 10).
    pub const MAX_ADDRESS_PAIRS: usize = 10;
    /// Limit of security groups of one port.
    pub const MAX_SECURITY_GROUPS: usize = 100;
    /// How the `device_owner` of a port of the platform itself begins (routers, DHCP): it is trusted, and no security
    /// group applies to it.
    pub const PLATFORM_OWNER: &'static str = "network:";

    /// The name of the interface that the port's device has on its host: `tap` and the first 11 characters
    /// of the id, as Nova makes it.
    pub fn device_name(id: Id<Port>) -> String {
        let mut name = format!("tap{id}");
        name.truncate(14);
        name
    }

    /// True for a port of the platform itself.
    pub fn is_trusted(&self) -> bool {
        self.device_owner.starts_with(Self::PLATFORM_OWNER)
    }

    /// True when the port is bound to a host.
    pub fn is_bound(&self) -> bool {
        !self.binding.host_id.is_empty()
    }
}

/// Neutron's port status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortStatus {
    /// Unbound, or its device is not there.
    #[default]
    Down,
    /// Bound; the host has not reported yet.
    Build,
    /// The host said: visible to packets.
    Active,
    /// The host refused it; see the error.
    Error,
}

impl PortStatus {
    /// Neutron's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "DOWN",
            Self::Build => "BUILD",
            Self::Active => "ACTIVE",
            Self::Error => "ERROR",
        }
    }
}

/// What the port's host last reported about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRuntime {
    /// The port.
    pub port_id: Id<Port>,
    /// Shard revision that last changed this row; set by the store.
    pub revision: Revision,
    /// Owner of the port.
    pub project_id: String,
    /// The host that reported. A report of a host the port is no longer bound to is ignored.
    pub host_id: String,
    /// The port row's shard revision that the report is about.
    pub applied_revision: Revision,
    /// The state that follows from the report.
    pub status: PortStatus,
    /// Why, when the status is `ERROR` or `DOWN`.
    pub reason: Option<String>,
    /// When the host made it so.
    pub reported_at: Timestamp,
}
