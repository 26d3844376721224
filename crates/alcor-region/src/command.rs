//! What a caller may ask of the region: one `Create` and one `Update` per resource.
//!
//! In a `Create`, `None` means "the client did not say": the decider chooses the default. In an `Update`, `None`
//! means "leave it"; attributes that can be cleared are `Option<Option<_>>`. Shapes are checked by whoever parses
//! (lengths, types, spelling of addresses); everything that needs the state is checked by the deciders.

use std::net::IpAddr;

use alcor_model::{
    Id, Network, Port, SubnetPool, Vni,
    resource::{AllocationPool, HostRoute, Ipv6Mode},
};
use ipnet::IpNet;

pub use crate::port::command::{AddressPairRequest, FixedIpRequest, PortCreate, PortUpdate};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The project whose resources the caller sees and makes.
    pub project_id: String,
    /// Sees and changes everything.
    pub is_admin: bool,
}

/// Standard attributes that a client may set at creation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandardCreate {
    /// Owner; the caller's project when `None`. Another project's only for an admin.
    pub project_id: Option<String>,
    /// Defaults to the empty text.
    pub name: String,
    /// Defaults to the empty text.
    pub description: String,
    /// Defaults to none.
    pub tags: Vec<String>,
}

/// Standard attributes that a client may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandardUpdate {
    /// New name.
    pub name: Option<String>,
    /// New description.
    pub description: Option<String>,
    /// Replaces all tags (`PUT /tags`).
    pub tags: Option<Vec<String>>,
}

/// `POST /v2.0/networks`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// Default true.
    pub admin_state_up: Option<bool>,
    /// Default: the largest that fits the underlay.
    pub mtu: Option<u16>,
    /// Default false; true only for an admin.
    pub shared: Option<bool>,
    /// Default true.
    pub port_security_enabled: Option<bool>,
    /// Default: a free one is allocated; given only by an admin.
    pub segmentation_id: Option<Vni>,
    /// Default false.
    pub external: Option<bool>,
    /// Default false.
    pub is_default: Option<bool>,
    /// Zones that there are. Default none.
    pub availability_zone_hints: Vec<String>,
}

/// `PUT /v2.0/networks/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// New state.
    pub admin_state_up: Option<bool>,
    /// New MTU.
    pub mtu: Option<u16>,
    /// New visibility.
    pub shared: Option<bool>,
    /// New default for ports to come.
    pub port_security_enabled: Option<bool>,
    /// Whether it is external from now on.
    pub external: Option<bool>,
    /// Whether it is the default one from now on.
    pub is_default: Option<bool>,
}

/// `POST /v2.0/subnets`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// The network.
    pub network_id: Id<Network>,
    /// 4 or 6.
    pub ip_version: u8,
    /// The block; host bits are cleared by the decider, as Neutron does. `None`: one is taken from a pool.
    pub cidr: Option<IpNet>,
    /// Length of the prefix of the block that is taken from a pool; default: the pool's.
    pub prefixlen: Option<u64>,
    /// The pool that the block is taken from.
    pub subnetpool_id: Option<Id<SubnetPool>>,
    /// The pool is the default one of the family.
    pub use_default_subnetpool: bool,
    /// Which ports get addresses of it without asking for it; all when empty.
    pub service_types: Vec<String>,
    /// Default false.
    pub dns_publish_fixed_ip: Option<bool>,
    /// `None`: the first address of the block. `Some(None)`: no gateway.
    pub gateway_ip: Option<Option<IpAddr>>,
    /// `None`: everything but the gateway, the network address and (IPv4) the broadcast address.
    pub allocation_pools: Option<Vec<AllocationPool>>,
    /// DNS servers.
    pub dns_nameservers: Vec<IpAddr>,
    /// Static routes.
    pub host_routes: Vec<HostRoute>,
    /// Default true.
    pub enable_dhcp: Option<bool>,
    /// IPv6 only.
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// IPv6 only.
    pub ipv6_ra_mode: Option<Ipv6Mode>,
}

impl SubnetCreate {
    /// A subnet of a family about which nothing else is said.
    pub fn new(network_id: Id<Network>, ip_version: u8) -> Self {
        Self {
            standard: StandardCreate::default(),
            network_id,
            ip_version,
            cidr: None,
            prefixlen: None,
            subnetpool_id: None,
            use_default_subnetpool: false,
            service_types: Vec::new(),
            dns_publish_fixed_ip: None,
            gateway_ip: None,
            allocation_pools: None,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            enable_dhcp: None,
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
        }
    }
}

/// `PUT /v2.0/subnets/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// New gateway, or none.
    pub gateway_ip: Option<Option<IpAddr>>,
    /// New pools.
    pub allocation_pools: Option<Vec<AllocationPool>>,
    /// New DNS servers.
    pub dns_nameservers: Option<Vec<IpAddr>>,
    /// New static routes.
    pub host_routes: Option<Vec<HostRoute>>,
    /// New state.
    pub enable_dhcp: Option<bool>,
    /// New kinds of ports.
    pub service_types: Option<Vec<String>>,
    /// New state.
    pub dns_publish_fixed_ip: Option<bool>,
}

/// What a host reported about a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortReport {
    /// The port.
    pub port_id: Id<Port>,
    /// The host that reports.
    pub host_id: String,
    /// The port row's revision it is about.
    pub applied_revision: alcor_model::Revision,
    /// The state that follows.
    pub status: alcor_model::resource::PortStatus,
    /// Why, when it is not ACTIVE.
    pub reason: Option<String>,
}
