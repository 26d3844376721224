//! `[ncm]`: when hosts are told of all neighbours, and when they learn those that they use.

use alcor_ncm::Options;
use serde::{Deserialize, Serialize};

/// `[ncm]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NcmConfig {
    /// Hosts times neighbours of a network up to which every host is told of every neighbour. Beyond it hosts ask for the ones
    /// that they use, until it is less than half of this again. 0: they always ask.
    pub eager_rows_max: usize,
}

impl Default for NcmConfig {
    fn default() -> Self {
        Self {
            eager_rows_max: Options::default().eager_rows_max,
        }
    }
}

impl NcmConfig {
    /// What the NCM is started with.
    pub fn options(&self) -> Options {
        Options {
            eager_rows_max: self.eager_rows_max,
            ..Options::default()
        }
    }
}
