//! What a caller may ask of the region: one `Create` and one `Update` per resource.
//!
//! In a `Create`, `None` means "the client did not say": the decider chooses the default. In an `Update`, `None`
//! means "leave it"; attributes that can be cleared are `Option<Option<_>>`. Shapes are checked by whoever parses
//! (lengths, types, spelling of addresses); everything that needs the state is checked by the deciders.

use std::net::IpAddr;

use alcor_model::{
    Id, MacAddr, Network, Port, Subnet, Vni,
    resource::{AllocationPool, HostRoute, Ipv6Mode},
};
use ipnet::IpNet;
use serde_json::{Map, Value};

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
    /// The block; host bits are cleared by the decider, as Neutron does.
    pub cidr: IpNet,
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
}

/// One element of a port's `fixed_ips` as the client gives it; at least one of the two is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedIpRequest {
    /// Take an address of this subnet.
    pub subnet_id: Option<Id<Subnet>>,
    /// Take this address.
    pub ip_address: Option<IpAddr>,
}

/// One element of `allowed_address_pairs` as the client gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPairRequest {
    /// Address or prefix.
    pub ip_address: IpNet,
    /// The port's own MAC when `None`.
    pub mac_address: Option<MacAddr>,
}

/// `POST /v2.0/ports`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// The network.
    pub network_id: Id<Network>,
    /// Default: a free one from the configured base.
    pub mac_address: Option<MacAddr>,
    /// `None`: one IPv4 address of the network's subnets and one IPv6 address of each auto-address subnet, as Neutron does.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// Further sources.
    pub allowed_address_pairs: Vec<AddressPairRequest>,
    /// Default true.
    pub admin_state_up: Option<bool>,
    /// Default empty.
    pub device_id: String,
    /// Default empty.
    pub device_owner: String,
    /// Default: the network's.
    pub port_security_enabled: Option<bool>,
    /// Default empty.
    pub dns_name: String,
    /// Host to bind to; empty for none.
    pub binding_host_id: String,
    /// Default `normal`.
    pub binding_vnic_type: Option<String>,
    /// Default empty.
    pub binding_profile: Option<Map<String, Value>>,
}

/// `PUT /v2.0/ports/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// New MAC.
    pub mac_address: Option<MacAddr>,
    /// New addresses, all of them.
    pub fixed_ips: Option<Vec<FixedIpRequest>>,
    /// New pairs, all of them.
    pub allowed_address_pairs: Option<Vec<AddressPairRequest>>,
    /// New state.
    pub admin_state_up: Option<bool>,
    /// New user.
    pub device_id: Option<String>,
    /// New kind of user.
    pub device_owner: Option<String>,
    /// New state.
    pub port_security_enabled: Option<bool>,
    /// New name.
    pub dns_name: Option<String>,
    /// New host; empty unbinds.
    pub binding_host_id: Option<String>,
    /// New type.
    pub binding_vnic_type: Option<String>,
    /// New profile.
    pub binding_profile: Option<Map<String, Value>>,
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
