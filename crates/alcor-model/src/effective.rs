//! What hosts really have, as the API shows it: intended against applied, with the error if there is one.
//!
//! These are answers for people and programs (`GET /alcor/v1/hosts/{name}`), not rows of the store.

mod load;

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::load::{
    DeviceLoad, DropLoad, GatewayLine, GatewayLoad, LoadLine, NatLoad, RouterLoad, WayLoad,
};
use crate::{GatewayNode, Id, Network, Port, Revision, resource::PortStatus};

/// One line of `GET /alcor/v1/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSummary {
    /// The host's name.
    pub name: String,
    /// Its tunnel address, if it registered.
    pub tunnel_ip: Option<IpAddr>,
    /// Whether it answered within the heartbeat timeout.
    pub alive: bool,
    /// When it was last heard.
    pub last_seen_at: Option<Timestamp>,
    /// When its agent's newest run began.
    pub started_at: Option<Timestamp>,
    /// Data plane the agent drives (`ebpf`, `model`).
    pub dataplane: Option<String>,
    /// Ports bound to it.
    pub ports: usize,
    /// Resources whose applied revision is behind the intended one.
    pub pending: usize,
    /// Resources that the host refused.
    pub errors: usize,
    /// The NCM does not answer: this is what was last kept, and whether the host lives is not known.
    #[serde(default)]
    pub stale: bool,
}

/// `GET /alcor/v1/hosts/{name}`: everything the NCM knows of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// The line of the list.
    #[serde(flatten)]
    pub summary: HostSummary,
    /// The agent's run, which changes with each start of it.
    pub incarnation: Option<u64>,
    /// Deltas waiting to be sent.
    pub queued: usize,
    /// Times the host was brought to date by a full snapshot.
    pub resyncs: u64,
    /// Own resources, one line each: ports, subnets, networks.
    pub resources: Vec<ResourceState>,
    /// Neighbours, one line a network.
    pub neighbours: Vec<NeighbourState>,
    /// Of a gateway, whether hosts send by it, and how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayUse>,
}

/// Whether hosts send by a gateway, and how much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayUse {
    /// They do, in the networks that it has all of.
    pub in_use: bool,
    /// Why they do not, in any.
    pub reason: Option<String>,
    /// The networks that it has all of.
    pub complete: usize,
    /// Tunnel addresses of gateways of its set that it cannot reach.
    pub unreachable: Vec<IpAddr>,
    /// What went through, as it said last; none: it has not said it, or nobody who heard it answers.
    #[serde(default)]
    pub load: Option<GatewayLoad>,
}

/// One resource on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// `network`, `subnet` or `port`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The revision that the host must have.
    pub intended_revision: Revision,
    /// The revision that the host said is visible to packets.
    pub applied_revision: Option<Revision>,
    /// Why the host refused it.
    pub error: Option<String>,
    /// How its last change travelled, when that is known.
    pub timing: Option<Timing>,
}

/// The neighbours of one network on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourState {
    /// The network.
    pub network_id: Id<Network>,
    /// How many neighbours the host must have.
    pub intended: usize,
    /// The newest revision of the network's rows that the host must have.
    pub intended_revision: Revision,
    /// The newest revision that the host has applied in full.
    pub applied_revision: Option<Revision>,
    /// How the delta travelled that brought it there, when that is known.
    pub timing: Option<Timing>,
}

/// `GET /alcor/v1/ports/{id}/status`: how a port's last change travelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// The port.
    pub port_id: Id<Port>,
    /// The host it is bound to, if any.
    pub host: Option<String>,
    /// Neutron's status.
    pub status: PortStatus,
    /// Why, when it is not ACTIVE.
    pub reason: Option<String>,
    /// Whether the host answers; when not, the state is what it last said.
    pub host_alive: bool,
    /// Row revision that the host must have.
    pub intended_revision: Revision,
    /// Row revision that the host has applied.
    pub applied_revision: Option<Revision>,
    /// How long the way took.
    pub timing: Option<Timing>,
    /// The NCM does not answer: this is what was last kept.
    #[serde(default)]
    pub stale: bool,
}

/// The four times of a delta, in microseconds since the Unix epoch. The first two are the NCM's clock, the last
/// two the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// The change was durable.
    pub committed_us: u64,
    /// The NCM handed it to the channel.
    pub sent_us: u64,
    /// The agent had it.
    pub received_us: u64,
    /// Packets see it.
    pub visible_us: u64,
}

/// `GET /alcor/v1/gateways/{id}/state`: what a gateway really has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayState {
    /// Identity.
    pub id: Id<GatewayNode>,
    /// The name that it says hello with.
    pub name: String,
    /// The set that it is in.
    pub set: String,
    /// Where hosts send their tunnel packets to.
    pub tunnel_ip: IpAddr,
    /// Whether an operator has taken it out of use.
    pub draining: bool,
    /// Whether it answered within the heartbeat timeout.
    pub alive: bool,
    /// Whether hosts send by it.
    #[serde(flatten)]
    pub usage: GatewayUse,
    /// When it was last heard.
    pub last_seen_at: Option<Timestamp>,
    /// When its newest run began.
    pub started_at: Option<Timestamp>,
    /// Data plane it drives, and how.
    pub dataplane: Option<String>,
    /// Resources whose applied revision is behind the intended one, and networks whose neighbours are.
    pub pending: usize,
    /// Resources that it refused.
    pub errors: usize,
    /// Deltas waiting to be sent.
    pub queued: usize,
    /// Times it was brought to date by a full snapshot.
    pub resyncs: u64,
    /// The networks that it forwards for, with their neighbours.
    pub networks: Vec<NeighbourState>,
    /// The NCM does not answer: this is what was last kept, and whether the gateway lives is not known.
    #[serde(default)]
    pub stale: bool,
}

impl GatewayUse {
    /// Of a gateway of which the NCM says nothing.
    fn unknown() -> Self {
        Self {
            reason: Some("it has not been heard since the NCM started".to_owned()),
            ..Self::default()
        }
    }
}

impl GatewayState {
    /// Of a gateway, from its row and what the NCM says of it.
    pub fn new(row: &GatewayNode, said: Option<HostState>) -> Self {
        let summary = said.as_ref().map(|said| said.summary.clone());
        let of = |get: fn(&HostSummary) -> usize| summary.as_ref().map_or(0, get);
        Self {
            id: row.id,
            name: row.name.clone(),
            set: row.set.clone(),
            tunnel_ip: row.tunnel_ip,
            draining: row.draining,
            alive: summary.as_ref().is_some_and(|summary| summary.alive),
            last_seen_at: summary.as_ref().and_then(|summary| summary.last_seen_at),
            started_at: summary.as_ref().and_then(|summary| summary.started_at),
            dataplane: summary.as_ref().and_then(|summary| summary.dataplane.clone()),
            pending: of(|summary| summary.pending),
            errors: of(|summary| summary.errors),
            queued: said.as_ref().map_or(0, |said| said.queued),
            resyncs: said.as_ref().map_or(0, |said| said.resyncs),
            stale: summary.as_ref().is_some_and(|summary| summary.stale),
            usage: said
                .as_ref()
                .and_then(|said| said.gateway.clone())
                .unwrap_or_else(GatewayUse::unknown),
            networks: said.map(|said| said.neighbours).unwrap_or_default(),
        }
    }
}
