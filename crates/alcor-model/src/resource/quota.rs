//! Limits that an admin set for one project.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Revision;

/// How many resources one project may own, where that differs from the region's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The project; as an admin wrote it, for nothing proves that it exists.
    pub project_id: String,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Limits by the quota's name; -1 is no limit.
    pub limits: BTreeMap<String, i64>,
}
