//! Gateway nodes.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Id, Revision};

/// A machine that runs a gateway: it forwards between hosts, and to and from the outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayNode {
    /// Identity.
    pub id: Id<GatewayNode>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// The name that it says hello with, unique among gateways and hosts; at most 255 characters.
    pub name: String,
    /// The set that it is in; at most 255 characters.
    pub set: String,
    /// Where hosts send their tunnel packets to.
    pub tunnel_ip: IpAddr,
    /// When it registered first.
    pub created_at: Timestamp,
    /// Nothing new is sent by it: before maintenance.
    #[serde(default)]
    pub draining: bool,
}
