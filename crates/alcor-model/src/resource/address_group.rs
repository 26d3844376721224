//! Address groups: named lists of prefixes that security-group rules refer to.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Standard;
use crate::{Id, Revision};

/// A named list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Identity.
    pub id: Id<AddressGroup>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// Sorted, without duplicates, host bits zero; at most [`AddressGroup::MAX_ADDRESSES`].
    pub addresses: Vec<IpNet>,
}

impl AddressGroup {
    /// Limit of prefixes in one group. Each of them becomes an entry in a table of every host that has a port under a
    /// rule with the group.
    pub const MAX_ADDRESSES: usize = 4_096;
}
