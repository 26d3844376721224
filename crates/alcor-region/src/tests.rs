//! What several tests of the region need: a replayable source, callers, commands with Neutron's defaults.

mod auto_topology;
mod concurrency;
mod conservation;
mod gateways;
mod host_runtime;
mod labels;
mod once;
mod pools;
mod quotas;
mod rbac;
mod routed_labels;
mod routers;
mod rules;
mod security;
mod segment_ranges;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use alcor_model::{Id, Network, Port, Subnet, resource::Ipv6Mode};
use alcor_store::SqliteEngine;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    Region, RegionConfig, RegionError,
    command::{Caller, NetworkCreate, PortCreate, StandardCreate, SubnetCreate},
    env::Source,
};

/// A clock that ticks with each look, and numbers that a seed decides. MAC addresses get `mac_bits` random bits.
pub(super) struct Replay {
    counter: AtomicU64,
    mac_bits: u32,
}

impl Replay {
    pub(super) fn new(mac_bits: u32) -> Arc<Self> {
        Arc::new(Self {
            counter: AtomicU64::new(1),
            mac_bits,
        })
    }

    fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }
}

impl Source for Replay {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_millis(i64::try_from(self.next()).unwrap())
    }
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.next()))
    }
    fn random(&self) -> u64 {
        // SplitMix64 of a counter; the lowest 24 bits, which become a MAC address, have few values.
        let mut z = self.next().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        z & !0xff_ffff | z >> 40 & ((1 << self.mac_bits) - 1)
    }
}

/// A region in a directory that lives as long as it.
pub(super) struct Place {
    pub(super) region: Region,
    pub(super) dir: tempfile::TempDir,
}

impl Place {
    pub(super) fn new(config: RegionConfig, mac_bits: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = SqliteEngine::open(&dir.path().join("region.sqlite")).unwrap();
        let region = Region::open_with(Box::new(engine), config, Replay::new(mac_bits)).unwrap();
        Self { region, dir }
    }
}

pub(super) fn admin() -> Caller {
    Caller {
        project_id: "admin".into(),
        is_admin: true,
    }
}

pub(super) fn member(project: &str) -> Caller {
    Caller {
        project_id: project.into(),
        is_admin: false,
    }
}

pub(super) fn subnet_of(network_id: Id<Network>, cidr: &str) -> SubnetCreate {
    SubnetCreate {
        cidr: Some(cidr.parse().unwrap()),
        ..SubnetCreate::new(network_id, if cidr.contains(':') { 6 } else { 4 })
    }
}

pub(super) fn slaac_of(network_id: Id<Network>, cidr: &str) -> SubnetCreate {
    SubnetCreate {
        ipv6_address_mode: Some(Ipv6Mode::Slaac),
        ipv6_ra_mode: Some(Ipv6Mode::Slaac),
        ..subnet_of(network_id, cidr)
    }
}

pub(super) fn port_of(network_id: Id<Network>) -> PortCreate {
    PortCreate::new(network_id)
}

/// The project whose things the tests make.
pub(super) fn owner() -> Caller {
    member("p1")
}

impl Place {
    pub(super) async fn network(&self) -> Id<Network> {
        self.region
            .create::<Network>(&owner(), vec![NetworkCreate::default()])
            .await
            .unwrap()[0]
            .id
    }

    pub(super) async fn try_subnet(&self, create: SubnetCreate) -> Result<Arc<Subnet>, RegionError> {
        Ok(self
            .region
            .create::<Subnet>(&owner(), vec![create])
            .await?
            .remove(0))
    }

    pub(super) async fn subnet(&self, network: Id<Network>, cidr: &str) -> Arc<Subnet> {
        self.try_subnet(subnet_of(network, cidr)).await.unwrap()
    }

    pub(super) async fn try_port(&self, create: PortCreate) -> Result<Arc<alcor_model::Port>, RegionError> {
        Ok(self
            .region
            .create::<Port>(&owner(), vec![create])
            .await?
            .remove(0))
    }

    pub(super) async fn port(&self, network: Id<Network>) -> Arc<alcor_model::Port> {
        self.try_port(port_of(network)).await.unwrap()
    }
}
