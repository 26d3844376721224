//! Who besides its owner may see and use an object: one row grants one action on one object to one project or to all.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Standard;
use crate::{Id, Revision};

/// The kinds of objects that can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedType {
    /// A network, with its subnets.
    Network,
    /// A pool that subnets are taken from.
    #[serde(rename = "subnetpool")]
    SubnetPool,
    /// An address scope.
    AddressScope,
    /// A security group, as a group of ports.
    SecurityGroup,
    /// An address group, as the remote side of a rule.
    AddressGroup,
}

impl SharedType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Network,
        Self::SubnetPool,
        Self::AddressScope,
        Self::SecurityGroup,
        Self::AddressGroup,
    ];

    /// Neutron's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::SubnetPool => "subnetpool",
            Self::AddressScope => "address_scope",
            Self::SecurityGroup => "security_group",
            Self::AddressGroup => "address_group",
        }
    }

    /// Reads Neutron's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What a row grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// See it, and use it as one's own but for changes.
    AccessAsShared,
    /// See a network and take floating IPs and gateways of routers from it.
    AccessAsExternal,
}

impl Access {
    /// Neutron's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessAsShared => "access_as_shared",
            Self::AccessAsExternal => "access_as_external",
        }
    }
}

/// One grant. Neutron shows neither name, description, tags nor times of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RbacPolicy {
    /// Identity.
    pub id: Id<RbacPolicy>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes; the project is who granted it.
    #[serde(flatten)]
    pub standard: Standard,
    /// What is shared.
    pub object_type: SharedType,
    /// Which one.
    pub object_id: Uuid,
    /// To do what.
    pub action: Access,
    /// With whom: a project, or [`RbacPolicy::EVERYBODY`].
    pub target_project: String,
}

impl RbacPolicy {
    /// The target that stands for all projects.
    pub const EVERYBODY: &'static str = "*";

    /// Whether it is granted to all projects.
    pub fn is_for_everybody(&self) -> bool {
        self.target_project == Self::EVERYBODY
    }
}
