//! Hosts.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Network;
use crate::{Id, Revision, effective::Timing};

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
    /// Whether ports may be bound to it anew. Ports that are there stay.
    #[serde(default = "yes")]
    pub admin_state_up: bool,
    /// Free text for people, at most 255 characters.
    #[serde(default)]
    pub description: String,
    /// The availability zone that its agent says it is in.
    #[serde(default = "default_zone")]
    pub availability_zone: String,
    /// The external networks that its agent says it has a device in: it answers there for floating IPs of its own ports.
    #[serde(default)]
    pub external_networks: BTreeSet<Id<Network>>,
}

/// Longest name of a host, a gateway, a zone or a set of gateways, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest reason that is kept of what a host says, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// Why something is as a host says it is, as it is kept: at most [`REASON_CHARS_MAX`] characters of it, and nothing when it says
/// nothing.
pub fn kept_reason(reason: &str) -> Option<String> {
    (!reason.is_empty()).then(|| reason.chars().take(REASON_CHARS_MAX).collect())
}

/// Whether a text can be such a name: 1 to [`NAME_BYTES_MAX`] bytes, all of them printable.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether other hosts can send tunnel packets to an address.
pub const fn is_tunnel_ip(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

/// Why a host cannot be what its agent says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Its name is none.
    #[error("a host name has 1 to {NAME_BYTES_MAX} printable bytes")]
    Name,
    /// The name of its zone is none.
    #[error("an availability zone has 1 to {NAME_BYTES_MAX} printable bytes")]
    Zone,
    /// Nobody can send there.
    #[error("{0} cannot be a tunnel address")]
    Tunnel(IpAddr),
    /// There are too many of them.
    #[error("a host has at most {EXTERNAL_NETWORKS_MAX} external networks")]
    ExternalNetworks,
}

/// Most external networks that a host may say it has.
pub const EXTERNAL_NETWORKS_MAX: usize = 64;

/// What an agent says of its host, with each session anew. The region keeps it in the host's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWord {
    /// Where other hosts send its tunnel packets.
    pub tunnel_ip: IpAddr,
    /// The availability zone that it is in.
    pub availability_zone: String,
    /// The external networks that it has a device in; at most [`EXTERNAL_NETWORKS_MAX`].
    pub external_networks: BTreeSet<Id<Network>>,
}

impl HostWord {
    /// The word of a host without external networks.
    pub fn new(tunnel_ip: IpAddr, availability_zone: &str) -> Self {
        Self {
            tunnel_ip,
            availability_zone: availability_zone.to_owned(),
            external_networks: BTreeSet::new(),
        }
    }

    /// Looks whether a host of this name can say so. Whoever takes it on the way to the region asks this, so that none takes what
    /// the next one never will.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn check(&self, name: &str) -> Result<(), WordError> {
        if !is_name(name) {
            return Err(WordError::Name);
        }
        if !is_name(&self.availability_zone) {
            return Err(WordError::Zone);
        }
        if !is_tunnel_ip(self.tunnel_ip) {
            return Err(WordError::Tunnel(self.tunnel_ip));
        }
        match self.external_networks.len() {
            0..=EXTERNAL_NETWORKS_MAX => Ok(()),
            _ => Err(WordError::ExternalNetworks),
        }
    }

    /// Whether a host's row says the same.
    pub fn is_in(&self, row: &Host) -> bool {
        row.tunnel_ip == self.tunnel_ip
            && row.availability_zone == self.availability_zone
            && row.external_networks == self.external_networks
    }
}

/// The zone of hosts whose agents name none (Neutron's default).
pub const DEFAULT_ZONE: &str = "nova";

/// Where the ids of hosts are made from their names.
const AGENTS: Uuid = Uuid::from_u128(0x4a1b_7c52_9f0e_5d63_8b24_6ce0_31a7_5f98);

const fn yes() -> bool {
    true
}

fn default_zone() -> String {
    DEFAULT_ZONE.to_owned()
}

impl Host {
    /// The id by which the API knows a host's agent: made from the name, so that it stays when the host registers anew.
    pub fn agent_id(name: &str) -> Uuid {
        Uuid::new_v5(&AGENTS, name.as_bytes())
    }
}

/// What the NCM last knew of a host, so that it is known also after a restart and before the host says hello again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRuntime {
    /// The host's name.
    pub name: String,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// The newest run of its agent: when it began, in microseconds since the Unix epoch.
    pub incarnation: u64,
    /// The data plane that the agent drives.
    pub dataplane: Option<String>,
    /// When it was last heard, in microseconds since the Unix epoch, as of when something last changed.
    pub last_seen_us: u64,
    /// Times it was brought to date by a full snapshot.
    pub resyncs: u64,
    /// The networks that it has rows of.
    pub networks: Vec<HostNetwork>,
}

/// What is known of a row on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownRow {
    /// The newest revision that is in force.
    pub revision: Option<Revision>,
    /// Why a newer one is not.
    pub error: Option<String>,
    /// How the last change travelled.
    pub timing: Option<Timing>,
}

impl HostRuntime {
    /// What was kept of a network.
    pub fn network(&self, network: Id<Network>) -> Option<&HostNetwork> {
        self.networks.iter().find(|known| known.network_id == network)
    }

    /// What follows for one of the host's own rows, of which it must have this revision.
    pub fn known(&self, network: Id<Network>, kind: &str, id: &str, intended: Revision) -> KnownRow {
        let Some(kept) = self.network(network) else {
            return KnownRow::default();
        };
        let refused = kept.refused.iter().find(|row| row.kind == kind && row.id == id);
        KnownRow {
            // Complete to a revision: all rows up to it are in force.
            revision: (intended <= kept.applied_revision && refused.is_none()).then_some(intended),
            error: refused.map(|row| row.reason.clone()),
            timing: kept.timing_at(intended),
        }
    }
}

impl HostNetwork {
    /// How the delta travelled that brought the network to this revision.
    pub fn timing_at(&self, revision: Revision) -> Option<Timing> {
        self.timing.filter(|_| self.applied_revision == revision)
    }
}

/// What a host has of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// The network.
    pub network_id: Id<Network>,
    /// All rows up to this revision are in force.
    pub applied_revision: Revision,
    /// How the delta travelled that brought it there.
    pub timing: Option<Timing>,
    /// Rows that it refused.
    pub refused: Vec<RefusedRow>,
}

/// A row that a host refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// `network`, `subnet`, `policy` or `port`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}
