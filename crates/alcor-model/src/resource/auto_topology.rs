//! The network that was made for a project without it saying how.

use serde::{Deserialize, Serialize};

use super::{Network, Router};
use crate::{Id, Revision};

/// The network and the router that were made for a project that asked for a network and nothing more. What became of
/// them since, their own rows say: the project may change and delete them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoAllocatedTopology {
    /// The project; as a client wrote it, for nothing proves that it exists.
    pub project_id: String,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// The network.
    pub network_id: Id<Network>,
    /// The network's way out.
    pub router_id: Id<Router>,
}
