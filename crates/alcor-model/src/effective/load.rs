//! What gateways say of their load, as the API shows it. Nothing of it is kept: it is the newest word that the NCM has heard.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Id, Router};

/// One line of `GET /alcor/v1/gateways`, as far as the NCM knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayLine {
    /// The gateway's name.
    pub name: String,
    /// Whether it answered within the heartbeat timeout.
    pub alive: bool,
    /// Whether hosts send by it.
    pub in_use: bool,
    /// When it was last heard.
    pub last_seen_at: Option<Timestamp>,
    /// The networks that it is to forward for, with those that it is giving up.
    pub networks: usize,
    /// Its load in short, when it has said it.
    pub load: Option<LoadLine>,
}

/// The load of a gateway in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadLine {
    /// Packets passed on in a second, all ways together, between the last two words.
    pub packets_per_s: Option<u64>,
    /// Their bytes.
    pub bytes_per_s: Option<u64>,
    /// Packets dropped since its tables were made.
    pub dropped: u64,
    /// Packets dropped in a second, between the last two words.
    pub drops_per_s: Option<u64>,
    /// Connections that source NAT refused since its tables were made.
    pub nat_refused: u64,
}

/// The load of a gateway. Counters began when its data plane's tables were made, and outlive its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayLoad {
    /// When the word came that this is, on the NCM's clock.
    pub said_at: Timestamp,
    /// Since when the NCM has had such words in the gateway's present session.
    pub heard_since: Timestamp,
    /// The time between the last two words, which rates are of; without, there are no rates: there was one word only, its
    /// counters began anew, or the last one is too old.
    pub interval_ms: Option<u64>,
    /// What went through: `east_west` (between hosts), `north` (to the outside), `south` (from there).
    pub passed: Vec<WayLoad>,
    /// What it dropped, by reason; only reasons there were.
    pub drops: Vec<DropLoad>,
    /// Answers of the gateway itself: ARP, ICMP.
    pub replies: u64,
    /// Probes that were sent back.
    pub probes: u64,
    /// Source NAT.
    pub nat: NatLoad,
    /// Neighbours that it holds rows of.
    pub neighbours: u64,
    /// Neighbours that its tables have room for, of each address family; none: not bounded by tables.
    pub neighbours_room: Option<u64>,
    /// The devices that it takes packets from.
    pub devices: Vec<DeviceLoad>,
    /// Number of the layout of its data plane's tables; none: it has no tables.
    pub layout: Option<u32>,
}

/// What went through one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayLoad {
    /// Which.
    pub way: String,
    /// Packets so far.
    pub packets: u64,
    /// Bytes of whole frames, as they came.
    pub bytes: u64,
    /// Packets in a second.
    pub packets_per_s: Option<u64>,
    /// Bytes in a second.
    pub bytes_per_s: Option<u64>,
}

/// What was dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropLoad {
    /// Why; `other` for reasons that the NCM does not know.
    pub reason: String,
    /// Packets so far.
    pub packets: u64,
    /// Packets in a second.
    pub packets_per_s: Option<u64>,
}

/// Source NAT on one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatLoad {
    /// The routers that rows name.
    pub routers: u64,
    /// Connections of all routers.
    pub connections: u64,
    /// Connections that were refused so far, for want of room or of ports.
    pub refused: u64,
    /// The routers that refused most, then those that use most of their limit: not all of them where there are many.
    pub busiest: Vec<RouterLoad>,
}

/// Source NAT of one router on one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterLoad {
    /// Which.
    pub router_id: Id<Router>,
    /// Its connections.
    pub connections: u64,
    /// How many there may be at present.
    pub limit: u64,
    /// Connections that were refused so far.
    pub refused: u64,
}

/// A device of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLoad {
    /// Its name.
    pub device: String,
    /// How packets are taken: `native` (in the driver), `generic` (in the kernel's stack, slower), or `unknown`.
    pub mode: String,
}
