//! `[ncm]`: when hosts are told of all neighbours, and when they learn those that they use; and where an NCM that is a process
//! of its own listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use alcor_ncm::Options;
use serde::{Deserialize, Serialize};

/// `[ncm]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NcmConfig {
    /// Hosts times neighbours of a network up to which every host is told of every neighbour. Beyond it hosts ask for the ones
    /// that they use, until it is less than half of this again. 0: they always ask.
    pub eager_rows_max: usize,
    /// Of a process of its own: the controller to follow, at its `controller.feed_listen`.
    pub controller: String,
    /// Of a process of its own: where agents connect to.
    pub listen: SocketAddr,
    /// Of a process of its own: where controllers ask about hosts. Whoever gets there may read what every host has.
    pub directory_listen: SocketAddr,
}

impl Default for NcmConfig {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            eager_rows_max: Options::default().eager_rows_max,
            controller: "http://127.0.0.1:9695".into(),
            listen: SocketAddr::new(loopback, 9697),
            directory_listen: SocketAddr::new(loopback, 9694),
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

    /// Whether it makes sense.
    ///
    /// # Errors
    /// For one address twice.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.listen != self.directory_listen || self.listen.port() == 0,
            "ncm.listen and ncm.directory_listen are both {}; agents must not reach the second",
            self.listen
        );
        Ok(())
    }
}
