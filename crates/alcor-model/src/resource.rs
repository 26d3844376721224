//! The resources of a region, as they are stored: one row each, body as JSON.
//!
//! Field names are Neutron's where Neutron has the attribute. What hosts report about a port is a row of its
//! own ([`PortRuntime`]), so that a report never looks like a change of what the host must have.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Id, MacAddr, Revision, Vni};

/// What every API resource carries besides its own attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standard {
    /// Owner.
    pub project_id: String,
    /// Free text for people, at most 255 characters.
    pub name: String,
    /// Free text for people, at most 255 characters.
    pub description: String,
    /// Sorted, without duplicates, each at most 255 characters.
    pub tags: Vec<String>,
    /// When the resource was created.
    pub created_at: Timestamp,
    /// When the resource last changed.
    pub updated_at: Timestamp,
    /// Counts the changes of this resource, for clients (`If-Match`); not the shard's revision.
    pub revision_number: u64,
}

/// A virtual layer-2 network (VPC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Identity.
    pub id: Id<Network>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// Whether the network carries packets.
    pub admin_state_up: bool,
    /// What a port's interface gets as MTU, in bytes of IP packet.
    pub mtu: u16,
    /// Visible to every project.
    pub shared: bool,
    /// Default of a port's `port_security_enabled`.
    pub port_security_enabled: bool,
    /// VXLAN network identifier, unique in the region.
    pub segmentation_id: Vni,
}

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
}

impl Subnet {
    /// True when a port's address in this subnet is formed from its MAC (EUI-64).
    pub fn is_auto_address(&self) -> bool {
        matches!(
            self.ipv6_address_mode,
            Some(Ipv6Mode::Slaac | Ipv6Mode::Dhcpv6Stateless)
        )
    }
}

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

    /// The name of the interface that the port's device has on its host: `tap` and the first 11 characters
    /// of the id, as Nova makes it.
    pub fn device_name(id: Id<Port>) -> String {
        let mut name = format!("tap{id}");
        name.truncate(14);
        name
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

/// A machine that runs an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The name, as in `binding:host_id`; at most 255 characters.
    pub name: String,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Where other hosts send its tunnel packets.
    pub tunnel_ip: IpAddr,
    /// When it registered first.
    pub created_at: Timestamp,
}

/// The kinds of rows. The text is what the database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Host`]
    Host,
    /// [`Network`]
    Network,
    /// [`Subnet`]
    Subnet,
    /// [`Port`]
    Port,
    /// [`PortRuntime`]
    PortRuntime,
}

impl Kind {
    /// Every kind, in the order in which rows must be loaded (what is referred to comes first).
    pub const ALL: [Self; 5] = [
        Self::Host,
        Self::Network,
        Self::Subnet,
        Self::Port,
        Self::PortRuntime,
    ];

    /// The text in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::PortRuntime => "port_runtime",
        }
    }

    /// Reads the text in the database.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The primary key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKey {
    /// By name.
    Host(String),
    /// By id.
    Network(Id<Network>),
    /// By id.
    Subnet(Id<Subnet>),
    /// By id.
    Port(Id<Port>),
    /// By the port's id.
    PortRuntime(Id<Port>),
}

impl ResourceKey {
    /// The kind of the row.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Host(_) => Kind::Host,
            Self::Network(_) => Kind::Network,
            Self::Subnet(_) => Kind::Subnet,
            Self::Port(_) => Kind::Port,
            Self::PortRuntime(_) => Kind::PortRuntime,
        }
    }

    /// The key's text in the database.
    pub fn id_text(&self) -> String {
        match self {
            Self::Host(name) => name.clone(),
            Self::Network(id) => id.to_string(),
            Self::Subnet(id) => id.to_string(),
            Self::Port(id) | Self::PortRuntime(id) => id.to_string(),
        }
    }

    /// Reads a key from its kind and text.
    ///
    /// # Errors
    /// When the text is not a UUID and the kind wants one.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, uuid::Error> {
        Ok(match kind {
            Kind::Host => Self::Host(text.to_owned()),
            Kind::Network => Self::Network(text.parse()?),
            Kind::Subnet => Self::Subnet(text.parse()?),
            Kind::Port => Self::Port(text.parse()?),
            Kind::PortRuntime => Self::PortRuntime(text.parse()?),
        })
    }
}

/// A row of any kind. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// See [`Host`].
    Host(Arc<Host>),
    /// See [`Network`].
    Network(Arc<Network>),
    /// See [`Subnet`].
    Subnet(Arc<Subnet>),
    /// See [`Port`].
    Port(Arc<Port>),
    /// See [`PortRuntime`].
    PortRuntime(Arc<PortRuntime>),
}

impl Resource {
    /// The row's primary key.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Host(row) => ResourceKey::Host(row.name.clone()),
            Self::Network(row) => ResourceKey::Network(row.id),
            Self::Subnet(row) => ResourceKey::Subnet(row.id),
            Self::Port(row) => ResourceKey::Port(row.id),
            Self::PortRuntime(row) => ResourceKey::PortRuntime(row.port_id),
        }
    }

    /// The revision that last changed the row.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Host(row) => row.revision,
            Self::Network(row) => row.revision,
            Self::Subnet(row) => row.revision,
            Self::Port(row) => row.revision,
            Self::PortRuntime(row) => row.revision,
        }
    }

    /// Writes the revision into the row.
    pub fn set_revision(&mut self, revision: Revision) {
        match self {
            Self::Host(row) => Arc::make_mut(row).revision = revision,
            Self::Network(row) => Arc::make_mut(row).revision = revision,
            Self::Subnet(row) => Arc::make_mut(row).revision = revision,
            Self::Port(row) => Arc::make_mut(row).revision = revision,
            Self::PortRuntime(row) => Arc::make_mut(row).revision = revision,
        }
    }

    /// The owning project; empty for rows that belong to the platform.
    pub fn project_id(&self) -> &str {
        match self {
            Self::Host(_) => "",
            Self::Network(row) => &row.standard.project_id,
            Self::Subnet(row) => &row.standard.project_id,
            Self::Port(row) => &row.standard.project_id,
            Self::PortRuntime(row) => &row.project_id,
        }
    }

    /// The row's body as JSON.
    ///
    /// # Errors
    /// When a value cannot be written as JSON, which no value of these types can cause.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Host(row) => serde_json::to_string(row),
            Self::Network(row) => serde_json::to_string(row),
            Self::Subnet(row) => serde_json::to_string(row),
            Self::Port(row) => serde_json::to_string(row),
            Self::PortRuntime(row) => serde_json::to_string(row),
        }
    }

    /// Reads a row's body.
    ///
    /// # Errors
    /// When the text is not the body of a row of this kind.
    pub fn from_json(kind: Kind, body: &str) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::Host => Self::Host(Arc::new(serde_json::from_str(body)?)),
            Kind::Network => Self::Network(Arc::new(serde_json::from_str(body)?)),
            Kind::Subnet => Self::Subnet(Arc::new(serde_json::from_str(body)?)),
            Kind::Port => Self::Port(Arc::new(serde_json::from_str(body)?)),
            Kind::PortRuntime => Self::PortRuntime(Arc::new(serde_json::from_str(body)?)),
        })
    }
}

/// One entry of a shard's change feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The row is now this; its revision is inside.
    Put(Resource),
    /// The row is gone since this revision.
    Delete {
        /// Which row.
        key: ResourceKey,
        /// The commit that deleted it.
        revision: Revision,
    },
}

impl Change {
    /// Which row changed.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Put(resource) => resource.key(),
            Self::Delete { key, .. } => key.clone(),
        }
    }

    /// The commit that made the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(resource) => resource.revision(),
            Self::Delete { revision, .. } => *revision,
        }
    }
}
