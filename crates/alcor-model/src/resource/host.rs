//! Hosts.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Revision;

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
}
