//! The segment of a network.

use serde::{Deserialize, Serialize};

use super::{Network, Standard};
use crate::{Id, Revision};

/// What carries a network: one VXLAN segment, whose number is the network's. The row has what an operator says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Identity.
    pub id: Id<Segment>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes; a segment belongs to the platform.
    #[serde(flatten)]
    pub standard: Standard,
    /// Whose it is.
    pub network_id: Id<Network>,
}
