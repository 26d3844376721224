//! What deciders need besides the state: configuration, the time, ids and random numbers. All injected, so that
//! a simulator can replay a run.

use std::{collections::BTreeMap, sync::Arc};

use alcor_model::{Id, Vni, resource::Standard};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    RegionError,
    command::{Caller, StandardCreate, StandardUpdate},
};

/// Bytes that VXLAN over IPv4 takes from the underlay's MTU: outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14.
pub const OVERLAY_BYTES: u16 = 50;

/// The domain of ports' names when the operator names none (Neutron's default).
pub const DNS_DOMAIN: &str = "openstacklocal.";

/// Bounds and defaults of a region.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// MTU of the links between hosts, in bytes.
    pub underlay_mtu: u16,
    /// First VXLAN network identifier to give out.
    pub vni_first: Vni,
    /// Last VXLAN network identifier to give out.
    pub vni_last: Vni,
    /// First three bytes of the MAC addresses given to ports.
    pub mac_base: [u8; 3],
    /// The domain that the names of ports lie in; empty for none.
    pub dns_domain: String,
    /// How many of each resource a project may own, by the quota's name; what is not named is not bounded.
    pub quotas: BTreeMap<&'static str, u64>,
}

impl Default for RegionConfig {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "constants within the range")]
        let vni = |number| Vni::try_from(number).expect("1 and Vni::MAX are VNIs");
        Self {
            underlay_mtu: 1500,
            vni_first: vni(1),
            vni_last: vni(Vni::MAX),
            mac_base: [0xfa, 0x16, 0x3e],
            dns_domain: DNS_DOMAIN.to_owned(),
            quotas: BTreeMap::new(),
        }
    }
}

impl RegionConfig {
    /// The largest MTU that a network can have.
    pub const fn network_mtu_max(&self) -> u16 {
        self.underlay_mtu.saturating_sub(OVERLAY_BYTES)
    }
}

/// Where time, ids and random numbers come from.
pub trait Source: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
    /// A new id.
    fn uuid(&self) -> Uuid;
    /// 64 random bits; need not be unpredictable.
    fn random(&self) -> u64;
}

/// The machine's clock and random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSource;

impl Source for SystemSource {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
    fn random(&self) -> u64 {
        Uuid::new_v4().as_u64_pair().1
    }
}

/// The environment of deciders; cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Bounds and defaults.
    pub config: Arc<RegionConfig>,
    /// Time, ids, random numbers.
    pub source: Arc<dyn Source>,
}

impl Env {
    pub(crate) fn new_id<T>(&self) -> Id<T> {
        Id::from_uuid(self.source.uuid())
    }

    /// Standard attributes of a new resource.
    pub(crate) fn standard(&self, caller: &Caller, create: StandardCreate) -> Result<Standard, RegionError> {
        let project_id = create.project_id.unwrap_or_else(|| caller.project_id.clone());
        let now = self.source.now();
        Ok(Standard {
            project_id,
            name: create.name,
            description: create.description,
            tags: sorted(create.tags),
            created_at: now,
            updated_at: now,
            revision_number: 1,
        })
    }

    /// Applies an update of standard attributes; checks `If-Match` first.
    pub(crate) fn update_standard(
        &self,
        standard: &mut Standard,
        update: StandardUpdate,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        check_if_match(standard, if_match)?;
        if let Some(name) = update.name {
            standard.name = name;
        }
        if let Some(description) = update.description {
            standard.description = description;
        }
        if let Some(tags) = update.tags {
            standard.tags = sorted(tags);
        }
        self.touch(standard);
        Ok(())
    }

    /// Notes that a resource changes.
    pub(crate) fn touch(&self, standard: &mut Standard) {
        standard.updated_at = self.source.now();
        standard.revision_number += 1;
    }
}

/// Tags as rows have them.
fn sorted(mut tags: Vec<String>) -> Vec<String> {
    tags.sort();
    tags.dedup();
    tags
}

/// `If-Match: revision_number=N`
pub(crate) fn check_if_match(standard: &Standard, if_match: Option<u64>) -> Result<(), RegionError> {
    match if_match {
        Some(expected) if expected != standard.revision_number => {
            Err(RegionError::RevisionNumberConstraintFailed {
                expected,
                current: standard.revision_number,
            })
        }
        _ => Ok(()),
    }
}
