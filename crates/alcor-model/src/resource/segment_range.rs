//! Ranges of VXLAN network identifiers that networks are given identifiers from.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Standard;
use crate::{Id, Revision, Vni};

/// A range of VXLAN network identifiers. One that is not shared belongs to the project that owns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSegmentRange {
    /// Identity.
    pub id: Id<NetworkSegmentRange>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes; a shared range has no owner.
    #[serde(flatten)]
    pub standard: Standard,
    /// Whether networks of every project are given identifiers from it.
    pub shared: bool,
    /// The first identifier.
    pub minimum: Vni,
    /// The last identifier.
    pub maximum: Vni,
}

impl NetworkSegmentRange {
    /// The range of the region's configuration. Its row has only what clients may not change; its bounds are the
    /// configuration's.
    pub const DEFAULT: Id<Self> = Id::from_uuid(Uuid::from_u128(0x7d41_55a0_98c6_4c3f_a4d8_0e5b_92f3_6c17));

    /// Whether it is the one of the configuration.
    pub fn is_default(&self) -> bool {
        self.id == Self::DEFAULT
    }
}
