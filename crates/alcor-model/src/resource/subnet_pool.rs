//! Subnet pools and address scopes: where subnets get their blocks from, and where blocks must be unique.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Standard;
use crate::{Id, Revision};

/// A set of subnet pools whose addresses do not overlap, so that they can be routed to each other without translation.
/// Neutron shows neither description, tags nor times of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressScope {
    /// Identity.
    pub id: Id<AddressScope>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// 4 or 6.
    pub ip_version: u8,
}

/// Prefixes that subnets are taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetPool {
    /// Identity.
    pub id: Id<SubnetPool>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// The prefixes: of one family, sorted, disjoint, as few as possible; never empty.
    pub prefixes: Vec<IpNet>,
    /// Length of a subnet's prefix when the client names none.
    pub default_prefixlen: u8,
    /// The shortest prefix that a subnet can have.
    pub min_prefixlen: u8,
    /// The longest prefix that a subnet can have.
    pub max_prefixlen: u8,
    /// What one project may take: IPv4 addresses, or IPv6 prefixes of 64 bits.
    pub default_quota: Option<u64>,
    /// Whether it is the pool that is meant when nobody names one; at most one a family.
    pub is_default: bool,
    /// The scope in which its prefixes are unique.
    pub address_scope_id: Option<Id<AddressScope>>,
}

impl SubnetPool {
    /// Limit of prefixes of one pool.
    pub const MAX_PREFIXES: usize = 1_000;

    /// 4 or 6.
    pub fn ip_version(&self) -> u8 {
        match self.prefixes.first() {
            Some(IpNet::V6(_)) => 6,
            _ => 4,
        }
    }
}
