//! What may be asked of ports.

use std::net::IpAddr;

use alcor_model::{Id, MacAddr, Network, SecurityGroup, Subnet, resource::DataPlaneStatus};
use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::command::{StandardCreate, StandardUpdate};

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
    /// Default: the project's default group.
    pub security_groups: Option<Vec<Id<SecurityGroup>>>,
    /// Default empty.
    pub dns_name: String,
    /// Host to bind to; empty for none.
    pub binding_host_id: String,
    /// Default `normal`.
    pub binding_vnic_type: Option<String>,
    /// Default empty.
    pub binding_profile: Option<Map<String, Value>>,
    /// Default empty.
    pub dns_domain: String,
    /// Further DHCP options.
    pub extra_dhcp_opts: Vec<DhcpOptionRequest>,
}

impl PortCreate {
    /// Asks for nothing but a port of this network.
    pub fn new(network_id: Id<Network>) -> Self {
        Self {
            standard: StandardCreate::default(),
            network_id,
            mac_address: None,
            fixed_ips: None,
            allowed_address_pairs: Vec::new(),
            admin_state_up: None,
            device_id: String::new(),
            device_owner: String::new(),
            port_security_enabled: None,
            security_groups: None,
            dns_name: String::new(),
            binding_host_id: String::new(),
            binding_vnic_type: None,
            binding_profile: None,
            dns_domain: String::new(),
            extra_dhcp_opts: Vec::new(),
        }
    }
}

/// `PUT /v2.0/ports/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// New MAC; `Some(None)`: another free one.
    pub mac_address: Option<Option<MacAddr>>,
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
    /// New groups, all of them.
    pub security_groups: Option<Vec<Id<SecurityGroup>>>,
    /// New name.
    pub dns_name: Option<String>,
    /// New host; empty unbinds.
    pub binding_host_id: Option<String>,
    /// New type.
    pub binding_vnic_type: Option<String>,
    /// New profile.
    pub binding_profile: Option<Map<String, Value>>,
    /// New domain.
    pub dns_domain: Option<String>,
    /// DHCP options to set, or (without a value) to take away; the others stay.
    pub extra_dhcp_opts: Vec<DhcpOptionRequest>,
    /// New word about the data plane, or none any more.
    pub data_plane_status: Option<Option<DataPlaneStatus>>,
}

/// One element of `extra_dhcp_opts` as the client gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpOptionRequest {
    /// Its name or number.
    pub name: String,
    /// Its value; `None` takes it away.
    pub value: Option<String>,
    /// 4 or 6.
    pub ip_version: u8,
}

/// `POST /v2.0/ports/{id}/bindings`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingCreate {
    /// The host; not empty.
    pub host: String,
    /// Default `normal`.
    pub vnic_type: Option<String>,
    /// Default empty.
    pub profile: Option<Map<String, Value>>,
}

/// `PUT /v2.0/ports/{id}/bindings/{host}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingUpdate {
    /// New type.
    pub vnic_type: Option<String>,
    /// New profile.
    pub profile: Option<Map<String, Value>>,
}
