//! What a gateway says of itself, for people who look at it. Values only.

use alcor_dataplane_abi::gateway_layout::Load;
use alcor_model::{Id, Router};
use serde::Serialize;

/// What a gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayReport {
    /// The devices that packets are taken from.
    pub devices: Vec<GatewayDevice>,
    /// What went through.
    pub load: GatewayLoad,
    /// Source NAT of each router that rows name, by the router's id.
    pub nat: Vec<RouterNat>,
    /// Neighbours that the tables have room for, of each address family; none: not bounded by tables.
    pub neighbours_room: Option<u32>,
    /// Number of the tables' layout; none: there are no tables.
    pub layout: Option<u32>,
}

/// A device of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayDevice {
    /// Its name.
    pub device: String,
    /// How packets are taken.
    pub mode: AttachMode,
}

/// How packets are taken from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's stack, which is slower.
    Generic,
    /// Not said in a way that is known.
    Unknown,
}

impl AttachMode {
    /// `native`, `generic` or `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Unknown => "unknown",
        }
    }
}

/// Packets, and bytes of whole frames as they came, since the tables were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GatewayLoad {
    /// Packets from host to host.
    pub east_west_packets: u64,
    /// Their bytes.
    pub east_west_bytes: u64,
    /// Packets from tenants to external addresses.
    pub north_packets: u64,
    /// Their bytes.
    pub north_bytes: u64,
    /// Packets from external addresses to tenants.
    pub south_packets: u64,
    /// Their bytes.
    pub south_bytes: u64,
    /// Answers of the gateway itself: ARP, ICMP.
    pub replies: u64,
    /// Probes that were sent back.
    pub probes: u64,
}

impl From<Load> for GatewayLoad {
    fn from(load: Load) -> Self {
        Self {
            east_west_packets: load.east_west_packets,
            east_west_bytes: load.east_west_bytes,
            north_packets: load.north_packets,
            north_bytes: load.north_bytes,
            south_packets: load.south_packets,
            south_bytes: load.south_bytes,
            replies: load.replies,
            probes: load.probes,
        }
    }
}

/// What source NAT remembers for a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RouterNat {
    /// Which.
    pub router: Id<Router>,
    /// Connections, with those that are over and not swept yet.
    pub connections: u64,
    /// How many there may be at present.
    pub limit: u64,
    /// Connections that were refused so far, for want of room or of ports.
    pub refused: u64,
}
