//! Networks.

use serde::{Deserialize, Serialize};

use super::Standard;
use crate::{Id, Revision, Vni};

/// A virtual layer-2 network (VPC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Identity.
    pub id: Id<Network>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// Whether the network carries packets.
    pub admin_state_up: bool,
    /// What a port's interface gets as MTU, in bytes of IP packet.
    pub mtu: u16,
    /// Default of a port's `port_security_enabled`.
    pub port_security_enabled: bool,
    /// VXLAN network identifier, unique in the region.
    pub segmentation_id: Vni,
    /// Routers of every project may have their way out through it (Neutron's `router:external`).
    #[serde(default)]
    pub external: bool,
    /// The external network that is meant when nobody names one; at most one in a region.
    #[serde(default)]
    pub is_default: bool,
    /// The availability zones that it was asked to be in: a wish that is kept and shown, as every host carries every
    /// network that it has ports in.
    #[serde(default)]
    pub availability_zone_hints: Vec<String>,
}
