//! Rows as a region has them, and a region's end of an NCM.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "used by several test files")]

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use alcor_model::{
    Change, Host, HostRuntime, Id, Label, Network, Port, Resource, Revision, Subnet, Vni,
    resource::{AllocationPool, Binding, BindingState, FixedIp, FloatingIpWord, HostWord, Standard},
};
use alcor_ncm::{
    core::PortReport,
    service::{BoxFuture, NotTaken, RegionLink},
};
use jiff::Timestamp;
use tokio::sync::mpsc;

/// A region that hands on what it is told.
pub struct Region(pub mpsc::UnboundedSender<PortReport>);

impl RegionLink for Region {
    fn register_host(&self, _: String, _: HostWord) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn register_gateway(&self, _: String, _: String, _: IpAddr) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn report_ports(&self, reports: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>> {
        for report in reports {
            let _ = self.0.send(report);
        }
        Box::pin(async { Ok(()) })
    }
    fn note_hosts(&self, _: Vec<HostRuntime>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn release_labels(&self, _: Vec<(Id<Label>, Revision)>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
    fn note_floating_ips(&self, _: Vec<FloatingIpWord>) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }
}

pub fn standard() -> Standard {
    Standard {
        project_id: "p".to_owned(),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        revision_number: 0,
    }
}

pub fn host(name: &str, tunnel_ip: &str) -> Resource {
    Resource::Host(Arc::new(Host {
        name: name.to_owned(),
        revision: Revision(1),
        tunnel_ip: tunnel_ip.parse().unwrap(),
        created_at: Timestamp::UNIX_EPOCH,
        admin_state_up: true,
        description: String::new(),
        availability_zone: "nova".to_owned(),
        external_networks: BTreeSet::new(),
    }))
}

pub fn network(id: Id<Network>) -> Resource {
    Resource::Network(Arc::new(Network {
        id,
        revision: Revision(2),
        standard: standard(),
        admin_state_up: true,
        mtu: 1450,
        port_security_enabled: true,
        segmentation_id: Vni::try_from(7).unwrap(),
        external: false,
        is_default: false,
        availability_zone_hints: Vec::new(),
    }))
}

pub fn subnet(id: Id<Subnet>, network_id: Id<Network>) -> Resource {
    let pool = AllocationPool {
        start: "10.0.0.2".parse().unwrap(),
        end: "10.0.0.254".parse().unwrap(),
    };
    Resource::Subnet(Arc::new(Subnet {
        id,
        revision: Revision(3),
        standard: standard(),
        network_id,
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway_ip: Some("10.0.0.1".parse().unwrap()),
        allocation_pools: vec![pool],
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: true,
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        subnetpool_id: None,
        service_types: Vec::new(),
        dns_publish_fixed_ip: false,
    }))
}

pub fn port(network_id: Id<Network>, subnet_id: Id<Subnet>, last: u8, host: &str, revision: u64) -> Port {
    Port {
        id: Id::generate(),
        revision: Revision(revision),
        standard: standard(),
        network_id,
        mac_address: alcor_model::MacAddr([0xfa, 0x16, 0x3e, 0, 0, last]),
        fixed_ips: vec![FixedIp {
            subnet_id,
            ip_address: IpAddr::from([10, 0, 0, last]),
        }],
        allowed_address_pairs: Vec::new(),
        admin_state_up: true,
        device_id: String::new(),
        device_owner: String::new(),
        port_security_enabled: true,
        security_groups: Vec::new(),
        label: None,
        dns_name: String::new(),
        binding: Binding {
            host_id: host.to_owned(),
            vnic_type: "normal".to_owned(),
            profile: serde_json::Map::new(),
            since: Revision::ZERO,
            state: BindingState::Bound,
        },
        standby: Vec::new(),
        unaddressed: false,
        dns_domain: String::new(),
        extra_dhcp_opts: Vec::new(),
        data_plane_status: None,
    }
}

pub fn put(port: &Port) -> Change {
    Change::Put(Resource::Port(Arc::new(port.clone())))
}
