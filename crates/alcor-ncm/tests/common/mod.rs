//! What tests of the shell share: a region that takes everything, and one network.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use alcor_model::{
    Host, HostRuntime, Id, Label, Network, Resource, Revision, Vni,
    resource::{FloatingIpWord, HostWord, Standard},
};
use alcor_ncm::{
    NcmHandle, Options, RegionLink,
    core::PortReport,
    service::{BoxFuture, NotTaken},
};
use alcor_proto::v1::{self, agent_message::Body};
use alcor_southbound::convert::{
    encode_ip,
    resolve::{Question, encode_questions},
};

/// A region that takes everything.
pub struct Nowhere;

impl RegionLink for Nowhere {
    fn register_host(&self, _: String, _: HostWord) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }

    fn register_gateway(&self, _: String, _: String, _: IpAddr) -> BoxFuture<'_, Result<(), NotTaken>> {
        Box::pin(async { Ok(()) })
    }

    fn report_ports(&self, _: Vec<PortReport>) -> BoxFuture<'_, Result<(), NotTaken>> {
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

pub fn network() -> Id<Network> {
    Id::from_uuid(uuid::Uuid::from_u128(1))
}

/// An NCM with a network in which nobody has ports.
pub async fn start() -> NcmHandle {
    let ncm = NcmHandle::start(Options::default(), Arc::new(Nowhere));
    let network = Resource::Network(Arc::new(Network {
        id: network(),
        revision: Revision(1),
        standard: Standard {
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            tags: Vec::new(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            revision_number: 1,
        },
        admin_state_up: true,
        mtu: 1450,
        external: false,
        is_default: false,
        availability_zone_hints: Vec::new(),
        port_security_enabled: true,
        segmentation_id: Vni::try_from(1).unwrap(),
    }));
    ncm.snapshot(Revision(1), vec![network]).await;
    ncm
}

/// A registered host.
pub fn host(name: &str) -> Resource {
    Resource::Host(Arc::new(Host {
        name: name.to_owned(),
        revision: Revision(2),
        tunnel_ip: IpAddr::from([192, 0, 2, 1]),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        admin_state_up: true,
        description: String::new(),
        availability_zone: "nova".into(),
        external_networks: BTreeSet::new(),
    }))
}

/// What a host says first.
pub fn hello(host: &str, number: u8) -> v1::Hello {
    v1::Hello {
        host: host.into(),
        incarnation: 1,
        tunnel_ip: encode_ip(IpAddr::from([192, 0, 2, number])),
        ..v1::Hello::default()
    }
}

/// One message with so many questions.
pub fn questions(id: u64, count: usize) -> Body {
    let question = Question {
        network: network(),
        ip: IpAddr::from([10, 0, 0, 1]),
        port: None,
    };
    Body::Resolve(encode_questions(id, &vec![question; count]))
}
