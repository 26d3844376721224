//! Labels: numbers that stand for sets of security groups, on the wire and in the kernel.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::{Network, SecurityGroup};
use crate::{Id, Revision};

/// What a number means in a network: the set of security groups that some of its ports are under. A label never
/// changes its meaning; number 0, which has no row, is the empty set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Identity.
    pub id: Id<Label>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// The network that the number is valid in.
    pub network_id: Id<Network>,
    /// What packets carry.
    pub number: NonZeroU16,
    /// The set; sorted, never empty.
    pub security_groups: Vec<Id<SecurityGroup>>,
    /// No port has it any more. The number stays taken until every host has forgotten what it meant.
    pub retired: bool,
}
