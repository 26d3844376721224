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

/// What became of a binding that names a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingState {
    /// The host can plug the port.
    #[default]
    Bound,
    /// The host cannot, or must not: nothing of the port goes there.
    Failed,
    /// The port has moved away from there.
    Left,
}

/// Where a port is plugged (Neutron's `binding:*`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the host, empty when unbound.
    pub host_id: String,
    /// One of [`Binding::VNIC_TYPES`].
    pub vnic_type: String,
    /// Opaque to Alcor; kept for Nova.
    pub profile: serde_json::Map<String, serde_json::Value>,
    /// The commit that bound it to this host. What a host says of an earlier time is about an earlier binding.
    pub since: Revision,
    /// Whether the host can plug it.
    #[serde(default)]
    pub state: BindingState,
}

impl Binding {
    /// The kind of interface that Alcor can plug.
    pub const VNIC_NORMAL: &'static str = "normal";
    /// Every kind of interface that Neutron knows. A port of a kind that no host can plug can be made, not bound.
    pub const VNIC_TYPES: &'static [&'static str] = &[
        Self::VNIC_NORMAL,
        "direct",
        "macvtap",
        "baremetal",
        "direct-physical",
        "virtio-forwarder",
        "smart-nic",
        "vdpa",
        "accelerator-direct",
        "accelerator-direct-physical",
        "remote-managed",
    ];

    /// The host that is to plug the port.
    pub fn host(&self) -> Option<&str> {
        (self.state == BindingState::Bound && !self.host_id.is_empty()).then_some(self.host_id.as_str())
    }

    /// Neutron's `vif_type`: what Nova is to plug.
    pub fn vif_type(&self) -> &'static str {
        match self.state {
            BindingState::Left => "unbound",
            _ if self.host_id.is_empty() => "unbound",
            BindingState::Bound => "tap",
            BindingState::Failed => "binding_failed",
        }
    }
}

/// A DHCP option that a port is given besides those of its subnets (Neutron's `extra_dhcp_opts`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraDhcpOption {
    /// Its name or number.
    #[serde(rename = "opt_name")]
    pub name: String,
    /// Its value as text.
    #[serde(rename = "opt_value")]
    pub value: String,
    /// 4 or 6.
    pub ip_version: u8,
}

/// What an operator's tool says of the data plane below a port (Neutron's `data_plane_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataPlaneStatus {
    /// It works.
    Active,
    /// It does not.
    Down,
}

impl DataPlaneStatus {
    /// Neutron's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Down => "DOWN",
        }
    }
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
    /// Hosts that it may move to: Neutron's inactive bindings, at most [`Port::MAX_STANDBY`].
    #[serde(default)]
    pub standby: Vec<Binding>,
    /// The client wanted no address, as opposed to there being none to give.
    #[serde(default)]
    pub unaddressed: bool,
    /// The domain its name is published in; ends with a dot, or empty.
    #[serde(default)]
    pub dns_domain: String,
    /// Further DHCP options, at most [`Port::MAX_DHCP_OPTIONS`].
    #[serde(default)]
    pub extra_dhcp_opts: Vec<ExtraDhcpOption>,
    /// What an operator's tool says of the data plane below it.
    #[serde(default)]
    pub data_plane_status: Option<DataPlaneStatus>,
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

    /// Limit of hosts that a port may be about to move to.
    pub const MAX_STANDBY: usize = 8;
    /// Limit of extra DHCP options on one port.
    pub const MAX_DHCP_OPTIONS: usize = 64;

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

    /// True when the port is bound to a host that is to plug it.
    pub fn is_bound(&self) -> bool {
        self.binding.host().is_some()
    }

    /// Whether the port is a server's: only such ports move between hosts.
    pub fn is_movable(&self) -> bool {
        ["compute:", "manila:"]
            .iter()
            .any(|owner| self.device_owner.starts_with(owner))
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
